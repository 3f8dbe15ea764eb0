"""Every metric of a worker: its name, type, labels and meaning.

A module that knows a fact imports the metric and observes the fact in one line. Gauges that are
read when a worker is scraped are ``ScrapedGauge``; the collectors in ``operations/`` read them.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily

#: Registry of a worker process, apart from the one that an application in the same process has.
REGISTRY: Final = CollectorRegistry()
ProcessCollector(registry=REGISTRY)  # process_cpu_seconds_total and others
#: Tenant that stands for all tenants beyond LABELYARD_METRICS_MAX_TENANTS, and for unknown codes.
OTHER: Final = "other"

# From one cached answer to a long time-out, and for queued jobs up to half an hour.
SECONDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0),
)
PASS_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0)
SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TENTHS: Final = tuple(tenth / 10 for tenth in range(1, 11))

_counter = partial(Counter, registry=REGISTRY)
_histogram = partial(Histogram, registry=REGISTRY)

JOBS: Final = _counter(
    "labelyard_jobs_total",
    "Jobs that this worker made final, by tenant and outcome: succeeded, partial, failed, "
    "dead_lettered or expired. A cancelled job is final before a worker sees it.",
    ("tenant", "outcome"),
)
IMAGES: Final = _counter(
    "labelyard_images_total",
    "Images of those jobs, by tenant and outcome: succeeded, or the code of their error.",
    ("tenant", "outcome"),
)
ATTEMPTS: Final = _counter(
    "labelyard_attempts_total",
    "Attempts at jobs that ended, by the verdict (finish, fail, retry, postpone, hand_back, "
    "stop_worker, expire, drop, count_death) and the code of the error behind it, if any.",
    ("verdict", "code"),
)
STAGE_SECONDS: Final = _histogram(
    "labelyard_stage_duration_seconds",
    "Seconds in one stage, by priority: queued (a job, from submit to the start of an attempt), "
    "fetch, decode, batch_wait and model (an image), score (a job).",
    ("stage", "priority"),
    buckets=SECONDS,
)
BATCH_SIZE: Final = _histogram(
    "labelyard_batch_size",
    "Items of one forward pass, by tower: images (image) or prompts (text).",
    ("tower",),
    buckets=SIZES,
)
BATCH_FILL: Final = _histogram(
    "labelyard_batch_fill_ratio",
    "Items of one forward pass divided by the configured maximum, by tower.",
    ("tower",),
    buckets=TENTHS,
)
BATCH_SECONDS: Final = _histogram(
    "labelyard_batch_duration_seconds",
    "Seconds of one forward pass, by tower; the rate of its sum is the share of time in use.",
    ("tower",),
    buckets=PASS_SECONDS,
)
OUT_OF_MEMORY: Final = _counter(
    "labelyard_batches_out_of_memory_total",
    "Forward passes that ran out of device memory, and were halved.",
)
PROMPTS_ENCODED: Final = _counter(
    "labelyard_prompts_encoded_total",
    "Prompts that the text tower encoded.",
)
IMAGE_CACHE: Final = _counter(
    "labelyard_image_cache_lookups_total",
    "Images by the place of their embedding: memory or shared (Redis), by their address; content, "
    "by their bytes under another address, also if those are on their way to the model; miss, if the "
    "model had to make it.",
    ("result",),
)
OCCLUDED_IMAGES: Final = _counter(
    "labelyard_occluded_images_total",
    "Extra images that the model read for explanations: pictures with one window hidden.",
)
LABEL_SETS: Final = _counter(
    "labelyard_label_set_lookups_total",
    "Look-ups of a job's label set in memory: hit or miss.",
    ("result",),
)
TEXT_CACHE: Final = _counter(
    "labelyard_text_cache_lookups_total",
    "Look-ups of a prompt's embedding, for label sets that missed: memory and shared (Redis) are hits, miss is none.",
    ("result",),
)
DELIVERIES: Final = _counter(
    "labelyard_delivery_attempts_total",
    "Attempts to deliver a result, by kind (object, webhook) and outcome: delivered, failed, "
    "postponed (no call was made), refused.",
    ("kind", "outcome"),
)
DELIVERY_SECONDS: Final = _histogram(
    "labelyard_delivery_duration_seconds",
    "Seconds of one call to a bucket or a webhook, by kind.",
    ("kind",),
    buckets=SECONDS,
)
DEAD_LETTERS: Final = _counter(
    "labelyard_dead_letters_total",
    "Jobs that this worker made dead letters because they kept killing workers.",
)
SET_ASIDE: Final = _counter(
    "labelyard_messages_set_aside_total",
    "Messages that no worker can run and that are kept for an operator: invalid (no job in it), "
    "refused (no call of our task, or the worker failed on it), conflict (another job has the "
    "id), outlived (older than a final record lives).",
    ("reason",),
)
REPUBLISHED: Final = _counter(
    "labelyard_jobs_republished_total",
    "Jobs whose message the leader published again: retry (due) or lost (no message is left).",
    ("reason",),
)
EXPIRED: Final = _counter(
    "labelyard_queued_jobs_expired_total",
    "Jobs that expired before a worker ran them, found by the leader.",
)
CHILDREN_REPLACED: Final = _counter(
    "labelyard_intake_children_replaced_total",
    "Intake children that were replaced, by kind (fetcher, decoder) and reason: died, timed_out "
    "(one image took too long), malformed (an answer that is not one).",
    ("child", "reason"),
)
BEST_SCORE: Final = _histogram(
    "labelyard_best_score",
    "Best score of an image, by the version of a registered label set: its name, and the "
    "first digits of its digest. At most 50 versions of a worker are named, the others are other.",
    ("label_set",),
    buckets=TENTHS,
)
ANSWERS: Final = _counter(
    "labelyard_answers_total",
    "Images of these versions by the answer: matched (a label), unmatched, or abstained.",
    ("label_set", "answer"),
)
ANSWERS_DROPPED: Final = _counter(
    "labelyard_answers_dropped_total",
    "Jobs and shards whose answers were not counted in the ledger, because too many versions were in use.",
)
CANARY_IMAGES: Final = _counter(
    "labelyard_canary_images_total",
    "Images that the canary of an alias has scored, too, by its answer: same or flipped.",
    ("alias", "answer"),
)
CANARY_FAILURES: Final = _counter(
    "labelyard_canary_failures_total",
    "Jobs that the canary of an alias could not score; they have their answers.",
    ("alias",),
)
LOOP_LAG: Final = _histogram(
    "labelyard_event_loop_lag_seconds",
    "Seconds that a timer on the loop that receives messages was late; measured once a second.",
    buckets=SECONDS[:14],
)


@dataclass(frozen=True, slots=True)
class ScrapedGauge:
    """A gauge whose value is read when the worker is scraped; without a sample it is absent."""

    name: str
    documentation: str
    labels: tuple[str, ...] = ()

    def family(self, values: Mapping[tuple[str, ...], float]) -> GaugeMetricFamily:
        """Return the gauge with a value for each combination of labels."""
        family = GaugeMetricFamily(self.name, self.documentation, labels=self.labels)
        for labels, value in values.items():
            family.add_metric(labels, value)
        return family

    def of(self, value: float) -> GaugeMetricFamily:
        """Return the gauge with one value, without labels."""
        return self.family({(): value})


BUILD_INFO: Final = ScrapedGauge(
    "labelyard_build_info",
    "1, with what this worker is: version of labelyard, name in the ledger, checkpoint, "
    "fingerprint, device and dtype.",
    ("version", "worker", "checkpoint", "fingerprint", "device", "dtype"),
)
LEADER: Final = ScrapedGauge(
    "labelyard_leader", "1 if this worker leads the maintenance of its namespace, else 0."
)
JOB_SLOTS: Final = ScrapedGauge("labelyard_job_slots", "Jobs that this worker can run at once.")
JOB_SLOTS_BUSY: Final = ScrapedGauge("labelyard_job_slots_busy", "Slots that run a job now.")
JOB_SLOTS_LEAKED: Final = ScrapedGauge(
    "labelyard_job_slots_leaked",
    "Slots lost to messages that could be neither acknowledged nor rejected.",
)
BATCH_QUEUE: Final = ScrapedGauge(
    "labelyard_batch_queue_images", "Decoded images that wait for a forward pass."
)
INTAKE_PENDING: Final = ScrapedGauge(
    "labelyard_intake_pending_images", "Images on their way through the intake."
)
PIXELS_IN_FLIGHT: Final = ScrapedGauge(
    "labelyard_pixels_in_flight_bytes",
    "Memory for decoded images, from the start of decoding to the model's answer.",
)
PIXELS_LIMIT: Final = ScrapedGauge(
    "labelyard_pixels_in_flight_limit_bytes", "Most memory that decoded images may take."
)
DEVICE_ALLOCATED: Final = ScrapedGauge(
    "labelyard_device_memory_allocated_bytes",
    "Memory of the GPU that tensors of this process hold; absent on a CPU.",
    ("device",),
)
DEVICE_RESERVED: Final = ScrapedGauge(
    "labelyard_device_memory_reserved_bytes",
    "Memory of the GPU that this process holds, free parts included; absent on a CPU.",
    ("device",),
)
DEVICE_TOTAL: Final = ScrapedGauge(
    "labelyard_device_memory_total_bytes", "Memory of the GPU; absent on a CPU.", ("device",)
)
CIRCUITS: Final = ScrapedGauge(
    "labelyard_circuits",
    "Buckets and hosts that are not called freely because they failed, by kind (source of images, "
    "delivery of results) and state: open, or probing (one call tests it).",
    ("kind", "state"),
)
FORWARD_PASS: Final = ScrapedGauge(
    "labelyard_forward_pass_running_seconds",
    "Seconds that the longest present forward pass has been running; 0 if none runs.",
)
HUNG: Final = ScrapedGauge(
    "labelyard_watchdog_hung",
    "1 if a job or a forward pass exceeds twice its time limit, so that the process ends, else 0.",
)
DRAINING: Final = ScrapedGauge("labelyard_draining", "1 if the worker is shutting down, else 0.")
#: Gauges that each worker exports about itself.
WORKER_GAUGES: Final = (
    *(BUILD_INFO, LEADER, JOB_SLOTS, JOB_SLOTS_BUSY, JOB_SLOTS_LEAKED, BATCH_QUEUE),
    *(INTAKE_PENDING, PIXELS_IN_FLIGHT, PIXELS_LIMIT, DEVICE_ALLOCATED, DEVICE_RESERVED),
    *(DEVICE_TOTAL, CIRCUITS, FORWARD_PASS, HUNG, DRAINING),
)

FLEET_UP: Final = ScrapedGauge(
    "labelyard_fleet_up",
    "1 if the leader could read the ledger, 0 if not: the other figures of the fleet are absent "
    "then.",
)
FLEET_BACKLOG: Final = ScrapedGauge(
    "labelyard_fleet_backlog_images",
    "Images of jobs that are not final, by tenant and queue: queued, unacknowledged and running.",
    ("tenant", "queue"),
)
FLEET_OPEN_JOBS: Final = ScrapedGauge("labelyard_fleet_open_jobs", "Jobs that are not final.")
FLEET_OLDEST: Final = ScrapedGauge(
    "labelyard_fleet_oldest_job_seconds",
    "Age of the oldest job that is not final, by queue; absent for a queue without one.",
    ("queue",),
)
FLEET_QUEUE: Final = ScrapedGauge(
    "labelyard_fleet_queue_messages",
    "Messages in each queue of the broker, without those that workers hold; absent while the "
    "broker is away.",
    ("queue",),
)
FLEET_DEAD_LETTERS: Final = ScrapedGauge(
    "labelyard_fleet_dead_letters", "Dead letters that are kept."
)
FLEET_SET_ASIDE: Final = ScrapedGauge(
    "labelyard_fleet_set_aside_messages", "Messages that are set aside."
)
FLEET_WORKERS: Final = ScrapedGauge(
    "labelyard_fleet_workers", "Workers that have renewed their presence in time."
)
FLEET_DELIVERIES: Final = ScrapedGauge(
    "labelyard_fleet_pending_deliveries", "Jobs with a result that is not delivered yet."
)
FLEET_DEAD_DELIVERIES: Final = ScrapedGauge(
    "labelyard_fleet_dead_deliveries",
    "Jobs with an object or a webhook that was refused or given up, and is kept to be replayed.",
)
FLEET_WAITING_EVENTS: Final = ScrapedGauge(
    "labelyard_fleet_waiting_events",
    "Events that a group of consumers has not read yet, those included that its filter will leave "
    "out; there are at most 100 groups.",
    ("group",),
)
FLEET_EVENT_GAPS: Final = ScrapedGauge(
    "labelyard_fleet_event_gaps",
    "Groups of consumers that have lost events, and have not acknowledged it yet.",
)
FLEET_DRIFT: Final = ScrapedGauge(
    "labelyard_fleet_drift_distance",
    "Distance of the newest tested window of an alias' version from its baseline, by the test: "
    "scores or answers. Only with a baseline, and for 50 aliases.",
    ("alias", "test"),
)
FLEET_DRIFT_ALARM: Final = ScrapedGauge(
    "labelyard_fleet_drift_alarm",
    "Whether that window has drifted: 1 or 0.",
    ("alias",),
)
#: Gauges of the whole fleet, which the leader exports.
FLEET_GAUGES: Final = (
    *(FLEET_UP, FLEET_BACKLOG, FLEET_OPEN_JOBS, FLEET_OLDEST, FLEET_QUEUE),
    *(FLEET_DEAD_LETTERS, FLEET_SET_ASIDE, FLEET_WORKERS, FLEET_DELIVERIES),
    *(FLEET_DEAD_DELIVERIES, FLEET_WAITING_EVENTS, FLEET_EVENT_GAPS),
    *(FLEET_DRIFT, FLEET_DRIFT_ALARM),
)


def _start_at_zero() -> None:
    """Give counters with few label values their series, or the first event would not be a rise."""
    start: tuple[tuple[Counter | Histogram, tuple[tuple[str, ...], ...]], ...] = (
        (LABEL_SETS, (("hit", "miss"),)),
        (TEXT_CACHE, (("memory", "shared", "miss"),)),
        (DELIVERIES, (("object", "webhook"), ("delivered", "failed", "postponed", "refused"))),
        (DELIVERY_SECONDS, (("object", "webhook"),)),
        (SET_ASIDE, (("invalid", "refused", "conflict", "outlived"),)),
        (REPUBLISHED, (("retry", "lost"),)),
        (CHILDREN_REPLACED, (("fetcher", "decoder"), ("died", "timed_out", "malformed"))),
    )
    for metric, values in start:
        for labels in itertools.product(*values):
            metric.labels(*labels)


_start_at_zero()
