"""Cache of image embeddings: in memory, and in Redis for all workers.

An embedding belongs to an image's content, not to its address: the address only leads to
the content that was there, and to its ETag, so that an unchanged image is not even
downloaded. All of it is a cache: what is missing is made again.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self, cast

import numpy as np
import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from labelyard.ledger.keys import CacheKeys
from labelyard.messages import ImageRef, ModelInfo
from labelyard.redis_connections import SOCKET_OPTIONS, socket_timeouts
from labelyard_worker.observations import IMAGE_CACHE_RESULTS
from labelyard_worker.pixels import PREPROCESSING_VERSION, FileVersion, ImageFacts, PixelSpec
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision.lru import ByteLru
from labelyard_worker.vision.scoring import Floats

log = logging.getLogger(__name__)

# Of an entry in Redis: raise it when a field changes its meaning, not when one is added.
ENTRY_VERSION: Final = 1
ENTRY_BYTES: Final = 512  # of an entry in memory, besides its vector
PAUSE_S: Final = 30.0
TIMEOUT_S: Final = 1.0  # for a round trip of at most 200 kB


@dataclass(frozen=True, slots=True)
class KnownImage:
    """Embedding of an image, and its facts.

    Attributes:
        image_embeds: Vector as the checkpoint made it: the embedding, then the features if
            there are any, shape (length,).
        facts: Facts about the image as it was read.
        stamp: Stamp of the version that was read, see ``FileVersion``.
    """

    image_embeds: Floats
    facts: ImageFacts
    stamp: str = ""

    @property
    def version(self) -> FileVersion | None:
        """Version of the file, if its source names one that can be believed."""
        etag = self.facts.etag
        return FileVersion(etag, self.stamp) if etag and self.stamp else None


@dataclass(frozen=True, slots=True)
class Entry:
    """Metadata cached by an image's address: a :class:`KnownImage` without its vector."""

    facts: ImageFacts
    stamp: str = ""

    @classmethod
    def of(cls, image: KnownImage) -> Self:
        """Leave the vector out."""
        return cls(image.facts, image.stamp)

    @classmethod
    def from_json(cls, value: bytes) -> Self | None:
        """Read an entry; ``None`` for anything else: a cache may hold anything.

        Entries without a version were written before there was one; they are of version 1.
        """
        try:
            values = json.loads(value)
            facts = ImageFacts.parse(values)
        except (ValueError, RecursionError):
            return None
        stamp = values.get("stamp", "")
        if values.get("version", ENTRY_VERSION) != ENTRY_VERSION or not isinstance(stamp, str):
            return None
        return cls(facts, stamp)

    def to_json(self) -> str:
        """Write the entry for Redis; facts that an earlier worker does not know, it ignores."""
        values = {"version": ENTRY_VERSION, **self.facts.to_fields(), "stamp": self.stamp}
        return json.dumps(values)

    def with_embeds(self, image_embeds: Floats) -> KnownImage:
        """Put the vector back."""
        return KnownImage(image_embeds, self.facts, self.stamp)


class SharedImageCache:
    """The part in Redis; a server that may forget, and may be away."""

    def __init__(
        self, connection: "redis.Redis", *, namespace: str, identity: str, ttl_s: int, dim: int
    ) -> None:
        """Use a connection that does not decode responses.

        Args:
            identity: What decides an embedding besides the content; see :func:`identity_of`.
        """
        self._redis = connection
        self._keys = CacheKeys(namespace)
        self._identity = identity
        self._ttl_s = ttl_s
        self._dim = dim
        self._paused_until = 0.0

    def look_up(self, addresses: Sequence[str]) -> dict[str, KnownImage]:
        """Return the known images at *addresses*; none while Redis gives no answer."""
        try:
            return {} if self._is_paused() else self._look_up(addresses)
        except (RedisError, OSError) as error:
            self._pause(error)
            return {}

    def _look_up(self, addresses: Sequence[str]) -> dict[str, KnownImage]:
        values = cast("list[Any]", self._redis.mget([self._address_key(a) for a in addresses]))
        entries = {
            address: entry
            for address, value in zip(addresses, values, strict=True)
            if value is not None and (entry := Entry.from_json(value)) is not None
        }
        if not entries:
            return {}
        keys = [self._embeds_key(entry.facts.sha256) for entry in entries.values()]
        vectors = cast("list[Any]", self._redis.mget(keys))
        return {
            address: entry.with_embeds(np.frombuffer(vector, dtype="<f4"))
            for (address, entry), vector in zip(entries.items(), vectors, strict=True)
            if vector is not None and len(vector) == 4 * self._dim
        }

    def keep(self, images: dict[str, KnownImage]) -> None:
        """Keep *images*, by address; one round trip."""
        if self._is_paused():
            return
        try:
            with self._redis.pipeline(transaction=False) as pipeline:
                for address, image in images.items():
                    entry = Entry.of(image).to_json()
                    vector = image.image_embeds.astype("<f4").tobytes()
                    pipeline.set(self._address_key(address), entry, ex=self._ttl_s)
                    pipeline.set(self._embeds_key(image.facts.sha256), vector, ex=self._ttl_s)
                pipeline.execute()
        except (RedisError, OSError) as error:
            self._pause(error)

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()

    def _is_paused(self) -> bool:
        return time.monotonic() < self._paused_until

    def _pause(self, error: Exception) -> None:
        """Do without it for a while: jobs must not wait for a cache."""
        self._paused_until = time.monotonic() + PAUSE_S
        log.warning(
            "known_images_unavailable",
            extra={"fields": {"error": type(error).__name__, "pause_s": PAUSE_S}},
        )

    def _address_key(self, address: str) -> str:
        digest = hashlib.sha256(address.encode()).hexdigest()
        return self._keys.image(self._identity, digest)

    def _embeds_key(self, sha256: str) -> str:
        return self._keys.image_embeds(self._identity, sha256)


