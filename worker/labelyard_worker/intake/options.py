"""Sizes and limits of an intake."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from labelyard_worker.settings import WorkerSettings  # pydantic-settings: not in children

UNLIMITED: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class IntakeOptions:
    """Sizes and limits of an intake.

    Attributes:
        children: Decoder processes; 0 decides from the cores.
        fetchers: Fetcher processes.
        fetches: Most fetches at once, over all fetchers.
        max_fetched_bytes: Bytes of files that are fetched and not decoded yet. Half of it
            is for unfinished fetches; one file more than all of it may be held.
        image_timeout_s: Seconds to fetch and decode one image.
        image_retries: Times that one image's transient error is retried.
        job_slots: Jobs that the worker runs at once; a slow source may not hold them all.
        has_breakers: Whether images of a source that fails as a whole, or is too slow for
            all the jobs that want it, are answered with StorageAwayError.
        nice: Added to the decoders' niceness. Niced children starve behind a busy model.
    """

    children: int = 0
    fetchers: int = 1
    fetches: int = 128
    max_fetched_bytes: int = 256 * 1024 * 1024
    image_timeout_s: float = 30.0
    image_retries: int = 2
    job_slots: int = UNLIMITED
    has_breakers: bool = True
    nice: int = 0

    @classmethod
    def of(cls, settings: "WorkerSettings") -> Self:
        """Read the sizes and limits from the worker's settings."""
        return cls(
            children=settings.intake_children,
            fetchers=settings.fetchers,
            fetches=settings.fetches,
            max_fetched_bytes=settings.max_fetched_bytes,
            image_timeout_s=settings.image_timeout_s,
            image_retries=settings.image_retries,
            job_slots=settings.concurrency,
            has_breakers=settings.storage_wait_s > 0,
        )
