"""With JSON logs each line that a process of ours writes is JSON, also those of libraries."""

import json
import subprocess
import sys
from typing import Any

import pytest
from celery.apps import worker as celery_worker

from labelyard_worker.operations import output

TAKEN_OVER = """
import faulthandler, logging, sys, threading, warnings
early = logging.StreamHandler(sys.stderr)      # as transformers brings one
logging.getLogger("library").addHandler(early)
logging.getLogger("library").propagate = False
from labelyard_worker.operations import logs, output
logs.set_up_process(level="info", form="json")
"""


def run(script: str) -> tuple[int, list[dict[str, Any]]]:
    """Run a process with JSON logs, and parse each line of both its streams."""
    done = subprocess.run(
        [sys.executable, "-c", TAKEN_OVER + script], capture_output=True, text=True, check=False
    )
    lines = (done.stdout + done.stderr).splitlines()
    return done.returncode, [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("print('a banner')", {"event": "output", "logger": "stdout", "text": "a banner"}),
        ("print('no end', end='')", {"event": "output", "text": "no end"}),
        ("sys.__stdout__.write('direct\\n')", {"event": "output", "text": "direct"}),
        ("sys.stderr.write('50 %\\r100 %\\n')", {"event": "output", "text": "100 %"}),
        ('print(\'{"event": "theirs"}\')', {"event": "theirs"}),
        ("print('{no json}')", {"event": "output", "text": "{no json}"}),
        ("warnings.warn('old', stacklevel=1)", {"logger": "py.warnings", "level": "warning"}),
        ("logging.getLogger('library').warning('late')", {"event": "late", "logger": "library"}),
        ("logging.getLogger('labelyard_worker').info('ours')", {"event": "ours"}),
        (
            (
                "import labelyard_worker.operations.logs as it; log = it.logging.getLogger('new');"
                "log.addHandler(it.logging.StreamHandler()); log.propagate = False; log.error('new')"
            ),
            {"event": "output", "text": "new"},
        ),
        (
            "t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()",
            {"event": "uncaught", "error": "ZeroDivisionError"},
        ),
        (
            "class Odd:\n    def __del__(self): raise ValueError\nOdd()",
            {"event": "uncaught", "error": "ValueError"},
        ),
        (
            "output.dump_stacks(lambda file: faulthandler.dump_traceback(file=file))",
            {"event": "stacks", "level": "critical"},
        ),
    ],
)
def test_each_way_to_write_becomes_an_event(script: str, expected: dict[str, str]) -> None:
    code, events = run(script)

    assert code == 0
    assert any(expected.items() <= event.items() for event in events), events


def test_what_ends_a_process_is_an_event() -> None:
    code, (event,) = run("raise RuntimeError('no more')")

    assert (code, event["event"], event["level"]) == (1, "uncaught", "critical")
    assert event["traceback"].endswith("RuntimeError: no more")


def test_a_sentence_that_ends_a_process_is_an_event() -> None:
    code, (event,) = run("raise SystemExit('labelyard-worker cannot start: why')")

    assert (code, event["text"]) == (1, "labelyard-worker cannot start: why")


def test_an_endless_line_is_cut() -> None:
    _, (event,) = run("sys.stdout.write('a' * 1_000_000); print()")

    assert len(event["text"]) == output.MAX_LINE_CHARS


def test_celery_still_has_what_is_replaced() -> None:
    """Without these names Celery's last lines would not go through ``sys.stdout``."""
    assert callable(celery_worker.safe_say)
    assert "quiet" in celery_worker.Worker.on_before_init.__code__.co_varnames
