"""Measure label sets: latency of a small one beside a large one, memory, and hashing.

    python -m benchmarks.label_sets [waits] [memory] [hashing]

Each part takes up to two minutes and prints its numbers. ``waits`` uses the lite checkpoint;
``memory`` draws random vectors, so that the text tower's time and memory do not count.
"""

import gc
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Literal

import numpy as np
import psutil  # type: ignore[import-untyped]

from labelyard.errors import JobCancelledError, LabelyardError
from labelyard.label_sets import as_label_set, label_set_digest
from labelyard.messages import LabelSet
from labelyard.queues import Priority
from labelyard_worker.jobs.cancellation import Token
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision.checkpoint import load_checkpoint
from labelyard_worker.vision.label_index import LabelIndex
from labelyard_worker.vision.scoring import Floats

MIB = 1024 * 1024
TEMPLATES = tuple(f"number {number} of {{}}" for number in range(100))
SMALL_SETS = 20
LARGE_SETS = 4
PAUSE_S = 0.25


class RandomEncoder:
    """Encoder that draws a random unit vector for each prompt, at once."""

    scoring: Literal["softmax", "sigmoid"] = "softmax"
    dim = 256

    def text_embeds(self, prompts: Sequence[str]) -> Floats:
        """Draw vectors, shape (prompts, dim)."""
        drawn = np.random.default_rng(0).normal(size=(len(prompts), self.dim))
        rows: Floats = drawn.astype(np.float32)
        unit: Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit


def measure_waits() -> None:
    """Time small interactive label sets alone, and beside 4 times 1,000 x 100 prompts."""
    checkpoint = load_checkpoint(WorkerSettings(device="cpu"))
    with closing(LabelIndex(checkpoint, capacity_bytes=256 * MIB)) as index:
        _small_set_s(index, "warm up")
        alone = [_small_set_s(index, f"alone {n}") for n in range(SMALL_SETS)]
        token = Token("large", timeout_s=3_600, expires_in_s=None)
        threads = [
            threading.Thread(target=_matrix_until_stopped, args=(index, large_set(n), token))
            for n in range(LARGE_SETS)
        ]
        for thread in threads:
            thread.start()
        time.sleep(1.0)
        beside = [_small_set_s(index, f"beside {n}") for n in range(SMALL_SETS)]
        running = sum(thread.is_alive() for thread in threads)
        token.stop(JobCancelledError("large"))
        stopped_at = time.monotonic()
        for thread in threads:
            thread.join()
    print(f"5 labels alone: {_figures(alone)}")
    print(f"5 labels beside {running} times 100,000 prompts: {_figures(beside)}")
    print(f"cancelled to stopped: {time.monotonic() - stopped_at:.2f} s")


def large_set(number: int) -> LabelSet:
    """Make 1,000 labels with 100 templates; another number is another set."""
    return as_label_set([f"{number} label {n}" for n in range(1_000)], templates=TEMPLATES)


def _matrix_until_stopped(index: LabelIndex, label_set: LabelSet, token: Token) -> None:
    try:
        index.matrix(label_set, token=token)
    except LabelyardError:
        return


def _small_set_s(index: LabelIndex, name: str) -> float:
    label_set = as_label_set([f"{name} {n}" for n in range(5)])
    time.sleep(PAUSE_S)
    started_at = time.monotonic()
    index.matrix(label_set, priority=Priority.INTERACTIVE)
    return time.monotonic() - started_at


def _figures(times: Sequence[float]) -> str:
    return f"median {1_000 * statistics.median(times):.0f} ms, worst {1_000 * max(times):.0f} ms"


def measure_memory() -> None:
    """Print the process's memory while it meets 60 sets of 10,000 labels; bound 256 MiB."""
    with closing(LabelIndex(RandomEncoder(), capacity_bytes=256 * MIB)) as index:
        before = psutil.Process().memory_info().rss
        for number in range(1, 61):
            label_set = as_label_set([f"set {number} label {n}" for n in range(10_000)])
            index.matrix(label_set)
            del label_set
            if number % 10 == 0:
                gc.collect()
                grown = psutil.Process().memory_info().rss - before
                held = index.held_bytes
                print(f"{number} sets: {grown / MIB:.0f} MiB grown, {held / MIB:.0f} MiB counted")


def measure_hashing() -> None:
    """Print the cost of the digest of 10,000 labels, which jobs with a reference do not pay."""
    label_set = as_label_set([f"label {n}" for n in range(10_000)])
    digest = label_set_digest(label_set)
    with closing(LabelIndex(RandomEncoder(), capacity_bytes=256 * MIB)) as index:
        index.registered(digest, lambda: label_set)
        hashed = _each_ms(lambda: index.matrix(label_set))
        named = _each_ms(lambda: index.registered(digest, lambda: label_set))
    print(f"to find a known matrix: {hashed:.3f} ms by its set, {named:.4f} ms by its reference")


def _each_ms(run: Callable[[], object]) -> float:
    times = []
    for _ in range(50):
        started_at = time.perf_counter()
        run()
        times.append(time.perf_counter() - started_at)
    return 1_000 * statistics.median(times)


PARTS = {"waits": measure_waits, "memory": measure_memory, "hashing": measure_hashing}

if __name__ == "__main__":
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()
