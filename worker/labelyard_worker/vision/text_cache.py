"""Text embeddings in a Redis that may evict them, so that workers share what each encodes.

They never go into the ledger, which evicts nothing and must not fill up. A vector of 512
numbers takes about 2.2 kB there, one of 1,024 about 4.2 kB.
"""

import hashlib
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import redis
from redis.exceptions import RedisError

from labelyard.ledger.keys import CacheKeys
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision.image_cache import cache_connection_options
from labelyard_worker.vision.scoring import Floats

log = logging.getLogger(__name__)

# Of the prompts of a set that a job carried; those of registered sets live as long as images'.
INLINE_TTL_S = 3_600
PROMPTS_IN_A_TRIP = 1_000
# After a failure: or a large label set would wait for a timeout with each of its parts.
LEFT_ALONE_FOR_S = 30.0


class TextCache:
    """Shared by the workers that serve the same checkpoint; a cache, so it may fail.

    Values are raw little-endian float32.
    """

    def __init__(
        self,
        connection: "redis.Redis",
        *,
        namespace: str,
        fingerprint: str,
        dim: int,
        registered_ttl_s: int,
    ) -> None:
        """Use a connection that does not decode responses.

        Args:
            registered_ttl_s: Seconds that vectors of registered label sets are kept; those
                of others are kept for an hour.
        """
        self._redis = connection
        self._keys = CacheKeys(namespace)
        self._fingerprint = fingerprint
        self._dim = dim
        self._registered_ttl_s = registered_ttl_s
        self._left_alone_until = 0.0

    @classmethod
    def connect(cls, settings: WorkerSettings, *, fingerprint: str, dim: int) -> Self | None:
        """Use the Redis of ``LABELYARD_EMBEDDINGS_URL``; ``None`` if it is not set."""
        if settings.embeddings_url is None:
            return None
        return cls(
            redis.Redis.from_url(settings.embeddings_url, **cache_connection_options()),
            namespace=settings.namespace,
            fingerprint=fingerprint,
            dim=dim,
            registered_ttl_s=settings.embeddings_ttl_s,
        )

    def get_many(self, prompts: Sequence[str], *, is_registered: bool) -> dict[str, Floats]:
        """Look up the vectors that are known; none when Redis gives no answer.

        Args:
            is_registered: Whether a registered set uses them, so that they live longer.
        """
        found: dict[str, Floats] = {}
        if self._is_left_alone:
            return found
        with self._failures_only_logged():
            for start in range(0, len(prompts), PROMPTS_IN_A_TRIP):
                trip = prompts[start : start + PROMPTS_IN_A_TRIP]
                stored: Any = self._redis.mget([self._key(prompt) for prompt in trip])
                for prompt, value in zip(trip, stored, strict=True):
                    if (vector := self._read(value)) is not None:
                        found[prompt] = vector
            if is_registered and found:
                self._prolong(found)
        return found

    def put_many(self, text_embeds: Mapping[str, Floats], *, is_registered: bool) -> None:
        """Keep vectors; a Redis that gives no answer is only logged.

        Those of a set that is not registered never shorten the life of known ones.
        """
        if self._is_left_alone:
            return
        ttl_s = self._registered_ttl_s if is_registered else INLINE_TTL_S
        with self._failures_only_logged(), self._redis.pipeline(transaction=False) as pipeline:
            for prompt, vector in text_embeds.items():
                value = vector.astype("<f4").tobytes()
                pipeline.set(self._key(prompt), value, ex=ttl_s, nx=not is_registered)
            pipeline.execute()

    def _prolong(self, prompts: Iterable[str]) -> None:
        with self._redis.pipeline(transaction=False) as pipeline:
            for prompt in prompts:
                pipeline.expire(self._key(prompt), self._registered_ttl_s)
            pipeline.execute()

    def _read(self, value: bytes | None) -> Floats | None:
        """Read a vector; ``None`` for anything else: a cache may hold anything."""
        if value is None or len(value) != 4 * self._dim:
            return None
        vector: Floats = np.frombuffer(value, dtype="<f4")
        return vector if np.isfinite(vector).all() else None

    def close(self) -> None:
        """Let the connections go."""
        self._redis.close()

    @property
    def _is_left_alone(self) -> bool:
        return time.monotonic() < self._left_alone_until

    @contextmanager
    def _failures_only_logged(self) -> Iterator[None]:
        """Run the block; when Redis fails in it, go without for a while."""
        try:
            yield
        except (RedisError, OSError) as error:
            self._left_alone_until = time.monotonic() + LEFT_ALONE_FOR_S
            log.warning("text_store_unavailable", extra={"fields": {"error": repr(error)}})

    def _key(self, prompt: str) -> str:
        return self._keys.text(self._fingerprint, hashlib.sha256(prompt.encode()).hexdigest())
