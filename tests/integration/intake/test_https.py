"""https sources: listed public hosts only, for all names and redirects."""

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from labelyard.errors import (
    ImageAccessDeniedError,
    ImageNotFoundError,
    ImageTooLargeError,
    LabelyardError,
    StorageUnavailableError,
    UnsupportedUriError,
)
from labelyard_worker.intake.sources.https import HttpsSource, is_public
from labelyard_worker.intake.sources.source import TransferLimits
from labelyard_worker.pixels import Unchanged
from tests.support.answering import Answer, answering, reply
from tests.support.fetching import Fetched, SyncSource

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="needs the command openssl to make a certificate"
)

Serve = Callable[[Answer], str]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, chain = folder / "key.pem", folder / "chain.pem"
    command = (
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
        f" -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout {key} -out {chain}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return chain, key


@pytest.fixture
def serve(certificate: tuple[Path, Path]) -> Iterator[Serve]:
    """Start a TLS server that gives one answer, and return its ``localhost:port``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with ExitStack() as servers:
        yield lambda answer: f"localhost:{servers.enter_context(answering(answer, tls=context))}"


def source(
    certificate: tuple[Path, Path] | None,
    *hosts: str,
    allows_private: bool = True,
    max_bytes: int = 1000,
    timeout_s: float = 5.0,
) -> SyncSource:
    trusted = None
    if certificate is not None:
        trusted = ssl.create_default_context(cafile=str(certificate[0]))
    return SyncSource(
        lambda: HttpsSource(hosts=hosts, allows_private=allows_private, ssl_context=trusted),
        TransferLimits(max_bytes=max_bytes, timeout_s=timeout_s),
    )


def cat(request: BaseHTTPRequestHandler) -> None:
    reply(request, 200, b"cat", ETag='"1"')


def test_a_file_is_read_with_its_etag(certificate: tuple[Path, Path], serve: Serve) -> None:
    """Path and query are sent as written."""
    asked: list[str] = []

    def note(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        cat(request)

    host = serve(note)

    file = source(certificate, host).fetch(f"https://{host}/a%20b.jpg?signature=s%2F1")

    assert file == Fetched(b"cat", "1")
    assert asked == ["/a%20b.jpg?signature=s%2F1"]


def test_etags_decide_what_is_sent(certificate: tuple[Path, Path], serve: Serve) -> None:
    """ETags work as with S3."""
    host = serve(cat)
    https, uri = source(certificate, host), f"https://{host}/cat"

    assert https.fetch(uri, etag="1") == Fetched(b"cat", "1")
    with pytest.raises(ImageNotFoundError, match="changed"):
        https.fetch(uri, etag="2")


@pytest.mark.parametrize(
    ("said_with_304", "is_believed"),
    [
        ("Wed, 01 Jan 2025 00:00:00 GMT", True),
        ("Thu, 02 Jan 2025 00:00:00 GMT", False),
        ("yesterday", False),
        (None, False),
    ],
)
def test_a_304_is_believed_only_with_the_time_that_is_known(
    certificate: tuple[Path, Path], serve: Serve, said_with_304: str | None, is_believed: bool
) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        if request.headers.get("If-None-Match") == '"1"':
            headers = {} if said_with_304 is None else {"Last-Modified": said_with_304}
            reply(request, 304, b"", **headers)
        else:
            at = "Wed, 01 Jan 2025 00:00:00 GMT"
            reply(request, 200, b"cat", **{"ETag": '"1"', "Last-Modified": at})

    host = serve(answer)
    https, uri = source(certificate, host), f"https://{host}/cat"
    file = https.fetch(uri)
    assert isinstance(file, Fetched)

    again = https.fetch(uri, known_etag="1", known_stamp=file.stamp)

    assert again == (Unchanged("1") if is_believed else file)


def test_an_etag_without_a_time_is_not_even_asked_for(
    certificate: tuple[Path, Path], serve: Serve
) -> None:
    asked: list[str | None] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.headers.get("If-None-Match"))
        cat(request)

    host = serve(answer)
    https, uri = source(certificate, host), f"https://{host}/cat"
    file = https.fetch(uri)
    assert isinstance(file, Fetched)

    assert https.fetch(uri, known_etag="1", known_stamp=file.stamp) == file
    assert asked == [None, None]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, ImageAccessDeniedError),
        (403, ImageAccessDeniedError),
        (404, ImageNotFoundError),
        (410, ImageNotFoundError),
        (429, StorageUnavailableError),
        (500, StorageUnavailableError),
        (503, StorageUnavailableError),
    ],
)
def test_each_status_has_its_code_and_no_query_is_shown(
    certificate: tuple[Path, Path], serve: Serve, status: int, error: type[LabelyardError]
) -> None:
    """The query of a presigned address is a secret."""
    host = serve(lambda request: reply(request, status))

    with pytest.raises(error, match=str(status)) as raised:
        source(certificate, host).fetch(f"https://{host}/cat.jpg?signature=secret")

    assert "cat.jpg" in str(raised.value)
    assert "secret" not in repr(raised.value)


@pytest.mark.parametrize("is_announced", [True, False])
def test_a_file_beyond_the_limit_is_cut_off(
    certificate: tuple[Path, Path], serve: Serve, is_announced: bool
) -> None:
    """Return whether or not its length was announced."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        if is_announced:
            reply(request, 200, bytes(1001))
            return
        request.send_response(200)
        request.end_headers()
        request.wfile.write(bytes(10**6))

    host = serve(answer)

    with pytest.raises(ImageTooLargeError, match="1000"):
        source(certificate, host).fetch(f"https://{host}/cat")


def test_a_file_that_breaks_off_is_not_taken_for_whole(
    certificate: tuple[Path, Path], serve: Serve
) -> None:
    """The fetch is retried: the file may arrive whole the next time."""
    host = serve(lambda request: reply(request, 200, b"half", Content_Length="8"))

    with pytest.raises(StorageUnavailableError):
        source(certificate, host).fetch(f"https://{host}/cat")


def test_a_server_that_drips_is_given_up(certificate: tuple[Path, Path], serve: Serve) -> None:
    """Each byte comes in time, the file does not."""
    gone = threading.Event()

    def drip(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        try:
            while not gone.wait(0.02):
                request.wfile.write(b".")
        except OSError:
            return

    host = serve(drip)

    with pytest.raises(StorageUnavailableError, match="timed out"):
        source(certificate, host, timeout_s=0.3).fetch(f"https://{host}/cat")
    gone.set()


def test_an_untrusted_certificate_is_refused(serve: Serve) -> None:
    """By the system's authorities, which do not know this one."""
    host = serve(cat)

    with pytest.raises(ImageAccessDeniedError, match="certificate"):
        source(None, host).fetch(f"https://{host}/cat")


def test_redirects_are_followed_to_listed_hosts(
    certificate: tuple[Path, Path], serve: Serve
) -> None:
    """Relative ones too."""
    there = serve(cat)

    def onward(request: BaseHTTPRequestHandler) -> None:
        target = "/second" if request.path == "/first" else f"https://{there}/cat"
        reply(request, 302, Location=target)

    here = serve(onward)

    assert source(certificate, here, there).fetch(f"https://{here}/first") == Fetched(b"cat", "1")


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("https://elsewhere.example/cat", "elsewhere.example is not in LABELYARD_HTTPS_HOSTS"),
        ("http://localhost/cat", "not https"),
        ("file:///etc/passwd", "not https"),
        ("https://user:pass@localhost/cat", "passwords"),
        ("/for/ever", "more than 5 redirects"),
    ],
)
def test_redirects_are_checked_like_the_first_address(
    certificate: tuple[Path, Path], serve: Serve, target: str, reason: str
) -> None:
    """Wherever they lead."""
    host = serve(lambda request: reply(request, 302, Location=target))

    with pytest.raises(UnsupportedUriError, match=reason):
        source(certificate, host).fetch(f"https://{host}/cat")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "169.254.169.254"])
