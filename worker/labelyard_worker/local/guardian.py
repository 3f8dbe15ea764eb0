"""Keep one server running exactly as long as the process that started it.

Run by its path, never imported: ``guardian.py PARENT_PID GRACE_S LEFTOVERS COMMAND...``. It writes
the server's process id on standard output, and exits with the server's code. LEFTOVERS are the
files to remove after the server, separated by colons.

Why a process: a SIGKILLed parent can clean up nothing, and Linux's parent-death signal follows
the *thread* that forked, so a server started from a short-lived thread would die with it. This
process has one thread, so the signal is safe from here down: the server dies with its guardian,
and the guardian watches the parent.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys

PARENT_CHECK_S = 0.25
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
WATCHED_SIGNALS = {signal.SIGCHLD, signal.SIGTERM}


def prepare_server(guardian_pid: int) -> None:
    """Bind the server to its guardian; runs between fork and exec."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guardian_pid:  # it died before the line above took effect
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED_SIGNALS)


def start_server(command: list[str]) -> subprocess.Popen[bytes]:
    """Start the server with its output on our standard error, which is its log file."""
    guardian_pid = os.getpid()
    return subprocess.Popen(  # noqa: S603 - the command is our own
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        preexec_fn=lambda: prepare_server(guardian_pid),
    )


def wait_for_end(server: subprocess.Popen[bytes], *, parent_pid: int) -> None:
    """Return when the server has ended, a SIGTERM has come, or the parent is gone."""
    while server.poll() is None and os.getppid() == parent_pid:
        received = signal.sigtimedwait(WATCHED_SIGNALS, PARENT_CHECK_S)
        if received is not None and received.si_signo == signal.SIGTERM:
            return


def end(server: subprocess.Popen[bytes], *, grace_s: float) -> int:
    """End the server, gently first, and return its exit code as a shell would."""
    server.terminate()
    try:
        code = server.wait(timeout=grace_s)
    except subprocess.TimeoutExpired:
        server.kill()
        code = server.wait()
    return code if code >= 0 else 128 - code


def remove(leftovers: str) -> None:
    """Remove the files that the server may have left behind."""
    for path in filter(None, leftovers.split(os.pathsep)):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108 - pathlib takes longer to load than all else here


def main(arguments: list[str]) -> int:
    """Guard one server; see the head of this file."""
    parent_pid, grace_s, leftovers = int(arguments[0]), float(arguments[1]), arguments[2]
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED_SIGNALS)
    if os.getppid() != parent_pid:
        return 1
    server = start_server(arguments[3:])
    sys.stdout.write(f"{server.pid}\n")
    sys.stdout.close()
    wait_for_end(server, parent_pid=parent_pid)
    code = end(server, grace_s=grace_s)
    remove(leftovers)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
