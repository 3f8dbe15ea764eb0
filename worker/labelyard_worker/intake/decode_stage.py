"""Second stage of the intake: files in memory to pixels, by the decoders."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from labelyard.errors import (
    ImageCrashedDecoderError,
    ImageTimedOutError,
    ImageUndecodableError,
    LabelyardError,
)
from labelyard_worker.intake.child_answers import (
    MAX_REASON,
    MIN_PAYLOAD_BYTES,
    md5_of,
    text,
    to_error,
    to_pixels,
)
from labelyard_worker.intake.child_handle import MAX_SENT_FILES, DecoderHandle
from labelyard_worker.intake.decoder_child import DecoderSettings
from labelyard_worker.intake.frames import Frame, MalformedFrameError
from labelyard_worker.intake.image_uri import redact
from labelyard_worker.intake.pixel_budget import PixelBudget
from labelyard_worker.intake.queue import FairQueue, IntakeRequest
from labelyard_worker.observations import observe_stage
from labelyard_worker.pixels import Pixels

log = logging.getLogger(__name__)

# Seconds that files wait in the socket behind a slow one before other decoders get them.
PATIENCE_S = 0.25
# The first decoder that dies over an image may have been killed from outside.
FATAL_DEATHS = 2
PAUSE_AFTER_FAILURE_S = 1.0
# Part of an image's time that decoding has at least, however long the fetch took.
MIN_SHARE = 0.2


@dataclass(frozen=True)
class Settlement:
    """Consequence of a decoder's answer for its image.

    Attributes:
        call: Passes the image on.
        error: Error that decoding ended with, if it did.
    """

    call: Callable[[], None]
    error: LabelyardError | None = None


class DecodeStage:
    """Keeps decoders busy while pixels have room; belongs to the pipeline.

    Args:
        settings: Settings of the decoders.
        decoders: Number of processes.
        budget: Places for decoded images.
        on_pixels: Called with an image and its pixels; the image holds a place.
        on_error: Called with an image that failed.
        on_cut: Called with an image whose bytes differ from their ETag, the digest of the
            bytes, and the error that is final if the source holds these bytes.
    """

    def __init__(
        self,
        settings: DecoderSettings,
        *,
        decoders: int,
        budget: PixelBudget,
        on_pixels: Callable[[IntakeRequest, Pixels], None],
        on_error: Callable[[IntakeRequest, LabelyardError], None],
        on_cut: Callable[[IntakeRequest, str, ImageUndecodableError], None],
    ) -> None:
        self.queue = FairQueue()
        self.handles: list[DecoderHandle | None] = [None] * decoders
        self.failed_starts = 0
        self.held_bytes = 0  # of files that are queued or being decoded
        self.held_files = 0
        self._settings = settings
        self._budget = budget
        self._start_at = [0.0] * decoders
        self._on_pixels = on_pixels
        self._on_error = on_error
        self._on_cut = on_cut
        spec, limits = settings.spec, settings.limits
        is_bounded = spec.output_size is not None or spec.patch_size > 0
        most = spec.max_bytes if is_bounded else 3 * limits.max_pixels
        self._max_payload_bytes = max(most, MIN_PAYLOAD_BYTES)

    def put(self, request: IntakeRequest) -> None:
        """Queue a fetched image for decoding."""
        self.held_bytes += request.size_bytes
        self.held_files += 1
        self.queue.put(request)

    def release(self, request: IntakeRequest) -> None:
        """Drop the file of an image that is answered, or fetched again."""
        if request.fd is not None:
            self.held_bytes -= request.size_bytes
            self.held_files -= 1
            request.drop_file()

    def withdraw(self, request: IntakeRequest) -> None:
        """Drop an image whose future is done."""
        if not self.queue.remove(request):
            for handle in self.handles:
                if handle is not None and handle.forget(request):
                    break

    def start_decoding(self) -> list[DecoderHandle]:
        """Send files to decoders that have room, while pixels have; return decoders that died."""
        dead: list[DecoderHandle] = []
        for depth in range(1, MAX_SENT_FILES + 1):  # a first file for all, then a second
            for handle in self.handles:
                if handle is None or not handle.has_room or len(handle.sent) >= depth:
                    continue
                if handle in dead:
                    continue
                request = self._next(may_take_bulk=depth <= handle.bulk_depth)
                if request is None:
                    continue
                timeout_s = self._timeout_s(request)
                if not handle.send(request, uri=redact(request.image.uri), timeout_s=timeout_s):
                    dead.append(handle)
                    self._put_back([request])
        return dead

    def read(self, handle: DecoderHandle, frame: Frame) -> None:
        """Process one answer.

        Raises:
            MalformedFrameError: The decoder must be replaced, and its image is at fault.
        """
        if not handle.is_ready:
            if frame.head != {"op": "ready"}:
                raise MalformedFrameError("an answer before the child was ready")
            handle.is_ready, self.failed_starts = True, 0
            return
        if not handle.sent or frame.head.get("id") != handle.sent[0].number:
            raise MalformedFrameError("an answer to no request")
        request = handle.sent[0].request
        settle = self._check_answer(request, frame) if request is not None else None
        handle.sent.popleft()
        began_at, handle.head_since = handle.head_since, time.monotonic()
        if request is not None and settle is not None:
            handle.decode_s = handle.head_since - began_at
            observe_stage("decode", handle.decode_s, request.priority)
            request.span.stage(
                "decode", started_at=began_at, ended_at=handle.head_since, error=settle.error
            )
            settle.call()

    def replace(self, handle: DecoderHandle, *, why: str = "", is_fatal: bool = False) -> None:
        """Replace a decoder; the image being decoded is to blame at the second death over it.

        Args:
            why: Reason in the image's error, in place of the exit code or signal.
            is_fatal: Whether the image is to blame at once.
        """
        how = self._end(handle)
        if not handle.sent:
            return
        request = handle.sent[0].request
        others = handle.recall_followers()
        self._put_back(others)
        if request is None:
            return
        request.deaths += 1
        reason = why or f"the decoder died: {how}"
        error = ImageCrashedDecoderError(redact(request.image.uri), reason)
        request.span.stage(
            "decode", started_at=handle.head_since, ended_at=time.monotonic(), error=error
        )
        if is_fatal or request.deaths >= FATAL_DEATHS:
            self._on_error(request, error)
        else:
            self._put_back([request])

    def start_missing(self) -> list[DecoderHandle]:
        """Start missing decoders; return the new ones."""
        started = []
        now = time.monotonic()
        for place, handle in enumerate(self.handles):
            if handle is None and now >= self._start_at[place]:
                try:
                    fresh = DecoderHandle(self._settings, max_payload_bytes=self._max_payload_bytes)
                except (OSError, EOFError) as error:
                    self._note_failed_start(place, str(error))
                    continue
                self.handles[place] = fresh
                started.append(fresh)
        return started

    def time_out(self) -> list[DecoderHandle]:
        """Return decoders whose image timed out; recall files queued behind slow images."""
        now = time.monotonic()
        late = []
        for handle in self.handles:
            if handle is None:
                continue
            if handle.is_late or (handle.sent and now >= handle.due_at()):
                late.append(handle)
            elif handle.sent and now >= handle.head_since + PATIENCE_S:
                self._put_back(handle.recall_followers())
        return late

    def end_late(self, handle: DecoderHandle) -> None:
        """Replace a decoder that takes too long, and answer its image."""
        sent = handle.sent.popleft() if handle.sent else None
        self._end(handle)
        if handle.sent and handle.sent[0].request is not None:
            self._put_back([handle.sent[0].request])
        self._put_back(handle.recall_followers())
        if sent is not None and sent.request is not None:
            limit_s = self._settings.image_timeout_s
            reason = f"fetching and decoding took longer than {limit_s:g} s"
            self._on_error(sent.request, ImageTimedOutError(redact(sent.request.image.uri), reason))

    def next_due_at(self) -> float | None:
        """Return the time of the next timeout, recall or start."""
        due = [
            min(handle.due_at(), handle.head_since + PATIENCE_S)
            if handle.has_followers()
            else handle.due_at()
            for handle in self.handles
            if handle is not None and handle.sent
        ]
        starts = [
            at for at, handle in zip(self._start_at, self.handles, strict=True) if handle is None
        ]
        return min([*due, *starts], default=None)

    def _next(self, *, may_take_bulk: bool) -> IntakeRequest | None:
        """Take the next image, with a place for its pixels."""
        if not len(self.queue):
            return None
        may_take_bulk = may_take_bulk and self._budget.take(is_bulk=True)
        if not may_take_bulk and not (
            self.queue.has_interactive and self._budget.take(is_bulk=False)
        ):
            return None
        request = self.queue.take(may_take_bulk=may_take_bulk)
        if request is None:
            self._budget.give_back()
            return None
        self.queue.finish(request)  # this queue has no shares to count for
        request.has_place = True
        return request

    def _timeout_s(self, request: IntakeRequest) -> float:
        whole_s = self._settings.image_timeout_s
        return max(MIN_SHARE * whole_s, whole_s - request.fetch_s)

    def _put_back(self, requests: list[IntakeRequest]) -> None:
        """Queue images first, without their places: a queued image must not hold a place."""
        for request in reversed(requests):
            if request.has_place:
                request.has_place = False
                self._budget.give_back()
            if not request.answer.done():
                self.queue.put(request, is_first=True)

    def _check_answer(self, request: IntakeRequest, frame: Frame) -> "Settlement":
        """Check an answer, and return the call that settles its image."""
        uri, head = redact(request.image.uri), frame.head
        self._note_stderr(request, head)
        match head.get("op"):
            case "pixels":
                pixels = to_pixels(frame, etag=request.etag, stamp=request.stamp)
                return Settlement(lambda: self._on_pixels(request, pixels))
            case "cut":
                digest = md5_of(head)
                error = ImageUndecodableError(uri, text(head, "reason", most=MAX_REASON))
                return Settlement(lambda: self._on_cut(request, digest, error), error)
            case "error":
                failure = to_error(head, uri=uri)
                return Settlement(lambda: self._on_error(request, failure), failure)
            case _:
                raise MalformedFrameError("an unknown answer")

    def _note_stderr(self, request: IntakeRequest, head: dict[str, object]) -> None:
        if "stderr" not in head:
            return
        is_cut = head.get("is_stderr_cut") is True
        fields = {
            "uri": redact(request.image.uri),
            "stderr": text(head, "stderr", most=MAX_REASON),
            "is_cut": is_cut,
        }
        level = logging.WARNING if is_cut else logging.DEBUG
        log.log(level, "intake_decoder_stderr", extra={"fields": fields})

    def _end(self, handle: DecoderHandle) -> str:
        place = self.handles.index(handle)
        self.handles[place] = None
        how = handle.end()
        if handle.is_ready:
            self._start_at[place] = 0.0
        else:
            self._note_failed_start(place, how)
        return how

    def _note_failed_start(self, place: int, reason: str) -> None:
        self.failed_starts += 1
        self._start_at[place] = time.monotonic() + PAUSE_AFTER_FAILURE_S
        log.error("intake_child_failed", extra={"fields": {"reason": reason}})
