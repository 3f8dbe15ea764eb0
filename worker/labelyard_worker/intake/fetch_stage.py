"""First stage of the intake: queued images to files in memory, by the fetchers."""

import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from labelyard.errors import LabelyardError, StorageUnavailableError
from labelyard_worker.intake.child_answers import MAX_STAMP, text, to_error, to_file
from labelyard_worker.intake.child_handle import FetcherHandle
from labelyard_worker.intake.frames import Frame, MalformedFrameError, close_fd
from labelyard_worker.intake.image_uri import redact
from labelyard_worker.intake.queue import FairQueue, IntakeRequest, Shares
from labelyard_worker.intake.source_health import SourceHealth
from labelyard_worker.intake.sources.fetcher_settings import FetcherSettings
from labelyard_worker.intake.storage_away import StorageAwayError
from labelyard_worker.observations import observe_stage
from labelyard_worker.pixels import Unchanged

log = logging.getLogger(__name__)

PAUSE_AFTER_FAILURE_S = 1.0
# A fetcher hangs as a whole if one of its fetches exceeds its own limit by this much.
HANG_GRACE_S = 5.0
# Fetchers that may die while they fetch an image, before the image is answered.
FATAL_FETCHER_DEATHS = 3
# A fetch that takes this long waits for its source, not for other fetches.
SLOW_S = 1.0
YOUNG_S = 0.05


@dataclass(frozen=True)
class FetchOutcome:
    """Error of one fetch, as the fetch stage reports it to the pipeline.

    Attributes:
        is_down: Whether the source as a whole may be at fault.
    """

    error: LabelyardError
    is_down: bool = False


