"""Settings of the intake and its sources."""

from typing import Literal

from pydantic import BaseModel, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from labelyard_worker.settings.values import MIB, Names


class IntakeSettings(BaseModel):
    """Worker settings of the intake: how images are fetched and decoded, and their limits."""

    #: ``draft`` decodes JPEGs at the smallest DCT scale that is at least twice the model's size,
    #: several times faster on large ones; ``exact`` decodes every pixel; ``auto`` drafts for all
    #: checkpoints whose answers hold, which are all but lite and ALIGN.
    decode: Literal["auto", "draft", "exact"] = "auto"
    #: ``white`` composes on white; ``drop`` drops the alpha channel. With decode ``exact``,
    #: ``drop`` gives the pixels of transformers' pipeline, which composes one transparent colour
    #: (GIF, PNG) on white and clips greys of more than 8 bits to white; otherwise these are scaled
    #: to 8 bits.
    transparency: Literal["white", "drop"] = "white"
    #: Processes that decode; 0 decides from the cores.
    intake_children: NonNegativeInt = 0
    #: Processes that fetch, each with many fetches at once. One takes 35 MiB of memory, 66 MiB
    #: once it has needed boto3 to sign requests.
    fetchers: PositiveInt = 1
    #: Most fetches at once. Bulk jobs get three quarters of them, a tenant a half, a bucket or
    #: host a quarter, so that a slow one does not hold them all.
    fetches: PositiveInt = 128
    #: Bytes of files that are fetched and not decoded yet; one file more than that may be held.
    max_fetched_bytes: PositiveInt = 256 * MIB
    #: Seconds to fetch and decode one image; a fetch gets at most 80 %, decoding what the fetch
    #: left, at least 20 %.
    image_timeout_s: PositiveFloat = 30.0
    #: Seconds that each piece of a file (256 KiB, or a whole file up to 1 MiB) may take at any
    #: rate.
    fetch_grace_s: PositiveFloat = 5.0
    #: Rate below which a fetch is given up after that, as storage_unavailable.
    min_fetch_bytes_per_s: PositiveInt = 50_000
    #: Seconds since it was submitted that a job waits, without using up its attempts, while a
    #: bucket or host fails as a whole or is too slow for all the jobs that want it. 0 never waits:
    #: such jobs use up their attempts.
    storage_wait_s: NonNegativeFloat = 6 * 3600.0
    #: Largest file that is fetched.
    max_image_bytes: PositiveInt = 50_000_000
    #: Largest width x height, read from the header.
    max_image_pixels: PositiveInt = 100_000_000
    #: Address space that decoding may take beyond the child's own.
    max_child_memory_bytes: PositiveInt = 2048 * MIB
    #: Times that one image's transient error is retried in place.
    image_retries: NonNegativeInt = 2


class SourceSettings(BaseModel):
    """Worker settings of the sources: the buckets and hosts that images may come from."""

    #: Buckets that may be read; empty means all that the credentials allow.
    allowed_buckets: Names = ()
    #: Whether ``https://`` images may be fetched.
    https_sources: bool = False
    #: Hosts that ``https://`` images may come from; needed when https_sources is on.
    https_hosts: Names = ()
