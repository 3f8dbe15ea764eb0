"""Celery application that leads Flower to labelyard's workers: ``celery -A flower_app flower``.

It needs neither torch nor labelyard: Flower sends commands to the workers and listens to their
events, both on exchanges that carry the namespace.
"""

import os

from celery import Celery
from kombu import Exchange, Queue

NAMESPACE = os.environ.get("LABELYARD_NAMESPACE", "labelyard")

app = Celery("labelyard", broker=os.environ["LABELYARD_BROKER_URL"])
app.conf.update(
    # The names in labelyard_worker/broker/remote_control.py; Celery's defaults reach no worker.
    control_exchange=f"{NAMESPACE}.celery",
    event_exchange=f"{NAMESPACE}.celeryev",
    event_queue_prefix=f"{NAMESPACE}.celeryev",
    # The queues on Flower's page "Broker"; the list is labelyard.queues.Queue.
    task_queues=[
        Queue(
            f"{NAMESPACE}.{name}",
            Exchange(f"{NAMESPACE}.{name}"),
            routing_key=f"{NAMESPACE}.{name}",
        )
        for name in ("control", "interactive", "bulk", "quarantine")
    ],
    task_default_queue=f"{NAMESPACE}.interactive",
    accept_content=["json"],
    # Events that nobody reads vanish after a minute.
    event_queue_ttl=60.0,
    broker_connection_retry_on_startup=True,
)
