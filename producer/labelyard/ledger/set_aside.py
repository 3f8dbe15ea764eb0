"""Messages that workers set aside: kept in the ledger's Redis with their reason, bounded, replayable."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, Self, cast

import redis

from labelyard.arguments import counted, job_id_of, job_ids_of, writing
from labelyard.errors import InvalidMessageError, JobNotFoundError
from labelyard.ledger.client import Ledger
from labelyard.ledger.redis_errors import ledger_errors_as_ours, read_count
from labelyard.publisher import Publisher
from labelyard.settings import ConnectionSettings

# Bounds on what is kept of one message, on the number of messages, and on their bytes in all.
MAX_KEPT_BYTES: Final = 64 * 1024
MAX_ENTRIES: Final = 10_000
MAX_TOTAL_BYTES: Final = 64 * 1024 * 1024
# Messages that are searched for the id of a job, newest first, and how many in one call.
MAX_SEARCHED: Final = 1000
SEARCHED_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True)
class SetAsideMessage:
    """One message that no worker could run.

    Attributes:
        id: Name of the entry, derived from the queue and the message.
        reason: Why it was set aside.
        queue: Name of the queue that brought it.
        job_id: Job that was failed because of it; empty if the message names none.
        size_bytes: How many bytes the message had.
        raw: Its bytes, at most ``MAX_KEPT_BYTES`` of them: the envelope as JSON, as it lies in
            a list on Redis. A message of RabbitMQ is written in the same form.
        at: When it was set aside (seconds since the epoch, by the ledger's clock).
    """

    reason: str
    queue: str
    size_bytes: int
    raw: bytes = field(repr=False)
    job_id: str = ""
    at: float = 0.0

    @property
    def id(self) -> str:
        """Name of the entry."""
        return sha256(self.queue.encode() + b"\0" + self.raw).hexdigest()[:16]

    @property
    def is_whole(self) -> bool:
        """Return whether all bytes of the message were kept."""
        return len(self.raw) == self.size_bytes

    def to_json(self) -> str:
        """Write the entry."""
        return json.dumps(
            {
                "reason": self.reason,
                "queue": self.queue,
                "size_bytes": self.size_bytes,
                "job_id": self.job_id,
                "raw": base64.b64encode(self.raw).decode(),
            }
        )

    @classmethod
    def read(cls, text: str, *, at: float) -> Self:
        """Read an entry."""
        fields = json.loads(text)
        return cls(**{**fields, "raw": base64.b64decode(fields["raw"]), "at": at})


class SetAside:
    """The messages that were set aside in a namespace.

    Every method raises LedgerUnavailableError when Redis gives no answer.

    Args:
        client: Client of the ledger that decodes responses.
        publisher: Sends messages again; workers need none.
    """

    def __init__(
        self,
        client: "redis.Redis",
        settings: ConnectionSettings,
        *,
        publisher: Publisher | None = None,
        max_entries: int = MAX_ENTRIES,
        max_total_bytes: int = MAX_TOTAL_BYTES,
    ) -> None:
        self._client = client
        self._publisher = publisher
        self._ledger = Ledger(client, settings)
        self._max_entries = max_entries
        self._max_total_bytes = max_total_bytes
        self._keys = self._ledger.keys

    def add(self, message: SetAsideMessage) -> None:
        """Keep *message*; beyond the bounds the oldest are dropped and counted."""
        if not isinstance(message, SetAsideMessage):
            raise InvalidMessageError("message: pass a SetAsideMessage")
        with writing("message"):
            entry_id, entry = message.id, message.to_json()
        command = self._ledger.commands.add_set_aside(
            entry_id,
            entry,
            max_entries=self._max_entries,
            max_total_bytes=self._max_total_bytes,
        )
        self._ledger.run(command)

    def count(self) -> int:
        """Count the messages that are kept."""
        with ledger_errors_as_ours():
            return int(cast("Any", self._client.zcard(self._keys.set_aside_index)))

    def dropped(self) -> int:
        """Count the messages that were dropped for newer ones."""
        with ledger_errors_as_ours():
            return read_count(self._client.hget(self._keys.set_aside_figures, "dropped"))

    def messages(self, *, limit: int = 1000) -> list[SetAsideMessage]:
        """Read the messages, the newest first."""
        with ledger_errors_as_ours():
            index: Any = self._client.zrange(
                self._keys.set_aside_index, 0, counted(limit) - 1, desc=True, withscores=True
            )
            ids = [entry_id for entry_id, _ in index]
            texts: Any = self._client.hmget(self._keys.set_aside, ids) if ids else []
        found = zip(texts, index, strict=True)
        return [SetAsideMessage.read(text, at=at) for text, (_, at) in found if text]

    def find(self, entry_id: str) -> SetAsideMessage:
        """Read one message.

        Raises:
            JobNotFoundError: No message is kept under *entry_id*.
        """
        entry_id = job_id_of(entry_id)
        with ledger_errors_as_ours():
            text: Any = self._client.hget(self._keys.set_aside, entry_id)
            at: Any = self._client.zscore(self._keys.set_aside_index, entry_id)
        if text is None:
            raise JobNotFoundError(f"no message was set aside as {entry_id}")
        return SetAsideMessage.read(text, at=at or 0.0)

    def remove(self, entry_ids: Sequence[str]) -> list[str]:
        """Forget messages; returns the ids of those that were kept."""
        commands = self._ledger.commands
        return [
            entry_id
            for entry_id in job_ids_of(entry_ids)
            if self._ledger.run(commands.remove_set_aside(entry_id)) is not None
        ]

    def replay(self, entry_id: str) -> None:
        """Send a message again to the queue that brought it, and forget the entry.

        A job that the message failed gets a new record when a worker takes it.

        Raises:
            JobNotFoundError: No message is kept under *entry_id*.
            InvalidMessageError: It was not kept whole, or was no message of a broker.
            BrokerUnavailableError: The broker did not take it; the entry stays.
        """
        message = self.find(entry_id)
        if self._publisher is None or not (message.is_whole and message.queue):
            raise InvalidMessageError(
                f"{entry_id} cannot be sent again: it was not kept as it came"
            )
        if message.job_id:
            self._forget_failure(message.job_id)
        self._publisher.publish_raw(message.raw, queue=message.queue)
        self.remove([entry_id])

    def _forget_failure(self, job_id: str) -> None:
        """Drop the record of a message that is not a job; that of a real job stays."""
        record = self._ledger.read(job_id)
        if record is not None and record.state == "failed" and not record.is_job:
            with ledger_errors_as_ours():
                self._client.delete(self._keys.job(job_id))


def messages_naming(
    ledger: Ledger, job_id: str, *, max_searched: int = MAX_SEARCHED
) -> tuple[tuple[SetAsideMessage, ...], bool]:
    """Find the newest set-aside messages that name a job, in their content too.

    Returns:
        The messages, and whether there are more than the *max_searched* that were searched.

    Raises:
        LedgerUnavailableError: Redis gave no answer.
    """
    quoted = json.dumps(job_id).encode()
    found: list[SetAsideMessage] = []
    with ledger_errors_as_ours():
        for start in range(0, max_searched, SEARCHED_AT_ONCE):
            index: Any = ledger.client.zrange(
                ledger.keys.set_aside_index,
                start,
                start + SEARCHED_AT_ONCE - 1,
                desc=True,
                withscores=True,
            )
            ids = [entry_id for entry_id, _ in index]
            texts: Any = ledger.client.hmget(ledger.keys.set_aside, ids) if ids else []
            for text, (_, at) in zip(texts, index, strict=True):
                message = SetAsideMessage.read(text, at=at) if text else None
                if message and (message.job_id == job_id or quoted in message.raw):
                    found.append(message)
            if len(ids) < SEARCHED_AT_ONCE:
                return tuple(found), False
        return tuple(found), ledger.client.zcard(ledger.keys.set_aside_index) > max_searched
