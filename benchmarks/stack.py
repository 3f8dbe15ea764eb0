"""The servers that all systems share in one run: one Valkey, one SeaweedFS, the same pictures."""

import os
import tempfile
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from benchmarks.folders import REPOSITORY
from benchmarks.pictures import Picture
from labelyard.settings import ClientSettings
from labelyard_worker.local.servers import SeaweedServer, ValkeyServer

BUCKET = "benchmark"
CALLERS_PREFIXES = ("LABELYARD_", "AWS_", "HF_", "TRANSFORMERS_", "CELERY_", "OMP_", "MALLOC_")
FIXED_VARIABLES = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
BROKER, LEDGER, CELERY_BROKER, CELERY_RESULTS, CONTROL = range(5)


def isolate(environ: MutableMapping[str, str]) -> None:
    """Remove the caller's variables for labelyard and its libraries, and set the fixed ones."""
    for name in [name for name in environ if name.startswith(CALLERS_PREFIXES)]:
        del environ[name]
    environ.update(FIXED_VARIABLES)


@dataclass(frozen=True)
class Stack:
    """Servers, and what leads to them.

    Attributes:
        folder: For logs and data; removed at the end.
        control: Redis client of the database that carries readiness and commands.
    """

    folder: Path
    valkey: ValkeyServer
    seaweed: SeaweedServer
    s3: Any
    control: "redis.Redis"

    @property
    def variables(self) -> Mapping[str, str]:
        """Environment that leads every system to the servers."""
        return {
            "LABELYARD_BROKER_URL": self.valkey.url_of(BROKER),
            "LABELYARD_LEDGER_URL": self.valkey.url_of(LEDGER),
            "AWS_ENDPOINT_URL": self.seaweed.endpoint_url,
            "AWS_DEFAULT_REGION": self.seaweed.region,
            "AWS_ACCESS_KEY_ID": self.seaweed.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.seaweed.secret_access_key,
            "BENCH_BROKER": self.valkey.url_of(CELERY_BROKER),
            "BENCH_RESULTS": self.valkey.url_of(CELERY_RESULTS),
            "BENCH_CONTROL": self.valkey.url_of(CONTROL),
            "BENCH_BUCKET": BUCKET,
            "PYTHONPATH": os.pathsep.join(
                [str(REPOSITORY / part) for part in ("", "producer", "worker")]
                + [path for path in [os.environ.get("PYTHONPATH")] if path]
            ),
        }

    def client_settings(self, namespace: str) -> ClientSettings:
        """Make a producer's settings."""
        return ClientSettings(
            broker_url=self.valkey.url_of(BROKER),
            ledger_url=self.valkey.url_of(LEDGER),
            namespace=namespace,
        )

    def upload(self, pictures: Sequence[Picture]) -> None:
        """Put *pictures* into the bucket."""
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda one: self.put(one.key, one.path.read_bytes()), pictures))

    def put(self, key: str, body: bytes) -> None:
        """Put one object into the bucket."""
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=body)


@contextmanager
def running_stack() -> Iterator[Stack]:
    """Run the servers while the block runs, on 127.0.0.1 and empty at first."""
    with ExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="labelyard-bench-")))
        valkey = exits.enter_context(ValkeyServer(folder / "valkey"))
        seaweed = exits.enter_context(SeaweedServer(folder / "seaweedfs"))
        s3 = exits.enter_context(closing(seaweed.s3_client()))
        s3.create_bucket(Bucket=BUCKET)
        control = exits.enter_context(
            closing(redis.Redis.from_url(valkey.url_of(CONTROL), socket_timeout=None))
        )
        yield Stack(folder, valkey, seaweed, s3, control)
