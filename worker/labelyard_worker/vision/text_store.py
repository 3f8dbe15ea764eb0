"""Text embeddings in Redis, so that only one worker ever encodes a prompt."""

import hashlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
# After a failure: or a large label set would wait for a timeout with each of its parts.
LEFT_ALONE_FOR_S = 30.0


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
        self._left_alone_until = 0.0

    @classmethod
    def connect(cls, settings: WorkerSettings, *, fingerprint: str, dim: int) -> Self:
        """Use the ledger's Redis."""
        connection = redis.Redis.from_url(settings.ledger_url, **SOCKET_OPTIONS)
        return cls(connection, namespace=settings.namespace, fingerprint=fingerprint, dim=dim)

    def get_many(self, prompts: Sequence[str]) -> dict[str, Floats]:
        """Look up the vectors that are known; none when Redis gives no answer."""
        found: dict[str, Floats] = {}
        if self._is_left_alone:
            return found
        with self._failures_only_logged():
            for start in range(0, len(prompts), PROMPTS_IN_A_TRIP):
                trip = prompts[start : start + PROMPTS_IN_A_TRIP]
                stored: Any = self._redis.mget([self._key(prompt) for prompt in trip])
                for prompt, value in zip(trip, stored, strict=True):
                    if value is not None and len(value) == 4 * self._dim:
                        found[prompt] = np.frombuffer(value, dtype="<f4")
        return found

    def put_many(self, text_embeds: Mapping[str, Floats]) -> None:
        """Keep vectors for a week; a Redis that gives no answer is only logged."""
        if self._is_left_alone:
            return
        with self._failures_only_logged(), self._redis.pipeline(transaction=False) as pipeline:
            for prompt, vector in text_embeds.items():
                pipeline.set(self._key(prompt), vector.astype("<f4").tobytes(), ex=TTL_S)
            pipeline.execute()

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
        return self._prefix + hashlib.sha256(prompt.encode()).hexdigest()
