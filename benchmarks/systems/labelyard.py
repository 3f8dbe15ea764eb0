"""The system under test: a real labelyard worker, used through the client as producers do."""

import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping

from benchmarks.processes import Stages, descendants
from benchmarks.stack import BUCKET, Stack
from benchmarks.systems.system import Case, Engine, Outcome, System
from labelyard import Client
from labelyard.errors import ResultTimeoutError
from labelyard.label_sets import as_label_set
from labelyard.ledger import Record
from labelyard.messages import Job, LabelSet
from labelyard_worker.cli import MALLOC_VARIABLES
from labelyard_worker.local.worker_process import WorkerProcess

READY_WITHIN_S = 180.0
WORKER_COMMAND = (sys.executable, "-m", "labelyard_worker", "start")
TOP_K = 5


class LabelyardWorker:
    """One worker process and a client; systems of several job sizes share it.

    Args:
        settings: Lower-case names of LABELYARD_ variables.
    """

    def __init__(
        self,
        stack: Stack,
        engine: Engine,
        *,
        title: str = "labelyard",
        command: tuple[str, ...] = WORKER_COMMAND,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        chosen = {
            "checkpoint": str(engine.checkpoint.folder),
            "device": engine.device,
            "dtype": engine.dtype,
            "compile": str(int(engine.is_compiled)),
            "image_cache_bytes": "0",  # the same pictures come again and must be paid again
            "log_level": "warning",
            **(settings or {}),
        }
        variables = {f"LABELYARD_{name.upper()}": value for name, value in chosen.items()}
        self.process = WorkerProcess(
            stack.folder / title,
            variables={**MALLOC_VARIABLES, **stack.variables, **variables},
            command=command,
        )
        self.client = Client(stack.client_settings(chosen.get("namespace", "labelyard")))
        self._starting = threading.Lock()
        self._stack = stack

    def start(self) -> float:
        """Start the worker, unless it runs; returns the seconds until it took jobs."""
        started_at = time.monotonic()
        with self._starting:  # systems of several job sizes share this worker
            if not self.process.is_running():
                self.process.start(within_s=READY_WITHIN_S)
        return time.monotonic() - started_at

    def stop(self) -> None:
        """Stop worker and client."""
        self.process.stop()
        self.client.close()

    def stages(self) -> Stages:
        """Return the process ids of each stage."""
        pid = self.process.pid
        return {
            "worker": [pid],
            "children": descendants(pid),
            "storage": [self._stack.seaweed.pid],
            "valkey": [self._stack.valkey.pid],
            "driver": [os.getpid()],
        }


class Labelyard(System):
    """Jobs of one size, submitted in pipelines, results read from the ledger."""

    def __init__(
        self,
        worker: LabelyardWorker,
        *,
        job_size: int,
        label_set: str | None = None,
        is_rescoring: bool = False,
        name: str = "",
    ) -> None:
        """Prepare to measure; entering the meter starts it.

        Args:
            label_set: Reference of a registered set, in place of the case's labels inline.
            is_rescoring: Score from known embeddings, without looking at the pictures.
        """
        self.name = name or f"labelyard_{job_size}"
        self._is_rescoring = is_rescoring
        self.unit = job_size
        self._worker = worker
        self._label_set = label_set

    def start(self) -> None:
        self._worker.start()

    def stop(self) -> None:
        self._worker.stop()

    def stages(self) -> Stages:
        return self._worker.stages()

    def run(self, case: Case, images: int, *, timeout_s: float) -> Outcome:
        client = self._worker.client
        outcome = Outcome()
        started_at = time.monotonic()
        handles = client.submit_many(self._jobs(case, images), queue="interactive")
        try:
            for record in client.as_completed(handles, timeout_s=timeout_s):
                read_record(record, outcome, expected=min(TOP_K, len(case.labels)))
        except ResultTimeoutError as error:
            raise TimeoutError(str(error)) from error
        outcome.seconds = time.monotonic() - started_at
        return outcome

    def _jobs(self, case: Case, images: int) -> Iterator[Job]:
        pictures = case.take(images)
        labels: LabelSet | str = self._label_set or as_label_set(case.labels)
        for start in range(0, images, self.unit):
            named = [
                (str(number), f"s3://{BUCKET}/{picture.key}")
                for number, picture in enumerate(pictures[start : start + self.unit])
            ]
            yield self._worker.client.prepare(
                named, labels, top_k=TOP_K, rescore=self._is_rescoring
            )


def read_record(record: Record, outcome: Outcome, *, expected: int) -> None:
    """Count a job's images, and check that each has *expected* labels."""
    if record.result is None:
        for _ in range(record.images):
            outcome.fail(f"job {record.state}")
        return
    for image in record.result.images:
        if image.error is not None:
            outcome.fail(f"{image.error.code}: {image.error.message}")
        elif len(image.labels) != expected:
            outcome.fail(f"{len(image.labels)} labels in place of {expected}")
        else:
            outcome.add(image.uri.removeprefix(f"s3://{BUCKET}/"), image.labels[0].name)


def exact_settings() -> dict[str, str]:
    """Return the settings under which answers are those of transformers' pipeline."""
    return {"dtype": "float32", "decode": "exact", "transparency": "drop"}
