"""Builds the services of a worker's tasks, once a process, and closes them in reverse."""

import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

import numpy as np

from labelyard.errors import LedgerUnavailableError
from labelyard.label_sets import LabelSetRegistry
from labelyard.ledger import Ledger, connect
from labelyard.publisher import Publisher
from labelyard.queues import is_amqp
from labelyard_worker.cpu_budget import keep_numpy_to_one_thread
from labelyard_worker.embedding import Embedder
from labelyard_worker.intake.pixel_budget import PixelBudget
from labelyard_worker.intake.pool import IntakeOptions, IntakePool
from labelyard_worker.intake.sources.s3_settings import resolve_storage
from labelyard_worker.jobs.cancellation import RunningJobs
from labelyard_worker.jobs.delivery.large_results import LargeResults
from labelyard_worker.jobs.delivery.pool import DeliveryPool
from labelyard_worker.jobs.delivery.senders import object_sender_of, senders_of
from labelyard_worker.jobs.executor import Executor
from labelyard_worker.jobs.watchdog import Watchdog
from labelyard_worker.maintenance.broker_view import AmqpBroker, Broker, RedisBroker
from labelyard_worker.maintenance.presence import Presence
from labelyard_worker.maintenance.reconciler import Reconciler
from labelyard_worker.pixels import ImageLimits, Pixels
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision.batcher import Batcher
from labelyard_worker.vision.checkpoint import Checkpoint, blank_pixels
from labelyard_worker.vision.devices import run_in_temporary_thread
from labelyard_worker.vision.gpu_scoring import GpuScorer
from labelyard_worker.vision.image_cache import open_image_cache
from labelyard_worker.vision.label_index import LabelIndex
from labelyard_worker.vision.scoring import Floats, ImageScores, LabelMatrix, score_images
from labelyard_worker.vision.text_cache import TextCache

log = logging.getLogger(__name__)

# For each stream. Seven times as many were no faster on small pictures: they are only decoded
# early, to lie in memory behind interactive work that comes later.
BATCHES_IN_FLIGHT = 16

LoadCheckpoint = Callable[[WorkerSettings], Checkpoint]
ScoreImages = Callable[..., list[ImageScores]]


@dataclass
class Services:
    """Everything that lives as long as the worker's process.

    Attributes:
        worker: Name of this process, new at each start.
    """

    worker: str
    settings: WorkerSettings
    checkpoint: Checkpoint
    label_index: LabelIndex
    label_sets: LabelSetRegistry
    batcher: Batcher[Pixels, Floats]
    intake: IntakePool
    embedder: Embedder
    ledger: Ledger
    running: RunningJobs
    executor: Executor
    deliveries: DeliveryPool
    large_results: LargeResults
    watchdog: Watchdog
    broker: Broker
    publisher: Publisher
    score_images: ScoreImages
    _closing: ExitStack = field(default_factory=ExitStack)

    def score(
        self, image_embeds: Sequence[Floats], labels: LabelMatrix, *, top_k: int
    ) -> list[ImageScores]:
        """Score images with the checkpoint's own scale and bias, in one matrix product."""
        if not image_embeds:
            return []
        return self.score_images(
            np.stack(image_embeds),
            labels,
            logit_scale=self.checkpoint.logit_scale,
            logit_bias=self.checkpoint.logit_bias,
            top_k=top_k,
        )

    def close(self) -> None:
        """Close all in the reverse order of their building."""
        self._closing.close()


