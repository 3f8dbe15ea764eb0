"""Dashboard and alerts on a real Prometheus, which is installed as Debian's ``prometheus``."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy.grafana import dashboard

from tests.support.exposition import Fleet, served
from tests.support.prometheus import NOT_INSTALLED, PrometheusServer, is_installed, promtool
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy/prometheus"
pytestmark = pytest.mark.skipif(not is_installed(), reason=NOT_INSTALLED)

GRAPHS = json.loads(dashboard.PATH.read_text(encoding="utf-8"))["panels"]
EXPRESSIONS = {
    f"{panel['title']}: {target['legendFormat']}": target["expr"]
    for panel in GRAPHS
    for target in panel.get("targets", [])
}
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """Run a Prometheus that has scraped every metric at least three times."""
    folder = tmp_path_factory.mktemp("prometheus")
    with served(Fleet()) as target:
        server = PrometheusServer(
            folder, targets=[target], every_s=0.2, rules=[FOLDER / "alerts.yml"]
        )
        with server:
            wait_until(lambda: count_samples(server) >= 3)
            yield server


def count_samples(server: PrometheusServer) -> int:
    """Count the samples of the last metric of a scrape."""
    found = server.query("count_over_time(labelyard_fleet_pending_deliveries[1m])")
    return int(found[0]["value"][1]) if found else 0


def filled_in(expression: str) -> str:
    """Put in what Grafana would: every value of each choice, and a window."""
    return re.sub(
        r"\$(\w+)", lambda found: "1m" if found[1] == "__rate_interval" else ".*", expression
    )


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_query_of_the_dashboard_finds_series(prometheus: PrometheusServer, name: str) -> None:
    """A name or label that no worker exports would leave a panel empty for ever."""
    found = prometheus.query(filled_in(EXPRESSIONS[name]))

    assert found
    assert all(series["value"][1] != "NaN" for series in found)


def test_choices_of_the_dashboard_have_values(prometheus: PrometheusServer) -> None:
    for choice in dashboard.variables()[1:]:
        query, label = re.fullmatch(r"label_values\((.*), (\w+)\)", choice["definition"]).groups()  # type: ignore[union-attr]

        assert all(series["metric"][label] for series in prometheus.query(filled_in(query)))
        assert prometheus.query(filled_in(query))


def test_metrics_that_alerts_use_are_exported(prometheus: PrometheusServer) -> None:
    text = (FOLDER / "alerts.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"\blabelyard_[a-z_]+", text))

    assert named
    assert [name for name in named if not prometheus.query(name)] == []


def test_rules_and_settings_are_valid() -> None:
    checked = promtool("check", "config", "prometheus.yml", folder=FOLDER)

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_each_alert_fires_if_it_must_and_only_then() -> None:
    tested = promtool("test", "rules", "alerts_test.yml", folder=FOLDER)

    assert tested.returncode == 0, tested.stdout + tested.stderr
