"""Environment of a run: three servers, workers behind links that can fail, pictures, producers."""

import os
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import redis

from labelyard.client import Client
from labelyard.settings import ClientSettings
from labelyard_worker.local.servers import HOST, SeaweedServer, ValkeyServer
from tests.chaos.brokers import BROKERS, Broker, plain_redis
from tests.chaos.slots import Link, Links, Slot
from tests.support import pictures
from tests.support.slow_receiver import SlowReceiver

ROOT: Final = Path(__file__).parents[2]
BUCKET: Final = "pictures"
RESULTS: Final = "results"
PICTURES: Final = 8
# Short, so that minutes show what takes hours in production.
SETTINGS: Final = {
    "LABELYARD_CONCURRENCY": "8",
    "LABELYARD_INTAKE_CHILDREN": "1",
    "LABELYARD_IMAGE_CACHE_BYTES": "0",  # storage and model are to be asked each time
    "LABELYARD_IMAGE_TIMEOUT_S": "5",
    "LABELYARD_JOB_TIMEOUT_S": "6",
    "LABELYARD_INFERENCE_TIMEOUT_S": "4",
    "LABELYARD_DRAIN_S": "5",
    "LABELYARD_VISIBILITY_TIMEOUT_S": "8",
    "LABELYARD_RECONCILE_EVERY_S": "1",
    "LABELYARD_RECONCILE_AFTER_S": "5",
    "LABELYARD_RESULT_BUCKETS": RESULTS,
}
WEBHOOK_SECRET: Final = "whsec_YSBrZXkgb2YgYXQgbGVhc3QgMjQgYnl0ZXM="
# Celery's own Redis transport and no reconciler, to show that the suite can fail.
STOCK_SETTINGS: Final = {"LABELYARD_ATOMIC_CLAIM": "0", "LABELYARD_STOCK_CELERY": "1"}
# A record that was answered for must outlive kill -9; the broker may lose a second.
LEDGER_OPTIONS: Final = {"appendfsync": "always"}
# RabbitMQ takes a worker that is silent for twice as long for dead: longer than LABELYARD_DRAIN_S,
# since a worker that drains sends none.
HEARTBEAT_S: Final = "4"


@dataclass
class Environment:
    """Servers, workers and pictures that faults are inflicted on.

    Attributes:
        ledger_admin: Client of the ledger that passes no link.
        receiver: Server that webhooks are sent to.
        locks: A lock for each server, held by the fault that works on it.
        disk: Folder on a disk of its own that holds the broker's data, if there is one.
        damaged_files: How often the broker could not read its file, and began without.
    """

    folder: Path
    broker: Broker
    ledger: ValkeyServer
    storage: SeaweedServer
    slots: list[Slot]
    ledger_admin: "redis.Redis"
    uris: list[str]
    receiver: SlowReceiver
    disk: Path | None = None
    damaged_files: int = 0
    locks: dict[str, threading.Lock] = field(
        default_factory=lambda: {
            name: threading.Lock() for name in ("broker", "ledger", "storage", "model", "receiver")
        }
    )

    @property
    def effects_path(self) -> Path:
        """Log that workers note their effects in."""
        return self.folder / "effects.log"

    @property
    def flags(self) -> Path:
        """Folder of orders to the workers."""
        return self.folder / "flags"

    def client(self) -> Client:
        """Make a producer, which passes no link; the caller closes it."""
        settings = ClientSettings(
            broker_url=self.broker.url,
            ledger_url=self.ledger.url,
            publish_timeout_s=self.broker.publish_timeout_s,
        )
        return Client(settings)


@contextmanager
def start_environment(
    folder: Path,
    *,
    workers: int,
    settings: dict[str, str] | None = None,
    broker_kind: str = "redis",
    disk: Path | None = None,
) -> Iterator[Environment]:
    """Start the servers, store the pictures, and begin to keep workers running.

    Args:
        folder: Holds all data and logs.
        settings: Added to ``SETTINGS``.
        broker_kind: What carries the messages, one of ``BROKERS``.
        disk: Folder on a small disk of its own, for the broker's data.
    """
    with ExitStack() as stack:
        broker_folder = disk / "broker" if disk else folder / "broker"
        broker: Broker = BROKERS[broker_kind](broker_folder)
        stack.enter_context(broker)
        stack.callback(broker.disconnect)
        ledger = stack.enter_context(ValkeyServer(folder / "ledger", options=LEDGER_OPTIONS))
        storage = stack.enter_context(SeaweedServer(folder / "storage"))
        environment = Environment(
            folder,
            broker,
            ledger,
            storage,
            slots=[],
            ledger_admin=stack.enter_context(closing(plain_redis(ledger))),
            uris=store_pictures(storage),
            receiver=stack.enter_context(SlowReceiver()),
            disk=disk,
        )
        environment.flags.mkdir(exist_ok=True)
        for number in range(workers):
            slot = make_slot(environment, str(number), settings={**SETTINGS, **(settings or {})})
            environment.slots.append(slot)
            stack.callback(slot.close)
            slot.start()
        yield environment
        close_all(environment.slots)


def make_slot(environment: Environment, name: str, *, settings: dict[str, str]) -> Slot:
    """Make a worker with its own links to the servers."""
    clock_path = environment.folder / f"clock-{name}"
    clock_path.write_bytes(struct.pack("d", 0.0))
    links = Links(Link(environment.broker), Link(environment.ledger), Link(environment.storage))
    variables = {
        **settings,
        "LABELYARD_BROKER_URL": environment.broker.url_at(links.broker.port),
        "LABELYARD_LEDGER_URL": f"redis://{HOST}:{links.ledger.port}/0",
        "LABELYARD_S3_ENDPOINT_URL": f"http://{HOST}:{links.storage.port}",
        "LABELYARD_S3_REGION": environment.storage.region,
        "LABELYARD_WEBHOOK_SECRET": WEBHOOK_SECRET,
        "LABELYARD_WEBHOOK_HOSTS": f"http://{environment.receiver.authority}",
        "AWS_ACCESS_KEY_ID": environment.storage.access_key_id,
        "AWS_SECRET_ACCESS_KEY": environment.storage.secret_access_key,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "TEST_EFFECTS": str(environment.effects_path),
        "TEST_FLAGS": str(environment.flags),
        "TEST_SLOT": name,
        "TEST_CLOCK": str(clock_path),
        "TEST_HEARTBEAT_S": HEARTBEAT_S,
    }
    folder = environment.folder / f"worker-{name}"
    command = worker_command(environment.broker.app)
    return Slot(name, folder, links, command=command, variables=variables, clock_path=clock_path)


def worker_command(app: str) -> tuple[str, ...]:
    """Build the command of a worker process."""
    flags = ("--without-mingle", "--without-gossip", "--loglevel", "WARNING")
    return (sys.executable, "-m", "celery", "-A", app, "worker", *flags)


def store_pictures(storage: SeaweedServer) -> list[str]:
    """Store a handful of small pictures that all jobs share."""
    with closing(storage.s3_client()) as s3:
        for bucket in (BUCKET, RESULTS):
            s3.create_bucket(Bucket=bucket)
        for number in range(PICTURES):
            body = pictures.jpeg((64, 48), seed=number)
            s3.put_object(Bucket=BUCKET, Key=f"{number}.jpg", Body=body)
    return [f"s3://{BUCKET}/{number}.jpg" for number in range(PICTURES)]


def close_all(slots: list[Slot]) -> None:
    """End all workers at once: each may take its grace."""
    threads = [threading.Thread(target=slot.close) for slot in slots]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
