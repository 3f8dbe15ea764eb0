"""Find leaks of a test: Redis keys without a TTL, threads, processes."""

import fnmatch
import os
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

import psutil  # type: ignore[import-untyped]
import redis

from labelyard_worker.local.servers import EmbeddedServer

LEFTOVERS_WITHIN_S = 2.0

# kombu's own: it gives them no TTL. Its queues are lists, and no other key of the broker is one.
# What is sorted by tenant goes with the lists that it belongs to; weights stay until others come.
BROKER_KEYS = ("*_kombu.binding.*", "*unacked*", "*:turns", "*:known", "*sorted", "*.weights")
BROKER_DATABASE = 0

# One a process, kept by the standard library until the process ends; their children count.
STANDARD_HELPERS = (b"multiprocessing.forkserver", b"multiprocessing.resource_tracker")
STAT_BYTES = 4096
STAT_PPID, STAT_START_TIME = 1, 19  # behind the name, see proc(5)


class RunningProcess(NamedTuple):
    """A process; its start tells it from a later one with the same id."""

    pid: int
    started_at: bytes


Remains = set[threading.Thread | RunningProcess]


def used_databases(client: redis.Redis) -> list[int]:
    """Return the databases of a server that hold keys."""
    return sorted(int(name.removeprefix("db")) for name in client.info("keyspace"))


def keys_without_ttl(clients: Iterable[redis.Redis]) -> list[str]:
    """Return the keys that nothing will ever remove, as ``database:key``."""
    found = []
    for client in clients:
        database = client.connection_pool.connection_kwargs["db"]
        keys = list(client.scan_iter(count=1000))
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.ttl(key)
        found += [
            f"{database}:{key.decode(errors='replace')}"
            for key, ttl in zip(keys, pipeline.execute(), strict=True)
            if ttl == -1 and not is_of_broker(client, key, database=database)
        ]
    return sorted(found)


def is_of_broker(client: redis.Redis, key: bytes, *, database: int) -> bool:
    """Return whether kombu wrote this key, to carry messages."""
    name = key.decode(errors="replace")
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in BROKER_KEYS):
        return True
    return database == BROKER_DATABASE and client.type(key) == b"list"


def threads_and_processes(kept: Iterable[EmbeddedServer]) -> Remains:
    """Return the threads and processes that must have ended after a test.

    Args:
        kept: Servers that outlive tests.
    """
    return leaky_threads() | child_processes(kept)


def left_over_since(before: Remains, kept: Iterable[EmbeddedServer]) -> list[str]:
    """Wait a moment for threads and processes started since *before*; describe those that stay."""
    due = time.monotonic() + LEFTOVERS_WITHIN_S
    while left := threads_and_processes(kept) - before:
        if time.monotonic() >= due:
            return sorted(describe(one) for one in left)
        time.sleep(0.02)
    return []


def leaky_threads() -> Remains:
    """Return the threads that must have an end: ours, and all that are not daemons."""
    return {
        thread
        for thread in threading.enumerate()
        if thread is not threading.main_thread()
        and (not thread.daemon or thread.name.startswith("labelyard-"))
    }


def child_processes(kept: Iterable[EmbeddedServer] = ()) -> Remains:
    """Return the processes below this one, without *kept* servers and Python's own helpers.

    It runs twice a test, so it reads the table of all processes once: psutil reads it for each
    question.
    """
    table = read_children()
    below_kept = {one for server in kept for one in family(server, table)}
    return {
        child
        for child in descendants(os.getpid(), table) - below_kept
        if not is_standard_helper(child, table)
    }


def read_children() -> dict[int, list[RunningProcess]]:
    """Read which processes run, by their parent's id.

    With ``os.open``, which takes a sixth of the time of ``Path.read_text``.
    """
    table: dict[int, list[RunningProcess]] = {}
    for name in filter(str.isdecimal, os.listdir("/proc")):  # noqa: PTH208 - as above
        with suppress(OSError):  # it has ended
            stat = (
                read_start(f"/proc/{name}/stat")
                .rpartition(b")")[2]
                .split(None, STAT_START_TIME + 1)
            )
            process = RunningProcess(int(name), stat[STAT_START_TIME])
            table.setdefault(int(stat[STAT_PPID]), []).append(process)
    return table


def read_start(path: str) -> bytes:
    """Read the first bytes of a file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, STAT_BYTES)
    finally:
        os.close(descriptor)


def descendants(pid: int, table: Mapping[int, list[RunningProcess]]) -> set[RunningProcess]:
    """Return all processes below one."""
    found: set[RunningProcess] = set()
    parents = [pid]
    while parents:
        children = table.get(parents.pop(), [])
        found.update(children)
        parents.extend(child.pid for child in children)
    return found


def family(
    server: EmbeddedServer, table: Mapping[int, list[RunningProcess]]
) -> set[RunningProcess]:
    """Return a server's guardian and all below it: workers replace their children as they like."""
    try:
        guardian = server.guardian_pid
    except RuntimeError:  # it is not running
        return set()
    ours = [child for child in table.get(os.getpid(), []) if child.pid == guardian]
    return {*ours, *descendants(guardian, table)}


def is_standard_helper(process: RunningProcess, table: Mapping[int, list[RunningProcess]]) -> bool:
    """Return whether *process* is multiprocessing's fork server or resource tracker."""
    if process not in table.get(os.getpid(), []):
        return False
    try:
        line = read_start(f"/proc/{process.pid}/cmdline")
    except OSError:  # it has ended
        return True
    return any(name in line for name in STANDARD_HELPERS)


def describe(one: threading.Thread | RunningProcess) -> str:
    """Describe a thread or process, so that a reader finds the code that left it."""
    if isinstance(one, threading.Thread):
        return f"thread {one.name}"
    try:
        process = psutil.Process(one.pid)
        return f"process {one.pid} ({process.status()}): {' '.join(process.cmdline())[:200]}"
    except psutil.NoSuchProcess:
        return f"process {one.pid}, gone by now"
