"""Drift: a stream like the baseline raises no alarm in its life, a shifted one does at once."""

import math
import random
from collections.abc import Callable

import pytest
from scipy import stats

from labelyard.drift.canary import CanaryAnswer, compare_answers, read_comparison
from labelyard.drift.counts import LAST_BIN, MAX_NAMED, AnswerCounts, answer_counts, score_bin
from labelyard.drift.report import ALPHA, WINDOW_S, DriftReport, judge_windows
from labelyard.drift.two_samples import chi_square_tail, p_of_answers, p_of_scores
from labelyard.testing import FakeClient

LABELS = [f"label {number}" for number in range(12)]
Draw = Callable[[random.Random], tuple[str, float, bool, bool]]


def usual(generator: random.Random) -> tuple[str, float, bool, bool]:
    """Draw an answer: frequent and rare labels, a score, seldom an abstention."""
    label = LABELS[min(len(LABELS) - 1, int(generator.expovariate(0.4)))]
    return label, generator.betavariate(5, 1.5), True, generator.random() < 0.05


def darker(generator: random.Random) -> tuple[str, float, bool, bool]:
    """Draw an answer of which only the score is another one."""
    label, _, is_matched, is_abstained = usual(generator)
    return label, generator.betavariate(3, 2), is_matched, is_abstained


def other_pictures(generator: random.Random) -> tuple[str, float, bool, bool]:
    """Draw an answer of which only the label is another one, in a third of the pictures."""
    label, *rest = usual(generator)
    return (LABELS[-2] if generator.random() < 0.33 else label), *rest  # type: ignore[return-value]


def counted(draw: Draw, n: int, generator: random.Random) -> AnswerCounts:
    return answer_counts(draw(generator) for _ in range(n))


def report_of(
    draw: Draw, *, seed: int, hours: int = 8, pictures: int = 200, calibrated: int = 400
) -> DriftReport:
    generator = random.Random(seed)
    return judge_windows(
        "pets@sha256:0",
        counted(usual, calibrated, generator),
        {hour: counted(draw, pictures, generator) for hour in range(hours)},
        first_hour=0,
        this_hour=hours,
    )


def test_a_stream_like_the_baseline_raises_an_alarm_less_often_than_is_allowed() -> None:
    reports = [report_of(usual, seed=seed, hours=6, calibrated=300) for seed in range(60)]

    alarms = sum(any(window.is_alarm for window in report.windows) for report in reports)

    assert alarms <= 60 * ALPHA + 2  # docs/drift.md has the share of 500 streams
    assert all(len(report.windows) == 6 for report in reports)


@pytest.mark.parametrize("draw", [darker, other_pictures])
def test_a_shifted_stream_raises_an_alarm_in_its_first_hour(draw: Draw) -> None:
    reports = [report_of(draw, seed=seed, hours=1, pictures=400) for seed in range(10)]

    assert all(report.is_alarm for report in reports)


def test_an_alarm_says_in_what_the_stream_differs() -> None:
    [window] = report_of(other_pictures, seed=1, hours=1, pictures=1_000).windows
    report = report_of(other_pictures, seed=1, hours=1, pictures=1_000)

    assert (window.answers.is_alarm, window.scores.is_alarm) == (True, False)
    name, before, now = report.changes()[0]
    assert (name, now - before > 0.2) == (LABELS[-2], True)
    assert report.fields()["changes"][0]["answer"] == LABELS[-2]


def test_a_difference_that_is_certain_but_small_is_not_worth_an_alarm() -> None:
    generator = random.Random(1)
    baseline = counted(usual, 20_000, generator)

    def slightly(generator: random.Random) -> tuple[str, float, bool, bool]:
        return other_pictures(generator) if generator.random() < 0.1 else usual(generator)

    hours = {0: counted(slightly, 20_000, generator)}
    [window] = judge_windows("a", baseline, hours, first_hour=0, this_hour=1).windows

    assert window.answers.p < 1e-9
    assert not window.is_alarm


