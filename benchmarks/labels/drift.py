"""False alarms and misses of the drift alarm on drawn streams: ``python -m benchmarks.labels.drift``.

No pictures are needed: the alarm sees counts of answers alone. A stream has 30 labels with Zipf
shares, scores from a beta distribution, and an abstention in 20 pictures.
"""

import random
import sys
from collections.abc import Callable
from typing import Final, NamedTuple

from labelyard.drift.counts import AnswerCounts, answer_counts
from labelyard.drift.report import judge_windows

STREAMS: Final = 500
HOURS: Final = 48
LABELS: Final = [f"label {number}" for number in range(30)]
WEIGHTS: Final = [1 / (number + 1) for number in range(30)]


class Stream(NamedTuple):
    """One kind of stream.

    Attributes:
        alpha: First parameter of the scores' beta distribution; the second is 1.5.
        swapped: Share of the pictures whose label is drawn with the weights reversed.
    """

    alpha: float = 5.0
    swapped: float = 0.0


def draw(stream: Stream, n: int, generator: random.Random) -> AnswerCounts:
    """Draw the answers to some pictures."""
    usual = generator.choices(LABELS, WEIGHTS, k=n)
    other = generator.choices(LABELS, WEIGHTS[::-1], k=n)
    return answer_counts(
        (
            other[at] if generator.random() < stream.swapped else usual[at],
            generator.betavariate(stream.alpha, 1.5),
            True,
            generator.random() < 0.05,
        )
        for at in range(n)
    )


def share_of_alarms(
    stream: Stream, *, hours: int, calibrated: int, pictures: int, streams: int
) -> float:
    """Return the share of streams with an alarm in one of their hours."""
    alarms = 0
    for seed in range(streams):
        generator = random.Random(seed)
        baseline = draw(Stream(), calibrated, generator)
        counts = {hour: draw(stream, pictures, generator) for hour in range(hours)}
        report = judge_windows("a", baseline, counts, first_hour=0, this_hour=hours)
        alarms += any(window.is_alarm for window in report.windows)
    return alarms / streams


def main(write: Callable[[str], object] = sys.stdout.write) -> None:
    """Print a table of false and true alarms."""
    write("calibrated  pictures/h  false alarms  darker  a third other  a fifth other\n")
    for calibrated, pictures in ((200, 200), (400, 200), (400, 1000)):
        sizes = {"calibrated": calibrated, "pictures": pictures}
        false = share_of_alarms(Stream(), hours=HOURS, streams=STREAMS, **sizes)
        shifts = (Stream(alpha=3.0), Stream(swapped=0.33), Stream(swapped=0.2))
        true = [share_of_alarms(one, hours=1, streams=STREAMS // 5, **sizes) for one in shifts]
        shown = "  ".join(f"{share:>12.1%}" for share in (false, *true))
        write(f"{calibrated:>10}  {pictures:>10}  {shown}\n")


if __name__ == "__main__":
    main()
