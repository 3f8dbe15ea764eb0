"""An image's way through the intake: fetched, decoded, retried after errors, answered once."""

import heapq
import itertools
import random
import time
from collections import Counter
from typing import Final

from labelyard.errors import (
    ImageUndecodableError,
    LabelyardError,
    StorageUnavailableError,
    TransientError,
)
from labelyard_worker.intake.child_handle import DecoderHandle, FetcherHandle
from labelyard_worker.intake.decode_stage import DecodeStage
from labelyard_worker.intake.decoder_child import DecoderSettings
from labelyard_worker.intake.fetch_stage import YOUNG_S, FetchOutcome, FetchStage, away
from labelyard_worker.intake.image_uri import redact
from labelyard_worker.intake.options import UNLIMITED, IntakeOptions
from labelyard_worker.intake.pixel_budget import PixelBudget
from labelyard_worker.intake.queue import IntakeRequest, Shares
from labelyard_worker.intake.sources.fetcher_settings import FetcherSettings
from labelyard_worker.intake.stalled_jobs import StalledJobs
from labelyard_worker.intake.storage_away import StorageAwayError
from labelyard_worker.pixels import Pixels, Unchanged

RETRY_S = 0.25
LONGEST_RETRY_S = 5.0
# Files that may wait for a decoder, for each decoder; beyond it no fetch begins. More at
# once cost more CPU each: 0.29 ms with 4 in flight, 0.47 ms with 32.
FILES_AHEAD = 6
SLOW_SOURCE: Final = "the source is slow: other jobs wait for it"


