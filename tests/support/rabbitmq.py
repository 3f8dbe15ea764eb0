"""A RabbitMQ node of our own, where Debian's package rabbitmq-server is installed.

The machine's own service is neither needed nor touched: the node has its own name, ports, cookie
and data, and an own ``epmd`` (Erlang's register of nodes), because the one that Erlang would start
as a daemon outlives everybody.
"""

import shutil
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Self

import amqp  # type: ignore[import-untyped]

from labelyard_worker.local.embedded import (
    HOST,
    START_WITHIN_S,
    EmbeddedServer,
    server_environment,
)

# Debian's command in the PATH gives up its rights and writes to the machine's own folders.
DEBIAN_SCRIPT = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
NOT_INSTALLED = "rabbitmq-server is not installed; run: apt-get install rabbitmq-server"
LOCAL_ONLY = "-kernel inet_dist_use_interface {127,0,0,1}"
MACHINE_VARIABLES = ("RABBITMQ_", "ERL_")
CONTROL_WITHIN_S = 60.0
CONFIG = """\
listeners.tcp.1 = {host}:{port}
# Messages are small here; the default keeps 512 MB for them.
raft.wal_max_size_bytes = 16777216
disk_free_limit.absolute = 50MB
"""


def rabbitmq_script() -> Path | None:
    """Find the script that starts a node, or ``None`` where there is none."""
    if DEBIAN_SCRIPT.exists():
        return DEBIAN_SCRIPT
    found = shutil.which("rabbitmq-server")
    return Path(found) if found else None


def installed_script() -> Path:
    """Find the script that starts a node.

    Raises:
        FileNotFoundError: RabbitMQ is not installed.
    """
    script = rabbitmq_script()
    if script is None:
        raise FileNotFoundError(NOT_INSTALLED)
    return script


def is_installed() -> bool:
    """Return whether this machine can run a node."""
    return rabbitmq_script() is not None and shutil.which("epmd") is not None


class EpmdServer(EmbeddedServer):
    """Erlang's register of nodes, without which no node starts."""

    name = "epmd"

    def is_ready(self) -> bool:
        try:
            socket.create_connection((HOST, self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def _command(self) -> list[str]:
        return ["epmd", "-port", str(self.port), "-address", HOST]


class RabbitServer(EmbeddedServer):
    """One RabbitMQ node with the user ``guest``, without plugins.

    Args:
        data_dir: Folder for data, settings and log; made when missing.
        port: Port of AMQP; a free one when None.
    """

    name = "rabbitmq"
    port_count = 2  # AMQP, and Erlang's own, which nobody uses
    stop_grace_s: ClassVar[float] = 20.0

    def __init__(self, data_dir: Path, *, port: int | None = None) -> None:
        super().__init__(data_dir, port=port)
        self.epmd = EpmdServer(data_dir / "epmd")

    @property
    def url(self) -> str:
        """Address for kombu; the virtual host ``/``."""
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        """Return the address of the same node behind another port, a proxy's."""
        return f"amqp://guest:guest@{HOST}:{port}//"

    @property
    def node(self) -> str:
        """Name of the node, which its data is bound to."""
        return f"labelyard-{self.port}"

    def start(self, *, within_s: float = START_WITHIN_S) -> Self:
        """Start the register and the node; see ``EmbeddedServer.start``."""
        if not self.epmd.is_running():
            self.epmd.start()
        return super().start(within_s=within_s)

    def stop(self) -> None:
        """End the node gently, then the register."""
        super().stop()
        self.epmd.stop()

    def kill(self) -> None:
        """End the node with SIGKILL, as a crash would; the register holds no data."""
        super().kill()
        self.epmd.kill()

    def empty(self) -> None:
        """Remove all queues, messages and users of the stopped node, as a lost disk would."""
        if self.is_running():
            raise RuntimeError("the node runs: call stop() or kill() first")
        shutil.rmtree(self.data_dir / "mnesia")

    def control(self, *arguments: str) -> str:
        """Run ``rabbitmqctl`` on the node, and return what it prints.

        Raises:
            subprocess.SubprocessError: It failed, or took too long.
        """
        done = subprocess.run(
            [str(installed_script().with_name("rabbitmqctl")), "--quiet", *arguments],
            env=self._environment() | {"RABBITMQ_CTL_ERL_ARGS": LOCAL_ONLY},
            capture_output=True,
            text=True,
            check=True,
            timeout=CONTROL_WITHIN_S,
        )
        return done.stdout

    def servers(self) -> list[EmbeddedServer]:
        """List the node's processes, for the search for processes left behind."""
        return [self.epmd, self]

    def is_ready(self) -> bool:
        connection = amqp.Connection(host=f"{HOST}:{self.port}", connect_timeout=1, read_timeout=2)
        try:
            connection.connect()
            cluster: str = connection.server_properties["cluster_name"]
        except (OSError, amqp.AMQPError):
            connection.collect()
            return False
        with suppress(OSError, amqp.AMQPError):
            connection.close()
        return cluster.startswith(f"{self.node}@")

    def _lost_a_port(self) -> bool:
        is_taken = not self.is_running() and "eaddrinuse" in self._log_tail()
        return is_taken or super()._lost_a_port()

    def _command(self) -> list[str]:
        self._write_settings()
        return [str(installed_script())]

    def _write_settings(self) -> None:
        (self.data_dir / "rabbitmq.conf").write_text(CONFIG.format(host=HOST, port=self.port))
        (self.data_dir / "enabled_plugins").write_text("[].\n")
        (self.data_dir / "rabbitmq-env.conf").touch()
        (self.data_dir / "conf.d").mkdir(exist_ok=True)

    def _environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in server_environment(self.data_dir).items()
            if not name.startswith(MACHINE_VARIABLES)
        }
        return kept | dict(self._node_variables())

    def _node_variables(self) -> Mapping[str, str]:
        folder, dist_port = self.data_dir, self.ports[1]
        return {
            # The script becomes the node itself, rather than its parent: signals reach it.
            "RUNNING_UNDER_SYSTEMD": "true",
            "ERL_EPMD_PORT": str(self.epmd.port),
            "RABBITMQ_NODENAME": f"{self.node}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": HOST,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(dist_port),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONFIG_FILES": str(folder / "conf.d"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(folder / "rabbitmq.pid"),
            # A node that is distributed from its first instant starts no epmd.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                f"-sname {self.node}@localhost -start_epmd false "
                f"{LOCAL_ONLY} "
                f"-kernel inet_dist_listen_min {dist_port} "
                f"-kernel inet_dist_listen_max {dist_port}"
            ),
        }
