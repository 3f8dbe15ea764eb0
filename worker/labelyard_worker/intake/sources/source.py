"""Interface of every source of image files, and the limits on one transfer."""

import asyncio
import fcntl
import os
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from labelyard.errors import ImageTooLargeError, StorageUnavailableError
from labelyard_worker.intake.image_uri import redact
from labelyard_worker.intake.sources.byte_budget import ByteBudget
from labelyard_worker.pixels import Unchanged

# A large file arrives in pieces of this size, so that a slow one is noticed after one piece.
PIECE_BYTES = 256 * 1024
# A file up to this size arrives as one piece: each wake-up for a piece costs 0.1 ms of CPU.
ONE_PIECE_BYTES = 1024 * 1024

Piece = TypeVar("Piece")


class SourceDownError(StorageUnavailableError):
    """The source as a whole gave no usable answer; fetching another file would fail too.

    Raised for 5xx, refused connections and transfers that are too slow, which the worker
    counts against the bucket or host. Other transient errors concern one file.
    """


@dataclass(frozen=True, slots=True)
class FetchOrder:
    """One file to fetch.

    Attributes:
        uri: Address as the job wrote it.
        etag: ETag that the file must have.
        version_id: Version to fetch (S3).
        known_etag: ETag whose content is known already.
        known_stamp: Further names of that version, see ``FileVersion``.
        tenant: Tenant whose share of the byte budget it uses.
        is_suspect: Whether an earlier transfer's bytes differed from their ETag; the source then
            finds out whether that ETag is an MD5.
    """

    uri: str
    etag: str | None = None
    version_id: str | None = None
    known_etag: str | None = None
    known_stamp: str = ""
    tenant: str = ""
    is_suspect: bool = False


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """Limits on one transfer.

    Attributes:
        max_bytes: Largest file.
        timeout_s: Seconds for the whole fetch, redirects included.
        grace_s: Seconds that each piece (256 KiB, or a whole file up to 1 MiB) may take at
            any rate.
        min_bytes_per_s: Rate below which a piece is given up once its grace is over.
    """

    max_bytes: int = 50_000_000
    timeout_s: float = 24.0
    grace_s: float = 5.0
    min_bytes_per_s: int = 50_000

    def piece_timeout_s(self, size_bytes: int) -> float:
        """Return the seconds that a piece of this size may take."""
        return self.grace_s + size_bytes / self.min_bytes_per_s


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """A file as read.

    Attributes:
        fd: In-memory file with the content; the receiver closes it.
        size_bytes: Size of the file.
        etag: Without quotes, or ``None`` if the server names none.
        is_md5: Whether *etag* is known to be the content's MD5, or known not to be.
        stamp: Further names of this version, see ``FileVersion``.
    """

    fd: int
    size_bytes: int
    etag: str | None
    is_md5: bool | None = None
    stamp: str = ""


class Source(Protocol):
    """One kind of place that image files are fetched from, for example S3."""

    async def fetch(self, order: FetchOrder, transfer: "Transfer") -> FetchedFile | Unchanged:
        """Read one file into *transfer*.

        Raises:
            UnsupportedUriError: The source does not read this address.
            ImageNotFoundError: The file is missing, or has another ETag than the order.
            ImageAccessDeniedError: The source refused access.
            ImageTooLargeError: The file is larger than the limit.
            StorageUnavailableError: The source gave no usable answer; a retry may succeed.
        """

    async def is_down(self, uri: str) -> bool:
        """Probe the source of *uri*; return whether no usable answer came."""


class Transfer:
    """The bytes of one file on their way into an anonymous file in memory.

    The worker's main process gets the file's descriptor; it copies no byte.
    """

    def __init__(self, order: FetchOrder, limits: TransferLimits, budget: ByteBudget) -> None:
        self.limits = limits
        self.size_bytes = 0
        self._uri = redact(order.uri)
        self._account = budget.open(order.tenant)
        self._due = time.monotonic() + limits.timeout_s
        self._fd: int | None = os.memfd_create("labelyard-image", os.MFD_ALLOW_SEALING)

    def announce(self, size_bytes: int) -> None:
        """Refuse a file with an announced size beyond the limit."""
        if size_bytes > self.limits.max_bytes:
            raise ImageTooLargeError(
                self._uri, f"{size_bytes} bytes; the limit is {self.limits.max_bytes}"
            )

    async def await_piece(
        self, reading: Awaitable[Piece], *, size_bytes: int = PIECE_BYTES
    ) -> Piece:
        """Wait for the next piece, or for the headers, within the time limits.

        Raises:
            SourceDownError: The piece took longer.
        """
        now = time.monotonic()
        piece_due = now + self.limits.piece_timeout_s(size_bytes)
        try:
            async with asyncio.timeout(min(piece_due, self._due) - now):
                return await reading
        except TimeoutError as error:
            if self._due <= piece_due:
                reason = f"timed out: fetching took longer than {self.limits.timeout_s:g} s"
            else:
                rate = self.limits.min_bytes_per_s
                reason = f"timed out: it sends less than {rate} bytes/s"
            raise SourceDownError(self._uri, reason) from error

    async def write(self, data: "bytes | bytearray | memoryview") -> None:
        """Add bytes, once the byte budget has room for them.

        Raises:
            ImageTooLargeError: The file is larger than the limit.
        """
        count = len(data)
        if self.size_bytes + count > self.limits.max_bytes:
            raise ImageTooLargeError(
                self._uri, f"more bytes than allowed; the limit is {self.limits.max_bytes}"
            )
        self._due += await self._account.reserve(count)
        assert self._fd is not None  # noqa: S101 - files are written before they are given away
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]
        self.size_bytes += count

    def finish(
        self, etag: str | None, *, is_md5: bool | None = None, stamp: str = ""
    ) -> FetchedFile:
        """Seal the file, so that no process can change it any more, and return it."""
        assert self._fd is not None  # noqa: S101 - a transfer is finished once
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, seals)
        fd, self._fd = self._fd, None
        return FetchedFile(fd, self.size_bytes, etag or None, is_md5, stamp)

    def close(self) -> None:
        """Release the budget, and the memory of an unclaimed file."""
        self._account.close()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def quote_etag(etag: str) -> str:
    """Write an ETag as HTTP does."""
    return etag if etag.startswith(('"', "W/")) else f'"{etag}"'


def unquote_etag(etag: str) -> str:
    """Write an ETag as our messages and results do."""
    return etag.strip('"')
