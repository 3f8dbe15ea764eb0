"""A small Celery app whose tasks leave their effects in a file, for the fault tests of durability.

It is configured by the JSON object in ``DURABILITY_APP``, which ``Worker`` writes.
"""

import json
import os
import time

from celery import Celery

from labelyard_worker.broker.transport import install, to_atomic_url
from labelyard_worker.broker.visibility_heartbeat import HeartbeatStep

CONFIG = json.loads(os.environ["DURABILITY_APP"])


def make_app(
    broker: str, *, is_atomic: bool = True, options: dict[str, object] | None = None
) -> Celery:
    """Build the app of the fault tests on *broker*."""
    install()
    app = Celery("durability", broker=to_atomic_url(broker) if is_atomic else broker)
    app.conf.update(
        accept_content=["json"],
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_ignore_result=True,
        task_default_queue="bulk",
        worker_prefetch_multiplier=1,
        worker_disable_rate_limits=True,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,
        broker_transport_options={
            "visibility_timeout": 4,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "socket_timeout": 10,
            "socket_connect_timeout": 3,
            "health_check_interval": 10,
            **(options or {}),
        },
    )
    return app


app = make_app(CONFIG["broker"], is_atomic=CONFIG["is_atomic"], options=CONFIG["options"])
if CONFIG["has_heartbeat"]:
    app.steps["consumer"].add(HeartbeatStep)
EFFECTS = os.open(CONFIG["effects"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def note(*words: object) -> None:
    """Append one line to the effects; a short write is atomic, also from several processes."""
    os.write(EFFECTS, (" ".join(map(str, words)) + "\n").encode())


@app.task(name="mark", bind=True)
def mark(self, number: int, seconds: float = 0.0) -> None:
    """Leave a line when it starts and one when it ends."""
    note("start", number, os.getpid(), time.time())
    time.sleep(seconds)
    note("end", number, self.request.delivery_info["routing_key"], time.time())


@app.task(name="escape", bind=True)
def escape(self, error: str) -> None:
    """Raise an exception that no tracer catches the first time; succeed the second time."""
    if self.request.delivery_info.get("redelivered"):
        note("end", error)
        return
    note("start", error)
    raise {"SystemExit": SystemExit, "MemoryError": MemoryError}.get(error, KeyboardInterrupt)("x")
