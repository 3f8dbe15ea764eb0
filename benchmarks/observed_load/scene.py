"""Servers, two workers and a Prometheus, with faults that can be switched on and off."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.e2e.instant import ROOT
from tests.support import poison
from tests.support.faulty_s3 import FaultyS3, faulty_s3
from tests.support.prometheus import PrometheusServer
from tests.support.receiver import Receiver, running_receiver
from tests.support.service import READY_WITHIN_S, Service, running_service

from labelyard import Client
from labelyard_worker.local.worker_process import WorkerProcess

# The real worker and the lite checkpoint; jobs of some tenants misbehave (tests/support/apps).
APP: Final = "tests.support.apps.instant_worker"
COMMAND: Final = (
    *(sys.executable, "-m", "celery", "-A", APP, "worker"),
    *("--without-mingle", "--without-gossip", "--loglevel", "WARNING"),
)
WEBHOOK_SECRET: Final = "whsec_YSBrZXkgb2YgYXQgbGVhc3QgMjQgYnl0ZXM="
NOBODY: Final = "127.0.0.1:9"
SCRAPE_EVERY_S: Final = 1.0
# Short limits, so that faults and their repair fit into minutes.
SETTINGS: Final = {
    "concurrency": "32",
    "visibility_timeout_s": "15",
    "reconcile_after_s": "5",
    "reconcile_every_s": "2",
    "max_attempts": "3",
    "image_retries": "0",
    "image_timeout_s": "4",
    "storage_wait_s": "20",
    "quarantine_after": "2",
    "dead_after": "1",
    "drain_s": "10",
    "image_cache_bytes": "200000",
    "webhook_secret": WEBHOOK_SECRET,
}


@dataclass
class Scene:
    """All parts of a run.

    Attributes:
        faults: Faults of the object storage, as workers see it.
        receiver: Receiver of webhooks that answers.
        workers: Two workers, which may be stopped and started.
    """

    service: Service
    faults: FaultyS3
    receiver: Receiver
    prometheus: PrometheusServer
    workers: list[WorkerProcess] = field(default_factory=list)

    def client(self, **settings: str) -> Client:
        """Make a producer; the caller closes it."""
        return self.service.client(**settings)

    def metrics_urls(self) -> list[str]:
        """Return the addresses that Prometheus scrapes."""
        return [f"{worker.health_url}/metrics" for worker in self.workers]


@contextmanager
def running_scene() -> Iterator[Scene]:
    """Run everything while the block runs; data is removed afterwards."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="labelyard-load-")))
        service = stack.enter_context(running_service(folder / "service"))
        faults, storage_port = stack.enter_context(faulty_s3(service.seaweed.port))
        receiver = stack.enter_context(running_receiver())
        prometheus = PrometheusServer(folder / "prometheus", targets=[], every_s=SCRAPE_EVERY_S)
        scene = Scene(service, faults, receiver, prometheus)
        (folder / "flags").mkdir()
        host = receiver.url.removesuffix("/hook")
        for number in range(2):
            worker = service.worker(
                name=f"worker-{number}",
                command=COMMAND,
                variables={
                    "PYTHONPATH": str(ROOT),
                    "AWS_ENDPOINT_URL": f"http://127.0.0.1:{storage_port}",
                    "LABELYARD_EMBEDDINGS_URL": service.valkey.url_of(2),
                    "TEST_EFFECTS": str(folder / "effects.log"),
                    "TEST_FLAGS": str(folder / "flags"),
                    "TEST_DECODER": poison.DECODER,
                    "LABELYARD_CHECKPOINT": os.environ.get("LABELYARD_CHECKPOINT", "lite"),
                },
                webhook_hosts=f"{host},http://{NOBODY}",
                **SETTINGS,
            )
            stack.callback(worker.stop)
            scene.workers.append(worker.start(within_s=READY_WITHIN_S))
        prometheus.set_targets([f"127.0.0.1:{worker.port}" for worker in scene.workers])
        stack.enter_context(prometheus)
        yield scene
