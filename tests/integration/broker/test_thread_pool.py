"""The pool from which nothing escapes: alone, and in a real worker."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from billiard.exceptions import WorkerLostError
from kombu import Connection

from labelyard_worker.broker.thread_pool import PoolUsage, TaskPool
from labelyard_worker.local.servers import ValkeyServer
from tests.support.apps.durability_worker import Worker, effects, ended, send, send_marks
from tests.support.waiting import wait_until

ESCAPES = [SystemExit(1), KeyboardInterrupt(), MemoryError("x"), GeneratorExit(), ValueError("x")]


class Request:
    """Celery's request as the pool sees it; it can be made to fail as the real one does."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.errors: list[Any] = []
        self.failing: dict[str, BaseException] = {}

    def on_accepted(self, pid: int, started: float) -> None:
        self._note("on_accepted")

    def on_success(self, answer: object) -> None:
        self._note("on_success")

    def on_failure(self, info: Any) -> None:
        self.errors.append(info.exception)
        self._note("on_failure")

    def reject(self, *, requeue: bool) -> None:
        self._note(f"reject requeue={requeue}")

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if error := self.failing.get(call):
            raise error


@pytest.fixture
def pool() -> Iterator[TaskPool]:
    pool = TaskPool(limit=2)
    pool.start()
    yield pool
    pool.stop()


def run(pool: TaskPool, request: Request, target: Any = lambda: None) -> None:
    result = pool.apply_async(
        target,
        accept_callback=request.on_accepted,
        callback=request.on_success,
        error_callback=request.on_failure,
    )
    result.get()


def raising(error: BaseException) -> Any:
    def target() -> None:
        raise error

    return target


def test_a_job_that_ends_well_is_answered_once(pool: TaskPool) -> None:
    request = Request()

    run(pool, request)

    assert request.calls == ["on_accepted", "on_success"]
    assert pool.usage() == PoolUsage(total=2, busy=0, leaked=0)


@pytest.mark.parametrize("error", ESCAPES, ids=lambda error: type(error).__name__)
def test_what_escapes_the_tracer_is_a_lost_worker_told_once(
    pool: TaskPool, error: BaseException
) -> None:
    request = Request()

    run(pool, request, raising(error))

    assert request.calls == ["on_accepted", "on_failure"]
    assert isinstance(request.errors[0].exc, WorkerLostError)
    assert repr(error) in str(request.errors[0].exc)


@pytest.mark.parametrize("call", ["on_accepted", "on_success"])
@pytest.mark.parametrize("error", ESCAPES, ids=lambda error: type(error).__name__)
def test_what_escapes_a_callback_is_told_once(
    pool: TaskPool, call: str, error: BaseException
) -> None:
    request = Request()
    request.failing[call] = error

    run(pool, request)

    assert request.calls.count("on_failure") == 1
    assert pool.usage() == PoolUsage(total=2, busy=0, leaked=0)


def test_a_message_goes_back_when_its_failure_cannot_be_reported(pool: TaskPool) -> None:
    request = Request()
    request.failing["on_failure"] = ConnectionError("the result store is away")

    run(pool, request, raising(SystemExit(1)))

    assert request.calls == ["on_accepted", "on_failure", "reject requeue=True"]
    assert pool.usage().leaked == 0


def test_a_message_that_cannot_go_back_is_counted_as_leaked(pool: TaskPool) -> None:
    request = Request()
    request.failing["on_failure"] = request.failing["reject requeue=True"] = OSError("away")

    run(pool, request, raising(SystemExit(1)))

    assert pool.usage() == PoolUsage(total=2, busy=0, leaked=1)


def test_busy_slots_are_counted_in_named_threads(pool: TaskPool) -> None:
    release = threading.Event()
    names: list[str] = []

    def work() -> None:
        names.append(threading.current_thread().name)
        release.wait()

    running = [pool.apply_async(work) for _ in range(3)]
    wait_until(lambda: len(names) == 2)
    busy = pool.usage()
    release.set()
    for result in running:
        result.get()

    assert busy == PoolUsage(total=2, busy=2, leaked=0)
    assert all(name.startswith("labelyard-job") for name in names)


def test_terminating_a_job_leaves_it_running(pool: TaskPool) -> None:
    request = Request()
    release = threading.Event()
    result = pool.apply_async(release.wait, callback=request.on_success)

    pool.terminate_job(1, "SIGTERM")
    result.terminate("SIGTERM")
    release.set()
    result.get()

    assert request.calls == ["on_success"]


def test_a_worker_keeps_all_its_slots_after_errors_that_escape(
    own_valkey: ValkeyServer, tmp_path: Path
) -> None:
    """With Celery's own threads the second escape is the last thing that this worker consumes."""
    worker = Worker(own_valkey.url, tmp_path, concurrency=2)
    escapes = ["SystemExit", "KeyboardInterrupt", "MemoryError", "SystemExit", "MemoryError"]
    with Connection(own_valkey.url) as connection, connection.Producer() as producer:
        for error in escapes:
            send(producer, "escape", error)
    send_marks(own_valkey.url, first=0, count=2, seconds=0.5)

    wait_until(lambda: len(ended(tmp_path)) == 7)

    with redis.Redis.from_url(own_valkey.url) as client:
        wait_until(lambda: client.exists("bulk", "unacked") == 0)
    worker.kill()
    assert sorted(ended(tmp_path)) == sorted([*escapes, "0", "1"])
    marks = [words for words in effects(tmp_path) if words[1] in {"0", "1"}]
    assert [words[0] for words in marks] == ["start", "start", "end", "end"]
