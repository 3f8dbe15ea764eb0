"""Writes labelyard.json, the dashboard that Grafana loads: ``make docs``, or run this module."""

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from deploy.grafana.label_set_rows import LABEL_SETS
from deploy.grafana.panels import FLEET, Panel
from deploy.grafana.work_rows import BACKLOG, NOW, RECOVERY, THROUGHPUT
from deploy.grafana.worker_rows import INTAKE, LATENCY, MODEL, WORKERS

# In the order in which an operator reads them.
ROWS: Final = {
    "Now": NOW,
    "Throughput and errors": THROUGHPUT,
    "Backlog": BACKLOG,
    "Latency": LATENCY,
    "Model": MODEL,
    "Intake": INTAKE,
    "Label sets": LABEL_SETS,
    "Delivery and recovery": RECOVERY,
    "Workers": WORKERS,
}
PATH: Final = Path(__file__).with_name("labelyard.json")
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
# Of Grafana 11 and 12; a later Grafana migrates it.
SCHEMA_VERSION: Final = 39
GRID_WIDTH: Final = 24
STAT_HEIGHT, GRAPH_HEIGHT = 4, 8
GRAPHS_IN_A_LINE: Final = 3
# Units that Grafana has no name for are written behind the number.
OWN_UNITS: Final = {"images/s", "jobs/s", "1/s"}


def dashboard() -> dict[str, Any]:
    """Build the dashboard."""
    return {
        "uid": "labelyard",
        "title": "labelyard",
        "description": "Workers, backlog, latencies and errors of labelyard.",
        "tags": ["labelyard"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "links": [],
        "templating": {"list": variables()},
        "panels": list(panels()),
    }


def variables() -> list[dict[str, Any]]:
    """Build the choices above the panels."""
    source = {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "hide": 0,
    }
    choices = {
        "job": "label_values(labelyard_build_info, job)",
        "instance": f"label_values(labelyard_build_info{{{FLEET}}}, instance)",
        "tenant": f"label_values({{__name__=~"
        f'"labelyard_fleet_backlog_images|labelyard_images_total", {FLEET}}}, tenant)',
        "queue": f"label_values(labelyard_fleet_queue_messages{{{FLEET}}}, queue)",
    }
    return [source, *(variable(name, query) for name, query in choices.items())]


def variable(name: str, query: str) -> dict[str, Any]:
    """Build a choice of several values of a label; all of them at first."""
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": "Values"},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }


def panels() -> Iterator[dict[str, Any]]:
    """Yield the panels with their places, row by row."""
    ids = itertools.count(1)
    top = 0
    for title, row in ROWS.items():
        place = {"x": 0, "y": top, "w": GRID_WIDTH, "h": 1}
        yield {
            "id": next(ids),
            "type": "row",
            "title": title,
            "gridPos": place,
            "collapsed": False,
            "panels": [],
        }
        top += 1
        for line in lines_of(row):
            height = STAT_HEIGHT if line[0].kind == "stat" else GRAPH_HEIGHT
            width = GRID_WIDTH // len(line)
            for number, panel in enumerate(line):
                place = {"x": number * width, "y": top, "w": width, "h": height}
                yield {"id": next(ids), "gridPos": place, **panel_json(panel)}
            top += height


def lines_of(row: Sequence[Panel]) -> Iterator[Sequence[Panel]]:
    """Yield the panels that stand side by side."""
    if row[0].kind == "stat":
        yield row
        return
    count = -(-len(row) // GRAPHS_IN_A_LINE)
    size = -(-len(row) // count)
    for start in range(0, len(row), size):
        yield row[start : start + size]


def panel_json(panel: Panel) -> dict[str, Any]:
    """Build one panel."""
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": DATASOURCE,
                "editorMode": "code",
                "expr": query.expression,
                "legendFormat": query.legend,
                "range": panel.kind == "timeseries",
                "instant": panel.kind == "stat",
            }
            for number, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": field_defaults(panel), "overrides": []},
        "options": panel_options(panel),
    }


def field_defaults(panel: Panel) -> dict[str, Any]:
    """Build the unit of a panel, and how its lines are drawn."""
    unit = f"suffix: {panel.unit}" if panel.unit in OWN_UNITS else panel.unit
    defaults: dict[str, Any] = {"unit": unit, "min": 0}
    if panel.kind == "timeseries":
        stacking = {"mode": "normal" if panel.is_stacked else "none", "group": "A"}
        defaults["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 40 if panel.is_stacked else 0,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": stacking,
        }
    return defaults


def panel_options(panel: Panel) -> dict[str, Any]:
    """Build the legend of a graph, or the form of a number."""
    if panel.kind == "stat":
        reduced = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        return {"reduceOptions": reduced, "colorMode": "none", "graphMode": "none"}
    legend = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
    return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}


def dashboard_text() -> str:
    """Return the text of labelyard.json."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PATH.write_text(dashboard_text(), encoding="utf-8")
