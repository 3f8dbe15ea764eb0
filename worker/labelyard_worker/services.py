"""Wiring of a worker process: every service is built once, and closed in reverse."""

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial

from labelyard.errors import LedgerUnavailableError
from labelyard.label_sets import LabelSetRegistry
from labelyard.ledger import Ledger, connect
from labelyard.publisher import Publisher
from labelyard.runs.ledger import RunLedger
from labelyard_worker.answers import AnswerCounter
from labelyard_worker.classify import Classifier
from labelyard_worker.cpu_budget import keep_numpy_to_one_thread
from labelyard_worker.embedding import Embedder
from labelyard_worker.example_objects import ExampleObjects
from labelyard_worker.explainer import Explainer, ExplanationSlots
from labelyard_worker.intake.pool import IntakePool
from labelyard_worker.intake_wiring import start_intake, with_checkpoint_decode
from labelyard_worker.jobs.cancellation import RunningJobs
from labelyard_worker.jobs.delivery.large_results import LargeResults
from labelyard_worker.jobs.delivery.map_objects import MapObjects
from labelyard_worker.jobs.delivery.pool import DeliveryPool
from labelyard_worker.jobs.delivery.senders import object_sender_of, schedule_of, senders_of
from labelyard_worker.jobs.drain import Drain
from labelyard_worker.jobs.executor import Executor
from labelyard_worker.jobs.watchdog import Watchdog
from labelyard_worker.maintenance.broker_view import BrokerView, connect_broker
from labelyard_worker.maintenance.cancellation_listener import CancellationListener
from labelyard_worker.maintenance.leader import LeaderElection
from labelyard_worker.maintenance.leader_duties import LeaderDuties, duties_of
from labelyard_worker.maintenance.presence import Presence, new_worker_name
from labelyard_worker.maintenance.reconciler import Reconciler
from labelyard_worker.operations import health
from labelyard_worker.operations.exposition import open_exposition
from labelyard_worker.operations.worker_details import WorkerDetails, worker_facts
from labelyard_worker.pixels import Pixels
from labelyard_worker.runs.feeder import EVERY_S as RUNS_EVERY_S
from labelyard_worker.runs.feeder import RunFeeder
from labelyard_worker.runs.run_services import RunServices
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision import tree_scores
from labelyard_worker.vision.batcher import Batcher
from labelyard_worker.vision.checkpoint import Checkpoint
from labelyard_worker.vision.devices import run_in_temporary_thread
from labelyard_worker.vision.forward_passes import report_image_pass
from labelyard_worker.vision.image_cache import open_image_cache
from labelyard_worker.vision.label_index import LabelIndex
from labelyard_worker.vision.learned_sets import LearnedSets
from labelyard_worker.vision.scorer import Scorer
from labelyard_worker.vision.scoring import Floats
from labelyard_worker.vision.text_cache import TextCache
from labelyard_worker.vision.titles import TitleIndex

log = logging.getLogger(__name__)

LoadCheckpoint = Callable[[WorkerSettings], Checkpoint]


@dataclass(frozen=True)
class Links:
    """Connections of a worker process to the ledger and the broker.

    Attributes:
        worker: Name of this process in the ledger, new at each start.
        leader: Election of the worker that does the maintenance.
    """

    worker: str
    ledger: Ledger
    broker: BrokerView
    publisher: Publisher
    leader: LeaderElection


@dataclass
class Services:
    """Services that the tasks of a worker process call.

    Attributes:
        health: Server of the probes; ``None`` if it is switched off.
        details: Description of this worker for people.
        runs: Parts that do the work of runs.
        answers: Counts answers for the drift of label sets.
    """

    links: Links
    classifier: Classifier
    executor: Executor
    drain: Drain
    health: health.Server | None
    details: WorkerDetails
    runs: RunServices
    answers: AnswerCounter
    _closing: ExitStack = field(default_factory=ExitStack)

    def close(self) -> None:
        """Close all services in the reverse order of their building."""
        self._closing.close()


@dataclass(frozen=True)
class Engine:
    """The model, and the processes and threads that feed it."""

    checkpoint: Checkpoint
    intake: IntakePool
    batcher: Batcher[Pixels, Floats]
    label_index: LabelIndex


def open_services(settings: WorkerSettings, *, load: LoadCheckpoint) -> Services:
    """Load the model, start the intake and the batcher, connect to the ledger.

    Args:
        load: Loads the model: ``vision.checkpoint.load_checkpoint``, except in tests that
            need another.

    Raises:
        WorkerError: The worker cannot start; the text says what to do.
        ServiceConfigError: A setting is wrong; the text names it.
    """
    started_at = time.monotonic()
    with ExitStack() as stack:
        services = _wire(settings, stack, load)
        services._closing = stack.pop_all()  # noqa: SLF001 - our own object
    seconds = round(time.monotonic() - started_at, 2)
    model = services.classifier.model.model_dump()
    log.info(
        "worker_built",
        extra={"fields": {"worker": services.links.worker, "seconds": seconds, **model}},
    )
    return services


