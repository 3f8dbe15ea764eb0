"""Every metric of a real worker moves with what the worker does."""

from collections.abc import Iterator

import pytest
from kombu import Connection
from prometheus_client import Counter, Histogram

from labelyard import Client
from labelyard.drift.baselines import baseline_json
from labelyard.drift.counts import AnswerCounts
from labelyard.drift.report import WINDOW_S
from labelyard.label_sets import as_label_set
from labelyard.ledger import Ledger, connect
from labelyard.ledger.answer_commands import add_counts
from labelyard.ledger.keys import LedgerKeys
from labelyard.messages import Deliver
from labelyard_worker import metrics
from labelyard_worker.jobs.delivery.breaker import OPEN_AFTER
from tests.e2e.instant import NAMESPACE, InstantService
from tests.support import poison
from tests.support.apps import orders
from tests.support.apps.durability_worker import send
from tests.support.receiver import running_receiver
from tests.support.scraping import Scrape, scrape
from tests.support.waiting import wait_until

LABELS = ["a cat", "a dog"]
TIMEOUT_S = 30.0
#: More than a worker runs at once, so that some stay in the queue.
MANY = 60
#: Metrics of a GPU.
ABSENT = {gauge.name for gauge in metrics.WORKER_GAUGES if "device_memory" in gauge.name}
#: Metrics that stay as they are in this test, with the reason.
STILL = {
    "labelyard_build_info": "says what the worker is",
    "labelyard_leader": "the worker leads all the time",
    "labelyard_fleet_up": "the ledger answers all the time",
    "labelyard_fleet_workers": "there is one worker",
    "labelyard_job_slots": "a setting",
    "labelyard_pixels_in_flight_limit_bytes": "a setting",
    "labelyard_draining": "the worker ends soon after",
    "labelyard_watchdog_hung": "the worker ends at once",
    "labelyard_job_slots_leaked": "no fault of today leaks one",
    "labelyard_answers_dropped_total": "few versions are in use",
    "labelyard_batch_queue_images": "the model answers at once",
    "labelyard_forward_pass_running_seconds": "the model answers at once",
}


