"""RabbitMQ carries the messages, Redis keeps the ledger: what must hold then, with real workers."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import amqp  # type: ignore[import-untyped]
import pytest

from labelyard.client import Client, JobHandle
from labelyard.diagnosis import DiagnosisSettings, Situation, diagnose
from labelyard.diagnosis.phrases import START_WORKER
from labelyard.doctor import DoctorSettings, Severity, examine
from labelyard.messages import Job
from labelyard.publisher import Outgoing
from labelyard.queues import Queue, queue_name
from labelyard.settings import ClientSettings
from labelyard_worker.local.embedded import HOST
from labelyard_worker.local.servers import SeaweedServer, ServerStartError, ValkeyServer
from labelyard_worker.local.worker_process import WorkerProcess
from tests.conftest import SESSION_SERVERS
from tests.support import pictures
from tests.support.buckets import fresh_bucket
from tests.support.proxy import TcpProxy
from tests.support.rabbitmq import NOT_INSTALLED, RabbitServer, is_installed
from tests.support.variables import service_variables
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.rabbitmq,
    pytest.mark.skipif(not is_installed(), reason=NOT_INSTALLED),
]

LABELS = ("a cat", "a dog")
READY_WITHIN_S = 60.0
DONE_WITHIN_S = 60.0
SETTINGS = {
    "LABELYARD_CONCURRENCY": "8",
    "LABELYARD_INTAKE_CHILDREN": "1",
    "LABELYARD_VISIBILITY_TIMEOUT_S": "4",
    "LABELYARD_RECONCILE_EVERY_S": "0.5",
    "LABELYARD_RECONCILE_AFTER_S": "2",
    "LABELYARD_DRAIN_S": "1",
}
BULK_SLOTS = 6


@dataclass(frozen=True)
class Yard:
    """RabbitMQ, a ledger and a picture, and the workers and producers that use them."""

    rabbit: RabbitServer
    ledger_url: str
    seaweed: SeaweedServer
    folder: Path
    uri: str
    namespace: str = "labelyard"

    def client(self) -> Client:
        """Make a producer; the caller closes it."""
        return Client(
            ClientSettings(
                broker_url=self.rabbit.url,
                ledger_url=self.ledger_url,
                namespace=self.namespace,
                publish_timeout_s=1,
            )
        )

    def worker(
        self, name: str = "worker", *, app: str = "instant", port: int = 0, **settings: str
    ) -> WorkerProcess:
        """Describe a worker; *port* leads it to the broker through a proxy."""
        broker_url = self.rabbit.url_at(port or self.rabbit.port)
        folder = self.folder / self.namespace
        folder.mkdir(exist_ok=True)
        variables = {
            **service_variables(self.seaweed, broker_url=broker_url, ledger_url=self.ledger_url),
            **SETTINGS,
            **{f"LABELYARD_{key.upper()}": value for key, value in settings.items()},
            "LABELYARD_NAMESPACE": self.namespace,
            "PYTHONPATH": str(Path.cwd()),
            "TEST_EFFECTS": str(self.effects_path),
            "TEST_FLAGS": str(folder),
            "TEST_SLOT": name,
        }
        command = (sys.executable, "-m", "celery", "-A", f"tests.support.apps.{app}", "worker")
        flags = ("--without-mingle", "--without-gossip", "--loglevel", "WARNING")
        return WorkerProcess(folder / name, variables=variables, command=command + flags)

    @property
    def effects_path(self) -> Path:
        """Log that workers note their attempts in."""
        return self.folder / "effects.log"

    def begun(self, handles: Sequence[JobHandle]) -> Counter[str]:
        """Count the attempts of each job."""
        job_ids = {handle.id for handle in handles}
        events = [line.split()[:2] for line in self.effects_path.read_text().splitlines()]
        return Counter(job_id for event, job_id in events if event == "begin" and job_id in job_ids)

    def wait_for_attempts(self, handles: Sequence[JobHandle], count: int) -> None:
        """Wait until so many attempts have begun."""
        wait_until(lambda: self.begun(handles).total() >= count, within_s=DONE_WITHIN_S)

    def jobs(self, client: Client, count: int, *, tenant: str = "default") -> list[Job]:
        """Prepare jobs of one picture; the tenant's name can order them to misbehave."""
        return [client.prepare([self.uri], LABELS, tenant=tenant) for _ in range(count)]


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    """Run a node for all tests; a test that ends it starts it again."""
    with RabbitServer(tmp_path_factory.mktemp("rabbitmq")) as server:
        SESSION_SERVERS.extend(server.servers())
        yield server
        for one in server.servers():
            SESSION_SERVERS.remove(one)


