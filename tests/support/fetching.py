"""Fetch files from sources as the fetcher does, one after another, without its process."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from labelyard_worker.intake.sources import s3
from labelyard_worker.intake.sources.byte_budget import ByteBudget
from labelyard_worker.intake.sources.fetcher_settings import FetcherSettings
from labelyard_worker.intake.sources.s3_settings import S3Settings
from labelyard_worker.intake.sources.source import FetchOrder, Source, Transfer, TransferLimits
from labelyard_worker.pixels import Unchanged

BUDGET_BYTES = 64 * 1024 * 1024


def anonymous_s3(endpoint_url: str, **limits: Any) -> FetcherSettings:
    """Have fetchers read one S3 server, without signing."""
    settings = S3Settings(endpoint_url, "us-east-1", is_anonymous=True)
    return FetcherSettings((s3.config_of(settings),), TransferLimits(**limits))


@dataclass(frozen=True)
class Fetched:
    """A fetched file.

    Attributes:
        stamp: As in ``FetchedFile``; not compared.
    """

    data: bytes
    etag: str | None
    stamp: str = field(default="", compare=False)


class SyncSource:
    """A source that each call opens anew, in an event loop of its own.

    Args:
        open_source: Opens it.
        limits: Limits on each transfer.
    """

    def __init__(
        self, open_source: Callable[[], Source], limits: TransferLimits | None = None
    ) -> None:
        self._open_source = open_source
        self._limits = limits or TransferLimits()

    def fetch(self, uri: str, **options: Any) -> Fetched | Unchanged:
        """Fetch one file, and read what came."""
        return asyncio.run(self._fetch(FetchOrder(uri, **options)))

    def is_down(self, uri: str) -> bool:
        """Probe the source."""
        return asyncio.run(self._is_down(uri))

    async def _fetch(self, order: FetchOrder) -> Fetched | Unchanged:
        budget = ByteBudget(BUDGET_BYTES)
        transfer = Transfer(order, self._limits, budget)
        try:
            file = await self._open_source().fetch(order, transfer)
        finally:
            transfer.close()
            assert budget.used_bytes == 0
        if isinstance(file, Unchanged):
            return file
        try:
            return Fetched(os.pread(file.fd, file.size_bytes + 1, 0), file.etag, file.stamp)
        finally:
            os.close(file.fd)

    async def _is_down(self, uri: str) -> bool:
        return await self._open_source().is_down(uri)
