"""The Celery application: each setting with its reason.

Every value was measured, or prevents a failure that was seen; the chaos suite exercises them.
"""

import sys
from typing import TYPE_CHECKING, Any, Final

from celery import Celery

from labelyard.queues import Queue, is_amqp, kombu_queues, queue_name
from labelyard.redis_connections import SOCKET_OPTIONS
from labelyard.tenant_lines.keys import BrokerKeys
from labelyard_worker.broker import amqp_transport, transport
from labelyard_worker.broker.loop_lag import LoopLagStep
from labelyard_worker.broker.rabbitmq import with_prefetch
from labelyard_worker.broker.remote_control import build_control_settings
from labelyard_worker.broker.visibility_heartbeat import HeartbeatStep
from labelyard_worker.jobs.signals import DrainSignals
from labelyard_worker.settings import WorkerSettings, read_settings
from labelyard_worker.tasks import add_tasks

if TYPE_CHECKING:
    from labelyard_worker.services import LoadCheckpoint
    from labelyard_worker.vision.checkpoint import Checkpoint

# Seconds between the heartbeats of an AMQP connection.
HEARTBEAT_S = 20
# The same for every worker.
FIXED_SETTINGS: Final[dict[str, Any]] = {
    # JSON only: a pickle is a program.
    "accept_content": ["json"],
    "task_serializer": "json",
    # A message stays with the broker until the ledger has its job's state.
    "task_acks_late": True,
    "task_acks_on_failure_or_timeout": False,
    "task_reject_on_worker_lost": True,
    # A prefetched job cannot be cancelled, and waits behind running ones.
    "worker_prefetch_multiplier": 1,
    # The ledger has the result: each stored one would cost three more commands.
    "task_ignore_result": True,
    "task_store_errors_even_if_ignored": False,
    # Rate limits cost the event loop, and tenants are limited elsewhere.
    "worker_disable_rate_limits": True,
    # Events are a message for each step of each job.
    "worker_send_task_events": False,
    "task_send_sent_event": False,
    "task_track_started": False,
    # A worker waits for its broker, at start and after each loss, for ever.
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "broker_channel_error_retry": True,
    # Our attempts are cooperative: Celery's cancelling would run jobs twice.
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
}


def slots_by_queue(settings: WorkerSettings) -> dict[Queue, int]:
    """Return the most messages of each queue that a worker holds at once."""
    return {
        queue: queue.slots(concurrency=settings.concurrency, bulk_share=settings.bulk_share)
        for queue in Queue
    }


def inflight_limits(settings: WorkerSettings) -> dict[str, int]:
    """Return the limits of the queues whose jobs may not take all slots, by full name."""
    return {
        queue_name(settings.namespace, queue): slots
        for queue, slots in slots_by_queue(settings).items()
        if queue.rules.holds_jobs and queue.rules.slots != "all"
    }


def build_amqp_settings(settings: WorkerSettings) -> dict[str, Any]:
    """Build the settings that only RabbitMQ needs."""
    slots = slots_by_queue(settings)
    declared = kombu_queues(settings.namespace, settings.broker_url)
    return {
        "worker_consumer": "labelyard_worker.broker.rabbitmq:RabbitConsumer",
        "task_queues": [
            with_prefetch(queue, count)
            for queue, count in zip(declared, slots.values(), strict=True)
        ],
        # A thread for each message that may come: none waits in a worker while others idle.
        "worker_concurrency": sum(slots.values()),
        # A half-open connection is noticed after two of these. RabbitMQ gives up on us after as
        # long, and a worker that drains for its default time sends none.
        "broker_heartbeat": HEARTBEAT_S,
        # Several workers of one machine have one name. An exclusive queue would lock all but one
        # out, and a worker that left a half-open connection behind as well.
        "control_queue_exclusive": False,
        "control_queue_durable": True,
        "broker_transport_options": {
            "read_timeout": 5,
            "write_timeout": 5,
            # Only plain calls of our own tasks reach Celery.
            "gated_queues": [queue.name for queue in declared],
            "follow_ups": settings.celery_follow_ups,
        },
    }


