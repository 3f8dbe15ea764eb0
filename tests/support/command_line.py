"""The command ``labelyard`` in tests: run it, and end its jobs as a worker would."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from typer.testing import CliRunner, Result

from labelyard.cli import app
from labelyard.label_sets import LabelSetRegistry
from labelyard.ledger import Ledger
from labelyard.messages import Job
from labelyard.testing import sample_result


def run(*args: object) -> Result:
    """Run a command, with nobody at a terminal."""
    return CliRunner().invoke(app, [str(arg) for arg in args])


def lines(result: Result) -> list[dict[str, Any]]:
    """Parse the JSON objects that a command printed."""
    return [json.loads(line) for line in result.stdout.splitlines()]


def end(ledger: Ledger, job: Job) -> None:
    """End a job as a worker would: images with ``gone`` in their address are not found."""
    if isinstance(job.label_set, str):
        registry = LabelSetRegistry(ledger.client, namespace=ledger.keys.namespace)
        job = job.model_copy(update={"label_set": registry.get(job.label_set)})
    is_gone = any("gone" in image.uri for image in job.images)
    status = "succeeded" if not is_gone else "failed" if len(job.images) == 1 else "partial"
    ledger.finish(job.job_id, sample_result(status, job=job))  # type: ignore[arg-type]


@contextmanager
def worker(ledger: Ledger, *, after: threading.Event | None = None) -> Iterator[None]:
    """End every job that comes while the block runs, once *after* is set if it is given."""
    is_over = threading.Event()

    def work() -> None:
        while not is_over.wait(0.01):
            if after is not None and not after.is_set():
                continue
            job_ids: Any = ledger.client.zrange(ledger.keys.open, 0, -1)
            for job_id in job_ids:
                record = ledger.read(job_id)
                if record is not None:
                    end(ledger, record.job())

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
