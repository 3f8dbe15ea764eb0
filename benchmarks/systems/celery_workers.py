"""The competitors as processes: the tutorial's Celery worker, and celery-batches."""

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import redis
from celery import Celery

from benchmarks.machine import usable_cores
from benchmarks.processes import Stages, descendants
from benchmarks.stack import Stack
from benchmarks.systems.pipeline import TOP_K
from benchmarks.systems.system import BenchProcess, Case, Engine, Outcome, System

LOOK_EVERY_S = 0.05
READY_WITHIN_S = 90.0
MGET_AT_ONCE = 1000


class CeleryTasks:
    """Sends one task for each picture, and reads the results from the Redis backend."""

    def __init__(self, stack: Stack, *, task: str, queue: str) -> None:
        self._app = Celery("driver", broker=stack.variables["BENCH_BROKER"], set_as_current=False)
        self._results = redis.Redis.from_url(stack.variables["BENCH_RESULTS"])
        self._task = task
        self._queue = queue

    def send(self, arguments: Sequence[tuple[Any, ...]]) -> list[str]:
        """Send a task for each tuple of arguments, and return their ids."""
        with self._app.producer_or_acquire() as producer:
            return [
                self._app.send_task(self._task, args, queue=self._queue, producer=producer).id
                for args in arguments
            ]

    def results(self, task_ids: Sequence[str], *, timeout_s: float) -> dict[str, dict[str, Any]]:
        """Wait for the stored results, and remove them.

        Raises:
            TimeoutError: Some did not come.
        """
        waiting, found = list(task_ids), {}
        until = time.monotonic() + timeout_s
        while waiting:
            part = waiting[:MGET_AT_ONCE]
            values = self._results.mget([f"celery-task-meta-{task_id}" for task_id in part])
            ready = {one: value for one, value in zip(part, values, strict=True) if value}
            found.update({one: json.loads(value) for one, value in ready.items()})
            waiting = [task_id for task_id in part if task_id not in ready] + waiting[MGET_AT_ONCE:]
            if waiting and time.monotonic() > until:
                raise TimeoutError(f"{len(waiting)} of {len(task_ids)} tasks have no result")
            if not ready:
                time.sleep(LOOK_EVERY_S)
        for start in range(0, len(task_ids), MGET_AT_ONCE):
            part = list(task_ids[start : start + MGET_AT_ONCE])
            self._results.delete(*(f"celery-task-meta-{task_id}" for task_id in part))
        return found

    def close(self) -> None:
        """Close the connections."""
        self._app.close()
        self._results.close()


class CelerySystem(System):
    """A Celery worker; with a pipeline in each of its processes.

    Args:
        title: Name of its queue, its log folder and its column.
        module: Worker module below ``benchmarks.systems``.
        processes: Children (or threads) of the pool; each has its share of the cores.
        batch_size: Most images in one call of the pipeline.
        python: Interpreter of the environment that it runs in.
    """

    def __init__(
        self,
        stack: Stack,
        engine: Engine,
        *,
        title: str,
        module: str,
        processes: int = 1,
        batch_size: int = 1,
        pool: Literal["prefork", "threads"] = "prefork",
        python: Path = Path(sys.executable),
    ) -> None:
        self.name = title
        self.unit = batch_size * processes
        self._stack = stack
        self._tasks = CeleryTasks(stack, task="benchmarks.classify", queue=title)
        self._process = BenchProcess(
            stack,
            title=title,
            python=python,
            command=[
                "celery",
                *("-A", f"benchmarks.systems.{module}", "worker"),
                *("-P", pool, "-c", str(processes), "-Q", title, "-l", "WARNING"),
                *("-n", f"{title}@%h", "--without-mingle", "--without-gossip"),
            ],
            variables={
                "BENCH_CHECKPOINT": str(engine.checkpoint.folder),
                "BENCH_DEVICE": engine.device,
                "BENCH_DTYPE": engine.dtype if engine.device == "cuda" else "float32",
                "BENCH_THREADS": str(max(1, usable_cores() // processes)),
                "BENCH_BATCH_SIZE": str(batch_size),
            },
        )

    def start(self) -> None:
        if not self._process.is_running():
            self._process.start(within_s=READY_WITHIN_S)

    def stop(self) -> None:
        self._process.stop()
        self._tasks.close()

    def stages(self) -> Stages:
        pid = self._process.pid
        return {
            "worker": [pid],
            "children": descendants(pid),
            "storage": [self._stack.seaweed.pid],
            "valkey": [self._stack.valkey.pid],
            "driver": [os.getpid()],
        }

    def run(self, case: Case, images: int, *, timeout_s: float) -> Outcome:
        pictures = case.take(images)
        outcome = Outcome()
        started_at = time.monotonic()
        task_ids = self._tasks.send([(one.key, case.labels) for one in pictures])
        found = self._tasks.results(task_ids, timeout_s=timeout_s)
        outcome.seconds = time.monotonic() - started_at
        for task_id, picture in zip(task_ids, pictures, strict=True):
            read_answer(found[task_id], picture.key, outcome, expected=min(TOP_K, len(case.labels)))
        return outcome


def read_answer(answer: dict[str, Any], key: str, outcome: Outcome, *, expected: int) -> None:
    """Count a task's picture, and check that it has *expected* scores."""
    scores = answer["result"]
    if answer["status"] != "SUCCESS":
        outcome.fail(str(scores)[:200])
    elif len(scores) != expected:
        outcome.fail(f"{len(scores)} scores in place of {expected}")
    else:
        outcome.add(key, scores[0]["label"])
