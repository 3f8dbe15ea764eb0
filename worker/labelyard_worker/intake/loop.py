"""The intake's scheduling thread: its inbox, its children's sockets and due times."""

import logging
import os
import selectors
import threading
import time
from collections import deque

from labelyard_worker.intake.child_handle import ChildHandle, DecoderHandle, FetcherHandle
from labelyard_worker.intake.child_process import block_termination
from labelyard_worker.intake.frames import MalformedFrameError
from labelyard_worker.intake.pipeline import IntakePipeline
from labelyard_worker.intake.queue import IntakeRequest
from labelyard_worker.metrics import CHILDREN_REPLACED

log = logging.getLogger(__name__)

PAUSE_AFTER_FAILURE_S = 1.0
LONGEST_SLEEP_S = 1.0


class IntakeLoop:
    """Runs a pipeline in one thread; other threads only append to the inbox.

    Args:
        pipeline: Stages to drive; touched by this thread alone while the loop runs.
    """

    def __init__(self, pipeline: IntakePipeline) -> None:
        self._pipeline = pipeline
        self._inbox: deque[IntakeRequest | None] = deque()  # None: check due times
        self._stop_lock = threading.Lock()
        self._is_asleep = False
        self.is_stopped = False
        self._selector = selectors.DefaultSelector()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._wake_fd, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="labelyard-intake", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def is_alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread.is_alive()

    def post(self, *requests: IntakeRequest | None) -> None:
        """Append images that are new or withdrawn, or ``None`` to have due times checked again."""
        self._inbox.extend(requests)
        if self._is_asleep:
            os.eventfd_write(self._wake_fd, 1)

    def stop(self) -> None:
        """End the thread and the children, and reject all unanswered images."""
        with self._stop_lock:
            is_first, self.is_stopped = not self.is_stopped, True
        if is_first:
            os.eventfd_write(self._wake_fd, 1)
            self._thread.join()
            os.close(self._wake_fd)
        self.reject_inbox()

    def reject_inbox(self) -> None:
        """Reject images that arrived after the loop had ended."""
        while self._inbox:
            request = self._inbox.popleft()
            if request is not None:
                self._pipeline.reject(request)

    def _run(self) -> None:
        block_termination()
        while not self.is_stopped:
            try:
                self._step()
            except Exception:
                log.exception("intake_loop_failed")
                time.sleep(PAUSE_AFTER_FAILURE_S)
        self._close()

    def _step(self) -> None:
        """Process the inbox, children and due times, then wait for the next event."""
        self._read_inbox()
        self._start_children()
        self._process_due()
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
        remaining_s = self._pipeline.next_due_at() - time.monotonic()
        return min(LONGEST_SLEEP_S, max(0.0, remaining_s))

    def _read_inbox(self) -> None:
        while self._inbox:
            request = self._inbox.popleft()
            if request is None:
                continue
            if request.answer.done():
                self._pipeline.withdraw(request)
            else:
                self._pipeline.admit(request)

    def _start_children(self) -> None:
        for fetcher in self._pipeline.fetching.start_missing():
            self._selector.register(fetcher.channel.socket, fetcher.events(), fetcher)
            self._selector.register(fetcher.program.stderr, selectors.EVENT_READ, fetcher.program)
        for decoder in self._pipeline.decoding.start_missing():
            self._selector.register(decoder.channel.socket, decoder.events(), decoder)

    def _process_due(self) -> None:
        """Process due retries, timeouts and probes."""
        now = time.monotonic()
        self._pipeline.start_due_retries(now)
        for decoder in self._pipeline.decoding.time_out():
            self._unwatch(decoder)
            self._pipeline.decoding.end_late(decoder)
            CHILDREN_REPLACED.labels("decoder", "timed_out").inc()
        for fetcher in self._pipeline.fetching.find_hung():
            self._replace(fetcher, reason="timed_out")
        self._pipeline.fetching.send_probes()
        self._pipeline.shed_stalled_jobs(now)

    def _dispatch(self) -> None:
        """Send files to decoders and orders to fetchers."""
        for decoder in self._pipeline.decoding.start_decoding():
            self._replace(decoder)
        self._pipeline.start_fetches()
        for handle in self._pipeline.handles:
            if handle.channel.has_unsent:
                self._selector.modify(handle.channel.socket, handle.events(), handle)

    def _serve(self, source: object) -> None:
        """Read a child's answers, or a fetcher's standard error."""
        if isinstance(source, ChildHandle):
            if source in self._pipeline.handles:  # else it was replaced meanwhile
                self._serve_child(source)
        elif text := source.read_stderr():  # type: ignore[attr-defined]
            log.warning("intake_fetcher_stderr", extra={"fields": {"stderr": text[:500]}})

    def _serve_child(self, handle: ChildHandle) -> None:
        pipeline = self._pipeline
        stage = pipeline.fetching if isinstance(handle, FetcherHandle) else pipeline.decoding
        try:
            if handle.channel.has_unsent:
                handle.channel.flush()
                self._selector.modify(handle.channel.socket, handle.events(), handle)
            while (frame := handle.channel.read()) is not None:
                stage.read(handle, frame)  # type: ignore[arg-type]
        except (EOFError, OSError):
            self._replace(handle)
        except MalformedFrameError as error:
            log.error("intake_answer_malformed", extra={"fields": {"why": str(error)}})  # noqa: TRY400
            why = f"the decoder sent a malformed answer: {error}"
            self._replace(handle, why=why, reason="malformed")

    def _replace(self, handle: ChildHandle, *, why: str = "", reason: str = "died") -> None:
        """Unregister a child that died or misbehaved, and have its stage replace it."""
        self._unwatch(handle)
        kind = "fetcher" if isinstance(handle, FetcherHandle) else "decoder"
        CHILDREN_REPLACED.labels(kind, reason).inc()
        if isinstance(handle, FetcherHandle):
            self._pipeline.fetching.replace(handle)
        elif isinstance(handle, DecoderHandle):
            self._pipeline.decoding.replace(handle, why=why, is_fatal=bool(why))

    def _unwatch(self, handle: ChildHandle) -> None:
        self._selector.unregister(handle.channel.socket)
        if isinstance(handle, FetcherHandle):
            self._selector.unregister(handle.program.stderr)

    def _close(self) -> None:
        """End all children, and reject all unanswered images."""
        self._is_asleep = False
        for handle in self._pipeline.handles:
            self._unwatch(handle)
            handle.end()
        self._selector.close()
        self._pipeline.reject_all()
