"""Fetch image files over https: from hosts that the operator lists, never from the own network.

Any producer may write any address into a message. So the host must be listed, all addresses
of its name must be public, the connection goes to the very address that was checked (the
name may resolve to another a moment later), and the checks are repeated for each redirect.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urljoin, urlsplit

from labelyard.errors import (
    ImageAccessDeniedError,
    ImageNotFoundError,
    StorageUnavailableError,
    UnsupportedUriError,
)
from labelyard_worker.intake.image_uri import redact
from labelyard_worker.intake.sources.fetcher_settings import SourceConfig
from labelyard_worker.intake.sources.http_answers import (
    errors_as_ours,
    is_same_time,
    stamp_in,
)
from labelyard_worker.intake.sources.http_client import HttpAnswer, Peer, get
from labelyard_worker.intake.sources.source import (
    FetchedFile,
    FetchOrder,
    SourceDownError,
    Transfer,
    TransferLimits,
    quote_etag,
    unquote_etag,
)
from labelyard_worker.pixels import Unchanged

if TYPE_CHECKING:
    from labelyard_worker.settings import WorkerSettings

MAX_REDIRECTS = 5
PORT = 443
OK = 200
NOT_MODIFIED = 304
REDIRECTS = (301, 302, 303, 307, 308)
TRANSIENT = (408, 425)
THROTTLED = 429
PROBE_TIMEOUT_S = 5.0

# Translates to IPv4 addresses, private ones among them (RFC 6052, section 2.1).
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

OFF = "https:// is off here: the operator can set LABELYARD_HTTPS_SOURCES"


def configure(settings: "WorkerSettings", _: TransferLimits) -> SourceConfig:
    """Describe the https source to the fetchers."""
    if not settings.https_sources:
        return SourceConfig("https", off_reason=OFF)
    return config_of(hosts=settings.https_hosts)


def config_of(*, hosts: tuple[str, ...], allows_private: bool = False) -> SourceConfig:
    """Describe an https source; tests alone allow private addresses."""
    return SourceConfig(
        "https",
        opener=f"{__name__}:open_source",
        settings={"hosts": list(hosts), "allows_private": allows_private},
    )


def open_source(settings: Mapping[str, Any]) -> "HttpsSource":
    """Open the https source in a fetcher."""
    return HttpsSource(hosts=tuple(settings["hosts"]), allows_private=settings["allows_private"])


def is_public(address: str) -> bool:
    """Return whether an IP address belongs to the public internet, in any notation."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo or (None, None))[1]
        if ip in NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
        if inner is not None:
            ip = inner
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