class IntakePipeline:
    """Moves images through the fetch and decode stages and answers their futures.

    The pipeline belongs to the thread of the intake's loop; it starts no thread itself.

    Args:
        fetchers: Settings of the fetchers.
        decoders: Settings of the decoders.
        decoder_count: Number of decoder processes.
        options: Sizes and limits.
        budget: Limit on decoded images in memory.

    Attributes:
        fetching: First stage.
        decoding: Second stage.
    """

    def __init__(
        self,
        fetchers: FetcherSettings,
        *,
        decoders: DecoderSettings,
        decoder_count: int,
        options: IntakeOptions,
        budget: PixelBudget,
    ) -> None:
        self._options = options
        self._budget = budget
        self._files_ahead = FILES_AHEAD * decoder_count
        self._delayed: list[tuple[float, int, IntakeRequest]] = []  # a heap by due time
        self._order = itertools.count()
        self._unanswered: set[IntakeRequest] = set()
        self._jobs: Counter[str] = Counter()  # images without an answer, by job
        job_slots = options.job_slots if options.has_breakers else UNLIMITED
        self._stalled = StalledJobs(job_slots, Shares.of(options.fetches))
        self.fetching = FetchStage(
            fetchers,
            fetchers=options.fetchers,
            fetches=options.fetches,
            on_file=self._queue_for_decoding,
            on_unchanged=self.answer,
            on_error=self._handle_fetch_error,
        )
        self.decoding = DecodeStage(
            decoders,
            decoders=decoder_count,
            budget=budget,
            on_pixels=self.answer,
            on_error=self._handle_decode_error,
            on_cut=self._handle_cut_transfer,
        )

    @property
    def handles(self) -> list[FetcherHandle | DecoderHandle]:
        """Running children of both stages."""
        both = (*self.fetching.handles, *self.decoding.handles)
        return [handle for handle in both if handle is not None]

    def admit(self, request: IntakeRequest) -> None:
        """Count an image as unanswered, and queue it for its fetch."""
        self._unanswered.add(request)
        self._jobs[request.job] += bool(request.job)
        self._queue_for_fetching(request)

    def start_fetches(self) -> None:
        """Start fetches while the fetched files that wait for decoders are few."""
        # Files on their way from a source that answers at once will wait here in a moment.
        coming = self.decoding.held_files + self.fetching.young
        has_bytes = self.decoding.held_bytes < self._options.max_fetched_bytes // 2
        self.fetching.start_fetches(
            bulk=self._files_ahead - coming if has_bytes else 0,
            interactive=2 * self._files_ahead - coming if has_bytes else 0,
        )

    def start_due_retries(self, now: float) -> None:
        """Queue the images with a due retry again."""
        while self._delayed and self._delayed[0][0] <= now:
            request = heapq.heappop(self._delayed)[2]
            if not request.answer.done():
                self._queue_for_fetching(request)

    def shed_stalled_jobs(self, now: float) -> None:
        """Answer the newest jobs of a slow source if few job slots are left."""
        if self._stalled.is_crowded(len(self._jobs)) and now >= self._stalled.check_at:
            for request in self._stalled.images_to_shed(
                self.fetching.slow_fetches(), self._unfetched
            ):
                self.answer(request, away(request, SLOW_SOURCE))
                self.withdraw(request)

    def next_due_at(self) -> float:
        """Return the time of the next retry, probe, start or timeout; infinity if none is due."""
        due = [self.fetching.next_due_at(), self.decoding.next_due_at()]
        if len(self.fetching.queue) and self.fetching.young:
            due.append(time.monotonic() + YOUNG_S)
        if self._delayed:
            due.append(self._delayed[0][0])
        if self._stalled.is_crowded(len(self._jobs)):
            due.append(self._stalled.check_at)
        return min((at for at in due if at is not None), default=float("inf"))

    def answer(
        self, request: IntakeRequest, outcome: "Pixels | Unchanged | LabelyardError"
    ) -> None:
        """Resolve an image's future; with pixels, their place passes to the caller."""
        self._forget(request)
        if request.answer.done() or not request.answer.set_running_or_notify_cancel():
            self._release(request)
            return
        if isinstance(outcome, Pixels):
            request.has_place = False
        self._release(request)
        if isinstance(outcome, LabelyardError):
            request.answer.set_exception(outcome)
        else:
            request.answer.set_result(outcome)

    def withdraw(self, request: IntakeRequest) -> None:
        """Drop an image whose future is done from whichever stage holds it."""
        self._forget(request)
        self.fetching.withdraw(request)
        self.decoding.withdraw(request)
        self._release(request)

    def reject(self, request: IntakeRequest) -> None:
        """Answer an image with StorageUnavailableError because the worker stops."""
        self.answer(request, StorageUnavailableError(redact(request.image.uri), "the worker stops"))

    def reject_all(self) -> None:
        """Reject all unanswered images."""
        for request in list(self._unanswered):
            self.reject(request)

    def _queue_for_fetching(self, request: IntakeRequest) -> None:
        """Queue an image, unless its source is failing, or has its share of jobs already."""
        if self.fetching.health.is_away(request.source, time.monotonic()):
            self.answer(request, away(request))
        elif request.source in self._stalled.sources:
            self.answer(request, away(request, SLOW_SOURCE))
        else:
            self.fetching.put(request)

    def _queue_for_decoding(self, request: IntakeRequest) -> None:
        self.decoding.put(request)

    def _unfetched(self) -> list[IntakeRequest]:
        flying = [
            request
            for handle in self.fetching.handles
            if handle is not None
            for request in handle.fetching.values()
        ]
        return [*self.fetching.queue, *flying, *(request for _, _, request in self._delayed)]

    def _handle_fetch_error(self, request: IntakeRequest, outcome: FetchOutcome) -> None:
        """Retry the image, have its source probed, or answer with the error."""
        error, now = outcome.error, time.monotonic()
        if isinstance(error, StorageAwayError) or not isinstance(error, TransientError):
            self.answer(request, error)
        elif self.fetching.health.is_away(request.source, now):
            self.answer(request, away(request))
        elif request.attempt < self._options.image_retries:
            self._retry(request)
        elif outcome.is_down and self._options.has_breakers:
            request.last_error = error
            self.fetching.health.note_failure(request, now)
        else:
            self.answer(request, error)

    def _handle_decode_error(self, request: IntakeRequest, error: LabelyardError) -> None:
        """Retry the image after a transient error, or answer with the error."""
        is_retried = isinstance(error, TransientError) and (
            request.attempt < self._options.image_retries
        )
        if is_retried:
            self._retry(request)
        else:
            self.answer(request, error)

    def _handle_cut_transfer(
        self, request: IntakeRequest, md5: str, error: ImageUndecodableError
    ) -> None:
        """Fetch an image again if its bytes do not match its ETag.

        Only an answer of S3 shows whether the ETag is an MD5. If the same bytes arrive twice,
        the source holds these bytes.
        """
        if request.is_md5 is not True and request.cut_md5 == md5:
            self.answer(request, error)
        elif not request.cut_md5 or request.attempt < self._options.image_retries:
            request.cut_md5 = md5
            self._retry(request)
        else:
            reason = "the transfer was cut: its bytes are not those of its ETag"
            self.answer(request, StorageUnavailableError(redact(request.image.uri), reason))

    def _retry(self, request: IntakeRequest) -> None:
        """Schedule an image's next fetch, with full jitter; no child is kept busy meanwhile."""
        self._release(request)
        longest_s = min(LONGEST_RETRY_S, RETRY_S * 2**request.attempt)
        request.attempt += 1
        due = time.monotonic() + random.uniform(0, longest_s)
        heapq.heappush(self._delayed, (due, next(self._order), request))

    def _forget(self, request: IntakeRequest) -> None:
        """Count an image as answered."""
        if request in self._unanswered:
            self._unanswered.discard(request)
            self._jobs[request.job] -= bool(request.job)
            if self._jobs[request.job] <= 0:
                del self._jobs[request.job]

    def _release(self, request: IntakeRequest) -> None:
        """Release an image's file and its place in the pixel budget."""
        self.decoding.release(request)
        if request.has_place:
            request.has_place = False
            self._budget.give_back()
