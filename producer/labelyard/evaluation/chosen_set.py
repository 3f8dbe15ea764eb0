"""A label set that a call or a command works on, with its reference if it is registered."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from labelyard.errors import InvalidMessageError
from labelyard.label_sets import as_label_set, check_registration
from labelyard.label_sets.versions import Alias
from labelyard.messages import Label, LabelSet
from labelyard.submission import Labels


@dataclass(frozen=True, slots=True)
class ChosenLabelSet:
    """Label set that a caller names.

    Attributes:
        reference: ``name@sha256:…``; ``None`` if the set is not registered.
    """

    label_set: LabelSet
    reference: str | None

    @property
    def labels(self) -> LabelSet | str:
        """The set as jobs and runs name it: by its reference, or itself."""
        return self.reference or self.label_set

    def new_name(self, name: str | None) -> str:
        """Return the name to register a new version under, once it is known to be possible.

        Args:
            name: The caller's choice; the reference's own name if there is none.

        Raises:
            InvalidMessageError: There is no name, or the set cannot be registered.
        """
        if name is None and self.reference is None:
            raise InvalidMessageError(
                "name: the new version needs one, because the set has none yet"
            )
        chosen = name if name is not None else str(self.reference).partition("@")[0]
        check_registration(chosen, self.label_set)
        return chosen


def reference_of(labels: Labels) -> str | None:
    """Return the reference that *labels* is, if it is one."""
    if isinstance(labels, Alias):
        return labels.reference
    return labels if isinstance(labels, str) and "@sha256:" in labels else None


def own_label_set(labels: Labels) -> LabelSet:
    """Make a label set of *labels*, which are no reference.

    Raises:
        InvalidMessageError: They do not make a label set.
    """
    return as_label_set(cast("LabelSet | Sequence[str | Label]", labels))
