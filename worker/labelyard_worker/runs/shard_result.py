"""Result of a shard, and the numbers that it adds to its run."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from labelyard.drift.counts import Answer
from labelyard.messages import Failure, ModelInfo
from labelyard.messages.result import Status
from labelyard.runs.lines import ErrorLine
from labelyard.runs.parts import ShardRange
from labelyard.runs.record import counts_of
from labelyard_worker.runs.shard_images import PlanLines


@dataclass(frozen=True)
class ShardResult:
    """Outcome of a shard.

    Attributes:
        outcomes: Number of images by ``succeeded`` or the error's code.
        bad_lines: Number of lines without an image, by code.
        failure: Why the shard failed as a whole: its lines are written as the run ends.
        is_split: Whether smaller shards stand in its place.
        answers: Answers to its pictures, by the reference of a registered label set.
    """

    outcomes: Mapping[str, int] = field(default_factory=dict)
    bad_lines: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    model: ModelInfo | None = None
    failure: Failure | None = None
    is_split: bool = False
    answers: Mapping[str, Sequence[Answer]] = field(default_factory=dict)

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(self.outcomes.values())

    @property
    def succeeded(self) -> int:
        """Number of images with scores."""
        return self.outcomes.get("succeeded", 0)

    @property
    def status(self) -> Status:
        """Status of the shard's job."""
        if self.failure is not None or (self.images and not self.succeeded):
            return "failed"
        return "succeeded" if self.succeeded == self.images else "partial"

    def errors(self) -> Counter[str]:
        """Count the errors by code, those of lines without an image included."""
        errors = Counter(self.outcomes)
        del errors["succeeded"]
        errors.update(self.bad_lines)
        return errors


def bad_lines_of(lines: PlanLines) -> Counter[str]:
    """Count the lines without an image by code."""
    return Counter(line.code for line in lines if isinstance(line, ErrorLine))


def failed_counts(lines: ShardRange, failure: Failure) -> dict[str, int]:
    """Return the numbers that a shard which failed as a whole adds to its run."""
    errors = {failure.code: lines.lines}
    return counts_of(lines=lines.lines, succeeded=0, failed=lines.lines, errors=errors)
