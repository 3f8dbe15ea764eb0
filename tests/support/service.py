"""The whole service for tests: servers of its own, buckets, workers as real processes."""

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labelyard import Client
from labelyard.settings import ClientSettings
from labelyard_worker.local.embedded import choose_ports
from labelyard_worker.local.servers import SeaweedServer, ValkeyServer
from labelyard_worker.local.worker_process import WorkerProcess
from tests.support.buckets import Bucket

PICTURES = "pictures"
PRIVATE = "private"
RESULTS = "results"
WATCHED = "watched/"
NOTIFIED_SECRET = "the-secret-of-seaweedfs"
READY_WITHIN_S = 90.0


@dataclass(frozen=True)
class Service:
    """Valkey and SeaweedFS, and what leads producers and workers to them.

    The worker's key pair may read ``pictures`` and write ``results``; ``private`` is
    closed to it.

    Attributes:
        s3: boto3 client with the right to everything.
        variables: The environment of producers and workers.
        notified_port: Port that SeaweedFS sends notifications to, of keys below ``WATCHED`` in
            ``pictures``; nobody listens there but a test.
    """

    folder: Path
    valkey: ValkeyServer
    seaweed: SeaweedServer
    s3: Any
    variables: Mapping[str, str]
    notified_port: int
    _stack: ExitStack = field(repr=False)

    @property
    def pictures(self) -> Bucket:
        """The bucket that the worker may read."""
        return Bucket(PICTURES, self.s3)

    @property
    def private(self) -> Bucket:
        """The bucket that the worker may not read."""
        return Bucket(PRIVATE, self.s3)

    @property
    def results(self) -> Bucket:
        """The bucket that the worker may write."""
        return Bucket(RESULTS, self.s3)

    def client(self, **settings: Any) -> Client:
        """Make a producer; the caller closes it."""
        return Client(self.client_settings(**settings))

    def client_settings(self, **settings: Any) -> ClientSettings:
        """Make a producer's settings."""
        return ClientSettings(
            broker_url=self.variables["LABELYARD_BROKER_URL"],
            ledger_url=self.variables["LABELYARD_LEDGER_URL"],
            **settings,
        )

    def worker(
        self,
        *,
        name: str = "worker",
        command: tuple[str, ...] = (),
        variables: Mapping[str, str] | None = None,
        **settings: str,
    ) -> WorkerProcess:
        """Describe a worker; start it, or use it as a context.

        Args:
            name: Folder of its log.
            variables: Other variables of its environment.
            settings: Lower-case names of LABELYARD_ variables.
        """
        environment = {
            **self.variables,
            **{f"LABELYARD_{key.upper()}": value for key, value in settings.items()},
            **(variables or {}),
        }
        more: dict[str, Any] = {"command": command} if command else {}
        return WorkerProcess(self.folder / name, variables=environment, **more)


@contextmanager
def running_service(folder: Path) -> Iterator[Service]:
    """Run the servers while the block runs."""
    folder.mkdir(parents=True, exist_ok=True)
    worker_keys = _write_identities(folder / "seaweedfs")
    [notified_port] = choose_ports(1)
    _write_notifications(folder / "seaweedfs", port=notified_port)
    with ExitStack() as stack:
        valkey = stack.enter_context(ValkeyServer(folder / "valkey"))
        seaweed = stack.enter_context(SeaweedServer(folder / "seaweedfs"))
        s3 = stack.enter_context(closing(seaweed.s3_client()))
        for bucket in (PICTURES, PRIVATE, RESULTS):
            s3.create_bucket(Bucket=bucket)
        variables = {
            "LABELYARD_BROKER_URL": valkey.url_of(0),
            "LABELYARD_LEDGER_URL": valkey.url_of(1),
            "LABELYARD_EMBEDDINGS_URL": valkey.url_of(2),
            "LABELYARD_RESULT_BUCKETS": RESULTS,
            "AWS_ENDPOINT_URL": seaweed.endpoint_url,
            "AWS_DEFAULT_REGION": seaweed.region,
            "AWS_ACCESS_KEY_ID": worker_keys["accessKey"],
            "AWS_SECRET_ACCESS_KEY": worker_keys["secretKey"],
        }
        yield Service(folder, valkey, seaweed, s3, variables, notified_port, stack)


def _write_notifications(folder: Path, *, port: int) -> None:
    """Let SeaweedFS send notifications, as its administrator would set it."""
    (folder / "notification.toml").write_text(
        f"""
[notification.webhook]
enabled = true
endpoint = "http://127.0.0.1:{port}/ingest"
bearer_token = "{NOTIFIED_SECRET}"
event_types = ["create", "update"]
path_prefixes = ["/buckets/{PICTURES}/{WATCHED}"]
"""
    )


def _write_identities(folder: Path) -> dict[str, str]:
    """Give the servers an administrator and a worker with few rights."""
    folder.mkdir(parents=True, exist_ok=True)
    admin, worker = (
        {"accessKey": secrets.token_hex(10).upper(), "secretKey": secrets.token_urlsafe(30)}
        for _ in range(2)
    )
    identities = [
        {
            "name": "labelyard",
            "credentials": [admin],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        },
        {
            "name": "worker",
            "credentials": [worker],
            "actions": [
                f"Read:{PICTURES}",
                f"List:{PICTURES}",
                f"Read:{RESULTS}",
                f"List:{RESULTS}",
                f"Write:{RESULTS}",
            ],
        },
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    return worker