class HttpsSource:
    """Fetches files over https from the listed hosts.

    Args:
        hosts: Hosts to fetch from: ``img.example.com``, ``*.example.com`` for all below
            it, ``host:8443`` for another port than 443.
        allows_private: Also connect to addresses that are not public; for tests.
        ssl_context: Which certificates to trust, in place of the system's.
    """

    def __init__(
        self,
        *,
        hosts: tuple[str, ...],
        allows_private: bool = False,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._hosts = tuple(host.lower() for host in hosts)
        self._allows_private = allows_private
        self._ssl_context = ssl_context or ssl.create_default_context()

    async def fetch(self, order: FetchOrder, transfer: Transfer) -> FetchedFile | Unchanged:
        """Read one file; see ``Source.fetch``."""
        shown_uri = redact(order.uri)
        headers = {"Accept-Encoding": "identity", "User-Agent": "labelyard"}
        if order.known_etag is not None and order.known_stamp:
            headers["If-None-Match"] = quote_etag(order.known_etag)
        uri = order.uri
        with errors_as_ours(shown_uri):
            for _ in range(MAX_REDIRECTS + 1):
                target = self._checked(uri, shown_uri=shown_uri)
                answer_or_uri = await self._ask(target, uri, order, headers, transfer)
                if not isinstance(answer_or_uri, str):
                    return answer_or_uri
                uri = answer_or_uri
        raise UnsupportedUriError(shown_uri, f"more than {MAX_REDIRECTS} redirects")

    async def is_down(self, uri: str) -> bool:
        """Probe the host with its first page; any answer below 500 is a sign of life."""
        try:
            target = self._checked(urljoin(uri, "/"), shown_uri=redact(uri))
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                peer = await self._peer(target, shown_uri=redact(uri))
                async with get(
                    peer, "/", headers={"User-Agent": "labelyard"}, ssl_context=self._ssl_context
                ) as answer:
                    return answer.status >= 500 or answer.status == THROTTLED
        except (OSError, TimeoutError):
            return True
        except UnsupportedUriError:
            return False

    async def _ask(
        self,
        target: SplitResult,
        uri: str,
        order: FetchOrder,
        headers: dict[str, str],
        transfer: Transfer,
    ) -> FetchedFile | Unchanged | str:
        """Send one request; return the file, or the address of a redirect."""
        shown_uri = redact(order.uri)
        peer = await transfer.await_piece(self._peer(target, shown_uri=shown_uri))
        path = (target.path or "/") + (f"?{target.query}" if target.query else "")
        request = get(peer, path, headers=headers, ssl_context=self._ssl_context)
        answer = await transfer.await_piece(request.__aenter__())
        try:
            if answer.status in REDIRECTS:
                return urljoin(uri, answer.header("location"))
            if answer.status == NOT_MODIFIED:
                if order.known_etag is None:
                    raise StorageUnavailableError(
                        shown_uri, "the host answers 304 to an unconditional request"
                    )
                if not is_same_time(answer, order.known_stamp):  # equal ETag, another content?
                    return await self.fetch(replace(order, known_etag=None), transfer)
                return Unchanged(order.known_etag)
            return await self._read(answer, order, transfer)
        finally:
            await request.__aexit__(None, None, None)

    def _checked(self, uri: str, *, shown_uri: str) -> SplitResult:
        """Parse an address, and check that it may be fetched.

        Raises:
            UnsupportedUriError: It may not; the error names *shown_uri*, the address in the message.
        """
        try:
            target = urlsplit(uri)
            port = target.port or PORT
        except ValueError as error:
            raise UnsupportedUriError(shown_uri, "this is not an address") from error
        host = (target.hostname or "").rstrip(".")
        if target.scheme != "https" or not host:
            raise UnsupportedUriError(shown_uri, "redirected to an address that is not https://")
        if target.username is not None or target.password is not None:
            raise UnsupportedUriError(
                shown_uri, "user names and passwords are not sent: remove them from the address"
            )
        if not uri.isascii() or not uri.isprintable() or " " in uri:
            raise UnsupportedUriError(
                shown_uri, "percent-encode every character that is not printable ASCII"
            )
        if not self._is_listed(host, port):
            raise UnsupportedUriError(shown_uri, f"{host} is not in LABELYARD_HTTPS_HOSTS")
        return target

    def _is_listed(self, host: str, port: int) -> bool:
        suffix = "" if port == PORT else f":{port}"
        parents = [
            "*" + host[at:] for at, character in enumerate(host) if character == "." and at > 0
        ]
        return any(name + suffix in self._hosts for name in (host, *parents))

    async def _peer(self, target: SplitResult, *, shown_uri: str) -> Peer:
        """Resolve the host once, and refuse it unless all its addresses are public."""
        host, port = target.hostname or "", target.port or PORT
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]) for entry in found]
        if not self._allows_private and not all(map(is_public, addresses)):
            raise UnsupportedUriError(shown_uri, f"{host} is not on the public internet")
        shown_host = target.netloc.rpartition("@")[2]
        return Peer(addresses[0], port, shown_host, host)

    async def _read(self, answer: HttpAnswer, order: FetchOrder, transfer: Transfer) -> FetchedFile:
        check_status(answer.status, uri=redact(order.uri))
        etag = unquote_etag(answer.header("etag")) or None
        if order.etag is not None and etag != unquote_etag(order.etag):
            raise ImageNotFoundError(
                redact(order.uri), "the file changed: its ETag is not the one in the message"
            )
        transfer.announce(answer.length or 0)
        while piece := await transfer.await_piece(answer.read_piece()):
            await transfer.write(piece)
        return transfer.finish(etag, stamp=stamp_in(answer, size_bytes=transfer.size_bytes))


def check_status(status: int, *, uri: str) -> None:
    """Raise the error that *status* means, unless it is 200."""
    if status == OK:
        return
    if status in (401, 403):
        raise ImageAccessDeniedError(uri, f"the host answers {status}")
    if status >= 500 or status == THROTTLED:
        raise SourceDownError(uri, f"the host answers {status}")
    if status in TRANSIENT or status < 300:
        raise StorageUnavailableError(uri, f"the host answers {status}")
    raise ImageNotFoundError(uri, f"the host answers {status}")
