"""Settings of the caches."""

from pydantic import BaseModel, NonNegativeInt, PositiveInt

from labelyard.settings import DAY_S
from labelyard_worker.settings.values import MIB


class CacheSettings(BaseModel):
    """Worker settings of the caches of text and image embeddings."""

    #: Most bytes of label sets and their text embeddings kept in memory, names and overhead
    #: included; a set of 10,000 labels takes 11 to 42 MB.
    label_cache_bytes: PositiveInt = 256 * MIB
    #: Image embeddings kept in memory, for pictures that come again; 0 keeps none.
    image_cache_bytes: NonNegativeInt = 64 * MIB
    #: Fetch known pictures, too, so that their SHA-256 decides and no ETag is believed: for
    #: moderation. It costs the fetch and the decoding of each picture, also of jobs that only
    #: score again.
    always_fetch: bool = False
    #: Redis that keeps image embeddings for all workers and for re-scoring, about 3 kB an image,
    #: and text embeddings, 2 to 4.2 kB a prompt. It may evict: give it an instance of its own with
    #: ``maxmemory-policy allkeys-lru``. Unset keeps them in memory only, so that each worker
    #: encodes its label sets itself.
    embeddings_url: str | None = None
    #: Seconds that embeddings_url keeps embeddings; prompts of label sets that are not registered are kept for an
    #: hour.
    embeddings_ttl_s: PositiveInt = 7 * DAY_S
