"""Facts of a run that its manifest.json and summary.json hold; both are foreign and may lack."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from labelyard.errors import InvalidMessageError
from labelyard.messages import LabelSet
from labelyard.runs.summaries import RunSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """Facts of a run for the head and the foot of its report.

    Attributes:
        started_at: Seconds since the epoch.
        summary: Summary of the run; ``None`` until the run ends.
        retries: Folders of runs over this run's failed lines.
        label_set: Label set of the run, if the manifest has it as a whole.
        details: Names and values of the manifest that people read, in its order.
    """

    run_id: str = ""
    state: str = ""
    started_at: float | None = None
    summary: RunSummary | None = None
    retries: Sequence[str] = ()
    label_set: LabelSet | None = None
    details: Mapping[str, str] = field(default_factory=dict)

    @property
    def thresholds(self) -> dict[str, float | None]:
        """Names of the label set's labels, with the score from which each is matched.

        A label that is matched only when it is the best one has none.
        """
        if self.label_set is None:
            return {}
        default = 0.5 if self.label_set.scoring == "sigmoid" else None
        return {
            label.name: default if label.threshold is None else label.threshold
            for label in self.label_set.labels
        }


def run_facts(
    manifest: Mapping[str, Any], summary: Mapping[str, Any], *, retries: Sequence[str] = ()
) -> RunFacts:
    """Read the facts; fields that are missing, or not as expected, are left out."""
    try:
        known = RunSummary.model_validate(summary) if summary else None
    except ValidationError:
        known = None
    run_id = known.run_id if known else manifest.get("run_id")
    return RunFacts(
        run_id=run_id if isinstance(run_id, str) else "",
        state=known.state if known else "",
        started_at=_instant(manifest.get("started_at")),
        summary=known,
        retries=tuple(retries),
        label_set=next(_label_sets(manifest, depth=3), None),
        details=dict(_details(manifest)),
    )


def _instant(value: Any) -> float | None:
    """Read a time with its offset."""
    try:
        at = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return at.timestamp() if at.tzinfo is not None else None


def _label_sets(value: Any, *, depth: int) -> Iterator[LabelSet]:
    """Find label sets in a manifest, the outermost first."""
    if not isinstance(value, Mapping) or depth == 0:
        return
    if isinstance(value.get("labels"), Sequence):
        known = {name: value[name] for name in LabelSet.model_fields if name in value}
        names = [{"name": one} if isinstance(one, str) else one for one in value["labels"]]
        with suppress(ValidationError, InvalidMessageError):
            yield LabelSet.model_validate({**known, "labels": names})
    for inner in value.values():
        yield from _label_sets(inner, depth=depth - 1)


def _details(
    value: Mapping[str, Any], *, path: str = "", depth: int = 3
) -> Iterator[tuple[str, str]]:
    """Flatten a manifest into names and short values; lists of labels are left to the page."""
    for name, one in value.items():
        full = f"{path}{name}"
        if isinstance(one, Mapping) and depth > 1:
            yield from _details(one, path=f"{full}.", depth=depth - 1)
        elif isinstance(one, str | int | float) and one != "":
            yield full.removeprefix("request."), str(one)