def worker_name() -> str:
    """Name this process so that no other, earlier or elsewhere, has the same name."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def open_services(settings: WorkerSettings, *, load: LoadCheckpoint) -> Services:
    """Load the model, start intake and batcher, connect to the ledger.

    Args:
        load: Makes the model: ``vision.checkpoint.load_checkpoint``, but in tests that
            need another.

    Raises:
        WorkerError: The worker cannot start; the text says what to do.
    """
    started_at = time.monotonic()
    with ExitStack() as stack:
        services = _build(settings, stack, load)
        services._closing = stack.pop_all()  # noqa: SLF001 - our own object
    seconds = time.monotonic() - started_at
    log.info(
        "worker_built",
        extra={
            "fields": {
                "worker": services.worker,
                "seconds": round(seconds, 2),
                **services.checkpoint.info.model_dump(),
            }
        },
    )
    return services


@dataclass(frozen=True)
class Engine:
    """Engine for embeddings: the model, and the processes and threads that feed it."""

    checkpoint: Checkpoint
    intake: IntakePool
    batcher: Batcher[Pixels, Floats]


def _build(settings: WorkerSettings, stack: ExitStack, load: LoadCheckpoint) -> Services:
    """Build the model and the intake, which can fail to start, then the other services."""
    keep_numpy_to_one_thread()
    worker = worker_name()
    engine = _start_engine(settings, stack, load)
    checkpoint, batcher = engine.checkpoint, engine.batcher
    connection = stack.enter_context(closing(connect(settings)))
    ledger = Ledger(connection, settings)
    check_durability(ledger)
    running = RunningJobs()
    label_index = _open_label_index(settings, stack, checkpoint)
    watchdog = Watchdog(
        model_busy_s=lambda: max(batcher.busy_for_s, label_index.vectors.busy_for_s),
        model_timeout_s=settings.inference_timeout_s,
        is_on=settings.watchdog,
    )
    stack.callback(watchdog.close)
    broker = stack.enter_context(closing(broker_of(settings, ledger)))
    deliveries = DeliveryPool(worker=worker, ledger=ledger, senders=senders_of(settings))
    stack.callback(deliveries.close)
    deliveries.start()
    publisher = Publisher(settings)
    stack.callback(publisher.close)
    _start_caretakers(
        settings,
        stack,
        worker=worker,
        ledger=ledger,
        running=running,
        broker=broker,
        publisher=publisher,
    )
    return Services(
        worker=worker,
        settings=settings,
        checkpoint=checkpoint,
        label_index=label_index,
        label_sets=LabelSetRegistry(connection, namespace=settings.namespace),
        batcher=batcher,
        intake=engine.intake,
        embedder=_open_embedder(settings, stack, engine),
        ledger=ledger,
        running=running,
        executor=Executor(
            worker=worker,
            ledger=ledger,
            delivery=deliveries,
            watchdog=watchdog,
            running=running,
            settings=settings,
        ),
        deliveries=deliveries,
        large_results=LargeResults(object_sender_of(settings)),
        watchdog=watchdog,
        broker=broker,
        publisher=publisher,
        score_images=scorer_of(settings, checkpoint),
    )


def _start_engine(settings: WorkerSettings, stack: ExitStack, load: LoadCheckpoint) -> Engine:
    """Load and warm up the model, start the intake's children and the model's threads."""
    checkpoint = run_in_temporary_thread(lambda: load(settings))
    stack.callback(checkpoint.close)
    intake = intake_of(as_decided(settings, checkpoint), checkpoint)
    stack.callback(intake.close)
    run_in_temporary_thread(checkpoint.warm_up)
    batcher: Batcher[Pixels, Floats] = Batcher(
        lambda batch: list(checkpoint.image_embeds(batch, is_followed=batcher.is_expecting)),
        max_batch_size=checkpoint.max_batch_size,
        queue_capacity=settings.queue_capacity,
        streams=checkpoint.threads.streams,
    )
    stack.callback(batcher.close, timeout_s=5.0)
    batcher.start()
    return Engine(checkpoint, intake, batcher)


def as_decided(settings: WorkerSettings, checkpoint: Checkpoint) -> WorkerSettings:
    """Return the settings with the checkpoint's choice filled in: how JPEGs are decoded for it."""
    return settings.model_copy(update={"decode": checkpoint.decode})


