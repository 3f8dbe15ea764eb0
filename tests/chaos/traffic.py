"""Traffic of producers and consumers: submit, cancel, poison, and read results twice."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import redis

from labelyard.errors import LabelyardError
from labelyard.ledger import FINAL_STATES
from labelyard.messages import Deliver, Job
from tests.chaos.brokers import KEYS, plain_redis
from tests.chaos.environment import BUCKET, RESULTS, Environment

Value = TypeVar("Value")
LABELS: Final = ("a cat", "a dog", "a bowl of soup")
STREAM: Final = "chaos"
MISSING_URI: Final = f"s3://{BUCKET}/missing.jpg"
# Enough that every worker is always busy, few enough that a run settles in seconds.
OPEN_JOBS: Final = 160
JOBS_PER_TICK: Final = 24
TICK_S: Final = 0.2
READS_AT_ONCE: Final = 200
# Weights of the tenants that share the installation.
TEAMS: Final = {f"team-{number}": weight for number, weight in enumerate((3, 0.5, *[1] * 8))}


@dataclass
class Observations:
    """Results that consumers read.

    Attributes:
        final: State and result of each job as first read after it became final.
        changed: Jobs that read differently later.
        entries: How many entries each job has in the result stream.
    """

    final: dict[str, tuple[str, str]] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    entries: Counter[str] = field(default_factory=Counter)

    def note(self, job_id: str, state: str, result: str) -> None:
        """Compare a result with the one read before."""
        first = self.final.setdefault(job_id, (state, result))
        if first != (state, result):
            self.changed.add(job_id)


class Traffic:
    """Producers and consumers as threads.

    Attributes:
        submitted: Jobs whose submit returned.
        doubtful: Jobs whose submit raised: the ledger may have them or not.
        poison: Jobs that are to end as dead letters.
        webhooks: Jobs whose result is to be sent to the receiver.
    """

    def __init__(
        self,
        environment: Environment,
        rng: random.Random,
        *,
        on_final: Callable[[str, float], None],
    ) -> None:
        self.submitted: list[str] = []
        self.doubtful: list[str] = []
        self.poison: dict[str, str] = {}
        self.webhooks: set[str] = set()
        self.observed = Observations()
        self._stage = environment
        self._rng = rng
        self._on_final = on_final
        self._client = environment.client()
        self._to_cancel: list[tuple[float, str]] = []
        self._ended = threading.Event()
        self._closed = threading.Event()
        steps: list[tuple[Callable[[], None], threading.Event]] = [
            (self._submit, self._ended),
            (self._cancel, self._closed),
            (self._sample, self._closed),
            (self._read_stream, self._closed),
        ]
        self._stream: tuple[redis.Redis, str] = (plain_redis(environment.ledger), "0")
        self._threads = [
            threading.Thread(target=self._repeat, args=step, name=f"chaos-{step[0].__name__}")
            for step in steps
        ]

    def start(self) -> None:
        """Set the tenants' weights; start submitting and reading."""
        for team, weight in TEAMS.items():
            self._client.tenants.set(team, weight=weight)
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Stop submitting; go on reading."""
        self._ended.set()
        self._threads[0].join()

    def close(self) -> None:
        """Stop everything."""
        self._ended.set()
        self._closed.set()
        for thread in self._threads:
            thread.join()
        self._client.close()
        self._stream[0].close()

    def send_poison(self, tenant: str) -> str:
        """Submit a job that misbehaves as its tenant's name orders."""
        while True:
            job = self._client.prepare(
                [self._stage.uris[0]], LABELS, tenant=tenant, deliver=Deliver(stream=STREAM)
            )
            try:
                self._client.submit_job(job, queue="bulk")
            except LabelyardError:
                self.doubtful.append(job.job_id)
                time.sleep(TICK_S)
                continue
            self.poison[job.job_id] = tenant
            self.submitted.append(job.job_id)
            return job.job_id

    def read(self, job_ids: Sequence[str]) -> list[str | None]:
        """Read states from the ledger, past the client, and note results that changed."""
        answers: list[Any] = []
        with self._stage.ledger_admin.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.hmget(KEYS.job(job_id), "state", "result")
            answers = pipeline.execute()
        for job_id, (state, result) in zip(job_ids, answers, strict=True):
            if state in FINAL_STATES:
                self.observed.note(job_id, state, result or "")
            elif job_id in self.observed.final:
                self.observed.changed.add(job_id)
        return [state for state, _ in answers]

    def drain_stream(self) -> int:
        """Read the result stream; return the number of entries."""
        client, last_id = self._stream
        key = KEYS.stream(STREAM)
        answer: Any = client.xread({key: last_id}, count=1000, block=200)
        entries = answer[0][1] if answer else []
        for entry_id, fields in entries:
            self._stream = (client, entry_id)
            self.observed.entries[fields["job_id"]] += 1
            self._on_final(fields["job_id"], time.time())
        return len(entries)

    def _repeat(self, step: Callable[[], None], ended: threading.Event) -> None:
        while not ended.wait(TICK_S):
            with suppress(redis.RedisError, LabelyardError, OSError):
                step()

    def _submit(self) -> None:
        if self._client.open_images() > OPEN_JOBS:
            return
        bulk = [self._draw_job() for _ in range(JOBS_PER_TICK - 4)]
        self._try(bulk, lambda: self._client.submit_many(bulk))
        for job in [self._draw_job() for _ in range(4)]:
            self._try([job], lambda job=job: self._client.submit_job(job))  # type: ignore[misc]

    def _try(self, jobs: Sequence[Job], submit: Callable[[], object]) -> None:
        job_ids = [job.job_id for job in jobs]
        try:
            submit()
        except LabelyardError:
            self.doubtful += job_ids
            raise
        self.submitted += job_ids
        now = time.monotonic()
        for job_id in job_ids:
            if self._rng.random() < 0.03:
                self._to_cancel.append((now + self._rng.choice((0, 0.2, 1.0)), job_id))

    def _draw_job(self) -> Job:
        rng = self._rng
        uris = rng.choices(self._stage.uris, k=rng.choice((1, 1, 1, 2, 3)))
        if rng.random() < 0.02:
            uris.append(MISSING_URI)
        options: dict[str, Any] = {"tenant": rng.choice(list(TEAMS))}
        if rng.random() < 0.03:
            options["expires_in_s"] = rng.uniform(0.05, 2.0)
        if rng.random() < 0.03:
            options["tenant"] = f"slow-{rng.choice((0.5, 1.5, 3.0))}"
        job = self._client.prepare(uris, LABELS, **options)
        is_object = rng.random() < 0.02
        object_uri = f"s3://{RESULTS}/{job.job_id}.json" if is_object else None
        webhook = self._stage.receiver.url if rng.random() < 0.05 else None
        if webhook:
            self.webhooks.add(job.job_id)
        deliver = Deliver(object_uri=object_uri, webhook=webhook, stream=STREAM)
        return job.model_copy(update={"deliver": deliver})

    def _cancel(self) -> None:
        due = [one for one in self._to_cancel if one[0] <= time.monotonic()]
        for one in due:
            self._client.cancel(one[1])
            self._to_cancel.remove(one)

    def _sample(self) -> None:
        recent = self.submitted[-2000:]
        if recent:
            self.read(self._rng.sample(recent, min(len(recent), READS_AT_ONCE)))

    def _read_stream(self) -> None:
        while self.drain_stream():
            continue
