"""One consumer's way through the stream, without I/O: what to call next, and when to wait."""

import random
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from labelyard.errors import LedgerUnavailableError
from labelyard.events.models import GapFields, GapReason
from labelyard.events.options import ConsumerOptions
from labelyard.ledger.event_stream import ReadEvents, StreamEntry

#: Longest wait for an event in one call, below the time that an answer is waited for.
WAIT_S: Final = 2.0
#: Pauses of a consumer that was woken for an event that another one took: first and longest.
FIRST_PAUSE_S: Final = 0.002
LONGEST_PAUSE_S: Final = 0.25
#: Seconds of an outage of the ledger through which a consumer waits, and its pauses.
OUTAGE_S: Final = 300.0
FIRST_RETRY_S: Final = 0.05
LONGEST_RETRY_S: Final = 5.0
# All pending events of a consumer are behind this one.
BEGINNING: Final = "0-0"


class Reading:
    """State of a consumer that reads.

    Attributes:
        position: Last event that the group gave to a consumer, as far as this one knows; empty
            until it has joined the group.
        buffer: Events that were read and not handled yet.
        is_ready: Whether there may be more to read at once.
    """

    def __init__(self, options: ConsumerOptions) -> None:
        self._options = options
        self.position: str = ""
        self.buffer: deque[StreamEntry] = deque()
        self._own_after = BEGINNING
        self._claim_at = 0.0
        self._held_at = 0.0
        self._event_at = 0.0
        self._pause_s = 0.0
        self.is_ready: bool = False

    def begin(self) -> None:
        """Begin an iteration: pending events of this consumer come first."""
        self.buffer.clear()
        self._own_after = BEGINNING
        self._claim_at = 0.0
        self._event_at = time.monotonic()
        self._pause_s = 0.0

    def join_arguments(self) -> dict[str, str]:
        """Return the arguments of a call that makes the group or finds it."""
        is_back = bool(self.position)
        return {
            "start": "resume" if is_back else self._options.start,
            "after": self.position or self._options.after,
            "where": self._options.where,
        }

    def read_arguments(self) -> dict[str, object]:
        """Return the arguments of a call that reads."""
        is_claiming = time.monotonic() >= self._claim_at
        if is_claiming:
            self._claim_at = time.monotonic() + self._options.claim_after_s / 2
        return {
            "consumer": self._options.consumer,
            "limit": self._options.prefetch,
            "claim_after_s": self._options.claim_after_s,
            "is_claiming": is_claiming,
            "own_after": self._own_after,
        }

    def take(self, read: ReadEvents) -> GapFields | None:
        """Keep the events of an answer; return the gap that comes before them."""
        self.position = read.position
        self._own_after = read.own_after
        self.buffer.extend(read.entries)
        self._held_at = time.monotonic()
        self.is_ready = bool(read.left_out or read.own_after)
        if read.entries or read.gap:
            self._event_at, self._pause_s = time.monotonic(), 0.0
        return gap_fields(read.gap) if read.gap else None

    def is_hold_due(self) -> bool:
        """Return whether the events in the buffer could soon be given to another consumer."""
        return time.monotonic() - self._held_at > self._options.claim_after_s / 3

    def keep_held(self, event_ids: Iterable[str]) -> None:
        """Drop the events that another consumer got meanwhile."""
        held = set(event_ids)
        self.buffer = deque(one for one in self.buffer if one.event_id in held)
        self._held_at = time.monotonic()

    def note_handled(self) -> None:
        """Count the time without an event from now on."""
        self._event_at = time.monotonic()

    def left_s(self) -> float:
        """Return the seconds for which a consumer without an event goes on."""
        return self._event_at + self._options.timeout_s - time.monotonic()

    def wait_s(self) -> float:
        """Return the seconds to wait for an event."""
        until_claim_s = self._claim_at - time.monotonic()
        return max(0.0, min(WAIT_S, self.left_s(), max(until_claim_s, 0.001)))

    def pause_s(self) -> float:
        """Return a pause before the next wait.

        Every consumer of a group is woken for an event, and one gets it: the others would keep
        Redis busy if they were as eager the next time.
        """
        pause_s = self._pause_s
        self._pause_s = min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, 2 * pause_s))
        return min(random.uniform(0, pause_s), max(0.0, self.left_s()))

    def rest(self) -> None:
        """Note that a wait ended without an event: nobody competes."""
        self._pause_s = 0.0


class Outage:
    """An outage of the ledger, as one consumer sees it."""

    def __init__(self) -> None:
        self._began_at = 0.0
        self._retry_s = FIRST_RETRY_S
        self._has_answered = False

    def end(self) -> None:
        """Note an answer."""
        self._has_answered, self._began_at, self._retry_s = True, 0.0, FIRST_RETRY_S

    def pause_s(self, error: LedgerUnavailableError, *, left_s: float) -> float:
        """Return the seconds until the next attempt.

        Raises:
            LedgerUnavailableError: *error*: it is the first call, or the outage is too long.
        """
        now = time.monotonic()
        self._began_at = self._began_at or now
        if not self._has_answered or left_s <= 0 or now - self._began_at > OUTAGE_S:
            self._began_at = 0.0
            raise error
        pause_s, self._retry_s = self._retry_s, min(LONGEST_RETRY_S, 2 * self._retry_s)
        return min(pause_s, left_s)


def gap_fields(gap: Sequence[str]) -> GapFields:
    """Read a gap of ``read_events``."""
    gap_id, reason, after_id, before_id, lost = gap
    known: GapReason = "stream_lost" if reason == "stream_lost" else "trimmed"
    return {
        "gap_id": str(gap_id),
        "reason": known,
        "lost": int(lost) if lost != "" else None,
        "after_id": after_id,
        "before_id": before_id,
    }
