"""Ids of jobs that this process knows to exist, to distinguish a lost record from an unknown id.

A record that was opened or seen before it was final cannot expire sooner than ``result_ttl_s``
later. If it is missing within that time, the ledger has lost it: it lost its last writes in a
crash, or a replica that lags took over. That is an outage: the job's message may still be in the
broker, and its worker writes the record anew.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

from labelyard.errors import LabelyardError, LedgerUnavailableError
from labelyard.forking import call_in_child
from labelyard.ledger.records import FINAL_STATES, Glance, Record
from labelyard.ledger.script_answers import Opened
from labelyard.messages import Job

#: Jobs that are remembered; the one seen longest ago is forgotten first.
CAPACITY: Final = 100_000


class Sightings:
    """When jobs were last known not to be final, by id. Safe to share between threads."""

    def __init__(self, *, result_ttl_s: float, capacity: int = CAPACITY) -> None:
        self._result_ttl_s = result_ttl_s
        self._capacity = capacity
        self._lock = threading.Lock()
        call_in_child(self._renew)
        self._seen_at: OrderedDict[str, float] = OrderedDict()

    def _renew(self) -> None:
        """Replace the lock in a forked child: a thread of the parent may hold the old one."""
        self._lock = threading.Lock()

    def note(self, job_ids: Iterable[str]) -> None:
        """Note that these jobs exist now and are not final."""
        now = time.monotonic()
        with self._lock:
            for job_id in job_ids:
                self._seen_at[job_id] = now
                self._seen_at.move_to_end(job_id)
            while len(self._seen_at) > self._capacity:
                self._seen_at.popitem(last=False)

    def forget(self, job_ids: Iterable[str]) -> None:
        """Drop jobs that are final: their records may expire at any time."""
        with self._lock:
            for job_id in job_ids:
                self._seen_at.pop(job_id, None)

    def must_exist(self, job_id: str) -> bool:
        """Return whether the job's record cannot have expired yet."""
        with self._lock:
            seen_at = self._seen_at.get(job_id)
        return seen_at is not None and time.monotonic() < seen_at + self._result_ttl_s

    def missing_of(
        self, job_ids: Sequence[str], found: Sequence[Record | Glance | None]
    ) -> list[str]:
        """Return the jobs without a record that must have one, unless they were erased."""
        pairs = zip(job_ids, found, strict=True)
        return [job_id for job_id, one in pairs if one is None and self.must_exist(job_id)]

    def note_opened(self, jobs: Sequence[Job], opened: Sequence[Opened | LabelyardError]) -> None:
        """Note the jobs that were accepted, but for those that are final already."""
        self._note_states(
            (job.job_id, answer.state)
            for job, answer in zip(jobs, opened, strict=True)
            if isinstance(answer, Opened)
        )

    def fill_in(
        self, job_ids: Sequence[str], glances: Sequence[Glance | None]
    ) -> list[Glance | None]:
        """Note the states in *glances*, and replace a vanished unfinished job by a pending one.

        The caller goes on waiting for such a job until its own timeout.
        """
        self._note_states(
            (job_id, glance.state)
            for job_id, glance in zip(job_ids, glances, strict=True)
            if glance is not None
        )
        return [
            Glance("pending", None) if glance is None and self.must_exist(job_id) else glance
            for job_id, glance in zip(job_ids, glances, strict=True)
        ]

    def check(self, job_ids: Sequence[str], records: Sequence[Record | None]) -> None:
        """Note the states in *records*.

        Raises:
            LedgerUnavailableError: One is missing that cannot have expired.
        """
        self._note_states((record.job_id, record.state) for record in records if record is not None)
        for job_id, record in zip(job_ids, records, strict=True):
            if record is None and self.must_exist(job_id):
                raise LedgerUnavailableError(
                    f"the record of {job_id} is missing: the ledger lost its last writes"
                )

    def _note_states(self, states: Iterable[tuple[str, str]]) -> None:
        known = list(states)
        self.note(job_id for job_id, state in known if state not in FINAL_STATES)
        self.forget(job_id for job_id, state in known if state in FINAL_STATES)


class NoSightings(Sightings):
    """Remember nothing: for workers, which must see that a record is missing."""

    def _renew(self) -> None:
        """Replace the lock in a forked child: a thread of the parent may hold the old one."""
        self._lock = threading.Lock()

    def note(self, job_ids: Iterable[str]) -> None:
        """Do nothing."""


NO_SIGHTINGS: Final = NoSightings(result_ttl_s=0)
