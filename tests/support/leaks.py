"""Find leaks of a test: Redis keys without a TTL, threads, processes."""

import fnmatch
import threading
import time
from collections.abc import Iterable

import psutil  # type: ignore[import-untyped]
import redis

from labelyard_worker.local.servers import EmbeddedServer

LEFTOVERS_WITHIN_S = 2.0
DATABASES = 16

# kombu's own: it gives them no TTL. Its queues are lists, and no other key of the broker is one.
# What is sorted by tenant goes with the lists that it belongs to; weights stay until others come.
BROKER_KEYS = ("*_kombu.binding.*", "*unacked*", "*:turns", "*:known", "*sorted", "*.weights")
BROKER_DATABASE = 0

# One a process, kept by the standard library until the process ends; their children count.
STANDARD_HELPERS = ("multiprocessing.forkserver", "multiprocessing.resource_tracker")

Remains = set[threading.Thread | psutil.Process]


def keys_without_ttl(clients: Iterable[redis.Redis]) -> list[str]:
    """Return the keys that nothing will ever remove, as ``database:key``."""
    found = []
    for client in clients:
        database = client.connection_pool.connection_kwargs["db"]
        for key in client.scan_iter(count=1000):
            if client.ttl(key) == -1 and not is_of_broker(client, key, database=database):
                found.append(f"{database}:{key.decode(errors='replace')}")
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
    """Return the processes below this one, without *kept* servers and Python's own helpers."""
    ours = psutil.Process()
    of_kept = {process for server in kept for process in family(server)}
    return {
        child
        for child in set(ours.children(recursive=True)) - of_kept
        if not is_standard_helper(child, parent=ours)
    }


def family(server: EmbeddedServer) -> list[psutil.Process]:
    """Return a server's guardian and all below it: workers replace their children as they like."""
    try:
        guardian = psutil.Process(server.guardian_pid)
        return [guardian, *guardian.children(recursive=True)]
    except (RuntimeError, psutil.NoSuchProcess):  # it is not running
        return []


def is_standard_helper(process: psutil.Process, *, parent: psutil.Process) -> bool:
    """Return whether *process* is multiprocessing's fork server or resource tracker."""
    try:
        line = " ".join(process.cmdline())
        return process.ppid() == parent.pid and any(name in line for name in STANDARD_HELPERS)
    except psutil.NoSuchProcess:
        return True


def describe(one: threading.Thread | psutil.Process) -> str:
    """Describe a thread or process, so that a reader finds the code that left it."""
    if isinstance(one, threading.Thread):
        return f"thread {one.name}"
    try:
        return f"process {one.pid} ({one.status()}): {' '.join(one.cmdline())[:200]}"
    except psutil.NoSuchProcess:
        return f"process {one.pid}, gone by now"