class Watch:
    """Scrapes of one worker, and the names of the samples that changed between them."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._first = self.last = scrape(url)
        self.moved: set[str] = set()
        self.seen = self.last.names()

    def scrape(self) -> Scrape:
        """Scrape, and note what has changed since the first scrape."""
        self.last = scrape(self._url)
        self.seen |= self.last.names()
        keys = self.last.keys() | self._first.keys()
        self.moved |= {key[0] for key in keys if self.last.get(key) != self._first.get(key)}
        return self.last

    def wait_for(self, name: str, *, least: float = 1, **labels: str) -> None:
        """Scrape until a sample has grown by *least*, or a gauge is that large."""
        before = self._first.value(name, **labels)
        wait_until(
            lambda: self.scrape().value(name, **labels) - before >= least,
            within_s=TIMEOUT_S,
            message=f"{name} {labels}",
        )


@pytest.fixture(scope="module")
def watch(instant: InstantService) -> Iterator[Watch]:
    """Have the worker do everything once, and watch its metrics."""
    with instant.client() as client:
        watched = Watch(instant.worker.health_url)
        for phase in (
            *(use_an_alias, deliver_and_fail, break_children, fill_the_queue, lose_jobs),
            *(lose_a_receiver, see_the_drift),
        ):
            phase(instant, client, watched)
        yield watched


def use_an_alias(instant: InstantService, client: Client, watch: Watch) -> None:
    """Have canaries score a job and fail at one, and the answers of the last hour drift."""
    sets = client.label_sets
    reference = sets.register("watched", as_label_set(LABELS))
    sets.promote(reference, "watched@prod")
    alias = sets.promote(reference, "watched@prod", share=1.0)
    job = client.prepare([instant.picture()], alias)
    for one in (job, job.model_copy(update={"job_id": "odd", "canary": f"a@sha256:{'0' * 64}"})):
        client.submit_job(one).result(timeout_s=TIMEOUT_S)
    cats, dogs = (AnswerCounts(n=200, answers={label: 200}) for label in LABELS)
    with connect(client.settings) as connection:
        ledger = Ledger(connection, client.settings)
        hour = int(ledger.now() // WINDOW_S) - 1
        key = ledger.keys.answers(reference.partition("@")[2], hour)
        ledger.run(add_counts(key, cats.fields(), worker="w1", number=1))
        baseline = baseline_json(dogs, at=hour * WINDOW_S)
        connection.hset(ledger.keys.label_set_version(reference), "baseline", baseline)


def see_the_drift(instant: InstantService, client: Client, watch: Watch) -> None:
    """Wait until the leader has read the drift again."""
    watch.wait_for("labelyard_fleet_drift_alarm", alias="watched@prod")
    watch.wait_for("labelyard_fleet_drift_distance", test="answers", alias="watched@prod")


def deliver_and_fail(instant: InstantService, client: Client, watch: Watch) -> None:
    """Run good and bad images, and deliver a result."""
    good, bad = instant.picture("metrics.jpg"), instant.service.pictures.uri("nobody/put/this.jpg")
    instant.order(orders.LEAVE_NO_MEMORY)
    client.classify([instant.picture("large.jpg")], labels=LABELS, timeout_s=TIMEOUT_S)
    with running_receiver() as receiver:
        deliver = Deliver(webhook=receiver.url, object_uri="s3://results/metrics.json")
        client.classify(
            [good, bad], labels=["new", "labels"], deliver=deliver, timeout_s=TIMEOUT_S, tenant="m"
        )
        refused = Deliver(webhook="http://localhost:9/hook")
        client.classify(
            [good], labels=["new", "labels"], deliver=refused, timeout_s=TIMEOUT_S, tenant="m"
        )
        watch.wait_for("labelyard_delivery_attempts_total", kind="webhook", outcome="delivered")
        watch.wait_for("labelyard_fleet_dead_deliveries")
    lose_events(client)
    client.classify([good], labels=LABELS, explain=LABELS[:1], timeout_s=TIMEOUT_S)
    watch.wait_for("labelyard_occluded_images_total", least=16)
    watch.wait_for("labelyard_fleet_event_gaps")
    watch.wait_for("labelyard_fleet_waiting_events", group="metrics")


def lose_events(client: Client) -> None:
    """Trim events before one group has read them, and have another one that waits."""
    client.event_groups.create("behind", start="oldest")
    client.event_groups.create("metrics", start="oldest")
    with connect(client.settings) as connection:
        connection.xtrim(LedgerKeys(client.settings.namespace).events, maxlen=1, approximate=False)
    list(client.events("behind", ack="manual", timeout_s=0.0))


def break_children(instant: InstantService, client: Client, watch: Watch) -> None:
    """Hang a decoder until it is replaced."""
    with_hang = client.submit([instant.file(poison.HANG)], labels=LABELS)
    watch.wait_for("labelyard_pixels_in_flight_bytes")
    watch.wait_for("labelyard_intake_pending_images")
    with_hang.result(timeout_s=TIMEOUT_S)
    watch.wait_for("labelyard_intake_children_replaced_total", reason="timed_out")


def fill_the_queue(instant: InstantService, client: Client, watch: Watch) -> None:
    """Occupy all slots of bulk jobs, and cancel the jobs."""
    uri = instant.picture("queued.jpg")
    jobs = [
        client.submit([uri], labels=LABELS, queue="bulk", tenant="slow-20") for _ in range(MANY)
    ]
    watch.wait_for("labelyard_job_slots_busy", least=2)
    watch.wait_for("labelyard_fleet_queue_messages", queue="bulk")
    watch.wait_for("labelyard_fleet_backlog_images", queue="bulk", tenant="slow-20")
    for job in jobs:
        job.cancel()
    backlog = "labelyard_fleet_backlog_images"
    wait_until(lambda: not watch.scrape().value(backlog, tenant="slow-20"), within_s=TIMEOUT_S)


def lose_jobs(instant: InstantService, client: Client, watch: Watch) -> None:
    """Bury a job, let another one expire in its queue, and send a message that is not a job."""
    uri = instant.picture()
    client.classify([uri], labels=LABELS, tenant=orders.RAISES_MEMORY_ERROR, timeout_s=TIMEOUT_S)
    expiring = client.prepare([uri], labels=LABELS, expires_in_s=0.2)
    client._ledger.open(expiring, queue="bulk")  # without a message
    with (
        Connection(instant.service.variables["LABELYARD_BROKER_URL"]) as connection,
        connection.Producer() as producer,
    ):
        send(producer, "labelyard.classify", ["no", "job"], queue=f"{NAMESPACE}.bulk")
    watch.wait_for("labelyard_dead_letters_total")
    watch.wait_for("labelyard_fleet_dead_letters")
    watch.wait_for("labelyard_queued_jobs_expired_total")
    watch.wait_for("labelyard_messages_set_aside_total")
    watch.wait_for("labelyard_fleet_set_aside_messages")


def lose_a_receiver(instant: InstantService, client: Client, watch: Watch) -> None:
    """Have a receiver fail until its circuit is open."""
    uri = instant.picture("metrics.jpg")
    with running_receiver() as receiver:
        receiver.statuses = [503] * 100
        deliver = Deliver(webhook=receiver.url)
        jobs = [client.submit([uri], labels=LABELS, deliver=deliver) for _ in range(OPEN_AFTER)]
        watch.wait_for("labelyard_circuits", kind="delivery")
        watch.wait_for("labelyard_fleet_pending_deliveries")
        for job in jobs:
            client.forget(job.id)


def changing_name(metric: Counter | Histogram) -> str:
    """Return the name of a sample that each event of a metric changes."""
    return f"{metric._name}{'_total' if isinstance(metric, Counter) else '_count'}"


GAUGES = {gauge.name for gauge in (*metrics.WORKER_GAUGES, *metrics.FLEET_GAUGES)}
COUNTED = {
    changing_name(one) for one in vars(metrics).values() if isinstance(one, Counter | Histogram)
}


def test_each_gauge_is_exported(watch: Watch) -> None:
    assert GAUGES - ABSENT - watch.seen == set()


def test_each_metric_moves(watch: Watch) -> None:
    assert (GAUGES | COUNTED) - ABSENT - STILL.keys() - watch.moved == set()


def test_memory_of_a_device_is_absent_on_a_cpu(watch: Watch) -> None:
    assert not watch.last.names() & ABSENT


def test_images_are_counted_by_tenant_and_code(watch: Watch) -> None:
    name = "labelyard_images_total"

    assert watch.last.value(name, tenant="m", outcome="succeeded") == 2
    assert watch.last.value(name, tenant="m", outcome="image_not_found") == 1
