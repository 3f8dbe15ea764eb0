"""Images per second over a run's time, from the times at which its files were written."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MAX_BINS: Final = 60
MIN_FILES: Final = 4
#: A copy of a run's files has the times of the copying; this far from the run's own they are.
COPIED: Final = 2.0


@dataclass(frozen=True, slots=True)
class Throughput:
    """Images per second in equal intervals.

    Attributes:
        start: Seconds since the epoch at which the first interval starts.
        end: Seconds since the epoch at which the last one ends.
    """

    start: float
    end: float
    images_per_s: tuple[float, ...]

    @property
    def interval_s(self) -> float:
        """Seconds of an interval."""
        return (self.end - self.start) / len(self.images_per_s)


def measure_throughput(
    written: Sequence[tuple[float, int]], *, started_at: float | None, run_seconds: float = 0.0
) -> Throughput | None:
    """Compute the throughput of a run.

    Args:
        written: Time of each file of results, with its number of images.
        started_at: Time at which the run started; the oldest file's if it is not known.
        run_seconds: Time that the run took by its own account, 0 if it is not known.

    Returns:
        ``None`` for less than four files, or if their times are not those of the run.
    """
    if len(written) < MIN_FILES:
        return None
    times = [at for at, _ in written]
    start, end = min([*times, *([started_at] if started_at else [])]), max(times)
    span = end - start
    if span < 1 or (run_seconds and not run_seconds / COPIED <= span <= run_seconds * COPIED):
        return None
    bins = min(MAX_BINS, max(MIN_FILES, len(written) // 3))
    images = [0] * bins
    for at, number in written:
        images[min(bins - 1, int((at - start) / span * bins))] += number
    return Throughput(start, end, tuple(number * bins / span for number in images))
