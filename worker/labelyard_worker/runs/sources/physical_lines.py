"""Split the bytes of a manifest into lines, none of which takes more memory than the limit."""

from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

from labelyard.runs.line_faults import MAX_LINE_BYTES

#: Bytes that are split at once: enough lines for the loops in C, and little memory.
PIECE_BYTES: Final = 256 * 1024
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

#: A line without its line break; ``None`` if it is longer than the limit.
PhysicalLine: TypeAlias = bytes | None


def split_lines(
    chunks: Iterable[bytes], *, max_line_bytes: int = MAX_LINE_BYTES
) -> Iterator[list[PhysicalLine]]:
    """Yield the lines of a stream of bytes, some thousand at a time.

    A byte order mark at the beginning of the stream is dropped. The rest of a line that is too
    long is read and forgotten. A line break at the end of the stream begins no further line.

    Args:
        chunks: Of any size, none of them empty.
    """
    rest = b""  # of the last piece, without a line break so far
    is_too_long = False
    for piece in _without_mark(_pieces(chunks)):
        lines: list[PhysicalLine] = [*piece.split(b"\n")]
        head, lines[-1] = lines[0], lines[-1]
        first = rest + (head or b"")
        is_too_long = is_too_long or len(first) > max_line_bytes
        if len(lines) == 1:
            rest = b"" if is_too_long else first
            continue
        lines[0] = None if is_too_long else first
        rest = lines.pop() or b""
        is_too_long = False
        yield lines
    if is_too_long:
        yield [None]
    elif rest:
        yield [rest]


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Cut the chunks into pieces, so that only the first line of a piece can be too long."""
    for chunk in chunks:
        if len(chunk) <= PIECE_BYTES:
            yield chunk
        else:
            for start in range(0, len(chunk), PIECE_BYTES):
                yield chunk[start : start + PIECE_BYTES]


def _without_mark(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Drop a byte order mark at the beginning of the stream."""
    head = b""
    for piece in pieces:
        head += piece
        if len(head) >= len(BYTE_ORDER_MARK):
            break
    if head := head.removeprefix(BYTE_ORDER_MARK):
        yield head
    yield from pieces
