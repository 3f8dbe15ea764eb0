"""The demo, as make runs it: six photographs, the right labels, a report to look at."""

import os
import subprocess
import sys
from pathlib import Path

from pydantic import TypeAdapter

from labelyard.messages import Result
from labelyard_worker.local.photographs import PHOTOGRAPHS
from tests.e2e.test_first_light import SHOWN
from tests.support.processes import processes_on

DEMO = (sys.executable, "-m", "labelyard_worker.local.demo")


def test_the_demo_labels_six_photographs_and_writes_its_report(tmp_path: Path) -> None:
    done = subprocess.run(
        DEMO,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    report = tmp_path / "demo-report"
    results = TypeAdapter(list[Result]).validate_json((report / "results.json").read_bytes())
    assert [result.images[0].id for result in results] == [one.name for one in PHOTOGRAPHS]
    assert {result.images[0].labels[0].name for result in results} == set(SHOWN.values())
    assert {result.status for result in results} == {"succeeded"}
    page = (report / "index.html").read_text()
    assert page.count("<img ") == len(PHOTOGRAPHS)
    assert all(f'alt="{one.name}"' in page for one in PHOTOGRAPHS)
    assert "Go on:" in done.stdout
    assert processes_on(tmp_path) == []
