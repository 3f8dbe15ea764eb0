"""Servers, workers that may be killed, and many small pictures, for the proofs of runs."""

import asyncio
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from obstore.store import S3Store
from tests.support import pictures
from tests.support.poison import DECODER
from tests.support.service import Service, running_service

from benchmarks.folders import REPOSITORY
from labelyard import Client
from labelyard.ledger import Ledger, connect
from labelyard.runs.ledger import RunLedger
from labelyard_worker.cli import CELERY_FLAGS
from labelyard_worker.local.servers import SeaweedServer
from labelyard_worker.local.worker_process import WorkerProcess

NAMESPACE: Final = "proof"
APP: Final = "benchmarks.runs.noting_worker"
COMMAND: Final = (sys.executable, "-m", "celery", "-A", APP, "worker", *CELERY_FLAGS)
# Short times until a dead worker's work comes again: what they are does not change what is lost.
QUICK_RECOVERY: Final = {
    "visibility_timeout_s": "6",
    "reconcile_after_s": "2",
    "reconcile_every_s": "1",
    "log_level": "warning",
}
DISTINCT: Final = 300
UPLOADS_AT_ONCE: Final = 48
PICTURE_PX: Final = (48, 32)
LOOK_EVERY_S: Final = 0.2
READY_WITHIN_S: Final = 400.0


@dataclass
class Rig:
    """One service with its workers.

    Attributes:
        notes: File that workers append a line to for each part of a shard that they scored.
        restarts: Number of workers that the supervisor has started again.
    """

    service: Service
    workers: list[WorkerProcess]
    notes: Path
    restarts: int = 0
    _locks: dict[int, threading.Lock] = field(default_factory=dict)

    def client(self) -> Client:
        """Make a producer; the caller closes it."""
        return self.service.client(namespace=NAMESPACE)

    def ledger(self) -> "RunLedger":
        """Open the ledger, for what clients need not know."""
        settings = self.service.client_settings(namespace=NAMESPACE)
        return RunLedger(Ledger(connect(settings), settings))

    def kill_worker(self, number: int) -> None:
        """Kill a worker as a crash would, and start it again."""
        self.workers[number].kill()
        self.workers[number].start(within_s=READY_WITHIN_S)

    @contextmanager
    def supervised(self) -> Iterator[None]:
        """Start each worker again that ended by itself, as a supervisor does."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(LOOK_EVERY_S):
                for worker in self.workers:
                    if not worker.is_running():
                        worker.kill()
                        worker.start(within_s=READY_WITHIN_S)
                        self.restarts += 1

        thread = threading.Thread(target=watch, name="supervisor")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def scored(self) -> list[tuple[str, int, float]]:
        """Read the notes: shard, number of lines and time of each part that was scored."""
        found = []
        for line in self.notes.read_text().splitlines():
            event, what, _, _, at = line.split()
            if event == "scored":
                shard, _, count = what.rpartition(":")
                found.append((shard, int(count), float(at)))
        return found


@contextmanager
def running_rig(
    *, workers: int, settings: Mapping[str, str] | None = None, misbehaves: bool = False
) -> Iterator[Rig]:
    """Run servers and instant workers while the block runs; data is removed afterwards.

    Args:
        workers: Number of workers.
        settings: Lower-case names of LABELYARD_ variables.
        misbehaves: Whether files may order the decoder to crash or to hang.
    """
    with tempfile.TemporaryDirectory(prefix="labelyard-runs-") as name:
        folder = Path(name)
        flags, notes = folder / "flags", folder / "notes.log"
        flags.mkdir()
        notes.touch()
        with running_service(folder / "service") as service:
            os.environ.update(
                {key: value for key, value in service.variables.items() if key[:3] == "AWS"}
            )
            variables = {
                "PYTHONPATH": os.pathsep.join(
                    [str(REPOSITORY / part) for part in ("", "producer", "worker")]
                ),
                "TEST_EFFECTS": str(notes),
                "TEST_FLAGS": str(flags),
                **({"TEST_DECODER": DECODER} if misbehaves else {}),
            }
            chosen = {"namespace": NAMESPACE, **QUICK_RECOVERY, **(settings or {})}
            processes = [
                service.worker(
                    name=f"worker-{number}", command=COMMAND, variables=variables, **chosen
                )
                for number in range(workers)
            ]
            rig = Rig(service, processes, notes)
            try:
                for process in processes:
                    process.start(within_s=READY_WITHIN_S)
                yield rig
            finally:
                for process in processes:
                    process.stop()


def small_pictures(count: int = DISTINCT) -> list[bytes]:
    """Make small JPEGs, all different."""
    found = [pictures.jpeg(PICTURE_PX, seed=seed) for seed in range(2 * count)]
    return list(dict.fromkeys(found))[:count]


def upload(service: Service, bodies: Iterable[tuple[str, bytes]]) -> None:
    """Put objects into the bucket of pictures, many at once."""
    upload_to(service.seaweed, service.pictures.name, bodies)


def upload_to(seaweed: SeaweedServer, bucket: str, bodies: Iterable[tuple[str, bytes]]) -> None:
    """Put objects into a bucket, many at once."""
    store = S3Store(
        bucket,
        endpoint=seaweed.endpoint_url,
        region=seaweed.region,
        access_key_id=seaweed.access_key_id,
        secret_access_key=seaweed.secret_access_key,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )

    async def put_all() -> None:
        left = iter(bodies)

        async def put_some() -> None:
            for key, body in left:
                await store.put_async(key, body)

        await asyncio.gather(*(put_some() for _ in range(UPLOADS_AT_ONCE)))

    asyncio.run(put_all())


def wait_until(
    condition: Callable[[], Any], *, within_s: float, what: str, every_s: float = LOOK_EVERY_S
) -> Any:
    """Wait for a condition to hold.

    Raises:
        TimeoutError: It did not hold in time.
    """
    due = time.monotonic() + within_s
    while not (found := condition()):
        if time.monotonic() > due:
            raise TimeoutError(f"not within {within_s:.0f} s: {what}")
        time.sleep(every_s)
    return found


def say(text: str) -> None:
    """Print a line at once, with the time."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def check(is_true: bool, claim: str, problems: list[str]) -> None:
    """Print whether a claim holds; one that does not is a problem."""
    say(f"{'ok' if is_true else 'WRONG'}: {claim}")
    if not is_true:
        problems.append(claim)


def joined(lines: Sequence[str]) -> bytes:
    """Make a manifest of lines."""
    return ("\n".join(lines) + "\n").encode()


@contextmanager
def open_ledger(rig: Rig) -> Iterator[RunLedger]:
    """Open the ledger while the block runs."""
    ledger = rig.ledger()
    with closing(ledger.ledger.client):
        yield ledger
