"""Fetch image files over https from hosts that the operator lists, and never from inside.

An address in a message is a stranger's wish. So the host must be listed, all that its
name resolves to must be public, the connection goes to the very address that was checked
(the name may resolve to another a moment later), and each redirect starts over.
"""

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from urllib.parse import SplitResult, urljoin, urlsplit

from labelyard.errors import (
    ImageAccessDeniedError,
    ImageNotFoundError,
    ImageTooLargeError,
    StorageUnavailableError,
    UnsupportedUriError,
)
from labelyard_worker.intake.addresses import shown
from labelyard_worker.intake.spec import Fetched, Unchanged

MAX_REDIRECTS = 5
CHUNK_BYTES = 64 * 1024
PORT = 443
REDIRECTS = (301, 302, 303, 307, 308)
LATER = (408, 425, 429)

# Translates to IPv4 addresses, private ones among them (RFC 6052, section 2.1).
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Tell whether *address* is one of the open internet, however it is written."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo or (None, None))[1]
        if ip in NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
        if inner is not None:
            ip = inner
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


class HttpsSource:
    """Fetches over https.

    Args:
        hosts: Hosts to fetch from: ``img.example.com``, ``*.example.com`` for all below
            it, ``host:8443`` for another port than 443.
        max_bytes: Largest file.
        timeout_s: Seconds for one whole fetch, redirects included.
        allows_private: Also connect to addresses that are not public; for tests.
        ssl_context: Which certificates to trust, in place of the system's.
    """

    def __init__(
        self,
        *,
        hosts: tuple[str, ...],
        max_bytes: int,
        timeout_s: float,
        allows_private: bool = False,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._hosts = tuple(host.lower() for host in hosts)
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._allows_private = allows_private
        self._ssl_context = ssl_context or ssl.create_default_context()

    def fetch(
        self, uri: str, *, if_match: str | None = None, if_none_match: str | None = None
    ) -> Fetched | Unchanged:
        """Read one file; raises what ``Storage.fetch`` raises."""
        due = time.monotonic() + self._timeout_s
        headers = {"Accept-Encoding": "identity", "User-Agent": "labelyard"}
        if if_none_match is not None:
            headers["If-None-Match"] = f'"{if_none_match}"'
        with _errors_as_ours(shown(uri)):
            where = uri
            for _ in range(MAX_REDIRECTS + 1):
                target = self._checked(where, asked_for=shown(uri))
                with ExitStack() as opened:
                    connection = self._connect(target, asked_for=shown(uri), due=due)
                    opened.enter_context(closing(connection))
                    query = f"?{target.query}" if target.query else ""
                    connection.request("GET", (target.path or "/") + query, headers=headers)
                    # Closed too: it keeps the socket where the server will not.
                    answer = opened.enter_context(closing(connection.getresponse()))
                    if answer.status == http.client.NOT_MODIFIED:
                        return Unchanged(if_none_match or "")
                    if answer.status not in REDIRECTS:
                        return self._read(answer, uri=shown(uri), if_match=if_match, due=due)
                    where = urljoin(where, answer.headers.get("Location", ""))
        raise UnsupportedUriError(shown(uri), f"more than {MAX_REDIRECTS} redirects")

    def _checked(self, uri: str, *, asked_for: str) -> SplitResult:
        """Take an address apart, if it is one that may be asked.

        Raises:
            UnsupportedUriError: It is not; *asked_for* is what the message said.
        """
        try:
            target = urlsplit(uri)
            port = target.port or PORT
        except ValueError as error:
            raise UnsupportedUriError(asked_for, "not an address") from error
        host = (target.hostname or "").rstrip(".")
        if target.scheme != "https" or not host:
            raise UnsupportedUriError(asked_for, "redirected to what is not https://")
        if target.username is not None or target.password is not None:
            raise UnsupportedUriError(asked_for, "names and passwords are not sent")
        if not uri.isascii() or not uri.isprintable() or " " in uri:
            raise UnsupportedUriError(asked_for, "percent-encode what is not plain ASCII")
        if not self._is_listed(host, port):
            raise UnsupportedUriError(asked_for, f"{host} is not in LABELYARD_HTTPS_HOSTS")
        return target

    def _is_listed(self, host: str, port: int) -> bool:
        suffix = "" if port == PORT else f":{port}"
        parents = [
            "*" + host[at:] for at, character in enumerate(host) if character == "." and at > 0
        ]
        return any(name + suffix in self._hosts for name in (host, *parents))

    def _connect(
        self, target: SplitResult, *, asked_for: str, due: float
    ) -> http.client.HTTPSConnection:
        host, port = target.hostname or "", target.port or PORT
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]) for entry in found]
        if not self._allows_private and not all(map(is_public, addresses)):
            raise UnsupportedUriError(asked_for, f"{host} is not on the public internet")
        connection = http.client.HTTPSConnection(
            host, port, timeout=_remaining(due), context=self._ssl_context
        )
        plain = socket.create_connection((addresses[0], port), timeout=_remaining(due))
        try:
            connection.sock = self._ssl_context.wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise
        return connection

    def _read(
        self, answer: http.client.HTTPResponse, *, uri: str, if_match: str | None, due: float
    ) -> Fetched:
        _check_status(answer.status, uri=uri)
        etag = (answer.headers.get("ETag") or "").strip('"') or None
        if if_match is not None and etag != if_match.strip('"'):
            raise ImageNotFoundError(
                uri, "the file changed: its ETag is not the one in the message"
            )
        limit = f"the limit is {self._max_bytes}"
        if answer.length is not None and answer.length > self._max_bytes:
            raise ImageTooLargeError(uri, f"{answer.length} bytes; {limit}")
        data = bytearray()
        while chunk := answer.read1(CHUNK_BYTES):
            data += chunk
            if len(data) > self._max_bytes:
                raise ImageTooLargeError(uri, f"more bytes than allowed; {limit}")
            _remaining(due)
        if answer.length:
            raise StorageUnavailableError(uri, "the connection broke off")
        return Fetched(bytes(data), etag)


@contextmanager
def _errors_as_ours(uri: str) -> Iterator[None]:
    """Turn what the standard library raises inside the block into our errors."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise ImageAccessDeniedError(uri, "the host's certificate is not trusted") from error
    except TimeoutError as error:
        raise StorageUnavailableError(uri, "timed out") from error
    except socket.gaierror as error:
        raise StorageUnavailableError(uri, "the host's name does not resolve") from error
    except (OSError, http.client.HTTPException) as error:
        raise StorageUnavailableError(uri, type(error).__name__) from error


def _check_status(status: int, *, uri: str) -> None:
    if status == http.client.OK:
        return
    if status in (401, 403):
        raise ImageAccessDeniedError(uri, f"the host answers {status}")
    if status >= 500 or status in LATER:
        raise StorageUnavailableError(uri, f"the host answers {status}")
    raise ImageNotFoundError(uri, f"the host answers {status}")


def _remaining(due: float) -> float:
    left = due - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