@pytest.fixture(scope="module")
def module_yard(
    rabbit: RabbitServer,
    valkey: ValkeyServer,
    seaweed: SeaweedServer,
    s3: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Yard]:
    """Store the picture, and prepare the log."""
    with fresh_bucket(s3) as bucket:
        uri = bucket.put("picture.jpg", pictures.jpeg((64, 48)))
        folder = tmp_path_factory.mktemp("yard")
        made = Yard(rabbit, valkey.url_of(1), seaweed, folder, uri)
        made.effects_path.touch()
        yield made


@pytest.fixture(scope="module")
def module_worker(module_yard: Yard) -> Iterator[WorkerProcess]:
    """Describe the worker that all tests share."""
    worker = module_yard.worker()
    SESSION_SERVERS.append(worker)
    yield worker
    worker.stop()
    SESSION_SERVERS.remove(worker)


@pytest.fixture
def yard(module_yard: Yard, clean_valkey: ValkeyServer) -> Yard:
    """Use the servers with an empty ledger."""
    return module_yard


@pytest.fixture
def worker(yard: Yard, module_worker: WorkerProcess) -> WorkerProcess:
    """Have the shared worker running; a test may end it."""
    if not module_worker.is_running():
        module_worker.stop()
        module_worker.start(within_s=READY_WITHIN_S)
    return module_worker


@pytest.fixture
def client(yard: Yard) -> Iterator[Client]:
    """Connect a producer, and leave no message behind."""
    with yard.client() as producer:
        yield producer
    with amqp.Connection(host=f"{HOST}:{yard.rabbit.port}") as connection:
        for queue in Queue:
            connection.channel().queue_purge(queue_name(yard.namespace, queue))


def states(client: Client, handles: Sequence[JobHandle]) -> Counter[str]:
    """Wait for all jobs, and count their states."""
    return Counter(record.state for record in client.wait(handles, timeout_s=DONE_WITHIN_S))


def start_again(worker: WorkerProcess) -> None:
    """Start a worker as a supervisor does; a job may kill it before it is ready."""
    worker.stop()
    with suppress(ServerStartError):
        worker.start(within_s=READY_WITHIN_S)


def start_all(workers: Sequence[WorkerProcess]) -> None:
    """Start workers at once."""
    with ThreadPoolExecutor(len(workers)) as pool:
        list(pool.map(start_again, workers))


def exit_code(worker: WorkerProcess) -> int | None:
    """End a worker by SIGTERM, and return its exit code."""
    guardian = worker._guardian
    assert guardian is not None
    worker.stop()
    return guardian.returncode


def test_interactive_jobs_find_room_and_what_runs_is_not_sent_again(
    yard: Yard, client: Client, worker: WorkerProcess
) -> None:
    bulk = client.submit_many(yard.jobs(client, 2 * BULK_SLOTS, tenant="slow-3"), queue="bulk")
    yard.wait_for_attempts(bulk, BULK_SLOTS)

    result = client.classify([yard.uri], LABELS, timeout_s=2)

    assert result.status == "succeeded"
    assert client.queue_lengths()["bulk"] == len(bulk) - BULK_SLOTS
    assert states(client, bulk) == {"succeeded": len(bulk)}
    assert set(yard.begun(bulk).values()) == {1}


