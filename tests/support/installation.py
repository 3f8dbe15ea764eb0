"""A sound installation for the doctor's tests, into which each test plants one fault."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from labelyard.doctor import DoctorReport, DoctorSettings, Finding, Severity, examine
from labelyard.ledger import Ledger
from labelyard.ledger.maintenance import MaintenanceLedger
from labelyard.ledger.workers import WorkerInfo
from labelyard_worker.local.servers import SeaweedServer, ValkeyServer

PASSWORD = "p4ssw0rd-of-the-test"
READER = {"accessKey": "READER", "secretKey": "secret-of-the-reader"}
ADMIN = {"accessKey": "ADMIN", "secretKey": "secret-of-the-admin"}
BUCKETS = ("labelyard-uploads", "labelyard-results", "labelyard-pictures")
#: A limit keeps advice about the size of the test's machine away.
OPTIONS = {"maxmemory": "1gb"}
WORKER = {
    "state": "ready",
    "checkpoint": "lite",
    "fingerprint": "sha256:lite",
    "dtype": "float32",
    "version": "0.1.0",
    "started_at": 0,
}


@dataclass
class Servers:
    """Servers that all tests of a file share."""

    valkey: ValkeyServer
    seaweed: SeaweedServer


@contextmanager
def running_servers(folder: Path) -> Iterator[Servers]:
    """Run a Valkey and a SeaweedFS with two users, one of which may only read."""
    (folder / "seaweed").mkdir()
    identities = [
        {
            "name": "labelyard",
            "credentials": [ADMIN],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        },
        {"name": "reader", "credentials": [READER], "actions": ["Read", "List"]},
    ]
    (folder / "seaweed" / "s3.json").write_text(json.dumps({"identities": identities}))
    with ExitStack() as stack:
        valkey = stack.enter_context(ValkeyServer(folder / "valkey", options=OPTIONS))
        seaweed = stack.enter_context(SeaweedServer(folder / "seaweed"))
        s3 = stack.enter_context(closing(seaweed.s3_client()))
        for bucket in BUCKETS:
            s3.create_bucket(Bucket=bucket)
        yield Servers(valkey, seaweed)


@dataclass
class Installation:
    """Servers, settings and variables of an installation that is examined.

    Attributes:
        settings: Arguments of the settings, in place of variables.
        environ: Variables that are searched for misspelt ones, and those of AWS.
        admin: Client of the Valkey with all rights.
    """

    servers: Servers
    admin: "redis.Redis"
    environ: dict[str, str]
    settings: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def examine(self) -> DoctorReport:
        """Examine the installation as a producer would."""
        settings = DoctorSettings(**self.settings)
        with aws_variables(self.environ):
            return examine(settings, environ=self.environ, **self.options)

    def configure(self, **values: object) -> None:
        """Change settings of the Valkey; an underscore stands for a hyphen."""
        for name, value in values.items():
            self.admin.config_set(name.replace("_", "-"), str(value))

    def log_in_as(self, role: str, *rules: str) -> None:
        """Give the ledger, or the broker, a user with some rights."""
        user = f"{role}-user"
        rights = ("reset", "on", f">{PASSWORD}", *rules)
        self.admin.execute_command("ACL", "SETUSER", user, *rights)
        database = 1 if role == "ledger" else 0
        address = f"127.0.0.1:{self.servers.valkey.port}/{database}"
        self.settings[f"{role}_url"] = f"redis://{user}:{PASSWORD}@{address}"

    def add_worker(self, name: str, *, namespace: str = "labelyard", **details: object) -> None:
        """Write the presence of a worker, as its presence thread does."""
        settings = DoctorSettings(ledger_url=self.servers.valkey.url_of(1), namespace=namespace)
        info = WorkerInfo.model_validate({**WORKER, **details, "name": name})
        with redis.Redis.from_url(settings.ledger_url, decode_responses=True) as client:
            MaintenanceLedger(Ledger(client, settings)).renew_presence(
                name, [], ttl_s=60, details=info.model_dump_json()
            )

    def restore(self) -> None:
        """Undo all that a test has changed in the Valkey."""
        self.admin.execute_command("REPLICAOF", "NO", "ONE")
        sound = {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "everysec"}
        for name, value in {**sound, "save": "", "timeout": "0", **OPTIONS}.items():
            self.admin.config_set(name, value)
        for role in ("ledger", "broker"):
            self.admin.execute_command("ACL", "DELUSER", f"{role}-user")
        self.admin.flushall()


@contextmanager
def sound_installation(servers: Servers) -> Iterator[Installation]:
    """Describe an installation without a fault, with one worker; restore it afterwards."""
    valkey, seaweed = servers.valkey, servers.seaweed
    environ = {
        "AWS_ACCESS_KEY_ID": ADMIN["accessKey"],
        "AWS_SECRET_ACCESS_KEY": ADMIN["secretKey"],
    }
    settings = {
        "broker_url": valkey.url_of(0),
        "ledger_url": valkey.url_of(1),
        "s3_endpoint_url": seaweed.endpoint_url,
        "s3_region": seaweed.region,
        "result_buckets": ("labelyard-results/{tenant}/",),
        "allowed_buckets": ("labelyard-pictures",),
    }
    with redis.Redis.from_url(valkey.url, decode_responses=True) as admin:
        installation = Installation(servers, admin, environ, settings)
        installation.add_worker("first")
        try:
            yield installation
        finally:
            installation.restore()


@contextmanager
def aws_variables(environ: Mapping[str, str]) -> Iterator[None]:
    """Set the variables of AWS that boto3 reads, while the block runs."""
    ours = {name: value for name, value in environ.items() if name.startswith("AWS_")}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def faults_in(report: DoctorReport) -> dict[str, Finding]:
    """Return the findings that are not ok, by their code."""
    return {one.code: one for one in report.findings if one.severity is not Severity.OK}
