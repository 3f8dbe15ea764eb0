"""Runs of a client for asyncio: calls run in threads."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final, Unpack

from labelyard.arguments import wait_s
from labelyard.errors import RunTimeoutError
from labelyard.runs.client import POLL_EVERY_S, RunHandle, Runs
from labelyard.runs.lines import ErrorLine
from labelyard.runs.options import RunOptions, Source
from labelyard.runs.record import RunProgress, RunRecord
from labelyard.runs.request import RunRequest
from labelyard.submission import Labels

#: Error lines that one call to a thread reads.
LINES_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class AsyncRunHandle:
    """A run that was started; see :class:`labelyard.runs.client.RunHandle`."""

    id: str
    is_new: bool
    out: str
    _runs: "AsyncRuns" = field(repr=False, compare=False)

    async def progress(self) -> RunProgress:
        """Read the run's progress."""
        return await self._runs.progress(self.id)

    async def wait(self, *, timeout_s: float) -> RunRecord:
        """Wait until the run has ended; see :meth:`AsyncRuns.wait`."""
        return await self._runs.wait(self.id, timeout_s=timeout_s)


class AsyncRuns:
    """Bulk work over manifests and prefixes; see :class:`labelyard.runs.client.Runs`."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    async def start(
        self, source: Source, labels: Labels, *, out: str, **options: Unpack[RunOptions]
    ) -> AsyncRunHandle:
        """Start a run, and return as soon as the ledger has it."""
        return self._handle(
            await asyncio.to_thread(self._runs.start, source, labels, out=out, **options)
        )

    async def start_run(self, request: RunRequest) -> AsyncRunHandle:
        """Start a prepared run."""
        return self._handle(await asyncio.to_thread(self._runs.start_run, request))

    async def get(self, run_id: str) -> RunRecord:
        """Read all that the ledger knows of a run."""
        return await asyncio.to_thread(self._runs.get, run_id)

    async def list(self, *, limit: int = 100) -> Sequence[RunRecord]:
        """Read the newest runs, the newest first."""
        return await asyncio.to_thread(self._runs.list, limit=limit)

    async def progress(self, run_id: str) -> RunProgress:
        """Read the progress of a run, running shards included."""
        return await asyncio.to_thread(self._runs.progress, run_id)

    async def watch(self, run_id: str, *, every_s: float = 1.0) -> AsyncIterator[RunProgress]:
        """Yield the progress of a run every *every_s* seconds, until it has ended."""
        while True:
            run = await self.get(run_id)
            yield await self.progress(run_id)
            if run.is_final:
                return
            await asyncio.sleep(every_s)

    async def wait(self, run_id: str, *, timeout_s: float) -> RunRecord:
        """Wait until a run has ended, and return its record."""
        until = time.monotonic() + wait_s(timeout_s)
        while True:
            run = await self.get(run_id)
            if run.is_final:
                return run
            left_s = until - time.monotonic()
            if left_s <= 0:
                raise RunTimeoutError(f"{run_id} is {run.state}")
            await asyncio.sleep(min(POLL_EVERY_S, left_s))

    async def pause(self, run_id: str) -> None:
        """Begin no further shard; those in work are finished."""
        await asyncio.to_thread(self._runs.pause, run_id)

    async def resume(self, run_id: str) -> None:
        """Go on with a paused or a cancelled run; finished shards are not done again."""
        await asyncio.to_thread(self._runs.resume, run_id)

    async def cancel(self, run_id: str) -> None:
        """Stop a run, its running shards included; what is written stays, with a summary."""
        await asyncio.to_thread(self._runs.cancel, run_id)

    async def errors(self, run_id: str, *, codes: Sequence[str] = ()) -> AsyncIterator[ErrorLine]:
        """Yield the errors of a run from its files, in the order of its shards."""
        lines = self._runs.errors(run_id, codes=codes)
        while some := await asyncio.to_thread(lambda: [*islice(lines, LINES_AT_ONCE)]):
            for line in some:
                yield line

    async def pictures(self, old_run: str, *, most: int = 1_000) -> Sequence[str]:
        """Return addresses of pictures that a run labelled, from all parts of it."""
        return await asyncio.to_thread(self._runs.pictures, old_run, most=most)

    async def download(self, run_id: str, folder: str | Path) -> Sequence[Path]:
        """Download the files of a run, and return their paths; equal files that are there are kept."""
        return await asyncio.to_thread(self._runs.download, run_id, folder)

    async def rescore(
        self, old_run: str, labels: Labels, *, out: str | None = None, **options: Unpack[RunOptions]
    ) -> AsyncRunHandle:
        """Start a run that scores the embeddings of an old run against other labels."""
        return self._handle(
            await asyncio.to_thread(self._runs.rescore, old_run, labels, out=out, **options)
        )

    async def retry_errors(self, run_id: str, *, codes: Sequence[str] = ()) -> AsyncRunHandle:
        """Start a run over the failed lines of a run that has ended."""
        return self._handle(await asyncio.to_thread(self._runs.retry_errors, run_id, codes=codes))

    def _handle(self, handle: RunHandle) -> AsyncRunHandle:
        return AsyncRunHandle(handle.id, handle.is_new, handle.out, self)
