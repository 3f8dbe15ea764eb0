"""Read an object that obstore opened into a transfer, whichever store it comes from."""

from typing import TYPE_CHECKING

from labelyard.errors import StorageUnavailableError
from labelyard_worker.intake.sources.source import ONE_PIECE_BYTES, PIECE_BYTES, Transfer
from labelyard_worker.pixels import stamp_of

if TYPE_CHECKING:
    from obstore import GetResult, ObjectMeta


async def read_object(answer: "GetResult", transfer: Transfer, *, uri: str) -> None:
    """Read the whole object: a small one as one piece, a large one as a stream.

    Raises:
        ImageTooLargeError: The object is larger than the limit.
        StorageUnavailableError: The connection broke off, or was too slow.
    """
    size_bytes = answer.meta["size"]
    transfer.announce(size_bytes)
    if size_bytes <= ONE_PIECE_BYTES:
        whole = await transfer.await_piece(answer.bytes_async(), size_bytes=size_bytes)
        await transfer.write(memoryview(whole))
    else:
        await _stream(answer, transfer)
    if transfer.size_bytes != size_bytes:
        raise StorageUnavailableError(uri, "the connection broke off")


async def _stream(answer: "GetResult", transfer: Transfer) -> None:
    stream = answer.stream(min_chunk_size=PIECE_BYTES)
    while True:
        try:
            chunk = await transfer.await_piece(stream.__anext__())
        except StopAsyncIteration:
            return
        await transfer.write(chunk)


def stamp_of_meta(meta: "ObjectMeta") -> str:
    """Describe the version that obstore names."""
    return stamp_of(
        size_bytes=meta["size"],
        changed_at=meta["last_modified"].isoformat(),
        version_id=meta["version"],
    )
