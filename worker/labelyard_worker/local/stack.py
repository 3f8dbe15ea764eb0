"""The whole service on one machine: Valkey, SeaweedFS and a worker, kept by one supervisor."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from labelyard.local_stack import StackState, announce, process_started_at, withdraw
from labelyard.webhooks import new_secret
from labelyard_worker.local.servers import SeaweedServer, ServerStartError, ValkeyServer
from labelyard_worker.local.worker_process import WorkerProcess

log = logging.getLogger(__name__)

RESULTS_BUCKET = "labelyard-results"
# Webhooks go to receivers on this machine, such as that of `labelyard webhooks listen`.
LOOPBACK_HOST = "127.0.0.1"
BUCKETS = ("labelyard-uploads", RESULTS_BUCKET)
CHECK_EVERY_S = 0.2
UP_WITHIN_S = 180.0
DOWN_WITHIN_S = 60.0


class Stack:
    """The servers and the worker, started in order and stopped in reverse.

    Args:
        data_dir: Folder that keeps all data between two runs.
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.absolute()
        self.valkey = ValkeyServer(self.data_dir / "valkey", is_protected=True)
        self.seaweed = SeaweedServer(self.data_dir / "seaweedfs")
        self.worker: WorkerProcess | None = None
        self._webhook_secret = new_secret()

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables that lead producers and workers to the servers."""
        namespace = os.environ.get("LABELYARD_NAMESPACE")
        return {
            **({"LABELYARD_NAMESPACE": namespace} if namespace else {}),
            "LABELYARD_BROKER_URL": self.valkey.url_of(0),
            "LABELYARD_LEDGER_URL": self.valkey.url_of(1),
            "LABELYARD_EMBEDDINGS_URL": self.valkey.url_of(2),
            "LABELYARD_RESULT_BUCKETS": os.environ.get("LABELYARD_RESULT_BUCKETS", RESULTS_BUCKET),
            "LABELYARD_WEBHOOK_HOSTS": os.environ.get("LABELYARD_WEBHOOK_HOSTS", LOOPBACK_HOST),
            "LABELYARD_WEBHOOK_SECRET": os.environ.get("LABELYARD_WEBHOOK_SECRET")
            or self._webhook_secret,
            "AWS_ENDPOINT_URL": self.seaweed.endpoint_url,
            "AWS_ACCESS_KEY_ID": self.seaweed.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.seaweed.secret_access_key,
            "AWS_DEFAULT_REGION": self.seaweed.region,
        }

    def start(self) -> None:
        """Start the servers and the worker, and return when the worker is ready for jobs.

        Raises:
            ServerStartError: One of them did not start; the text has the end of its log.
        """
        threads = [
            threading.Thread(target=self._start_server, args=(server,))
            for server in (self.valkey, self.seaweed)
        ]
        self._errors: list[ServerStartError] = []
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._errors:
            raise self._errors[0]
        self._make_buckets()
        build_checkpoint(self.data_dir / "checkpoint.log")
        self.worker = WorkerProcess(self.data_dir / "worker", variables=self.variables)
        self.worker.start(within_s=UP_WITHIN_S)

    def _start_server(self, server: "ValkeyServer | SeaweedServer") -> None:
        try:
            server.start()
        except ServerStartError as error:
            self._errors.append(error)

    def _make_buckets(self) -> None:
        client = self.seaweed.s3_client()
        try:
            there = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
            for name in BUCKETS:
                if name not in there:
                    client.create_bucket(Bucket=name)
        finally:
            client.close()

    def keep_running(self) -> None:
        """Restart each server, and the worker, if it has died."""
        for server in (self.valkey, self.seaweed, self.worker):
            if server is not None and not server.is_running():
                log.warning("server_started_again", extra={"fields": {"server": server.name}})
                server.kill()
                server.start(within_s=UP_WITHIN_S)

    def stop(self) -> None:
        """Stop the worker, which drains, and then the servers."""
        for server in (self.worker, self.seaweed, self.valkey):
            if server is not None:
                server.stop()

    def state(self) -> StackState:
        """Describe the running stack."""
        assert self.worker is not None  # noqa: S101 - start() came first
        return StackState(
            pid=os.getpid(),
            started_at=process_started_at(os.getpid()) or 0,
            variables=self.variables,
            health_url=self.worker.health_url,
        )


def build_checkpoint(log_path: Path) -> None:
    """Build the lite checkpoint if the worker will load it and it is not there yet.

    This happens in a process of its own: it needs torch, which this process never loads.

    Raises:
        ServerStartError: It could not be built; the text has the end of its log.
    """
    if os.environ.get("LABELYARD_CHECKPOINT", "lite") != "lite":
        return
    with log_path.open("wb") as output:
        code = subprocess.call(
            [sys.executable, "-m", "labelyard_worker.vision.lite"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    if code:
        log_tail = log_path.read_text(errors="replace")[-2000:]
        raise ServerStartError("the lite checkpoint", "it could not be built", log_tail)


@contextmanager
def running_stack(data_dir: Path) -> Iterator[Stack]:
    """Run a stack while the block runs."""
    stack = Stack(data_dir)
    try:
        stack.start()
        stack.state().write(stack.data_dir)
        announce_stack(stack.data_dir)
        yield stack
    finally:
        withdraw()
        (stack.data_dir / "stack.json").unlink(missing_ok=True)
        stack.stop()


def announce_stack(data_dir: Path) -> None:
    """Announce a stack to the command ``labelyard``, which without it needs the variables."""
    try:
        announce(data_dir)
    except OSError as error:
        log.warning("stack_not_announced", extra={"fields": {"error": str(error)}})


def supervise(data_dir: Path, *, on_up: Callable[[Stack], None]) -> None:
    """Run a stack until SIGTERM, SIGINT or SIGHUP, and restart parts that die meanwhile."""
    ended, is_up = threading.Event(), threading.Event()

    def end(signal_number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's
        is_first = not ended.is_set()
        ended.set()
        if is_first and not is_up.is_set():
            raise SystemExit(128 + signal_number)  # leaves start(), which may be waiting

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, end)
    with running_stack(data_dir) as stack:
        is_up.set()
        on_up(stack)
        while not ended.wait(CHECK_EVERY_S):
            stack.keep_running()


def detach(data_dir: Path) -> StackState:
    """Start a supervisor that outlives this process, and return when it is up.

    Raises:
        ServerStartError: The stack did not start; the text has the end of its log.
    """
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    log_path = data_dir / "stack.log"
    with log_path.open("wb") as output:
        supervisor = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "labelyard_worker", "up", "--data", str(data_dir)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    until = time.monotonic() + UP_WITHIN_S
    while supervisor.poll() is None and time.monotonic() < until:
        state = StackState.read(data_dir)
        if state is not None:
            return state
        time.sleep(CHECK_EVERY_S / 4)
    end_process(supervisor)
    raise ServerStartError("the stack", "it ended or took too long", log_path.read_text()[-2000:])


def end_process(process: "subprocess.Popen[bytes]") -> None:
    """End a process, gently first."""
    process.terminate()
    try:
        process.wait(DOWN_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def take_down(data_dir: Path) -> bool:
    """Stop the stack that runs on *data_dir*; ``False`` if none does."""
    state = StackState.read(data_dir)
    if state is None:
        return False
    os.kill(state.pid, signal.SIGTERM)
    until = time.monotonic() + DOWN_WITHIN_S
    while process_started_at(state.pid) == state.started_at and time.monotonic() < until:
        time.sleep(CHECK_EVERY_S / 4)
    return process_started_at(state.pid) != state.started_at
