"""Fleet: one worker process for each device of a machine, as one command."""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from types import FrameType

from labelyard.errors import ServiceConfigError
from labelyard_worker.cpu_budget import usable_cores

log = logging.getLogger(__name__)

LIBC = ctypes.CDLL(None)  # here: loading is not safe between fork and exec
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
LOOK_EVERY_S = 0.2
# A worker that exits sooner than this did no work: wait before the next start.
USEFUL_S = 30.0
PAUSE_S = 5.0


def parse_devices(wanted: str) -> list[str]:
    """Read ``all``, or ``cuda:0,cuda:1``, or ``cpu,cpu``.

    Raises:
        ServiceConfigError: There is no CUDA device, or a name is not that of a device.
    """
    if wanted != "all":
        names = [name.strip() for name in wanted.split(",") if name.strip()]
        if not names:
            raise ServiceConfigError("--devices names none: write all, or cuda:0,cuda:1")
        for name in names:
            _check_device(name)
        return names
    import torch

    count = torch.cuda.device_count()
    if not count:
        raise ServiceConfigError(
            "--devices all: torch sees no CUDA device here; write cpu, or cpu,cpu"
        )
    return [f"cuda:{index}" for index in range(count)]


def _check_device(name: str) -> None:
    """Refuse a device that no worker could start on; the worker would be restarted for ever."""
    kind, _, index = name.partition(":")
    if name != "cpu" and not (kind == "cuda" and index.isascii() and index.isdigit()):
        raise ServiceConfigError(
            f"--devices: {name!r} is not a device: write all, or cpu and cuda:N with commas between"
        )


def divide_cores(
    devices: Sequence[str], environ: Mapping[str, str], *, cores: int
) -> dict[str, str]:
    """Share *cores* among CPU members: each would take all of them.

    Args:
        devices: Devices of all members.
        environ: Variables that the operator set; they stay as they are.
        cores: Number of cores to share.

    Returns:
        Variables for each CPU member; none where one has the cores to itself.
    """
    members = devices.count("cpu")
    if members < 2:
        return {}
    share = str(max(1, cores // members))
    variables = {
        "LABELYARD_MODEL_THREADS": share,
        "LABELYARD_MODEL_STREAMS": "1",
        "LABELYARD_INTAKE_CHILDREN": share,
    }
    return {name: value for name, value in variables.items() if name not in environ}


class FleetWorker:
    """Worker process of the fleet, restarted when it exits."""

    def __init__(self, device: str, *, health_port: int, command: Sequence[str]) -> None:
        self.device = device
        self.environment = {
            **os.environ,
            "LABELYARD_DEVICE": device,
            "LABELYARD_HEALTH_PORT": str(health_port),
        }
        self._command = list(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._not_before = 0.0
        self._last_code = 0

    def start(self) -> None:
        """Start the process; it gets SIGTERM when the fleet dies."""
        self._started_at = time.monotonic()
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            self._command, env=self.environment, preexec_fn=partial(_die_with_parent, os.getpid())
        )

    def keep_running(self) -> None:
        """Restart the process if it exited: at once if it ran for USEFUL_S, else after PAUSE_S."""
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
            self._last_code = to_exit_code(code)
            self._process = None

    def drain(self) -> None:
        """Send SIGTERM to the worker, so that it drains."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Wait for the process to end; return its exit code, or the last one if none runs."""
        return self._last_code if self._process is None else to_exit_code(self._process.wait())


def to_exit_code(code: int) -> int:
    """Return the exit code that a shell would: 128 more than the signal that ended a process.

    SIGTERM counts as a clean end: a worker may be drained before its handler is installed.
    """
    if code == -signal.SIGTERM:
        return 0
    return 128 - code if code < 0 else code


def _die_with_parent(fleet_pid: int) -> None:
    """Have the kernel end this process with its parent; runs between fork and exec."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != fleet_pid:  # it died before the kernel knew
        os._exit(1)


def share_cores(members: Sequence[FleetWorker]) -> None:
    """Assign each CPU member its share of the cores, unless the operator shared them."""
    shares = divide_cores([member.device for member in members], os.environ, cores=usable_cores())
    for member in members:
        if member.device == "cpu":
            member.environment |= shares


def run_fleet(members: Sequence[FleetWorker]) -> int:
    """Run all members until SIGTERM, SIGINT or SIGHUP, then drain them.

    Returns:
        The worst exit code.
    """
    ended = threading.Event()

    def end(signal_number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, end)
    share_cores(members)
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