def _open_label_index(
    settings: WorkerSettings, stack: ExitStack, checkpoint: Checkpoint
) -> LabelIndex:
    """Open the text embeddings that this process, and all workers, know."""
    store = TextCache.connect(settings, fingerprint=checkpoint.info.fingerprint, dim=checkpoint.dim)
    if store is not None:
        stack.callback(store.close)
    index = LabelIndex(checkpoint, capacity_bytes=settings.label_cache_bytes, store=store)
    stack.callback(index.close)
    return index


def _open_embedder(settings: WorkerSettings, stack: ExitStack, engine: Engine) -> Embedder:
    """Open the image embeddings that are known, in front of the engine."""
    checkpoint = engine.checkpoint
    known = open_image_cache(
        as_decided(settings, checkpoint),
        info=checkpoint.info,
        spec=checkpoint.pixel_spec,
        dim=checkpoint.dim,
    )
    stack.callback(known.close)
    return Embedder(
        engine.intake, engine.batcher, known=known, always_fetches=settings.always_fetch
    )


def _start_caretakers(
    settings: WorkerSettings,
    stack: ExitStack,
    *,
    worker: str,
    ledger: Ledger,
    running: RunningJobs,
    broker: Broker,
    publisher: Publisher,
) -> None:
    """Start the maintenance threads: presence, and those for lost and due jobs."""
    presence = Presence(
        ledger,
        worker=worker,
        visibility_timeout_s=settings.visibility_timeout_s,
        running=running,
    )
    reconciler = Reconciler(
        worker=worker,
        ledger=ledger,
        publisher=publisher,
        broker=broker,
        every_s=settings.reconcile_every_s,
        after_s=settings.reconcile_after_s,
        is_on=settings.reconciler,
    )
    for caretaker in (presence, reconciler):
        stack.callback(caretaker.close)
        caretaker.start()


def check_durability(ledger: Ledger) -> None:
    """Refuse to start if the ledger cannot do what LABELYARD_DURABLE_WRITES asks for.

    Raises:
        ServiceConfigError: Its server is too old, or has no append-only file.
    """
    try:
        ledger.check_durability()
    except LedgerUnavailableError as error:  # a worker waits for its ledger
        log.warning("ledger_unavailable", extra={"fields": {"why": error.reason}})


def intake_of(settings: WorkerSettings, checkpoint: Checkpoint) -> IntakePool:
    """Start the child processes that make what the checkpoint takes."""
    return IntakePool(
        spec=checkpoint.pixel_spec,
        limits=ImageLimits.of(settings),
        storage=resolve_storage(settings),
        options=IntakeOptions(
            children=settings.intake_children,
            fetchers=settings.fetchers,
            fetches=settings.fetches,
            max_fetched_bytes=settings.max_fetched_bytes,
            image_timeout_s=settings.image_timeout_s,
            image_retries=settings.image_retries,
            job_slots=settings.concurrency,
            has_breakers=settings.storage_wait_s > 0,
        ),
        budget=PixelBudget(places_for(settings, checkpoint)),
    )


def places_for(settings: WorkerSettings, checkpoint: Checkpoint) -> int:
    """Count the pictures that may be on their way: what keeps the model busy, and no more."""
    batches = BATCHES_IN_FLIGHT * checkpoint.threads.streams
    fit = settings.max_pixels_in_flight_bytes // len(blank_pixels(checkpoint.pixel_spec).data)
    return max(1, min(batches * checkpoint.max_batch_size, fit, settings.queue_capacity))


def scorer_of(settings: WorkerSettings, checkpoint: Checkpoint) -> ScoreImages:
    """Choose where images are scored: on a GPU against large label sets, else on the host."""
    if checkpoint.info.device == "cpu":
        return score_images
    capacity_bytes = settings.label_cache_bytes // 2  # as many as the host keeps matrices
    return GpuScorer(checkpoint.device, capacity_bytes=capacity_bytes).score_images


def broker_of(settings: WorkerSettings, ledger: Ledger) -> Broker:
    """Choose how to look into the broker."""
    if is_amqp(settings.broker_url):
        return AmqpBroker(settings, ledger)
    return RedisBroker(settings)