@pytest.mark.usefixtures("worker")
def test_a_cancelled_job_stops_and_its_message_is_gone(yard: Yard, client: Client) -> None:
    running = client.submit_job(yard.jobs(client, 1, tenant="slow-60")[0])
    wait_until(lambda: running.state() == "running")

    assert running.cancel()

    follower = client.submit_job(yard.jobs(client, 1)[0])
    assert follower.result(timeout_s=5).status == "succeeded"
    assert running.state() == "cancelled"
    assert sum(client.queue_lengths().values()) == 0


@pytest.mark.usefixtures("worker")
def test_a_lost_message_is_sent_again_although_its_queue_is_never_empty(
    yard: Yard, client: Client
) -> None:
    lost = yard.jobs(client, 1)[0]
    sent_at = client._ledger.open(lost, queue="bulk").at  # and its message is never published
    backlog = yard.jobs(client, 100, tenant="slow-1")
    client._ledger.open_many(backlog, queue="bulk")
    client._publisher.publish_many(
        [Outgoing.of(job, queue="bulk", published_at=sent_at + 10) for job in backlog]
    )

    wait_until(lambda: client.status(lost.job_id).published_at > sent_at, within_s=10)

    assert client.queue_lengths()["bulk"] > 0
    for job in backlog:
        client.cancel(job.job_id)
    assert client.result(lost.job_id, timeout_s=DONE_WITHIN_S).status == "succeeded"


def test_workers_that_are_killed_lose_no_job(
    yard: Yard, client: Client, worker: WorkerProcess
) -> None:
    """Both have the same name: the one must not lock the other out of its mailbox."""
    handles = client.submit_many(yard.jobs(client, 1000))
    with yard.worker("second").start(within_s=READY_WITHIN_S) as second:
        for number, victim in enumerate((worker, second), start=1):
            yard.wait_for_attempts(handles, number * 40)
            victim.kill()
        start_all((worker, second))

        assert states(client, handles) == {"succeeded": len(handles)}
        assert sum(client.queue_lengths().values()) == 0


def test_a_job_that_kills_its_workers_is_buried_and_the_others_finish(
    yard: Yard,
) -> None:
    yard = replace(yard, namespace="poison")
    worker = yard.worker(quarantine_after="1", dead_after="1")
    with yard.client() as client:
        poison = client.submit_job(yard.jobs(client, 1, tenant="poison-kill")[0], queue="bulk")
        good = client.submit_many(yard.jobs(client, 200))
        try:
            while not client.dead_letters.ids():
                if not worker.is_running():
                    start_again(worker)

            assert states(client, good) == {"succeeded": len(good)}
            assert poison.state() == "failed"
            assert yard.begun([poison])[poison.id] == 2
        finally:
            worker.stop()


def test_sigterm_gives_unfinished_jobs_back_and_exits_with_0(
    yard: Yard, client: Client, worker: WorkerProcess
) -> None:
    handles = client.submit_many(yard.jobs(client, 8, tenant="slow-60"), queue="interactive")
    yard.wait_for_attempts(handles, len(handles))

    code = exit_code(worker)

    assert code == 0
    assert client.queue_lengths()["interactive"] == len(handles)
    assert {handle.state() for handle in handles} == {"pending"}


def test_a_half_open_connection_is_noticed_and_left(yard: Yard) -> None:
    yard = replace(yard, namespace="half-open")
    with TcpProxy(yard.rabbit.port) as proxy, yard.client() as client:
        worker = yard.worker(app="rabbit_app", port=proxy.port)
        with worker.start(within_s=READY_WITHIN_S):
            assert client.classify([yard.uri], LABELS, timeout_s=10).status == "succeeded"

            proxy.freeze()

            handles = client.submit_many(yard.jobs(client, 20))
            assert states(client, handles) == {"succeeded": len(handles)}


@pytest.mark.usefixtures("worker")
def test_celery_makes_no_queues_for_delays_that_we_do_not_use(yard: Yard) -> None:
    with (
        amqp.Connection(host=f"{HOST}:{yard.rabbit.port}") as connection,
        pytest.raises(amqp.NotFound),
    ):
        connection.channel().queue_declare("celery_delayed_27", passive=True)


