"""The watched load run: its comparison with the ledger, its verdicts and its drawing."""

from xml.etree import ElementTree

import pytest
from benchmarks.observed_load.comparison import is_within, to_figures
from benchmarks.observed_load.drawing import draw_panel, rounded_up, written
from benchmarks.observed_load.figures import PanelData, Series, filled_in
from benchmarks.observed_load.scrape_cost import Pair, summary
from deploy.grafana import dashboard
from prometheus_client import CollectorRegistry, generate_latest

from labelyard_worker import metrics

GRAPHS = [panel for panel in dashboard.dashboard()["panels"] if panel["type"] != "row"]
KEY = ("shop", "bulk")


def series(*values: float, name: str = "one") -> Series:
    return Series(name, tuple((float(at), value) for at, value in enumerate(values)))


def test_backlog_is_read_from_the_text_that_a_worker_exports() -> None:
    class Backlog:
        def collect(self) -> list[object]:
            return [metrics.FLEET_BACKLOG.family({KEY: 12.0, ("a", "interactive"): 3.0})]

    registry = CollectorRegistry()
    registry.register(Backlog())  # type: ignore[arg-type]

    text = generate_latest(registry).decode()

    assert to_figures(text) == {KEY: 12.0, ("a", "interactive"): 3.0}


@pytest.mark.parametrize(
    ("exported", "window", "is_agreed"),
    [
        (5.0, [4.0, 6.0], True),
        (7.0, [4.0, 6.0], False),
        (3.0, [4.0, 6.0], False),
        (6.0, [6.0], True),
    ],
)
def test_backlog_agrees_if_the_ledger_had_as_much(
    exported: float, window: list[float], is_agreed: bool
) -> None:
    assert is_within({KEY: exported}, [{KEY: value} for value in window]) is is_agreed


def test_backlog_disagrees_if_a_tenant_is_missing_or_too_many() -> None:
    assert not is_within({}, [{KEY: 4.0}])
    assert not is_within({KEY: 4.0}, [{}])
    assert is_within({}, [{KEY: 4.0}, {}])


def test_a_panel_moves_if_one_of_its_lines_does() -> None:
    panel = GRAPHS[0]

    assert PanelData(panel, (series(1, 1), series(1, 2))).verdict == "moves"
    assert PanelData(panel, (series(1, 1),)).verdict == "constant"
    assert PanelData(panel, ()).verdict == "empty"


@pytest.mark.parametrize("panel", GRAPHS, ids=lambda panel: panel["title"])
def test_each_panel_is_drawn_as_well_formed_markup(panel: dict[str, object]) -> None:
    data = PanelData(panel, (series(0, 2, 1, name="a < b"), series(3, 0, name="c")))

    drawn = draw_panel(data, seconds=120.0)

    assert ElementTree.fromstring(f"<div>{drawn}</div>") is not None
    assert ("<svg" in drawn) == (panel["type"] == "timeseries")


def test_queries_are_asked_for_all_values_of_each_choice() -> None:
    assert filled_in('a{job=~"$job"}[$__rate_interval]') == 'a{job=~".*"}[20s]'


def test_figures_are_written_shortly() -> None:
    assert [rounded_up(value) for value in (0.3, 1.0, 7.0, 1100.0)] == [0.5, 1.0, 10.0, 2000.0]
    assert written(0.25, "percentunit") == "25 %"
    assert written(0.0042, "s") == "4.2 ms"
    assert written(39_000_000, "bytes") == "39 MB"


def test_cost_of_scraping_is_a_ratio_with_its_spread() -> None:
    pairs = [Pair(scraped=99.0, alone=100.0), Pair(scraped=101.0, alone=100.0)] * 4

    found = summary(pairs)

    assert found["median_ratio"] == 1.0
    assert found["quartiles"] == [0.99, 1.01]
