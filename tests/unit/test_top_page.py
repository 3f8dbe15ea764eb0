"""Page of ``labelyard top``: rates between samples, and what is shown when a server is away."""

import pytest

from labelyard.cli.service_state import ServiceFigures, ServiceState
from labelyard.cli.top import History
from labelyard.cli.top_page import Rates, Sample, top_lines
from labelyard.ledger import Backlog, BacklogKey
from labelyard.ledger.workers import WorkerInfo


def sample(
    at: float, *, jobs: int = 0, images: int = 0, cancelled: int = 0, tenants: int = 1
) -> Sample:
    figures = ServiceFigures(
        open_images=7,
        totals={"succeeded": jobs, "cancelled": cancelled},
        image_totals={"succeeded": images, "cancelled": 64 * cancelled},
        dead_letters=0,
        set_aside=0,
        set_aside_dropped=0,
        deliveries={},
        workers=(WorkerInfo(name="w1", state="ready", concurrency=8, running=("a", "b")),),
        backlog={BacklogKey("bulk", f"t{n}"): Backlog(images=n, jobs=1) for n in range(tenants)},
        oldest_open={"bulk": 90.0},
    )
    return Sample(ServiceState(figures=figures), at=at)


AWAY = Sample(ServiceState(ledger="ledger_unavailable: no answer"), at=5.0)


def test_rates_count_what_workers_finished_and_not_what_was_cancelled() -> None:
    before, after = sample(10.0), sample(14.0, jobs=8, images=128, cancelled=100)

    assert Rates.between(before, after) == Rates(jobs_per_s=2.0, images_per_s=32.0)


@pytest.mark.parametrize("before", [None, AWAY, sample(10.0, jobs=99), sample(20.0)])
def test_there_are_no_rates_without_two_samples_of_one_ledger(before: Sample | None) -> None:
    assert Rates.between(before, sample(20.0, jobs=5)) is None


def test_rates_are_those_of_the_last_ten_seconds() -> None:
    history = History()
    rates = [history.add(sample(float(at), jobs=jobs)) for at, jobs in enumerate([0, *[100] * 30])]

    assert rates[0] is None
    assert rates[1] == Rates(100.0, 0.0)
    assert rates[-1] == Rates(0.0, 0.0)


def test_rates_begin_anew_after_the_ledger_was_away_or_emptied() -> None:
    history = History()
    history.add(sample(1.0, jobs=100))
    history.add(AWAY)
    after_away = history.add(sample(6.0, jobs=100))
    emptied = history.add(sample(7.0, jobs=0))

    assert (after_away, emptied) == (None, None)
    assert history.add(sample(8.0, jobs=3)) == Rates(3.0, 0.0)


def test_the_ten_tenants_with_the_most_images_are_shown_and_the_others_counted() -> None:
    text = [line.plain for line in top_lines(sample(1.0, tenants=14), None, width=80, height=None)]

    shown = [line.split()[0] for line in text if line.startswith("t") and line[1].isdigit()]
    assert shown == [f"t{n}" for n in range(13, 3, -1)]
    assert "and 4 more tenants" in text


def test_a_ledger_that_is_away_is_named_and_the_broker_still_shown() -> None:
    text = [line.plain for line in top_lines(AWAY, None, width=80, height=24)]

    assert text[:2] == ["labelyard: no figures", "ledger: ledger_unavailable: no answer"]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 10), (20, 3), (5, 1)])
def test_no_line_is_wider_than_the_terminal_and_the_page_not_higher(
    width: int, height: int
) -> None:
    lines = top_lines(sample(1.0, tenants=14), None, width=width, height=height)

    assert len(lines) <= height
    assert max(line.cell_len for line in lines) <= width
