"""The limit: no queue and no server, local files, the best of several hand-written loops."""

import json
import os
import secrets
from dataclasses import asdict
from typing import Any

from benchmarks.processes import Stages, descendants
from benchmarks.stack import Stack
from benchmarks.systems.limit_candidates import Candidate
from benchmarks.systems.system import BenchProcess, Case, Engine, Outcome, System
from labelyard_worker.cli import MALLOC_VARIABLES

START_S = 120.0


class Limit(System):
    """A process that classifies the same pictures from local files.

    Attributes:
        candidate: The way that ``run`` measures.
        unit: Of one round over all streams: a run of few batches would measure its end.
    """

    name = "limit"

    def __init__(
        self, stack: Stack, engine: Engine, candidate: Candidate, *, title: str = "limit"
    ) -> None:
        self.candidate = candidate
        self._stack = stack
        self._title = title
        self._process = BenchProcess(
            stack,
            title=title,
            command=["benchmarks.systems.limit_process"],
            variables={
                **MALLOC_VARIABLES,
                "BENCH_TITLE": title,
                "BENCH_CHECKPOINT": str(engine.checkpoint.folder),
                "BENCH_DEVICE": engine.device,
            },
        )

    @property
    def unit(self) -> int:  # type: ignore[override]
        return self.candidate.batch_size * self.candidate.streams

    def start(self) -> None:
        if not self._process.is_running():
            self._process.start(within_s=START_S)

    def stop(self) -> None:
        self._process.stop()

    def stages(self) -> Stages:
        pid = self._process.pid
        return {"worker": [pid], "children": descendants(pid), "driver": [os.getpid()]}

    def run(self, case: Case, images: int, *, timeout_s: float) -> Outcome:
        pictures = case.take(images)
        answer = self._ask(
            "run",
            timeout_s=timeout_s,
            paths=[str(picture.path) for picture in pictures],
            labels=case.labels,
            candidate=asdict(self.candidate),
        )
        outcome = Outcome(seconds=answer["seconds"])
        for picture, best in zip(pictures, answer["best"], strict=True):
            outcome.add(picture.key, case.labels[best])
        return outcome

    def best_labels(self, case: Case, images: int, *, timeout_s: float) -> dict[str, str]:
        """Classify in float32 with full decoding, for comparison of answers."""
        pictures = case.take(images)
        paths = [str(picture.path) for picture in pictures]
        best = self._ask("run_exact", timeout_s=timeout_s, paths=paths, labels=case.labels)
        return {picture.key: case.labels[one] for picture, one in zip(pictures, best, strict=True)}

    def lone(self, case: Case, images: int, *, dtype: str, timeout_s: float) -> list[float]:
        """Time fetch, decode and forward pass of pictures one by one, in one process."""
        keys = [picture.key for picture in case.take(images)]
        seconds: list[float] = self._ask(
            "lone",
            timeout_s=timeout_s,
            keys=keys,
            labels=case.labels,
            dtype=dtype,
            decode=self.candidate.decode,
        )
        return seconds

    def _ask(self, name: str, *, timeout_s: float, **arguments: Any) -> Any:
        """Send a command and wait for its answer.

        Raises:
            TimeoutError: It did not come; the process is stopped, for it may hang.
            RuntimeError: The command failed.
        """
        command_id = secrets.token_hex(4)
        command = json.dumps({"id": command_id, "name": name, "arguments": arguments})
        self._stack.control.rpush(f"{self._title}:commands", command)
        entry: Any = self._stack.control.blpop([f"{self._title}:{command_id}"], timeout=timeout_s)
        if entry is None:
            self._process.kill()
            raise TimeoutError(f"{self._title}: {name} took more than {timeout_s:.0f} s")
        answer = json.loads(entry[1])
        if "error" in answer:
            raise RuntimeError(f"{self._title}: {name} failed: {answer['error']}")
        return answer["answer"]