def _wire(settings: WorkerSettings, stack: ExitStack, load: LoadCheckpoint) -> Services:
    """Build the model and the intake, which can fail to start, then the other services."""
    keep_numpy_to_one_thread()
    engine = _start_engine(settings, stack, load)
    links = _connect(settings, stack)
    classifier = _open_classifier(settings, stack, engine, links.ledger)
    watchdog = _open_watchdog(settings, stack, engine)
    deliveries = DeliveryPool(
        worker=links.worker,
        ledger=links.ledger,
        senders=senders_of(settings),
        schedule=schedule_of(settings),
        breaker_pause_s=settings.delivery_breaker_pause_s,
    )
    stack.callback(deliveries.close)
    deliveries.start()
    answers = _count_answers(links, stack)
    running = RunningJobs()
    executor = Executor(
        worker=links.worker,
        ledger=links.ledger,
        delivery=deliveries,
        watchdog=watchdog,
        running=running,
        settings=settings,
    )
    server = _serve_health(settings, stack, links, engine, deliveries, watchdog, executor)
    details = WorkerDetails(
        facts=worker_facts(
            settings,
            engine.checkpoint,
            worker=links.worker,
            started_at=links.ledger.clock.now(),
            health_port=server.port if server is not None else None,
        ),
        intake=engine.intake,
        deliveries=deliveries,
        is_draining=lambda: executor.is_draining,
    )
    runs = RunServices.of(
        settings,
        runs=RunLedger(links.ledger),
        publisher=links.publisher,
        classifier=classifier,
        count_answers=answers.count_answers,
    )
    _start_maintenance(settings, stack, links, running, details, runs.feeder)
    drain = Drain(executor, running, deliveries, links.ledger, drain_s=settings.drain_s)
    stack.callback(drain.close)
    return Services(links, classifier, executor, drain, server, details, runs, answers)


def _count_answers(links: Links, stack: ExitStack) -> AnswerCounter:
    """Count answers from now on, and add the last ones to the ledger at the end."""
    answers = AnswerCounter(links.ledger, worker=links.worker)
    stack.callback(answers.close)
    answers.start()
    return answers


def _serve_health(
    settings: WorkerSettings,
    stack: ExitStack,
    links: Links,
    engine: Engine,
    deliveries: DeliveryPool,
    watchdog: Watchdog,
    executor: Executor,
) -> health.Server | None:
    """Answer probes from now on, unless they are switched off."""
    probes = health.Health(
        batcher=engine.batcher,
        text_vectors=engine.label_index.vectors,
        intake=engine.intake,
        deliveries=deliveries,
        watchdog=watchdog,
        executor=executor,
        broker=links.broker,
        ledger=links.ledger,
        stall_s=settings.stall_s,
    )
    exposition = open_exposition(
        settings,
        engine.checkpoint,
        health=probes,
        leader=links.leader,
        ledger=links.ledger,
        publisher=links.publisher,
    )
    server = health.serve(
        probes,
        host=settings.health_host,
        port=settings.health_port,
        pages={"/metrics": exposition.page},
    )
    if server is not None:
        stack.callback(server.close)
    return server


def _connect(settings: WorkerSettings, stack: ExitStack) -> Links:
    """Connect to the ledger and the broker under a new name."""
    ledger = Ledger(stack.enter_context(closing(connect(settings))), settings)
    check_durability(ledger)
    worker = new_worker_name()
    return Links(
        worker=worker,
        ledger=ledger,
        broker=stack.enter_context(closing(connect_broker(settings, ledger))),
        publisher=stack.enter_context(closing(Publisher(settings))),
        leader=LeaderElection(ledger, worker=worker),
    )


