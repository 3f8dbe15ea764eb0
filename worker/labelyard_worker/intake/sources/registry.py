"""Registry of the sources. A new source is one file, and one line here.

Its file has two functions: ``configure`` describes the source in the worker's process, and
``open_source`` opens it in a fetcher, from the plain settings of that description.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from labelyard_worker.intake.sources import https, s3
from labelyard_worker.intake.sources.fetcher_settings import FetcherSettings, SourceConfig
from labelyard_worker.intake.sources.source import TransferLimits

if TYPE_CHECKING:
    from labelyard_worker.settings import WorkerSettings

SOURCES: Final[tuple[Callable[["WorkerSettings", TransferLimits], SourceConfig], ...]] = (
    s3.configure,
    https.configure,
)

# A fetch may take this part of an image's time, so that a stalled server is reported as
# storage_unavailable and retried, and not as image_timed_out; decoding gets the rest.
SHARE_OF_TIMEOUT: Final = 0.8


def resolve_fetcher(settings: "WorkerSettings") -> FetcherSettings:
    """Resolve the settings of the fetchers once, in the worker's process."""
    limits = TransferLimits(
        max_bytes=settings.max_image_bytes,
        timeout_s=SHARE_OF_TIMEOUT * settings.image_timeout_s,
        grace_s=settings.fetch_grace_s,
        min_bytes_per_s=settings.min_fetch_bytes_per_s,
    )
    return FetcherSettings(
        sources=tuple(configure(settings, limits) for configure in SOURCES),
        limits=limits,
        fetching_bytes=settings.max_fetched_bytes // 2,
    )
