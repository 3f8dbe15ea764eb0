"""Answers of registered label sets to the pictures of a shard, for the drift of these sets."""

from dataclasses import dataclass, field

from labelyard.drift.counts import Answer
from labelyard.messages import LabelSet
from labelyard.runs.lines import PlannedLine, ResultLine


@dataclass(frozen=True)
class ShardAnswers:
    """Answers by the reference of the label set; those of inline sets are left out.

    Attributes:
        label_set: That of the run.
        by_reference: The answers so far.
    """

    label_set: LabelSet | str
    by_reference: dict[str, list[Answer]] = field(default_factory=dict)

    def add(self, line: PlannedLine, result: ResultLine) -> None:
        """Take the answer to one picture; one that failed has none."""
        label, score = result.top_label, result.top_score
        if label is None or score is None or line.labels is not None:
            return
        reference = line.label_set or self.label_set
        if isinstance(reference, str):
            answer = (label, score, bool(result.matched), result.abstained)
            self.by_reference.setdefault(reference, []).append(answer)