class FetchStage:
    """Keeps fetchers busy within the shares; belongs to the pipeline.

    Args:
        settings: Settings of the fetchers.
        fetchers: Number of processes.
        fetches: Most fetches at once, over all of them.
        on_file: Called with an image whose file is fetched.
        on_unchanged: Called with an image whose version is the known one.
        on_error: Called with an image that failed.
    """

    def __init__(
        self,
        settings: FetcherSettings,
        *,
        fetchers: int,
        fetches: int,
        on_file: Callable[[IntakeRequest], None],
        on_unchanged: Callable[[IntakeRequest, Unchanged], None],
        on_error: Callable[[IntakeRequest, FetchOutcome], None],
    ) -> None:
        self.queue = FairQueue(Shares.of(fetches))
        self.health = SourceHealth()
        self.handles: list[FetcherHandle | None] = [None] * fetchers
        self.failed_starts = 0
        self._settings = settings
        self._start_at = [0.0] * fetchers
        self._probe_numbers = itertools.count(-1, -1)
        self._on_file = on_file
        self._on_unchanged = on_unchanged
        self._on_error = on_error

    def put(self, request: IntakeRequest) -> None:
        """Queue an image."""
        self.queue.put(request)

    def withdraw(self, request: IntakeRequest) -> None:
        """Drop an image whose future is done: from the queue, or while it is being fetched."""
        if self.queue.remove(request):
            return
        self.health.forget(request)
        for handle in self.handles:
            if handle is not None and request.number in handle.fetching:
                handle.send({"op": "cancel", "id": request.number})

    def start_fetches(self, *, bulk: int, interactive: int) -> None:
        """Hand out queued images, up to the given numbers and while the shares allow it."""
        now = time.monotonic()
        while interactive > 0 and len(self.queue):
            handle = self._least_busy()
            if handle is None:
                return
            request = self.queue.take(may_take_bulk=bulk > 0)
            if request is None:
                return
            bulk, interactive = bulk - 1, interactive - 1
            request.fetch_began_at = now
            handle.fetch(request)

    @property
    def young(self) -> int:
        """Number of fetches that began within ``YOUNG_S``; older ones wait for a distant source."""
        latest = time.monotonic() - YOUNG_S
        return sum(
            request.fetch_began_at > latest
            for handle in self.handles
            if handle is not None
            for request in handle.fetching.values()
        )

    def read(self, handle: FetcherHandle, frame: Frame) -> None:
        """Process one answer.

        Raises:
            MalformedFrameError: The fetcher must be replaced.
        """
        op, number = frame.head.get("op"), frame.head.get("id")
        if op == "ready":
            handle.is_ready, self.failed_starts = True, 0
        elif op == "probed":
            self._note_probe(handle, frame)
        elif type(number) is int and number in handle.fetching:
            self._settle(handle, number, frame)
        else:
            raise MalformedFrameError("an answer to no request")

    def replace(self, handle: FetcherHandle) -> None:
        """Replace a fetcher that died or misbehaved; its fetches begin anew elsewhere."""
        place = self.handles.index(handle)
        self.handles[place] = None
        how = handle.end()
        self._start_at[place] = 0.0 if handle.is_ready else time.monotonic() + PAUSE_AFTER_FAILURE_S
        self.failed_starts += not handle.is_ready
        log.error(
            "intake_fetcher_died",
            extra={"fields": {"how": how, "fetches": len(handle.fetching)}},
        )
        for source in handle.probing.values():
            self.health.probe_lost(source, time.monotonic())
        for request in list(handle.fetching.values()):
            self.queue.finish(request)
            request.fetcher_deaths += 1
            error = StorageUnavailableError(redact(request.image.uri), "the fetcher died")
            request.span.stage(
                "fetch",
                started_at=request.fetch_began_at,
                ended_at=time.monotonic(),
                error=error,
            )
            request.fetch_began_at = 0.0
            if request.answer.done():
                continue
            if request.fetcher_deaths < FATAL_FETCHER_DEATHS:
                self.queue.put(request, is_first=True)
            else:
                self._on_error(request, FetchOutcome(error))

    def start_missing(self) -> list[FetcherHandle]:
        """Start missing fetchers; return the new ones."""
        started = []
        now = time.monotonic()
        for place, handle in enumerate(self.handles):
            if handle is None and now >= self._start_at[place]:
                try:
                    fresh = FetcherHandle(self._settings)
                except OSError as error:
                    self.failed_starts += 1
                    self._start_at[place] = now + PAUSE_AFTER_FAILURE_S
                    log.error("intake_fetcher_failed", extra={"fields": {"reason": str(error)}})  # noqa: TRY400
                    continue
                self.handles[place] = fresh
                started.append(fresh)
        return started

    def find_hung(self) -> list[FetcherHandle]:
        """Return fetchers that exceed their own time limits."""
        limit_s = self._settings.limits.timeout_s * 2 + HANG_GRACE_S
        now = time.monotonic()
        return [
            handle
            for handle in self.handles
            if handle is not None
            and (
                handle.is_late
                or any(now - one.fetch_began_at > limit_s for one in handle.fetching.values())
            )
        ]

    def send_probes(self) -> None:
        """Probe the sources that are due for a probe."""
        handle = self._least_busy()
        if handle is None:
            return
        for source, uri in self.health.due(time.monotonic()):
            handle.probe(next(self._probe_numbers), uri, source)

    def slow_fetches(self) -> Counter[str]:
        """Count, by source, the fetches in flight that take long."""
        now = time.monotonic()
        return Counter(
            request.source
            for handle in self.handles
            if handle is not None
            for request in handle.fetching.values()
            if now - request.fetch_began_at >= SLOW_S
        )

    def next_due_at(self) -> float | None:
        """Return the time of the next probe or start."""
        starts = [
            at for at, handle in zip(self._start_at, self.handles, strict=True) if handle is None
        ]
        probe_at = self.health.next_due_at()
        return min([*starts, *([probe_at] if probe_at is not None else [])], default=None)

    def _least_busy(self) -> FetcherHandle | None:
        ready = [handle for handle in self.handles if handle is not None and handle.is_ready]
        return min(ready, key=lambda handle: len(handle.fetching), default=None)

    def _settle(self, handle: FetcherHandle, number: int, frame: Frame) -> None:
        request = handle.fetching[number]
        op, now = frame.head.get("op"), time.monotonic()
        uri = redact(request.image.uri)
        if op == "file":
            fd, size, etag = to_file(frame, max_bytes=self._settings.limits.max_bytes)
            stamp = text(frame.head, "stamp", most=MAX_STAMP)
        error = to_error(frame.head, uri=uri) if op == "error" else None
        if op == "unchanged" and request.known_etag is None:
            error = StorageUnavailableError(uri, "unchanged, but no version was known")
        elif op not in ("file", "error", "unchanged", "cancelled"):
            raise MalformedFrameError("an unknown answer")
        del handle.fetching[number]
        self.queue.finish(request)
        request.span.stage("fetch", started_at=request.fetch_began_at, ended_at=now, error=error)
        request.fetch_s, request.fetch_began_at = now - request.fetch_began_at, 0.0
        is_down = frame.head.get("is_source_down") is True
        if not is_down and op != "cancelled":
            self.health.note_answer(request.source)
        if op != "cancelled":
            observe_stage("fetch", request.fetch_s, request.priority)
        if request.answer.done() or op == "cancelled":
            close_fd(frame.fd)
        elif op == "file":
            request.fd, request.size_bytes, request.etag = fd, size, etag
            request.stamp = stamp
            is_md5 = frame.head.get("is_md5")
            request.is_md5 = is_md5 if isinstance(is_md5, bool) else None
            self._on_file(request)
        elif error is not None:
            self._on_error(request, FetchOutcome(error, is_down))
        else:
            self._on_unchanged(request, Unchanged(request.known_etag or ""))

    def _note_probe(self, handle: FetcherHandle, frame: Frame) -> None:
        source = handle.probing.pop(frame.head.get("id", 0), None)
        if source is None:
            raise MalformedFrameError("the answer of a probe that was not sent")
        is_down = frame.head.get("is_down") is True
        was_away = source in self.health.away
        suspects = self.health.note_probe(source, is_down=is_down, now=time.monotonic())
        if is_down != was_away:
            event = "intake_source_away" if is_down else "intake_source_back"
            log.warning(event, extra={"fields": {"source": source}})
        if not is_down:
            self._answer_suspects(suspects)
            return
        queued = [request for request in self.queue if request.source == source]
        for request in queued:
            self.queue.remove(request)
        for request in (*suspects, *queued):
            self._on_error(request, FetchOutcome(away(request)))

    def _answer_suspects(self, suspects: list[IntakeRequest]) -> None:
        """Answer images from a healthy source: their own error is final for this attempt."""
        for request in suspects:
            uri = redact(request.image.uri)
            error = request.last_error or StorageUnavailableError(uri, "no usable answer")
            self._on_error(request, FetchOutcome(error))


def away(request: IntakeRequest, reason: str = "the source fails as a whole") -> StorageAwayError:
    """Describe a source that cannot be used now."""
    return StorageAwayError(redact(request.image.uri), reason)