def build_redis_options(settings: WorkerSettings) -> dict[str, Any]:
    """Build the options of the Redis transport."""
    namespace = settings.namespace
    keys = BrokerKeys(namespace)
    options = {
        # A dead worker's messages come again after this; the heartbeat renews it.
        "visibility_timeout": settings.visibility_timeout_s,
        # kombu looks for such messages each 10th of 10 s by default: about 100 s late.
        "unacked_restore_interval": min(5, max(1, settings.visibility_timeout_s // 4)),
        "unacked_restore_throttle": 1,
        "unacked_restore_limit": 1000,
        # Services that share a Redis must not restore each other's messages.
        "unacked_key": keys.unacked,
        "unacked_index_key": keys.unacked_index,
        "unacked_mutex_key": keys.unacked_mutex,
        "unacked_mutex_expire": 30,
        # A half-open connection hangs the event loop for ever without these.
        **SOCKET_OPTIONS,
        "queue_order_strategy": "priority",
    }
    if settings.atomic_claim:
        options |= {
            # Only plain calls of our own tasks reach Celery.
            "has_gate": True,
            "follow_ups": settings.celery_follow_ups,
            "weights_key": keys.weights,
            "sorted_key": keys.sorted,
            "queue_order": [queue_name(namespace, queue) for queue in Queue],
            # Bulk jobs never take all slots; one suspect at a time.
            "inflight_limits": inflight_limits(settings),
            # Further shards are left to other workers: a worker that dies loses those it has.
            "shard_limits": {queue_name(namespace, Queue.BULK): settings.shards_at_once},
        }
    return options


def install_broker(app: Celery, settings: WorkerSettings) -> str:
    """Give *app* our transport for its broker; return the broker's address for it."""
    url = settings.broker_url
    if is_amqp(url):
        amqp_transport.install()
        app.conf.update(build_amqp_settings(settings))
        return amqp_transport.to_gated_url(url)
    app.conf.broker_transport_options = build_redis_options(settings)
    if not settings.stock_celery:
        app.steps["consumer"].add(HeartbeatStep)
    if settings.atomic_claim:
        # kombu's own pop loses about one job in a thousand when a worker is killed.
        transport.install()
        return transport.to_atomic_url(url)
    return url


def build_app(settings: WorkerSettings) -> Celery:
    """Build the application that ``celery -A labelyard_worker`` finds."""
    app = Celery("labelyard", set_as_current=False)
    app.steps["worker"].add(DrainSignals)
    app.steps["consumer"].add(LoopLagStep)
    app.conf.update(
        FIXED_SETTINGS,
        task_queues=kombu_queues(settings.namespace, settings.broker_url),
        task_default_queue=queue_name(settings.namespace, Queue.INTERACTIVE),
        # One model for all threads; the pool is ours because Celery's loses slots.
        worker_pool=(
            "threads" if settings.stock_celery else "labelyard_worker.broker.thread_pool:TaskPool"
        ),
        worker_concurrency=settings.concurrency,
        # Celery applications that ask for a task's result find it where they look by default.
        result_backend=settings.celery_results_url or settings.ledger_url,
        result_expires=settings.result_ttl_s,
        # Everybody with write access to the broker could stop workers, those of other services too.
        **build_control_settings(settings.namespace, is_on=settings.remote_control),
    )
    app.conf.broker_url = install_broker(app, settings)
    return app


def load_named_checkpoint(settings: WorkerSettings) -> "Checkpoint":
    """Load the checkpoint that LABELYARD_CHECKPOINT names; only a worker imports torch."""
    from labelyard_worker.vision.checkpoint import load_checkpoint

    return load_checkpoint(settings)


def make_app(load: "LoadCheckpoint" = load_named_checkpoint) -> Celery:
    """Build the application from the environment, with its tasks.

    Celery's clients (``inspect``, ``status``, ``events``, flower) build it as well as workers do:
    the model's libraries are imported when a worker starts, see ``runtime.py``.

    Args:
        load: Loads the model.
    """
    settings = read_settings()
    if "worker" in sys.argv and settings.log_format == "json":
        from labelyard_worker.operations import logs

        logs.set_up_process(level=settings.log_level, form="json")  # celery's imports may warn
    app = build_app(settings)
    add_tasks(app, settings, load=load)
    return app
