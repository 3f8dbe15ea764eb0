"""Harden an intake child: no signals, no privileges, no secrets, no life after the worker."""

import ctypes
import ctypes.util
import multiprocessing
import os
import select
import signal
import threading
from contextlib import suppress
from pathlib import Path

PR_SET_NO_NEW_PRIVS = 38
# Variables that a decoder needs; everything else in the environment may be a secret.
DECODER_VARIABLES = ("LANG", "LC_ALL", "LC_CTYPE", "PATH", "PYTHONHASHSEED", "TZ", "TMPDIR")
ENV_START_FIELD = 50  # of /proc/self/stat, see proc(5); counted from 1


def harden() -> None:
    """Ignore SIGTERM and SIGINT, which are sent to the whole group, and give up privileges."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    refuse_new_privileges()


def refuse_new_privileges() -> None:
    """Set ``no_new_privs``: no program that this process starts can be set-user-id."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")


def scrub_environment() -> None:
    """Remove every variable that a decoder does not need, in ``/proc/self/environ`` too.

    The fork server inherits the worker's environment: credentials, passwords in addresses,
    the key that signs webhooks. Removing a variable leaves its text in the process's first
    pages, so these are overwritten.
    """
    kept = {name: os.environ[name] for name in DECODER_VARIABLES if name in os.environ}
    if len(kept) == len(os.environ):
        return
    os.environ.clear()
    _wipe_initial_environment()
    os.environ.update(kept)


def _wipe_initial_environment() -> None:
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = (int(fields[number - 3]) for number in (ENV_START_FIELD, ENV_START_FIELD + 1))
    if 0 < start < end:
        ctypes.memset(start, 0, end - start)


def end_with_parent(pid: int) -> None:
    """End this process when process *pid* ends, from a thread of its own."""
    threading.Thread(target=_wait_for_parent, args=(pid,), daemon=True).start()


def _wait_for_parent(pid: int) -> None:
    with suppress(OSError):
        poll = select.poll()
        poll.register(os.pidfd_open(pid), select.POLLIN)
        poll.poll()
    os._exit(1)


def worker_pid() -> int:
    """Return the worker's process id, in a child of the fork server."""
    parent = multiprocessing.parent_process()
    return (parent.pid if parent is not None else None) or os.getppid()
