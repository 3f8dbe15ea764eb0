"""Decompress manifests, gzip or zstd, in bounded memory; the first bytes decide which it is."""

import io
import zlib
from collections.abc import Iterable, Iterator
from typing import Final

from labelyard_worker.runs.sources.plan_parts import RunSourceError

GZIP_MAGIC: Final = b"\x1f\x8b"
ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
OUTPUT_BYTES: Final = 256 * 1024
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
BROKEN: Final = "the compressed data is damaged"
CUT_OFF: Final = "the compressed data ends too early: is the upload complete?"


def decompress(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the decompressed bytes; those that are not compressed as they are.

    Raises:
        RunSourceError: The compressed data is damaged, or cut off.
    """
    rest = iter(chunks)
    head = b""
    for chunk in rest:
        head += chunk
        if len(head) >= len(ZSTD_MAGIC):
            break
    if head.startswith(GZIP_MAGIC):
        yield from _gunzip(_joined(head, rest))
    elif head.startswith(ZSTD_MAGIC):
        yield from _unzstd(_joined(head, rest))
    else:
        yield from _joined(head, rest)


def _joined(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if head:
        yield head
    for chunk in rest:
        if chunk:
            yield chunk


def _gunzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Decompress gzip, of several members too, a bounded piece at a time."""
    member = zlib.decompressobj(_GZIP_WINDOW)
    has_begun = False
    for chunk in chunks:
        pending = chunk
        while pending:
            if member.eof:
                member, has_begun = zlib.decompressobj(_GZIP_WINDOW), False
            if not has_begun and not (pending := pending.lstrip(b"\0")):
                break  # padding between or behind the members
            has_begun = True
            try:
                piece = member.decompress(pending, OUTPUT_BYTES)
            except zlib.error as error:
                raise RunSourceError(BROKEN) from error
            if piece:
                yield piece
            pending = member.unused_data if member.eof else member.unconsumed_tail
    if has_begun and not member.eof:
        raise RunSourceError(CUT_OFF)


def _unzstd(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Decompress zstd with pyarrow, which also reads several frames."""
    import pyarrow as pa

    with pa.CompressedInputStream(pa.PythonFile(_ChunkFile(chunks), mode="r"), "zstd") as stream:
        while True:
            try:
                piece = stream.read(OUTPUT_BYTES)
            except (OSError, pa.ArrowException) as error:
                if isinstance(error.__cause__, RunSourceError):
                    raise
                is_cut_off = "truncated" in str(error).lower()
                raise RunSourceError(CUT_OFF if is_cut_off else BROKEN) from error
            if not piece:
                return
            yield piece


class _ChunkFile(io.RawIOBase):
    """Chunks as a file that is read once, from its beginning to its end."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