def _start_engine(settings: WorkerSettings, stack: ExitStack, load: LoadCheckpoint) -> Engine:
    """Load and warm up the model, start the intake's children and the model's threads."""
    checkpoint = run_in_temporary_thread(lambda: load(settings))
    stack.callback(checkpoint.close)
    intake = start_intake(with_checkpoint_decode(settings, checkpoint), checkpoint)
    stack.callback(intake.close)
    run_in_temporary_thread(checkpoint.warm_up)
    batcher: Batcher[Pixels, Floats] = Batcher(
        lambda batch: list(checkpoint.image_vectors(batch, leaves_cores=batcher.leaves_cores)),
        max_batch_size=checkpoint.max_batch_size,
        queue_capacity=settings.queue_capacity,
        streams=checkpoint.threads.streams,
        on_pass=partial(report_image_pass, model=checkpoint.info),
        shares_cores=checkpoint.device.type == "cpu",
    )
    stack.callback(batcher.close, timeout_s=5.0)
    batcher.start()
    text_cache = TextCache.connect(
        settings, fingerprint=checkpoint.info.fingerprint, dim=checkpoint.dim
    )
    if text_cache is not None:
        stack.callback(text_cache.close)
    label_index = LabelIndex(
        checkpoint,
        capacity_bytes=settings.label_cache_bytes,
        store=text_cache,
        learned=LearnedSets(
            checkpoint.info.fingerprint, checkpoint.layout, read=ExampleObjects(settings).read
        ),
        tree_temperature=tree_scores.temperature_of(checkpoint.layout),
        # Texts of users hardly ever come twice; an eighth keeps those of jobs that are tried again.
        titles=TitleIndex(checkpoint, capacity_bytes=settings.label_cache_bytes // 8),
    )
    stack.callback(label_index.close)
    return Engine(checkpoint, intake, batcher, label_index)


def _open_classifier(
    settings: WorkerSettings, stack: ExitStack, engine: Engine, ledger: Ledger
) -> Classifier:
    """Put the image cache in front of the engine, and scores and results behind it."""
    checkpoint = engine.checkpoint
    image_cache = open_image_cache(
        with_checkpoint_decode(settings, checkpoint),
        info=checkpoint.info,
        spec=checkpoint.pixel_spec,
        dim=checkpoint.layout.length,
    )
    stack.callback(image_cache.close)
    embedder = Embedder(
        engine.intake, engine.batcher, known=image_cache, always_fetches=settings.always_fetch
    )
    # As many bytes on the device as the host keeps of matrices.
    scorer = Scorer.of(checkpoint, capacity_bytes=settings.label_cache_bytes // 2)
    return Classifier(
        label_index=engine.label_index,
        label_sets=LabelSetRegistry(ledger.client, namespace=settings.namespace),
        embedder=embedder,
        scorer=scorer,
        explainer=Explainer(
            embedder,
            engine.batcher,
            scorer,
            MapObjects(object_sender_of(settings)),
            checkpoint.pixel_spec,
            ExplanationSlots(
                places=engine.intake.budget.places, queue_capacity=settings.queue_capacity
            ),
        ),
        large_results=LargeResults(object_sender_of(settings)),
        model=checkpoint.info,
    )


def _open_watchdog(settings: WorkerSettings, stack: ExitStack, engine: Engine) -> Watchdog:
    """Watch the forward passes of both towers."""
    batcher, vectors = engine.batcher, engine.label_index.vectors
    watchdog = Watchdog(
        model_busy_s=lambda: max(batcher.busy_for_s, vectors.busy_for_s),
        model_timeout_s=settings.inference_timeout_s,
        is_on=not settings.stock_celery,
    )
    stack.callback(watchdog.close)
    return watchdog


def _start_maintenance(
    settings: WorkerSettings,
    stack: ExitStack,
    links: Links,
    running: RunningJobs,
    details: WorkerDetails,
    feeder: RunFeeder,
) -> None:
    """Start the maintenance threads: presence, cancellation listener, reconciler, duties, runs."""
    presence = Presence(
        links.ledger,
        worker=links.worker,
        visibility_timeout_s=settings.visibility_timeout_s,
        running=running,
        describe=details.describe,
    )
    listener = CancellationListener(links.ledger, running=running)
    reconciler = Reconciler(
        leader=links.leader,
        ledger=links.ledger,
        publisher=links.publisher,
        broker=links.broker,
        every_s=settings.reconcile_every_s,
        after_s=settings.reconcile_after_s,
        is_on=not settings.stock_celery,
    )
    duties = LeaderDuties(duties_of(links.ledger, links.publisher, settings), leader=links.leader)
    runs = LeaderDuties(
        {"runs": feeder.step},
        leader=links.leader,
        every_s=RUNS_EVERY_S,
        name="labelyard-runs",
        woken=feeder.woken,
    )
    for thread in (presence, listener, reconciler, duties, runs):
        stack.callback(thread.close)
        thread.start()


def check_durability(ledger: Ledger) -> None:
    """Refuse to start if the ledger does not support the mode in LABELYARD_DURABLE_WRITES.

    Raises:
        ServiceConfigError: Its server is too old, or has no append-only file.
    """
    try:
        ledger.check_durability()
    except LedgerUnavailableError as error:  # a worker waits for its ledger
        log.warning("ledger_unavailable", extra={"fields": {"why": error.reason}})
