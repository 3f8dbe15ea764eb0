"""Text embeddings in Redis, so that only one worker ever encodes a prompt."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import redis
from redis.exceptions import RedisError

from labelyard.ledger import SOCKET_OPTIONS
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision.scoring import Floats

log = logging.getLogger(__name__)

TTL_S = 7 * 86_400
PROMPTS_IN_A_TRIP = 1_000


class TextStore:
    """Shared by the workers that serve the same checkpoint; a cache, so it may fail.

    Keys are ``{namespace}:text:{fingerprint}:{sha256 of the prompt}``, values raw
    little-endian float32.
    """

    def __init__(
        self, connection: "redis.Redis", *, namespace: str, fingerprint: str, dim: int
    ) -> None:
        """Use a connection that does not decode responses."""
        self._redis = connection
        self._prefix = f"{namespace}:text:{fingerprint}:"
        self._dim = dim

    @classmethod
    def connect(cls, settings: WorkerSettings, *, fingerprint: str, dim: int) -> Self:
        """Use the ledger's Redis."""
        connection = redis.Redis.from_url(settings.ledger_url, **SOCKET_OPTIONS)
        return cls(connection, namespace=settings.namespace, fingerprint=fingerprint, dim=dim)

    def get_many(self, prompts: Sequence[str]) -> dict[str, Floats]:
        """Look up the vectors that are known; none when Redis gives no answer."""
        found: dict[str, Floats] = {}
        try:
            for start in range(0, len(prompts), PROMPTS_IN_A_TRIP):
                trip = prompts[start : start + PROMPTS_IN_A_TRIP]
                stored: Any = self._redis.mget([self._key(prompt) for prompt in trip])
                for prompt, value in zip(trip, stored, strict=True):
                    if value is not None and len(value) == 4 * self._dim:
                        found[prompt] = np.frombuffer(value, dtype="<f4")
        except (RedisError, OSError) as error:
            log.warning("text_store_unavailable", extra={"fields": {"error": repr(error)}})
        return found

    def put_many(self, text_embeds: Mapping[str, Floats]) -> None:
        """Keep vectors for a week; a Redis that gives no answer is only logged."""
        try:
            with self._redis.pipeline(transaction=False) as pipeline:
                for prompt, vector in text_embeds.items():
                    pipeline.setex(self._key(prompt), TTL_S, vector.astype("<f4").tobytes())
                pipeline.execute()
        except (RedisError, OSError) as error:
            log.warning("text_store_unavailable", extra={"fields": {"error": repr(error)}})

    def close(self) -> None:
        """Let the connections go."""
        self._redis.close()

    def _key(self, prompt: str) -> str:
        return self._prefix + hashlib.sha256(prompt.encode()).hexdigest()
