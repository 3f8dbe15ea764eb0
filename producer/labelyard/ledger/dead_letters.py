"""Jobs that killed or hung their workers: look at them, give them another life, drop them."""

from labelyard.arguments import counted, job_id_of
from labelyard.errors import JobNotFoundError
from labelyard.ledger.client import Ledger
from labelyard.ledger.records import Record
from labelyard.publisher import Outgoing, Publisher


class DeadLetters:
    """The dead letters of a ledger. Each is a failed job that can be replayed."""

    def __init__(self, ledger: Ledger, publisher: Publisher) -> None:
        self._ledger = ledger
        self._publisher = publisher

    def ids(self, *, limit: int = 1000) -> list[str]:
        """List the ids, those that died first at the front."""
        return self._ledger.dead(limit=counted(limit))

    def count(self) -> int:
        """Count the dead letters."""
        return self._ledger.count_dead()

    def records(self, *, limit: int = 1000) -> list[Record]:
        """Read the records, those that died first at the front."""
        records = self._ledger.read_many(self.ids(limit=limit))
        return [record for record in records if record is not None]

    def replay(self, job_id: str) -> None:
        """Run a dead letter again, under its old id, as if it had never run.

        A call whose reply was lost can be repeated: a job that was replayed and is not final
        yet is left as it is.

        Raises:
            JobNotFoundError: It is not a dead letter.
        """
        job_id = job_id_of(job_id)
        due = self._ledger.replay(job_id)
        record = self._ledger.read(job_id)
        if due is None and record is not None and record.is_replayed and not record.is_final:
            return
        if due is None or record is None:
            raise JobNotFoundError(f"{job_id} is not a dead letter")
        message = Outgoing.of_record(record, published_at=record.published_at)
        if self._publisher.publish_many([message]):
            self._ledger.sent(job_id, due=due)

    def purge(self, job_id: str) -> None:
        """Drop a dead letter for good; its failed result stays readable for its TTL.

        Raises:
            JobNotFoundError: It is not a dead letter.
        """
        if not self._ledger.purge(job_id_of(job_id)):
            raise JobNotFoundError(f"{job_id} is not a dead letter")
