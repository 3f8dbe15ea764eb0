"""Mixed load of several tenants with faults, in a cycle of a minute."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Final

from redis import Redis
from tests.support import pictures, poison
from tests.support.apps import orders

from benchmarks.observed_load.scene import NOBODY, Scene
from benchmarks.observed_load.versions import ALIAS, Versions
from labelyard import Client
from labelyard.errors import LabelyardError
from labelyard.messages import Deliver
from labelyard.queues import Queue, queue_name
from labelyard_worker.local.servers import ServerStartError

NAMESPACE: Final = "labelyard"
LABELS: Final = ("a cat", "a dog", "a cup of coffee", "a rocket", "a temple", "a flower")
CYCLE_S: Final = 60.0
RESTARTED_WITHIN_S: Final = 240.0
DISTINCT_PICTURES: Final = 240
IMAGES_IN_A_BULK_JOB: Final = 16
MOVED_EVERY_S: Final = 60.0
EVENTS_AT_ONCE: Final = 500
SLOW_BUCKET, FAILING_BUCKET = "tarpit", "broken"


class Traffic:
    """Threads that submit jobs, cause faults and repair them, until they are stopped.

    Args:
        scale: Amount of load; 1 keeps two cores about half busy.
    """

    def __init__(self, scene: Scene, *, scale: float = 1.0) -> None:
        self._scene = scene
        self._scale = scale
        self._ended = threading.Event()
        self._numbers = count()
        bucket = scene.service.pictures
        self.pictures = [
            bucket.put(f"load/{number}.jpg", pictures.jpeg(seed=number % 16) + os.urandom(4))
            for number in range(DISTINCT_PICTURES)
        ]
        self._broken = [
            bucket.put("load/text.jpg", b"this is no picture"),
            f"s3://{bucket.name}/load/nothing-here.jpg",
        ]
        self._crashing = bucket.put("load/crash.jpg", poison.CRASH)
        self.problems: list[str] = []
        self._moved_at = time.monotonic()
        with scene.client(namespace=NAMESPACE) as client:
            self._versions = Versions(client, LABELS)
            self._versions.move(client)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the threads while the block runs."""
        duties = (
            (self._users, 0.4), (self._archive, 1.0), (self._newsroom, 2.0), (self._changes, 3.0),
            (self._slow_storage, 4.0), (self._latecomers, 5.0), (self._lost_messages, 6.0),
            (self._foreign_messages, 12.0), (self._poison, 5.0), (self._restarts, 1.0),
            (self._editors, 0.5), (self._doubters, 4.0), (self._indexer, 1.0),
        )  # fmt: skip
        threads = [
            threading.Thread(target=self._repeat, args=(duty, pause_s)) for duty, pause_s in duties
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()

    def _repeat(self, duty: Callable[[Client, float], None], pause_s: float) -> None:
        """Carry out a duty again and again, with the seconds since the cycle began."""
        began_at = time.monotonic()
        with self._scene.client(namespace=NAMESPACE) as client:
            while not self._ended.wait(pause_s):
                try:
                    duty(client, (time.monotonic() - began_at) % CYCLE_S)
                except (LabelyardError, OSError, ServerStartError) as error:
                    self.problems.append(f"{duty.__name__}: {type(error).__name__}: {error}")

    def _next_pictures(self, number: int) -> list[str]:
        """Return pictures in turn, so that the small image cache has hits and misses."""
        return [self.pictures[next(self._numbers) % DISTINCT_PICTURES] for _ in range(number)]

    def _users(self, client: Client, _: float) -> None:
        """Submit one picture, as a user who waits; some come again and are known."""
        webhook = Deliver(webhook=self._scene.receiver.url)
        client.submit(self._next_pictures(1), LABELS, tenant="shop", deliver=webhook)
        client.submit([self.pictures[0]], LABELS, tenant="shop")

    def _archive(self, client: Client, at_s: float) -> None:
        """Submit a burst of bulk jobs at the start of a cycle, some for an object."""
        if at_s % 30 > 3:
            return
        for number in range(int(8 * self._scale)):
            target = f"s3://{self._scene.service.results.name}/load/{number}.json"
            client.submit(
                self._next_pictures(IMAGES_IN_A_BULK_JOB),
                LABELS,
                queue=Queue.BULK,
                tenant="archive",
                deliver=Deliver(object_uri=target),
            )

    def _newsroom(self, client: Client, at_s: float) -> None:
        """Submit jobs with bad images; now and then one crashes its decoder."""
        images = [*self._next_pictures(2), *self._broken]
        nobody = Deliver(webhook=f"http://{NOBODY}/hook") if at_s < 30 else Deliver()
        client.submit(images, LABELS, tenant="news", deliver=nobody)
        if 10 < at_s < 25:
            client.submit([self._crashing], LABELS, tenant="news")

    def _changes(self, client: Client, _: float) -> None:
        """Use a label set that no worker knows, and cancel every other job."""
        number = next(self._numbers)
        labels = [LABELS[0], *(f"{label} number {number}" for label in LABELS[1:3])]
        job = client.submit(self._next_pictures(1), labels, tenant="mobile")
        if number % 2:
            job.cancel()

    def _editors(self, client: Client, _: float) -> None:
        """Use the alias of a label set, which moves each minute."""
        client.submit(self._next_pictures(1), ALIAS, tenant="shop")
        if time.monotonic() > self._moved_at + MOVED_EVERY_S:
            self._moved_at = time.monotonic()
            self._versions.move(client)

    def _doubters(self, client: Client, _: float) -> None:
        """Have a label explained."""
        client.submit(self._next_pictures(1), LABELS, tenant="lab", explain=[LABELS[0]])

    def _indexer(self, client: Client, at_s: float) -> None:
        """Read events for half of the time, as a consumer that is away for the other half."""
        if at_s % 30 < 15:
            return
        for number, _ in enumerate(client.events("indexer", consumer="one", timeout_s=1.0)):
            if number >= EVENTS_AT_ONCE or self._ended.is_set():
                return

    def _slow_storage(self, client: Client, at_s: float) -> None:
        """Have one bucket drip and one fail for half a cycle, with jobs that want them."""
        is_away = 5 < at_s < 30
        self._scene.faults.dripping = {SLOW_BUCKET} if is_away else set()
        self._scene.faults.failing = {FAILING_BUCKET} if is_away else set()
        if is_away:
            for bucket in (SLOW_BUCKET, FAILING_BUCKET):
                client.submit([f"s3://{bucket}/{next(self._numbers)}.jpg"], LABELS, tenant="lab")

    def _latecomers(self, client: Client, _: float) -> None:
        """Submit a bulk job that expires soon."""
        images = self._next_pictures(IMAGES_IN_A_BULK_JOB)
        client.submit(images, LABELS, queue=Queue.BULK, tenant="archive", expires_in_s=1.5)

    def _lost_messages(self, _: Client, at_s: float) -> None:
        """Submit a job whose message no broker takes; the reconciler publishes it."""
        if at_s > 40:
            return
        settings = self._scene.service.client_settings(namespace=NAMESPACE)
        cut_off = settings.model_copy(update={"broker_url": f"redis://{NOBODY}/0"})
        with Client(cut_off) as client:
            client.submit(self._next_pictures(1), LABELS, tenant="shop")

    def _foreign_messages(self, _: Client, at_s: float) -> None:
        """Put something into a queue that is no call of our task."""
        with Redis.from_url(self._scene.service.variables["LABELYARD_BROKER_URL"]) as broker:
            broker.lpush(queue_name(NAMESPACE, Queue.INTERACTIVE), f'{{"hello": {at_s}}}')

    def _poison(self, client: Client, at_s: float) -> None:
        """Submit jobs that break each attempt, so that they become dead letters after a while."""
        if at_s > 12:
            return
        client.submit([self.pictures[1]], LABELS, tenant=orders.RAISES_MEMORY_ERROR)

    def _restarts(self, _: Client, at_s: float) -> None:
        """Kill one worker in the middle of a cycle, and restart the other near its end."""
        first, second = self._scene.workers
        if 35 < at_s < 36 and first.is_running():
            first.kill()
            self._ended.wait(6)
            first.start(within_s=RESTARTED_WITHIN_S)
        elif 52 < at_s < 53:
            second.stop()
            second.start(within_s=RESTARTED_WITHIN_S)