def test_hours_with_few_pictures_are_joined_and_the_present_hour_is_not_tested() -> None:
    generator = random.Random(1)
    hours = {hour: counted(usual, 40, generator) for hour in (3, 5, 9, 10, 12)}

    report = judge_windows("a", counted(usual, 300, generator), hours, first_hour=3, this_hour=12)

    [window] = report.windows
    assert (window.start, window.hours, window.counts.n) == (3.0 * WINDOW_S, 7, 120)
    assert report.counts.n == 200
    assert not judge_windows("a", None, hours, first_hour=3, this_hour=12).windows


@pytest.mark.parametrize("sizes", [(100, 100), (400, 5_000), (50, 80)])
def test_the_tests_agree_with_those_of_scipy(sizes: tuple[int, int]) -> None:
    generator = random.Random(4)
    first, second = [
        answer_counts(usual(generator) for _ in range(sizes[0])),
        answer_counts(darker(generator) for _ in range(sizes[1])),
    ]
    points = [
        [at for at, count in enumerate(one.scores) for _ in range(count)] for one in (first, second)
    ]

    ours = p_of_scores(first.scores, second.scores)

    theirs = stats.ks_2samp(*points, method="asymp").pvalue
    assert math.log(max(ours, 1e-300)) == pytest.approx(math.log(theirs), rel=0.2, abs=0.5)
    frequent = [(first.answers.get(name, 0), second.answers.get(name, 0)) for name in LABELS[:3]]
    both = [
        AnswerCounts(n=sum(part), answers=dict(zip(LABELS, part, strict=False)))
        for part in zip(*frequent, strict=True)
    ]
    expected = stats.chi2_contingency(frequent, correction=False).pvalue
    assert p_of_answers(*both) == pytest.approx(expected)
    for degrees in (1, 2, 7, 30):
        assert chi_square_tail(9.5, degrees=degrees) == pytest.approx(stats.chi2.sf(9.5, degrees))


def test_scores_near_0_and_near_1_have_bins_of_their_own() -> None:
    assert [score_bin(score) for score in (0.0, 1e-9, 1.0, 1 - 1e-12)] == [0, 0, LAST_BIN, LAST_BIN]
    assert score_bin(0.4999) == 15
    assert score_bin(0.5) == 16
    assert len({score_bin(score) for score in (0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)}) == 7


def test_a_baseline_names_the_frequent_labels_and_counts_the_others_together() -> None:
    many = AnswerCounts(n=600, answers={f"{number}": 1 + number % 2 for number in range(400)})

    bounded = many.bounded()

    assert len(bounded.answers) == MAX_NAMED + 1
    assert sum(bounded.answers.values()) == 600
    assert AnswerCounts.of_fields(bounded.fields()) == bounded
    assert p_of_answers(bounded, many) > 0.9


def test_a_comparison_counts_flips_per_label_and_the_change_of_the_score() -> None:
    def answer(label: str, score: float) -> CanaryAnswer:
        return CanaryAnswer(label, score, frozenset({label}))

    counts = compare_answers(
        [
            (answer("cat", 0.5), answer("cat", 0.7)),
            (answer("cat", 0.5), answer("dog", 0.5)),
            (answer("dog", 0.5), answer("", 0.4)),
        ]
    )
    report = read_comparison(
        counts | {"failed": 1, "failure:unknown_label_set": 1, "flush:w:1": 3},
        alias="pets@prod", reference="pets@sha256:0", canary="pets@sha256:1", share=0.1,
    )  # fmt: skip

    assert (report.jobs, report.images, report.same, report.agreement) == (1, 3, 1, 1 / 3)
    assert report.flips == {("cat", "dog"): 1, ("dog", ""): 1}
    assert report.per_label() == {"cat": (1, 0), "dog": (1, 1)}
    assert report.score_change == pytest.approx(0.1 / 3)
    assert report.failures == {"unknown_label_set": 1}
    assert report.fields()["flips"][0] == {"from": "cat", "to": "dog", "n": 1}


def test_a_fake_client_has_the_drift_that_the_test_counts() -> None:
    client, generator = FakeClient(), random.Random(1)
    reference = client.label_sets.register("pets", FakeClient().prepare(["s3://a/b"], LABELS).label_set)  # type: ignore[arg-type]  # fmt: skip
    client.label_sets.set_baseline(reference, counted(usual, 400, generator))

    before = client.label_sets.drift("pets")

    assert (before.is_alarm, before.baseline is not None, before.windows) == (False, True, ())
