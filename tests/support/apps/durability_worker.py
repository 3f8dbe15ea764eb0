"""Real workers of ``durability_app`` as processes, and what they left behind."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

from kombu import Connection

APP = "tests.support.apps.durability_app"
POOL = "labelyard_worker.broker.thread_pool:TaskPool"
ROOT = Path(__file__).parents[3]


class Worker:
    """One ``celery worker`` process; ``kill`` ends it as SIGKILL does."""

    def __init__(
        self,
        broker: str,
        folder: Path,
        *,
        concurrency: int = 2,
        queues: str = "bulk",
        is_atomic: bool = True,
        has_heartbeat: bool = False,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.effects = folder / "effects.log"
        self.log = folder / "worker.log"
        config = {
            "broker": broker,
            "effects": str(self.effects),
            "is_atomic": is_atomic,
            "has_heartbeat": has_heartbeat,
            "options": options or {},
        }
        command = [sys.executable, "-m", "celery", "-A", APP, "worker", "-P", "custom"]
        flags = ["--without-mingle", "--without-gossip", "-l", "INFO"]
        with self.log.open("ab") as log:
            self.log_start = log.tell()
            self.process = subprocess.Popen(
                [
                    *command,
                    "-c",
                    str(concurrency),
                    "-Q",
                    queues,
                    "-n",
                    f"w{os.urandom(4).hex()}@h",
                    *flags,
                ],
                cwd=ROOT,
                env=os.environ
                | {"DURABILITY_APP": json.dumps(config), "CELERY_CUSTOM_WORKER_POOL": POOL},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def is_ready(self) -> bool:
        """Return whether the worker consumes; raise if it has died."""
        text = self.log.read_bytes()[self.log_start :]
        assert self.process.poll() is None, text.decode()[-4000:]
        return b" ready." in text

    def kill(self) -> None:
        """Kill the worker's process."""
        self.process.kill()
        self.process.wait()


def effects(folder: Path) -> list[list[str]]:
    """Read the lines that tasks left, each split into words."""
    path = folder / "effects.log"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def ended(folder: Path) -> list[str]:
    """List the tasks that ended, once for each time."""
    return [words[1] for words in effects(folder) if words[0] == "end"]


def send_marks(broker: str, *, first: int, count: int, seconds: float = 0.0) -> int:
    """Publish jobs that leave their number, in one batch; return the next number."""
    with (
        Connection(broker) as connection,
        connection.Producer() as producer,
        producer.batch(),
    ):
        for number in range(first, first + count):
            send(producer, "mark", number, seconds)
    return first + count


def send(producer: Any, task: str, *args: object, queue: str = "bulk") -> None:
    """Publish one job as Celery does, without Celery: any client may."""
    producer.publish(
        [args, {}, {}],
        routing_key=queue,
        serializer="json",
        headers={"lang": "py", "task": task, "id": uuid4().hex},
    )
