"""The dashboard and the alerts, without a Prometheus: what each panel and each alert has."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy.grafana import dashboard

from labelyard_worker import metrics

FOLDER = Path(__file__).parents[2] / "deploy"
TEXT = dashboard.PATH.read_text(encoding="utf-8")
PANELS: list[dict[str, Any]] = json.loads(TEXT)["panels"]
GRAPHS = {panel["title"]: panel for panel in PANELS if panel["type"] != "row"}
RULES: dict[str, dict[str, Any]] = {
    rule["alert"]: rule
    for group in yaml.safe_load((FOLDER / "prometheus/alerts.yml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
}


def test_dashboard_is_what_make_docs_would_write() -> None:
    """If this fails, run ``make docs`` and review the diff."""
    assert dashboard.dashboard_text() == TEXT


@pytest.mark.parametrize("title", GRAPHS)
def test_panel_has_a_unit_a_sentence_and_queries(title: str) -> None:
    panel = GRAPHS[title]

    assert panel["fieldConfig"]["defaults"]["unit"]
    assert re.fullmatch(r"[A-Z].*[^.]\.", panel["description"])
    assert panel["targets"]
    assert panel["datasource"]["uid"] == "${datasource}"


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    ids = Counter(panel["id"] for panel in PANELS)
    cells = Counter(
        (x, y)
        for place in (panel["gridPos"] for panel in PANELS)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    )

    assert max(ids.values()) == 1
    assert max(cells.values()) == 1
    assert max(x for x, _ in cells) < dashboard.GRID_WIDTH


def test_queries_use_choices_that_the_dashboard_has() -> None:
    queries = [target["expr"] for panel in GRAPHS.values() for target in panel["targets"]]
    used = {name for query in queries for name in re.findall(r"\$(\w+)", query)}

    assert used - {"__rate_interval"} == {one["name"] for one in dashboard.variables()} - {
        "datasource"
    }


def test_each_metric_of_a_worker_is_on_the_dashboard() -> None:
    gauges = {gauge.name for gauge in (*metrics.WORKER_GAUGES, *metrics.FLEET_GAUGES)}
    names = {family.name for family in metrics.REGISTRY.collect()}
    counted = {name for name in names if name.startswith("labelyard_")}
    # On no panel: one says that the others are absent, one that the process is about to end.
    expected = (gauges | counted) - {"labelyard_fleet_up", "labelyard_watchdog_hung"}

    assert sorted(name for name in expected if name not in TEXT) == []


@pytest.mark.parametrize("name", RULES)
def test_alert_has_a_severity_texts_and_a_section_of_the_runbook(name: str) -> None:
    rule = RULES[name]
    runbook = (FOLDER.parent / "docs/runbook.md").read_text(encoding="utf-8")
    section = runbook.partition(f"\n## {name}\n")[2].partition("\n## ")[0]

    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
    assert section.strip().startswith(f"{rule['labels']['severity'].capitalize()}. **Meaning:**")
    for part in ("**Look at:**", "**Do:**", "**Over when:**"):
        assert part in section


def test_the_runbook_has_no_section_of_an_alert_that_is_gone() -> None:
    runbook = (FOLDER.parent / "docs/runbook.md").read_text(encoding="utf-8")

    assert re.findall(r"^## (.+)$", runbook, re.MULTILINE) == list(RULES)


def test_each_alert_is_tested_to_fire_and_not_to_fire() -> None:
    loaded = yaml.safe_load((FOLDER / "prometheus/alerts_test.yml").read_text(encoding="utf-8"))
    cases = [case for test in loaded["tests"] for case in test["alert_rule_test"]]

    fires = {case["alertname"] for case in cases if case["exp_alerts"]}
    silent = {case["alertname"] for case in cases if not case["exp_alerts"]}
    assert fires == silent == RULES.keys()
