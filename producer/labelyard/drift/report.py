"""Report of a version's drift: its windows against its baseline, with a bounded rate of alarms."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from labelyard.drift.counts import AnswerCounts
from labelyard.drift.two_samples import (
    distance_of_answers,
    distance_of_scores,
    p_of_answers,
    p_of_scores,
)

#: Seconds of a window.
WINDOW_S: Final = 3600
#: Pictures that a tested window has at least; a smaller one is joined with the next.
LEAST_PICTURES: Final = 100
#: Probability that a version whose pictures never change raises an alarm in its whole life.
ALPHA: Final = 0.01
#: Least distance that is worth an alarm: one picture in ten has another score or answer.
LEAST_DISTANCE: Final = 0.1


@dataclass(frozen=True, slots=True)
class DriftTest:
    """One test of a window against the baseline.

    Attributes:
        distance: Of the scores' cumulated histograms, or share of other answers; 0 to 1.
        p: Probability of so large a distance without drift.
        is_alarm: Whether both say that there is drift.
    """

    distance: float
    p: float
    is_alarm: bool


@dataclass(frozen=True, slots=True)
class DriftWindow:
    """Pictures of one hour, or of several with few pictures.

    Attributes:
        start: Begin of the first hour, in seconds since the epoch.
        hours: Hours from then on.
        counts: Answers in this time.
        scores: Test of the best scores.
        answers: Test of the answers.
    """

    start: float
    hours: int
    counts: AnswerCounts
    scores: DriftTest
    answers: DriftTest

    @property
    def is_alarm(self) -> bool:
        """Whether one of the tests finds drift."""
        return self.scores.is_alarm or self.answers.is_alarm

    def fields(self) -> dict[str, Any]:
        """Describe the window for programs."""
        counts = self.counts
        return {
            "start": self.start,
            "hours": self.hours,
            "n": counts.n,
            "abstained": counts.abstained,
            "unmatched": counts.unmatched,
            "scores": asdict(self.scores),
            "answers": asdict(self.answers),
            "is_alarm": self.is_alarm,
        }


@dataclass(frozen=True, slots=True)
class DriftReport:
    """Drift of one version.

    Attributes:
        reference: The version.
        baseline: Answers that it is compared with; ``None`` if it has no baseline.
        windows: Tested windows, the newest first.
        counts: All answers that the ledger still has, those of untested hours included.
    """

    reference: str
    baseline: AnswerCounts | None
    windows: tuple[DriftWindow, ...]
    counts: AnswerCounts

    @property
    def is_alarm(self) -> bool:
        """Whether the newest tested window has drifted from the baseline."""
        return bool(self.windows) and self.windows[0].is_alarm

    def changes(self, limit: int = 10) -> list[tuple[str, float, float]]:
        """Return answers with their shares in the baseline and in the newest tested window.

        Returns:
            Those whose share changed most, first; ``""`` stands for abstentions.
        """
        if self.baseline is None or not self.windows:
            return []
        before, now = self.baseline, self.windows[0].counts
        names = {name for name in (*before.answers, *now.answers) if name}
        shares = [(name, _share(before, name), _share(now, name)) for name in names]
        shares.append(("", before.abstained / before.n, now.abstained / now.n))
        return sorted(shares, key=lambda one: (-abs(one[2] - one[1]), one[0]))[:limit]

    def fields(self) -> dict[str, Any]:
        """Describe the drift for programs."""
        return {
            "reference": self.reference,
            "is_alarm": self.is_alarm,
            "baseline": None if self.baseline is None else self.baseline.n,
            "n": self.counts.n,
            "abstained": self.counts.abstained,
            "unmatched": self.counts.unmatched,
            "windows": [window.fields() for window in self.windows],
            "changes": [
                {"answer": name or None, "before": before, "now": now}
                for name, before, now in self.changes()
            ],
        }


def judge_windows(
    reference: str,
    baseline: AnswerCounts | None,
    hours: Mapping[int, AnswerCounts],
    *,
    first_hour: int,
    this_hour: int,
) -> DriftReport:
    """Test the windows of a version against its baseline.

    Each window is tested once, when its last hour is over. The window that ends with hour *k*
    since the baseline gets the part 1 / (k (k + 1)) of the allowed rate of false alarms; these
    parts add up to 1, however long the version is in use. Half of it goes to each of both tests.

    Args:
        hours: Answers by the hour since the epoch.
        first_hour: Hour of the baseline.
        this_hour: Hour that is not over yet.
    """
    total = sum(hours.values(), AnswerCounts())
    if baseline is None or not baseline.n:
        return DriftReport(reference, None, (), total)
    windows: list[DriftWindow] = []
    start, gathered = 0, AnswerCounts()
    for hour in sorted(one for one in hours if first_hour <= one < this_hour):
        start = start if gathered.n else hour
        gathered += hours[hour]
        if gathered.n < LEAST_PICTURES:
            continue
        look = hour - first_hour + 1
        windows.append(_judge(baseline, gathered, start, hour, alpha=ALPHA / (look * (look + 1))))
        gathered = AnswerCounts()
    return DriftReport(reference, baseline, tuple(reversed(windows)), total)


def _judge(
    baseline: AnswerCounts, counts: AnswerCounts, start: int, last: int, *, alpha: float
) -> DriftWindow:
    def test(distance: float, p: float) -> DriftTest:
        return DriftTest(distance, p, p < alpha / 2 and distance >= LEAST_DISTANCE)

    return DriftWindow(
        start=float(start * WINDOW_S),
        hours=last - start + 1,
        counts=counts,
        scores=test(
            distance_of_scores(baseline.scores, counts.scores),
            p_of_scores(baseline.scores, counts.scores),
        ),
        answers=test(distance_of_answers(baseline, counts), p_of_answers(baseline, counts)),
    )


def _share(counts: AnswerCounts, name: str) -> float:
    return counts.answers.get(name, 0) / counts.n if counts.n else 0.0