@pytest.mark.usefixtures("worker")
def test_a_broker_that_is_killed_or_comes_back_empty_loses_no_job(
    yard: Yard, client: Client
) -> None:
    handles = client.submit_many(yard.jobs(client, 500))
    yard.wait_for_attempts(handles, 40)
    yard.rabbit.kill()
    unsent = client.submit_job(yard.jobs(client, 1)[0])
    yard.rabbit.start()
    handles += client.submit_many(yard.jobs(client, 500))
    yard.rabbit.kill()
    yard.rabbit.empty()
    yard.rabbit.start()

    assert not unsent.is_published
    assert states(client, [*handles, unsent]) == {"succeeded": len(handles) + 1}


def test_a_diagnosis_says_what_rabbitmq_does_not_show(yard: Yard) -> None:
    unattended = replace(yard, namespace="unattended")
    with unattended.client() as producer:
        handle = producer.submit([yard.uri], LABELS)
        settings = DiagnosisSettings(**producer.settings.model_dump())

        diagnosis = diagnose(handle.id, settings)

    assert diagnosis.situation is Situation.UNCLEAR
    assert "RabbitMQ does not show" in diagnosis.summary
    assert "1 wait in the queue interactive" in diagnosis.summary
    assert diagnosis.fields()["broker"]["can_search"] is False
    assert diagnosis.advice == (START_WORKER,)


def examine_broker(yard: Yard, *, namespace: str = "labelyard", url: str = "") -> dict[str, Any]:
    """Return what the doctor finds about RabbitMQ, without what is sound."""
    settings = DoctorSettings(
        broker_url=url or yard.rabbit.url, ledger_url=yard.ledger_url, namespace=namespace
    )
    found = examine(settings, environ={}).findings
    return {one.code: one for one in found if one.group == "rabbitmq"}


def test_the_doctor_examines_rabbitmq_and_declares_nothing(yard: Yard) -> None:
    with yard.client():
        sound = examine_broker(yard)
    new = examine_broker(yard, namespace="new")
    queues = yard.rabbit.control("list_queues", "name")

    assert "rabbitmq_reached" in sound
    assert {one.severity for one in (*sound.values(), *new.values())} == {Severity.OK}
    assert "rabbitmq_queue_new" in new
    assert "new." not in queues
    assert "doctor-" not in queues


def test_the_doctor_finds_a_queue_of_other_arguments(yard: Yard) -> None:
    name = queue_name("conflict", Queue.BULK)
    with amqp.Connection(host=f"{HOST}:{yard.rabbit.port}") as connection:
        channel = connection.channel()
        channel.queue_declare(name, durable=True, auto_delete=False)
        found = examine_broker(yard, namespace="conflict")
        channel.queue_delete(name)

    finding = found["rabbitmq_queue_differs"]
    assert finding.severity is Severity.SERIOUS
    assert f"rabbitmqctl delete_queue {name}" in finding.advice


def test_the_doctor_finds_what_rabbitmq_refuses(yard: Yard) -> None:
    url = yard.rabbit.url
    yard.rabbit.control("add_user", "reader", "secret-of-reader")
    yard.rabbit.control("set_permissions", "reader", "", "", ".*")

    refused = examine_broker(yard, url=url.replace("guest:guest", "guest:wrong-password"))
    limited = examine_broker(yard, url=url.replace("guest:guest", "reader:secret-of-reader"))
    away = examine_broker(yard, url="amqp://guest:guest@127.0.0.1:9//")

    assert refused["rabbitmq_login_refused"].severity is Severity.SERIOUS
    assert "LABELYARD_BROKER_URL" in refused["rabbitmq_login_refused"].advice
    assert "wrong-password" not in str(refused)
    assert "set_permissions" in limited["rabbitmq_rights_missing"].advice
    assert set(away) == {"rabbitmq_unreachable"}
    assert "LABELYARD_BROKER_URL" in away["rabbitmq_unreachable"].advice
