"""Runs one worker process for each device of a machine, as one command."""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType

from labelyard.errors import ServiceConfigError

log = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
LOOK_EVERY_S = 0.2
# A worker that ends sooner than this has not been of use: wait before the next try.
USEFUL_S = 30.0
PAUSE_S = 5.0


def devices_of(wanted: str) -> list[str]:
    """Read ``all``, or ``cuda:0,cuda:1``, or ``cpu,cpu``.

    Raises:
        ServiceConfigError: There is no CUDA device, or nothing is named.
    """
    if wanted != "all":
        names = [name.strip() for name in wanted.split(",") if name.strip()]
        if not names:
            raise ServiceConfigError("--devices names none: write all, or cuda:0,cuda:1")
        return names
    import torch

    count = torch.cuda.device_count()
    if not count:
        raise ServiceConfigError("--devices all: torch sees no CUDA device here")
    return [f"cuda:{index}" for index in range(count)]


class Member:
    """One worker of the fleet, started again when it ends."""

    def __init__(self, device: str, *, health_port: int, command: Sequence[str]) -> None:
        self.device = device
        self._environment = {
            **os.environ,
            "LABELYARD_DEVICE": device,
            "LABELYARD_HEALTH_PORT": str(health_port),
        }
        self._command = list(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._not_before = 0.0

    def start(self) -> None:
        """Start the process; it gets SIGTERM when the fleet dies."""
        self._started_at = time.monotonic()
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            self._command, env=self._environment, preexec_fn=_follow_the_fleet
        )

    def keep_running(self) -> None:
        """Start it again if it ended; at once if it was of use before."""
        if self._process is None:
            if time.monotonic() >= self._not_before:
                self.start()
            return
        code = self._process.poll()
        if code is not None:
            log.warning(
                "worker_started_again", extra={"fields": {"device": self.device, "code": code}}
            )
            lived_s = time.monotonic() - self._started_at
            self._not_before = time.monotonic() + (0 if lived_s > USEFUL_S else PAUSE_S)
            self._process = None

    def drain(self) -> None:
        """Tell it to finish."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Wait for its end, and return its exit code."""
        return 0 if self._process is None else self._process.wait()


def _follow_the_fleet() -> None:
    """Have the kernel end this process with its parent; runs between fork and exec."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def run_fleet(members: Sequence[Member]) -> int:
    """Run all members until SIGTERM or Ctrl-C, then drain them; returns the worst exit code."""
    ended = threading.Event()

    def end(signal_number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    for member in members:
        member.start()
    while not ended.wait(LOOK_EVERY_S):
        for member in members:
            member.keep_running()
    for member in members:
        member.drain()
    return max(member.wait() for member in members)


def worker_command(celery_options: Sequence[str] = ()) -> list[str]:
    """Write the command of one worker."""
    options = ["--", *celery_options] if celery_options else []
    return [sys.executable, "-m", "labelyard_worker", "start", *options]
