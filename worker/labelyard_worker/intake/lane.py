"""The parent's side of one intake child: feeds it, reads it, replaces it when it dies."""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from multiprocessing.connection import Connection, wait

from labelyard.errors import (
    ImageCrashedDecoderError,
    ImageTimedOutError,
    LabelyardError,
    StorageUnavailableError,
    TransientError,
)
from labelyard_worker.intake.addresses import shown
from labelyard_worker.intake.child import ChildSettings, Outcome
from labelyard_worker.intake.process import ChildProcess, ChildStartError
from labelyard_worker.intake.waiting import Call, CallQueue

log = logging.getLogger(__name__)

# The child finds its next image in the pipe, and need not wait for a busy parent.
DEPTH = 3

# Seconds that images wait in the pipe behind a slow one before other children get them.
PATIENCE_S = 0.25

# The first child that dies over an image may have been killed from outside.
FATAL_DEATHS = 2

RETRY_S = 0.25
LONGEST_RETRY_S = 5.0
PAUSE_AFTER_FAILURE_S = 1.0


class Lane(threading.Thread):
    """Takes images from the queue, has one child do them, and answers their callers.

    The child works in order, so when it dies or hangs it is known over which image: the
    first that is unanswered. The others go back to the front of the queue.

    Args:
        waiting: Where images come from.
        settings: For the child.
        retries: Times that a transient error is retried.
        stop: Readable once the lane must end.
        number: For the thread's name.
    """

    def __init__(
        self,
        waiting: CallQueue,
        *,
        settings: ChildSettings,
        retries: int,
        stop: Connection,
        number: int,
    ) -> None:
        super().__init__(name=f"labelyard-intake-{number}", daemon=True)
        self.failed_starts = 0
        self._waiting = waiting
        self._settings = settings
        self._retries = retries
        self._stop_signal = stop
        self._child: ChildProcess | None = None
        self._sent: deque[Call | None] = deque()  # in the child's order; None was recalled
        self._head_since = 0.0

    @property
    def pid(self) -> int | None:
        """The child's process id, or ``None`` while there is none."""
        child = self._child
        return None if child is None else child.pid

    def run(self) -> None:
        """Serve until the queue is closed."""
        while not self._waiting.is_closed:
            try:
                self._step()
            except Exception:
                log.exception("intake_lane_failed")
                self._replace_child()
                wait([self._stop_signal], PAUSE_AFTER_FAILURE_S)
        self._end_child()
        abandon([call for call in self._sent if call is not None])

    def _step(self) -> None:
        """Have the child busy, and take one answer from it."""
        try:
            child = self._living_child()
        except ChildStartError as error:
            self.failed_starts += 1
            log.error("intake_child_failed", extra={"fields": {"reason": str(error)}})  # noqa: TRY400
            wait([self._stop_signal], PAUSE_AFTER_FAILURE_S)
            return
        self._top_up(child)
        if not self._sent:
            return
        due = self._head_since + self._settings.image_timeout_s
        patient_until = self._head_since + PATIENCE_S if self._followers() else due
        wait_s = max(0.0, min(due, patient_until) - time.monotonic())
        ready = wait([child.connection, self._stop_signal], wait_s)
        if child.connection in ready:
            self._read_answer(child)
        elif time.monotonic() >= due:
            self._time_out()
        elif not ready:
            self._recall_followers()

    def _living_child(self) -> ChildProcess:
        if self._child is None:
            self._child = ChildProcess(self._settings)
            self.failed_starts = 0
        return self._child

    def _top_up(self, child: ChildProcess) -> None:
        while len(self._sent) < DEPTH:
            call = self._waiting.take(is_blocking=not self._sent)
            if call is None:
                return
            if not call.begin():
                continue
            if not self._sent:
                if not child.is_alive():  # it died in idleness: no image is to blame
                    self._end_child()
                    self._waiting.put_back([call])
                    return
                self._head_since = time.monotonic()
            self._sent.append(call)
            with suppress(OSError):  # a dead child shows when its answer is read
                child.connection.send((call.image, call.known_etag))

    def _followers(self) -> list[Call]:
        """Return what waits in the pipe behind the image that the child is at."""
        return [call for call in islice(self._sent, 1, None) if call is not None]

    def _recall_followers(self) -> None:
        """Leave them to others; what the child makes of them later is thrown away."""
        followers = self._followers()
        self._sent = deque([self._sent[0], *[None] * (len(self._sent) - 1)])
        self._waiting.put_back(followers)

    def _read_answer(self, child: ChildProcess) -> None:
        try:
            outcome: Outcome = child.connection.recv()
        except (EOFError, OSError):
            self._bury()
            return
        call = self._sent.popleft()
        self._head_since = time.monotonic()
        if call is not None:
            self._settle(call, outcome)

    def _time_out(self) -> None:
        call = self._sent.popleft()
        self._replace_child()
        if call is not None:
            limit = f"fetching and decoding took longer than {self._settings.image_timeout_s:g} s"
            answer(call, ImageTimedOutError(shown(call.image.uri), limit))

    def _bury(self) -> None:
        """Find out over which image the child died, and give that one a second chance."""
        how = self._end_child()
        call = self._sent[0]
        if call is not None:
            call.deaths += 1
        if call is None or call.deaths < FATAL_DEATHS:
            self._replace_child()
            return
        self._sent.popleft()
        self._replace_child()
        answer(call, ImageCrashedDecoderError(shown(call.image.uri), f"the decoder died: {how}"))

    def _replace_child(self) -> None:
        """End the child, and put back what it did not get to; the next step starts another."""
        self._end_child()
        left = [call for call in self._sent if call is not None]
        self._sent.clear()
        self._waiting.put_back(left)

    def _end_child(self) -> str:
        child, self._child = self._child, None
        return "" if child is None else child.end()

    def _settle(self, call: Call, outcome: Outcome) -> None:
        if isinstance(outcome, TransientError) and call.attempt < self._retries:
            # Full jitter: after an outage, not everybody comes back at once.
            longest = min(LONGEST_RETRY_S, RETRY_S * 2**call.attempt)
            call.attempt += 1
            self._waiting.put_later(call, delay_s=random.uniform(0, longest))
        else:
            answer(call, outcome)


def answer(call: Call, outcome: Outcome) -> None:
    """Give the caller what came of the image."""
    if isinstance(outcome, LabelyardError):
        call.answer.set_exception(outcome)
    else:
        call.answer.set_result(outcome)


def abandon(calls: Iterable[Call]) -> None:
    """Tell the callers that the worker stops before their images are done."""
    for call in calls:
        if call.begin():
            answer(call, StorageUnavailableError(shown(call.image.uri), "the worker stops"))
