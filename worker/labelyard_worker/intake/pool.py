"""The intake: fetcher and decoder processes, and one future for each image."""

import heapq
import itertools
import logging
import os
import random
import selectors
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Final

from labelyard.errors import (
    ImageUndecodableError,
    LabelyardError,
    StorageUnavailableError,
    TransientError,
)
from labelyard.messages import ImageRef
from labelyard_worker.intake.addresses import shown
from labelyard_worker.intake.child_handle import ChildHandle, DecoderHandle, FetcherHandle
from labelyard_worker.intake.child_process import block_termination
from labelyard_worker.intake.decoder import DECODER, DecoderSettings
from labelyard_worker.intake.decoding import DecodeStage
from labelyard_worker.intake.fetching import YOUNG_S, FetchOutcome, FetchStage, away
from labelyard_worker.intake.frames import MalformedFrameError
from labelyard_worker.intake.pixel_budget import PixelBudget
from labelyard_worker.intake.queue import IntakeRequest, Shares
from labelyard_worker.intake.source_health import StorageAwayError
from labelyard_worker.intake.sources.s3_clients import StorageSettings
from labelyard_worker.intake.spec import FileVersion, ImageLimits, Pixels, PixelSpec, Unchanged
from labelyard_worker.intake.stalled_jobs import StalledJobs
from labelyard_worker.machine import usable_cores
from labelyard_worker.vision.waiting import Priority

__all__ = ["IntakeOptions", "IntakePool", "Unchanged", "default_children"]

log = logging.getLogger(__name__)

NOTHING_KNOWN: Final[Mapping[str, FileVersion]] = {}
MOST_CHILDREN = 32
FAILED_STARTS_TO_NOTICE = 3
RETRY_S = 0.25
LONGEST_RETRY_S = 5.0
PAUSE_AFTER_FAILURE_S = 1.0
LONGEST_SLEEP_S = 1.0
UNLIMITED = 1_000_000
# Files that may wait for a decoder, for each decoder; beyond it no fetch begins. More at
# once cost more CPU each: 0.29 ms with 4 in flight, 0.47 ms with 32.
FILES_AHEAD = 6


def default_children() -> int:
    """Decide how many decoders suit this machine: one a core, and never one alone.

    A second one goes on when an image keeps the first until its time is over.
    """
    return max(2, min(usable_cores(), MOST_CHILDREN))


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


