"""Label sets: labels, their prompts, and how scores are computed from them."""

from collections.abc import Iterable
from typing import Any, Final, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from labelyard.fields import MAX_LABELS, Name, Prompt, Temperature, Template, Threshold
from labelyard.hierarchy import parents_of, show_path
from labelyard.messages.learned import Learned
from labelyard.messages.models import Message
from labelyard.messages.short_forms import cut, first_of

DEFAULT_TEMPLATE: Final = "This is a photo of {}."

#: Parents of a set: their scores are computed for each image.
MAX_PARENTS: Final = 1_000
#: Names of a path.
MAX_DEPTH: Final = 16

Scoring = Literal["auto", "softmax", "sigmoid"]


class Label(Message):
    """One thing that a picture may show.

    Attributes:
        name: What results call it; also what a template's ``{}`` becomes.
        prompts: Whole sentences to use in place of the templates.
        threshold: Score from which the label is *matched*. Without one a label is
            matched when it is the best (softmax) or scores 0.5 or more (sigmoid).
        path: Its parents in a hierarchy, from the root down; its own name at the end is left
            out. Empty, and left out, if the label is at the root.
    """

    name: Name
    prompts: tuple[Prompt, ...] = Field(default=(), max_length=100)
    threshold: Threshold | None = None
    path: tuple[Name, ...] = Field(
        default=(), max_length=MAX_DEPTH, exclude_if=lambda path: not path
    )

    @field_validator("path")
    @classmethod
    def _ends_with_the_parent(cls, path: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        return path[:-1] if path and path[-1] == info.data.get("name") else path


class Parent(Message):
    """A node of a hierarchy above labels.

    Attributes:
        path: Names from the root down to it.
        threshold: Score from which it passes; 0.5 for parents that are not named.
    """

    path: tuple[Name, ...] = Field(min_length=1, max_length=MAX_DEPTH)
    threshold: Threshold


class LabelSet(Message):
    """Labels, their prompts, and how scores are made of them.

    Attributes:
        labels: 1 to 10,000 labels with distinct names; more than 1,000 must be
            registered and referred to, not sent inline.
        templates: Sentences with one ``{}`` each for the label's name. Several are
            averaged (Radford et al. 2021, section 3.1.4).
        scoring: ``softmax`` (one label fits), ``sigmoid`` (each by itself), ``auto``
            (what the checkpoint was trained for).
        temperature: Divides the logits, 0.000001 to 1000; above 1 the scores are less sure.
        abstain: Whole sentences that mean "none of these". When one of them fits
            best, the image is *abstained* and nothing is matched.
        learned: What pictures taught; left out if there is nothing. It belongs to one checkpoint.
        parents: Thresholds of nodes that labels have in their ``path``; left out if there are none.
    """

    labels: tuple[Label, ...] = Field(min_length=1, max_length=MAX_LABELS)
    templates: tuple[Template, ...] = Field(
        default=(DEFAULT_TEMPLATE,), min_length=1, max_length=100
    )
    scoring: Scoring = "auto"
    temperature: Temperature = 1.0
    abstain: tuple[Prompt, ...] = Field(default=(), max_length=100)
    learned: Learned | None = Field(default=None, exclude_if=lambda learned: learned is None)
    parents: tuple[Parent, ...] = Field(
        default=(), max_length=MAX_PARENTS, exclude_if=lambda parents: not parents
    )

    @field_validator("labels")
    @classmethod
    def _names_are_distinct(cls, labels: tuple[Label, ...]) -> tuple[Label, ...]:
        if len({label.name for label in labels}) < len(labels):
            raise ValueError("two labels have the same name: name each label once")
        return labels

    @model_validator(mode="after")
    def _is_a_tree(self) -> Self:
        known = dict.fromkeys(parents_of(label.path for label in self.labels))
        if len(known) > MAX_PARENTS:
            raise ValueError(f"the paths have {len(known)} parents (limit {MAX_PARENTS})")
        for label in self.labels if known else ():
            if (own := (*label.path, label.name)) in known:
                raise ValueError(
                    f"{cut(show_path(own))!r} is a label and the parent of another one: name one "
                    "of them differently"
                )
        paths = [parent.path for parent in self.parents]
        if unknown := [path for path in paths if path not in known]:
            raise ValueError(f"parents names {cut(show_path(unknown[0]))!r}, but no label is below")
        if len(set(paths)) < len(paths):
            raise ValueError("parents names a path twice")
        return self

    @model_validator(mode="after")
    def _taught_labels_exist(self) -> Self:
        if self.learned is None:
            return self
        examples, certified = self.learned.examples, self.learned.certified
        known = {label.name for label in self.labels}
        named = [*(examples.counts if examples else ()), *(certified.labels if certified else ())]
        named += self.learned.bias or ()
        if unknown := [name for name in named if name not in known]:
            raise ValueError(f"learned names {cut(unknown[0])!r}, which is not a label of the set")
        return self

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Yield the first labels and the scoring, for ``repr`` and ``str``."""
        names = (repr(cut(label.name)) for label in self.labels)
        yield "labels", first_of(names, total=len(self.labels))
        yield "scoring", self.scoring

    def count_prompts(self) -> int:
        """Count the sentences that the text tower encodes, after templates."""
        per_label = (len(label.prompts) or len(self.templates) for label in self.labels)
        return sum(per_label) + len(self.abstain)
