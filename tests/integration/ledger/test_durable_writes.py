"""With durable writes a ledger that loses its last second loses no job that was accepted or read.

Broker and ledger are on separate servers: the broker keeps what the ledger forgets. Without
durable writes the same scenes do lose jobs, which proves that these tests can fail.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from labelyard.errors import LedgerUnavailableError, ServiceConfigError
from labelyard.ledger import Ledger, Record, connect
from labelyard.ledger.async_client import AsyncLedger, connect_async
from labelyard.ledger.durable_writes import Barrier
from labelyard.ledger.sightings import Sightings
from labelyard.messages import Job
from labelyard.settings import ClientSettings
from labelyard.testing import sample_job, sample_result
from labelyard_worker.local.servers import ValkeyServer
from tests.support.power import PowerFailure
from tests.support.waiting import wait_until

MODES = ["off", "fsync"]


def settings_for(server: ValkeyServer, mode: str, **changes: object) -> ClientSettings:
    values = {"ledger_url": server.url, "namespace": "test", "durable_timeout_s": 0.3}
    return ClientSettings(**{**values, "durable_writes": mode, **changes})


@pytest.fixture(params=MODES)
def ledger(own_valkey: ValkeyServer, request: pytest.FixtureRequest) -> Iterator[Ledger]:
    settings = settings_for(own_valkey, request.param)
    with closing(connect(settings)) as client:
        ledger = Ledger(client, settings, sightings=Sightings(result_ttl_s=60))
        ledger.check_durability()
        yield ledger


def is_durable(ledger: Ledger) -> bool:
    return ledger._barrier.is_on


def begin(ledger: Ledger, job: Job) -> None:
    ledger.client.set("test:worker:w1", "[]", ex=60)
    ledger.start(job.job_id, worker="w1", quarantine_after=2, dead_after=2)


def running(ledger: Ledger) -> Job:
    job = sample_job()
    ledger.open(job, queue="bulk")
    begin(ledger, job)
    return job


def dead(ledger: Ledger) -> Job:
    job = running(ledger)
    ledger.finish(job.job_id, sample_result("failed", job=job), is_dead=True)
    return job


def attempt(call: Callable[[], object]) -> bool:
    """Return whether *call* came to an end that its caller may rely on."""
    try:
        call()
    except LedgerUnavailableError:
        return False
    return True


def test_a_job_that_was_accepted_is_there_after_a_power_failure(
    ledger: Ledger, own_valkey: ValkeyServer
) -> None:
    kept = sample_job()
    ledger.open(kept, queue="bulk")
    if not is_durable(ledger):
        ledger.client.waitaof(1, 0, 2000)
    power = PowerFailure(own_valkey)
    jobs = [sample_job() for _ in range(4)]

    accepted = [job for job in jobs if attempt(lambda job=job: ledger.open(job, queue="bulk"))]
    accepted_together = attempt(lambda: ledger.open_many(jobs, queue="bulk"))
    power.strike()

    lost = [job for job in accepted if ledger.state(job.job_id) is None]
    assert ledger.state(kept.job_id) == "pending"
    assert (len(lost), accepted_together) == ((0, False) if is_durable(ledger) else (4, True))


ENDS: dict[str, tuple[Callable[[Ledger], Job], Callable[[Ledger, Job], object]]] = {
    "finish": (
        running,
        lambda ledger, job: ledger.finish(job.job_id, sample_result(job=job)),
    ),
    "cancel": (running, lambda ledger, job: ledger.cancel(job.job_id)),
    "retry": (running, lambda ledger, job: ledger.retry(job.job_id, worker="w1", delay_s=0)),
    "hand back": (running, lambda ledger, job: ledger.hand_back(job.job_id, worker="w1")),
    "replay": (dead, lambda ledger, job: ledger.replay(job.job_id)),
    "purge": (dead, lambda ledger, job: ledger.purge(job.job_id)),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_what_acknowledges_a_message_holds_after_a_power_failure(
    ledger: Ledger,
    own_valkey: ValkeyServer,
    end: tuple[Callable[[Ledger], Job], Callable[[Ledger, Job], object]],
) -> None:
    before, act = end
    job = before(ledger)
    ledger.client.waitaof(1, 0, 2000)
    was = ledger.state(job.job_id)
    power = PowerFailure(own_valkey)

    is_relied_on = attempt(lambda: act(ledger, job))
    power.strike()

    assert ledger.state(job.job_id) == was  # it was forgotten
    assert is_relied_on is not is_durable(ledger)


def test_an_end_that_was_read_is_never_taken_back(ledger: Ledger, own_valkey: ValkeyServer) -> None:
    """Another process wrote it, and waits for its own barrier."""
    job = running(ledger)
    ledger.client.waitaof(1, 0, 2000)
    power = PowerFailure(own_valkey)
    quick = settings_for(own_valkey, "off")
    with closing(connect(quick)) as client:
        Ledger(client, quick).finish(job.job_id, sample_result(job=job))
    records: list[Record | None] = []

    is_read = attempt(lambda: records.append(ledger.read(job.job_id)))
    power.strike()

    assert is_read is not is_durable(ledger)
    assert ledger.state(job.job_id) == "running"  # a second end may come, and be another one


def test_a_record_that_vanished_is_an_outage_for_who_submitted_it(
    own_valkey: ValkeyServer,
) -> None:
    settings = settings_for(own_valkey, "off")
    with closing(connect(settings)) as client:
        producer = Ledger(client, settings, sightings=Sightings(result_ttl_s=60))
        stranger = Ledger(client, settings, sightings=Sightings(result_ttl_s=60))
        job = sample_job()
        producer.open(job, queue="bulk")
        client.flushdb()

        [glance] = producer.glance_many([job.job_id])
        with pytest.raises(LedgerUnavailableError, match=job.job_id):
            producer.read(job.job_id)

        assert glance is not None
        assert glance.state == "pending"
        assert stranger.glance_many([job.job_id]) == [None]
        assert stranger.read(job.job_id) is None


def test_a_record_that_expired_is_not_an_outage(own_valkey: ValkeyServer) -> None:
    settings = settings_for(own_valkey, "off")
    with closing(connect(settings)) as client:
        ledger = Ledger(client, settings, sightings=Sightings(result_ttl_s=60))
        job = running(ledger)
        ledger.finish(job.job_id, sample_result(job=job))
        assert ledger.read(job.job_id) is not None
        client.flushdb()

        assert ledger.read(job.job_id) is None


def test_the_asynchronous_ledger_waits_for_its_barriers_too(own_valkey: ValkeyServer) -> None:
    settings = settings_for(own_valkey, "fsync")
    jobs = [sample_job(), sample_job()]

    async def scene() -> list[str]:
        client = connect_async(settings)
        ledger = AsyncLedger(client, settings)
        await ledger.open(jobs[0], queue="bulk")
        assert await ledger.cancel(jobs[0].job_id)
        PowerFailure(own_valkey)
        calls = [
            ledger.open(jobs[1], queue="bulk"),
            ledger.open_many(jobs, queue="bulk"),
            ledger.cancel(jobs[1].job_id),
            ledger.read(jobs[0].job_id),
        ]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        await client.aclose()
        return [str(answer) for answer in answers]

    answers = asyncio.run(scene())

    assert [("did not make a write durable" in answer) for answer in answers] == [True] * 4


def test_a_server_without_an_append_only_file_is_refused_at_the_start(tmp_path: Path) -> None:
    with ValkeyServer(tmp_path, options={"appendonly": "no"}) as server:
        settings = settings_for(server, "fsync")
        with closing(connect(settings)) as client:
            ledger = Ledger(client, settings)
            job = sample_job()

            with pytest.raises(ServiceConfigError, match="append-only file"):
                ledger.open(job, queue="bulk")

            assert ledger.state(job.job_id) is None


def test_a_server_that_knows_no_barrier_is_refused() -> None:
    barrier = Barrier(ClientSettings(durable_writes="fsync"))
    unknown = ResponseError("unknown command 'WAITAOF', with args beginning with: '1' '0' '2500'")

    with pytest.raises(ServiceConfigError, match=r"7\.2"):
        barrier.check([True, unknown])


def test_replicas_that_are_missing_are_waited_for_in_vain(own_valkey: ValkeyServer) -> None:
    settings = settings_for(own_valkey, "replica")
    with (
        closing(connect(settings)) as client,
        pytest.raises(LedgerUnavailableError, match="durable"),
    ):
        Ledger(client, settings).open(sample_job(), queue="bulk")


def test_a_replica_that_takes_over_has_what_was_accepted(tmp_path: Path) -> None:
    with ValkeyServer(tmp_path / "first") as first:
        follows = {"replicaof": f"127.0.0.1 {first.port}"}
        with ValkeyServer(tmp_path / "second", options=follows) as second:
            settings = settings_for(first, "replica", durable_timeout_s=2.0)
            with closing(connect(settings)) as client:
                wait_until(lambda: client.info("replication").get("connected_slaves") == 1)
                ledger = Ledger(client, settings)
                jobs = [sample_job() for _ in range(20)]
                wait_until(lambda: attempt(ledger.check_durability))
                for job in jobs:
                    ledger.open(job, queue="bulk")
                first.kill()

            after = settings_for(second, "off")
            with closing(connect(after)) as client:
                client.execute_command("REPLICAOF", "NO", "ONE")
                states = [Ledger(client, after).state(job.job_id) for job in jobs]
            assert states == ["pending"] * 20


def test_a_worker_keeps_a_result_until_it_is_durable(own_valkey: ValkeyServer) -> None:
    """The first end that counts is the one that the ledger has for good."""
    settings = settings_for(own_valkey, "fsync")
    with closing(connect(settings)) as client:
        ledger = Ledger(client, settings)
        job = running(ledger)
        result = sample_result(job=job)
        power = PowerFailure(own_valkey)
        done = threading.Event()

        def finish() -> None:
            while not attempt(lambda: ledger.finish(job.job_id, result)):
                pass
            done.set()

        worker = threading.Thread(target=finish)
        worker.start()
        wait_until(lambda: ledger.state(job.job_id) == "succeeded")
        power.strike()
        worker.join(timeout=20)

        record = ledger.read(job.job_id)
        assert done.is_set()
        assert record is not None
        assert record.result == result