class IntakePool:
    """Fetches and decodes images, outside the model's process.

    One thread owns all state; the others put requests into its inbox. An image that
    crashes its decoder, hangs it or eats memory costs that image alone; a source that is
    slow costs its own share of the fetches.

    Args:
        spec: What the checkpoint's image processor does.
        limits: What a picture may cost.
        storage: Where to fetch from, see ``resolve_storage``.
        options: Sizes and limits.
        budget: Places for decoded images. With pixels, a place passes to the caller, who
            gives it back; without a budget there is no bound.
        decoder: ``module:function`` in place of ``images.decode``, for tests.
    """

    def __init__(
        self,
        *,
        spec: PixelSpec,
        limits: ImageLimits,
        storage: StorageSettings,
        options: IntakeOptions = IntakeOptions(),
        budget: PixelBudget | None = None,
        decoder: str = DECODER,
    ) -> None:
        self.budget = budget if budget is not None else PixelBudget(UNLIMITED)
        self._options = options
        self._inbox: deque[IntakeRequest | None] = deque()  # None: look whether anything is due
        self._pending = 0
        self._answered = threading.Condition()
        self._is_closed = False
        self._is_asleep = False
        self._delayed: list[tuple[float, int, IntakeRequest]] = []  # a heap by due time
        self._order = itertools.count()
        self._unanswered: set[IntakeRequest] = set()
        self._jobs: Counter[str] = Counter()  # images without an answer, by job
        job_slots = options.job_slots if options.has_breakers else UNLIMITED
        self._stalled = StalledJobs(job_slots, Shares.of(options.fetches))
        self._fetching = FetchStage(
            storage,
            fetchers=options.fetchers,
            fetches=options.fetches,
            on_file=self._has_file,
            on_unchanged=self._answer,
            on_error=self._fetch_failed,
        )
        children = options.children or default_children()
        self._decoding = DecodeStage(
            DecoderSettings(
                spec=spec,
                limits=limits,
                image_timeout_s=options.image_timeout_s,
                nice=options.nice,
                decoder=decoder,
            ),
            decoders=children,
            budget=self.budget,
            on_pixels=self._answer,
            on_error=self._decode_failed,
            on_cut=self._was_cut,
        )
        self._files_ahead = FILES_AHEAD * children
        self._selector = selectors.DefaultSelector()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._wake_fd, selectors.EVENT_READ)
        self.budget.on_freed = self._place_freed
        self._thread = threading.Thread(target=self._run, name="labelyard-intake", daemon=True)
        self._thread.start()

    def submit(
        self,
        images: Sequence[ImageRef],
        *,
        known: Mapping[str, FileVersion] = NOTHING_KNOWN,
        priority: Priority = "bulk",
        tenant: str = "",
        job: str = "",
    ) -> list[Future[Pixels | Unchanged]]:
        """Have *images* fetched and decoded.

        Args:
            known: By URI, the version whose pixels are known already; if the object is
                still that one, it is not fetched again.
            priority: Interactive images go first.
            tenant: Tenant whose share the images count against.
            job: Job that they belong to.

        Returns:
            One future for each image, in their order. Each is answered once, with pixels,
            with ``Unchanged`` or with one of our errors; when the intake closes, with
            StorageUnavailableError. Cancelling one withdraws its image, also while it is
            fetched. Callbacks run in the intake's thread: keep them short.
        """
        now = time.monotonic()
        requests = [
            IntakeRequest(image, None, priority, tenant, job, asked_at=now) for image in images
        ]
        for request in requests:
            if (version := known.get(request.image.uri)) is not None:
                request.known_etag, request.known_stamp = version.etag, version.stamp
        with self._answered:
            self._pending += len(requests)
        for request in requests:
            request.answer.add_done_callback(partial(self._count_answer, request))
        self._inbox.extend(requests)
        self._wake()
        if self._is_closed:
            self._abandon()
        return [request.answer for request in requests]

    @property
    def pending(self) -> int:
        """Images without an answer; the caller bounds it by what it submits."""
        return self._pending

    @property
    def decoder_pids(self) -> list[int]:
        """Process ids of the decoders that run right now."""
        return [one.pid for one in self._decoding.handles if one is not None and one.is_ready]

    @property
    def fetcher_pids(self) -> list[int]:
        """Process ids of the fetchers that run right now."""
        return [one.pid for one in self._fetching.handles if one is not None and one.is_ready]

    @property
    def is_decoding(self) -> bool:
        """Whether a decoder is at work."""
        return any(one is not None and one.sent for one in self._decoding.handles)

    @property
    def sources_away(self) -> list[str]:
        """Buckets and hosts that fail as a whole."""
        return self._fetching.health.away

    def is_alive(self) -> bool:
        """Tell whether images are taken in: the loop runs, and its children start."""
        stages = (self._fetching, self._decoding)
        return self._thread.is_alive() and all(
            stage.failed_starts < FAILED_STARTS_TO_NOTICE for stage in stages
        )

    def close(self, timeout_s: float = 0.0) -> None:
        """Give pending images *timeout_s* seconds, then answer the rest and end the children."""
        with self._answered:
            self._answered.wait_for(lambda: self._pending == 0, timeout_s)
        with self._answered:
            is_first, self._is_closed = not self._is_closed, True
        if is_first:
            os.eventfd_write(self._wake_fd, 1)
            self._thread.join()
            os.close(self._wake_fd)
        self._abandon()

    # --- the loop ---

    def _run(self) -> None:
        block_termination()
        while not self._is_closed:
            try:
                self._step()
            except Exception:
                log.exception("intake_loop_failed")
                time.sleep(PAUSE_AFTER_FAILURE_S)
        self._close_all()

    def _step(self) -> None:
        """Do all that can be done now, then wait for the next event."""
        self._take_inbox()
        self._start_children()
        self._take_due()
        self._dispatch()
        self._is_asleep = True
        events = self._selector.select(0 if self._inbox else self._sleep_s())
        self._is_asleep = False
        for key, _ in events:
            if key.data is None:
                os.eventfd_read(self._wake_fd)
            else:
                self._serve(key.data)

    def _sleep_s(self) -> float:
        due = [self._fetching.next_due_at(), self._decoding.next_due_at()]
        if len(self._fetching.queue) and self._fetching.young:
            due.append(time.monotonic() + YOUNG_S)
        if self._delayed:
            due.append(self._delayed[0][0])
        if self._stalled.is_crowded(len(self._jobs)):
            due.append(self._stalled.look_at)
        next_at = min((at for at in due if at is not None), default=float("inf"))
        return min(LONGEST_SLEEP_S, max(0.0, next_at - time.monotonic()))

    def _wake(self) -> None:
        if self._is_asleep:
            os.eventfd_write(self._wake_fd, 1)

    def _place_freed(self) -> None:
        """Have the loop look again, even if it is about to sleep."""
        self._inbox.append(None)
        self._wake()

    def _take_inbox(self) -> None:
        while self._inbox:
            request = self._inbox.popleft()
            if request is None:
                continue
            if request.answer.done():
                self._withdraw(request)
            else:
                self._unanswered.add(request)
                self._jobs[request.job] += bool(request.job)
                self._begin(request)

    def _begin(self, request: IntakeRequest) -> None:
        """Queue an image, unless its source is failing, or has its share of jobs already."""
        if self._fetching.health.is_away(request.source, time.monotonic()):
            self._answer(request, away(request))
        elif request.source in self._stalled.sources:
            self._answer(request, away(request, "the source is slow: other jobs wait for it"))
        else:
            self._fetching.put(request)

    def _start_children(self) -> None:
        for fetcher in self._fetching.start_missing():
            self._selector.register(fetcher.channel.socket, fetcher.events(), fetcher)
            self._selector.register(fetcher.program.stderr, selectors.EVENT_READ, fetcher.program)
        for decoder in self._decoding.start_missing():
            self._selector.register(decoder.channel.socket, decoder.events(), decoder)

    def _take_due(self) -> None:
        """Do what its time has come for."""
        now = time.monotonic()
        while self._delayed and self._delayed[0][0] <= now:
            request = heapq.heappop(self._delayed)[2]
            if not request.answer.done():
                self._begin(request)
        for decoder in self._decoding.time_out():
            self._unwatch(decoder)
            self._decoding.end_late(decoder)
        for fetcher in self._fetching.hung():
            self._bury(fetcher)
        self._fetching.send_probes()
        if self._stalled.is_crowded(len(self._jobs)) and now >= self._stalled.look_at:
            for request in self._stalled.look(self._fetching.slow_fetches(), self._unfetched):
                self._answer(request, away(request, "the source is slow: other jobs wait for it"))
                self._withdraw(request)

    def _unfetched(self) -> list[IntakeRequest]:
        flying = [
            request
            for handle in self._fetching.handles
            if handle is not None
            for request in handle.fetching.values()
        ]
        return [*self._fetching.queue, *flying, *(request for _, _, request in self._delayed)]

    def _dispatch(self) -> None:
        for decoder in self._decoding.start_decoding():
            self._bury(decoder)
        # What is on its way from a source that answers at once will wait here in a moment.
        coming = self._decoding.held_files + self._fetching.young
        has_bytes = self._decoding.held_bytes < self._options.max_fetched_bytes // 2
        self._fetching.start_fetches(
            bulk=self._files_ahead - coming if has_bytes else 0,
            interactive=2 * self._files_ahead - coming if has_bytes else 0,
        )
        for handle in (*self._fetching.handles, *self._decoding.handles):
            if handle is not None and handle.channel.has_unsent:
                self._selector.modify(handle.channel.socket, handle.events(), handle)

    def _serve(self, source: object) -> None:
        """Take what a child sent."""
        if isinstance(source, ChildHandle):
            known: tuple[ChildHandle | None, ...] = (
                *self._fetching.handles,
                *self._decoding.handles,
            )
            if source in known:  # else it was buried meanwhile
                self._serve_child(source)
        elif said := source.read_stderr():  # type: ignore[attr-defined]
            log.warning("intake_fetcher_stderr", extra={"fields": {"stderr": said[:500]}})

    def _serve_child(self, handle: ChildHandle) -> None:
        stage = self._fetching if isinstance(handle, FetcherHandle) else self._decoding
        try:
            if handle.channel.has_unsent:
                handle.channel.flush()
                self._selector.modify(handle.channel.socket, handle.events(), handle)
            while (frame := handle.channel.read()) is not None:
                stage.read(handle, frame)  # type: ignore[arg-type]
        except (EOFError, OSError):
            self._bury(handle)
        except MalformedFrameError as error:
            log.error("intake_answer_malformed", extra={"fields": {"why": str(error)}})  # noqa: TRY400
            self._bury(handle, why=f"the decoder answered nonsense: {error}")

    def _bury(self, handle: ChildHandle, *, why: str = "") -> None:
        self._unwatch(handle)
        if isinstance(handle, FetcherHandle):
            self._fetching.bury(handle)
        elif isinstance(handle, DecoderHandle):
            self._decoding.bury(handle, why=why, is_fatal=bool(why))

    def _unwatch(self, handle: ChildHandle) -> None:
        self._selector.unregister(handle.channel.socket)
        if isinstance(handle, FetcherHandle):
            self._selector.unregister(handle.program.stderr)

    # --- what becomes of an image ---

    def _has_file(self, request: IntakeRequest) -> None:
        self._decoding.put(request)

    def _fetch_failed(self, request: IntakeRequest, outcome: FetchOutcome) -> None:
        """Retry, find out whether its source fails as a whole, or answer."""
        error, now = outcome.error, time.monotonic()
        if isinstance(error, StorageAwayError) or not isinstance(error, TransientError):
            self._answer(request, error)
        elif self._fetching.health.is_away(request.source, now):
            self._answer(request, away(request))
        elif request.attempt < self._options.image_retries:
            self._retry(request)
        elif outcome.is_down and self._options.has_breakers:
            request.last_error = error
            self._fetching.health.note_failure(request, now)
        else:
            self._answer(request, error)

    def _decode_failed(self, request: IntakeRequest, error: LabelyardError) -> None:
        is_retried = isinstance(error, TransientError) and (
            request.attempt < self._options.image_retries
        )
        if is_retried:
            self._retry(request)
        else:
            self._answer(request, error)

    def _was_cut(self, request: IntakeRequest, md5: str, error: ImageUndecodableError) -> None:
        """Fetch an image again whose bytes are not those that its ETag promises.

        Whether the ETag is an MD5 is only sure once S3 was asked; equal bytes twice are
        what the source holds.
        """
        if request.is_md5 is not True and request.cut_md5 == md5:
            self._answer(request, error)
        elif not request.cut_md5 or request.attempt < self._options.image_retries:
            request.cut_md5 = md5
            self._retry(request)
        else:
            reason = "the transfer was cut: its bytes are not those of its ETag"
            self._answer(request, StorageUnavailableError(shown(request.image.uri), reason))

    def _retry(self, request: IntakeRequest) -> None:
        """Fetch an image again after a while, with full jitter; no child is kept busy."""
        self._let_go(request)
        longest_s = min(LONGEST_RETRY_S, RETRY_S * 2**request.attempt)
        request.attempt += 1
        due = time.monotonic() + random.uniform(0, longest_s)
        heapq.heappush(self._delayed, (due, next(self._order), request))

    def _answer(
        self, request: IntakeRequest, outcome: "Pixels | Unchanged | LabelyardError"
    ) -> None:
        """Give the caller what came of the image; with pixels, the place becomes theirs."""
        self._forget(request)
        if request.answer.done() or not request.answer.set_running_or_notify_cancel():
            self._let_go(request)
            return
        if isinstance(outcome, Pixels):
            request.has_place = False
        self._let_go(request)
        if isinstance(outcome, LabelyardError):
            request.answer.set_exception(outcome)
        else:
            request.answer.set_result(outcome)

    def _withdraw(self, request: IntakeRequest) -> None:
        """Drop an image that nobody wants any more, wherever it is."""
        self._forget(request)
        self._fetching.withdraw(request)
        self._decoding.withdraw(request)
        self._let_go(request)

    def _forget(self, request: IntakeRequest) -> None:
        """Count an image as answered."""
        if request in self._unanswered:
            self._unanswered.discard(request)
            self._jobs[request.job] -= bool(request.job)
            if self._jobs[request.job] <= 0:
                del self._jobs[request.job]

    def _let_go(self, request: IntakeRequest) -> None:
        """Give back what an image holds: its file, and its place."""
        self._decoding.release(request)
        if request.has_place:
            request.has_place = False
            self.budget.give_back()

    def _count_answer(self, request: IntakeRequest, _: "Future[Pixels | Unchanged]") -> None:
        """Note that an image has its answer, or was cancelled by whichever thread."""
        with self._answered:
            self._pending -= 1
            self._answered.notify_all()
        if request.answer.cancelled():
            self._inbox.append(request)
            self._wake()

    def _close_all(self) -> None:
        self._is_asleep = False
        for handle in (*self._fetching.handles, *self._decoding.handles):
            if handle is not None:
                self._unwatch(handle)
                handle.end()
        self._selector.close()
        for request in list(self._unanswered):
            self._answer(request, stopped(request))

    def _abandon(self) -> None:
        """Answer what came after the loop had ended."""
        while self._inbox:
            request = self._inbox.popleft()
            if request is not None:
                self._answer(request, stopped(request))


def stopped(request: IntakeRequest) -> StorageUnavailableError:
    """Tell a caller that the worker stops before the image is done."""
    return StorageUnavailableError(shown(request.image.uri), "the worker stops")