def test_listed_hosts_inside_are_refused(host: str) -> None:
    """A listed name may be made to resolve to anything."""
    name = host.strip("[]")

    with pytest.raises(UnsupportedUriError, match="not on the public internet"):
        source(None, name, allows_private=False).fetch(f"https://{host}/cat")


def test_one_private_address_among_public_ones_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name's owner would pick the moment."""

    def resolve(host: str, port: int, *_: object) -> list[object]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in ("93.184.215.14", "10.0.0.1")
        ]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)

    with pytest.raises(UnsupportedUriError, match="not on the public internet"):
        source(None, "img.example", allows_private=False).fetch("https://img.example/cat")


def test_the_connection_goes_to_the_address_that_was_checked(
    certificate: tuple[Path, Path], serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names are resolved once, so that a second answer cannot differ."""
    host = serve(cat)
    https = source(certificate, host)
    asked: list[str] = []
    resolve = socket.getaddrinfo

    def note(name: str, *args: object, **options: object) -> object:
        asked.append(name)
        return resolve(name, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", note)

    https.fetch(f"https://{host}/cat")

    assert [name for name in asked if not name[0].isdigit() and ":" not in name] == ["localhost"]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2001:db8::1",
    ],
)
def test_addresses_inside_are_known_in_every_spelling(address: str) -> None:
    """Private, local, metadata, and IPv4 wrapped in IPv6."""
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:4700::1111", "64:ff9b::5db8:d70e"])
def test_public_addresses_are_public(address: str) -> None:
    """Through a translator as well."""
    assert is_public(address)


@pytest.mark.parametrize(
    ("listed", "uri", "is_allowed"),
    [
        ("img.example", "https://img.example/a", True),
        ("img.example", "https://IMG.example./a", True),
        ("img.example", "https://sub.img.example/a", False),
        ("img.example", "https://evil-img.example/a", False),
        ("img.example", "https://img.example:8443/a", False),
        ("img.example:8443", "https://img.example:8443/a", True),
        ("*.example", "https://a.b.example/a", True),
        ("*.example", "https://example/a", False),
        ("*.example", "https://badexample/a", False),
    ],
)
def test_hosts_are_matched_whole(
    listed: str, uri: str, is_allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listed host that cannot be reached is unavailable, any other unsupported."""

    def no_network(*args: object, **options: object) -> None:
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    expected = StorageUnavailableError if is_allowed else UnsupportedUriError

    with pytest.raises(expected):
        source(None, listed).fetch(uri)
