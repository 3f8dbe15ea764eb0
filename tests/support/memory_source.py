"""A third kind of source, ``mem://shelf/name``: files that its settings hold."""

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from labelyard.errors import ImageNotFoundError, UnsupportedUriError
from labelyard_worker.intake.image_uri import redact
from labelyard_worker.intake.sources.fetcher_settings import SourceConfig
from labelyard_worker.intake.sources.source import (
    FetchedFile,
    FetchOrder,
    SourceDownError,
    Transfer,
    TransferLimits,
)
from labelyard_worker.pixels import Unchanged, stamp_of
from labelyard_worker.settings import WorkerSettings

CHANGED_AT = "2026-11-23T00:00:00+00:00"
# Names that misbehave.
STALLS, BREAKS, PANICS = "stalls", "breaks", "panics"


def configure(_: WorkerSettings, __: TransferLimits) -> SourceConfig:
    """Describe an empty source to the fetchers."""
    return config_of({})


def config_of(files: Mapping[str, bytes], *, shelf: str = "shelf") -> SourceConfig:
    """Describe a source with *files*, by their names."""
    return SourceConfig(
        "mem",
        opener=f"{__name__}:open_source",
        settings={"shelf": shelf, "files": {name: raw.hex() for name, raw in files.items()}},
        variables=("TEST_SHELF_",),
    )


def open_source(settings: Mapping[str, Any]) -> "MemorySource":
    """Open the source in a fetcher."""
    return MemorySource(settings)


class MemorySource:
    """Fetches the files of one shelf."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._shelf = settings["shelf"]
        self._files = {name: bytes.fromhex(raw) for name, raw in settings["files"].items()}

    async def fetch(self, order: FetchOrder, transfer: Transfer) -> FetchedFile | Unchanged:
        """Read one file; see ``Source.fetch``."""
        shown = redact(order.uri)
        parts = urlsplit(order.uri)
        if parts.hostname != self._shelf:
            raise UnsupportedUriError(shown, f"the shelf is not {self._shelf}")
        match name := parts.path.removeprefix("/"):
            case "stalls":
                await transfer.await_piece(asyncio.sleep(60))
            case "breaks":
                raise SourceDownError(shown, "the shelf broke")
            case "panics":
                raise RuntimeError(f"a library's own words about {order.uri}")
        raw = self._files.get(name)
        if raw is None:
            raise ImageNotFoundError(shown, "nothing on the shelf has this name")
        etag = hashlib.md5(raw, usedforsecurity=False).hexdigest()
        stamp = stamp_of(size_bytes=len(raw), changed_at=CHANGED_AT, version_id=None)
        if (order.known_etag, order.known_stamp) == (etag, stamp):
            return Unchanged(etag)
        transfer.announce(len(raw))
        await transfer.write(raw)
        return transfer.finish(etag, is_md5=True, stamp=stamp)

    async def is_down(self, uri: str) -> bool:
        """Probe the shelf: it is down if it broke."""
        return urlsplit(uri).path == f"/{BREAKS}"
