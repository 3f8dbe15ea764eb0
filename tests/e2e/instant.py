"""A worker whose model answers at once, with storage behind a link that can fail."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from labelyard import Client
from labelyard_worker.local.worker_process import WorkerProcess
from tests.support import pictures, poison
from tests.support.proxy import TcpProxy
from tests.support.service import READY_WITHIN_S, Service

ROOT: Final = Path(__file__).parents[2]
NAMESPACE: Final = "instant"
APP: Final = "tests.support.apps.instant"
COMMAND: Final = (
    *(sys.executable, "-m", "celery", "-A", APP, "worker"),
    *("--without-mingle", "--without-gossip", "--loglevel", "WARNING"),
)
WEBHOOK_KEY: Final = b"a key of at least 24 bytes"
WEBHOOK_SECRET: Final = "whsec_YSBrZXkgb2YgYXQgbGVhc3QgMjQgYnl0ZXM="
# The first failure is the result, and every limit is short.
SETTINGS: Final = {
    "namespace": NAMESPACE,
    "max_attempts": "1",
    "image_retries": "0",
    "image_timeout_s": "3",
    "storage_wait_s": "0",
    "job_timeout_s": "4",
    "intake_children": "1",
    "image_cache_bytes": "0",
    "quarantine_after": "1",
    "dead_after": "1",
    "drain_s": "20",
    "webhook_hosts": "127.0.0.1",
    "delivery_first_pause_s": "0.1",
    "delivery_longest_pause_s": "0.5",
    "delivery_breaker_pause_s": "0.2",
    "webhook_secret": WEBHOOK_SECRET,
    "celery_follow_ups": "shop.after@shop",
}


@dataclass(frozen=True)
class InstantService:
    """The worker, and what it can be given or denied.

    Attributes:
        storage: The link between its children and the object storage.
        flags: Folder of orders to the worker; see ``tests.support.apps.orders``.
    """

    service: Service
    worker: WorkerProcess
    storage: TcpProxy
    flags: Path

    def client(self) -> Client:
        """Make a producer for this worker; the caller closes it."""
        return self.service.client(namespace=NAMESPACE)

    def picture(self, name: str = "picture.jpg") -> str:
        """Store a small picture that no worker has seen, and return its address."""
        return self.service.pictures.put(name, pictures.jpeg() + os.urandom(8))

    def file(self, raw: bytes) -> str:
        """Store a file that the decoder may obey, see ``tests.support.poison``."""
        return self.service.pictures.put(f"file-{raw.hex()[:20]}", raw)

    def order(self, order: str) -> None:
        """Give the process an order."""
        (self.flags / order).touch()

    def log(self) -> str:
        """Read the worker's output."""
        return self.worker.log_path.read_text()

    def has_begun(self, job_id: str) -> bool:
        """Return whether an attempt at the job is past the point where it can be given back."""
        log = self.service.folder / "effects.log"  # made by the first attempt
        return log.exists() and f"begin {job_id} " in log.read_text()

    @contextmanager
    def storage_away(self) -> Iterator[None]:
        """Have nobody answer at the storage's address, while the block runs."""
        self.storage.stop()
        try:
            yield
        finally:
            self.storage.start()


@contextmanager
def instant_service(service: Service) -> Iterator[InstantService]:
    """Run the worker while the block runs."""
    flags = service.folder / "flags"
    flags.mkdir()
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with TcpProxy(service.seaweed.port) as storage:
        variables = {
            "PYTHONPATH": python_path,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{storage.port}",
            "TEST_EFFECTS": str(service.folder / "effects.log"),
            "TEST_FLAGS": str(flags),
            "TEST_DECODER": poison.DECODER,
        }
        worker = service.worker(name="instant", command=COMMAND, variables=variables, **SETTINGS)
        with worker.start(within_s=READY_WITHIN_S):
            yield InstantService(service, worker, storage, flags)