class ImageCache:
    """Both parts together. Nothing is known when both are switched off."""

    def __init__(self, *, capacity_bytes: int, shared: SharedImageCache | None) -> None:
        self._is_remembering = capacity_bytes > 0
        # An entry takes about a quarter of what its vector of 512 numbers takes.
        self._by_address: ByteLru[str, Entry] = ByteLru(capacity_bytes // 5)
        self._by_content: ByteLru[str, Floats] = ByteLru(capacity_bytes - capacity_bytes // 5)
        self._shared = shared

    def look_up(self, images: Sequence[ImageRef]) -> dict[str, KnownImage]:
        """Return the known images among *images*, by :func:`address_of`."""
        addresses = {address_of(image) for image in images}
        found = {a: known for a in addresses if (known := self._recall(a)) is not None}
        if found:
            IMAGE_CACHE_RESULTS["memory"].inc(len(found))
        missing = sorted(addresses - found.keys())
        if self._shared is not None and missing:
            shared = self._shared.look_up(missing)
            self._remember(shared)
            found |= shared
            if shared:
                IMAGE_CACHE_RESULTS["shared"].inc(len(shared))
        return found

    def embeds_of(self, sha256: str) -> Floats | None:
        """Find the embedding of this very content, under any address."""
        return self._by_content.get(sha256)

    def keep_content(self, sha256: str, image_embeds: Floats) -> None:
        """Store an embedding by its content alone."""
        if self._is_remembering:
            embeds = image_embeds.copy()  # a row would keep its whole batch in memory
            self._by_content.put(sha256, embeds, size_bytes=ENTRY_BYTES + embeds.nbytes)

    def keep(self, images: Iterable[tuple[ImageRef, KnownImage]]) -> None:
        """Store newly embedded images by their address."""
        by_address = {address_of(image): known for image, known in images}
        if by_address:
            self._remember(by_address)
            if self._shared is not None:
                self._shared.keep(by_address)

    def _recall(self, address: str) -> KnownImage | None:
        entry = self._by_address.get(address)
        embeds = None if entry is None else self._by_content.get(entry.facts.sha256)
        return None if entry is None or embeds is None else entry.with_embeds(embeds)

    def _remember(self, images: dict[str, KnownImage]) -> None:
        if not self._is_remembering:
            return
        for address, known in images.items():
            entry = Entry.of(known)
            self._by_address.put(address, entry, size_bytes=ENTRY_BYTES + len(address))
            if self._by_content.get(known.facts.sha256) is None:
                self.keep_content(known.facts.sha256, known.image_embeds)

    def close(self) -> None:
        """Close the connection of the shared part."""
        if self._shared is not None:
            self._shared.close()


def address_of(image: ImageRef) -> str:
    """Name the object that *image* refers to, its version included."""
    return image.uri if image.version_id is None else f"{image.uri}?versionId={image.version_id}"


def identity_of(info: ModelInfo, spec: PixelSpec, settings: WorkerSettings) -> str:
    """Hash everything that decides the embedding of a content; return 16 hex digits."""
    parts = (
        info.fingerprint,
        info.dtype,
        sorted(asdict(spec).items()),
        settings.decode,
        settings.transparency,
        PREPROCESSING_VERSION,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def open_image_cache(
    settings: WorkerSettings, *, info: ModelInfo, spec: PixelSpec, dim: int
) -> ImageCache:
    """Open the embedding caches that the settings configure."""
    shared = None
    if settings.embeddings_url is not None:
        shared = SharedImageCache(
            redis.Redis.from_url(settings.embeddings_url, **cache_connection_options()),
            namespace=settings.namespace,
            identity=identity_of(info, spec, settings),
            ttl_s=settings.embeddings_ttl_s,
            dim=dim,
        )
    return ImageCache(capacity_bytes=settings.image_cache_bytes, shared=shared)


def cache_connection_options() -> dict[str, Any]:
    """Return options that time out sooner than the ledger's: a job waits, and can do without."""
    return {
        **SOCKET_OPTIONS,
        **socket_timeouts(TIMEOUT_S),
        "retry": Retry(NoBackoff(), 1),  # once: an idle connection may have been closed
    }
