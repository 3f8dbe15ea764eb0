"""As many pictures are on their way as there is room for, interactive ones first."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from labelyard_worker.embedding import Room
from labelyard_worker.intake.spec import PixelSpec
from labelyard_worker.services import places_for
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision.devices import ThreadPlan
from labelyard_worker.vision.waiting import Priority
from tests.support.waiting import wait_until


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as executor:
        yield executor


def waiters(room: Room) -> int:
    """Count the threads that wait for a place."""
    with room._lock:
        return sum(len(vars(called)["_waiters"]) for called in room._called.values())


def test_places_are_taken_and_given_back() -> None:
    room = Room(2)

    taken = [room.take(priority="bulk", timeout_s=0) for _ in range(3)]
    room.give_back()

    assert taken == [True, True, False]
    assert room.taken == 1
    assert room.take(priority="bulk", timeout_s=0)


@pytest.mark.parametrize("places", [0, -1])
def test_there_is_room_for_one_at_least(places: int) -> None:
    assert Room(places).take(priority="bulk", timeout_s=0)


@pytest.mark.parametrize("priority", ["interactive", "bulk"])
def test_whoever_waits_gets_the_place_that_is_freed(
    priority: Priority, pool: ThreadPoolExecutor
) -> None:
    room = Room(1)
    room.take(priority="bulk", timeout_s=0)
    waiting = pool.submit(room.take, priority=priority, timeout_s=5)
    wait_until(lambda: waiters(room) == 1)

    room.give_back()

    assert waiting.result(timeout=5)


def test_an_interactive_picture_goes_before_bulk_ones_that_waited_longer(
    pool: ThreadPoolExecutor,
) -> None:
    room = Room(1)
    room.take(priority="bulk", timeout_s=0)
    bulk = pool.submit(room.take, priority="bulk", timeout_s=5)
    wait_until(lambda: waiters(room) == 1)
    interactive = pool.submit(room.take, priority="interactive", timeout_s=5)
    wait_until(lambda: waiters(room) == 2)

    room.give_back()

    assert interactive.result(timeout=5)
    assert not bulk.done()
    room.give_back()
    assert bulk.result(timeout=5)


def test_two_places_that_are_freed_at_once_serve_two(pool: ThreadPoolExecutor) -> None:
    """The one that is called first has to call the other."""
    room = Room(2)
    for _ in range(2):
        room.take(priority="bulk", timeout_s=0)
    waiting = [
        pool.submit(room.take, priority=priority, timeout_s=30)
        for priority in ("interactive", "bulk")
    ]
    wait_until(lambda: waiters(room) == 2)

    with room._lock:
        room._free += 1
    room.give_back()

    assert [each.result(timeout=5) for each in waiting] == [True, True]


def test_bulk_pictures_go_on_when_an_interactive_one_gave_up(pool: ThreadPoolExecutor) -> None:
    """A bulk one that was passed over must be told, for nobody frees a place then."""
    room = Room(1)
    room.take(priority="bulk", timeout_s=0)
    interactive = pool.submit(room.take, priority="interactive", timeout_s=0.05)
    bulk = pool.submit(room.take, priority="bulk", timeout_s=5)
    wait_until(lambda: waiters(room) >= 1)
    assert not interactive.result(timeout=5)

    room.give_back()

    assert bulk.result(timeout=5)


def test_never_more_are_on_their_way_than_there_are_places(pool: ThreadPoolExecutor) -> None:
    room = Room(3)
    lock = threading.Lock()
    inside = 0
    most = 0

    def pass_through(number: int) -> None:
        nonlocal inside, most
        priority: Priority = "interactive" if number % 3 else "bulk"
        assert room.take(priority=priority, timeout_s=10)
        with lock:
            inside += 1
            most = max(most, inside)
        with lock:
            inside -= 1
        room.give_back()

    for done in [pool.submit(pass_through, number) for number in range(200)]:
        done.result(timeout=10)

    assert most <= 3
    assert room.taken == 0


@pytest.mark.parametrize(
    ("limits", "places"),
    [
        ({}, 16 * 2 * 8),
        ({"max_pixels_in_flight_bytes": 50 * 4 * 4 * 3}, 50),
        ({"queue_capacity": 7}, 7),
        ({"max_pixels_in_flight_bytes": 1}, 1),
    ],
)
def test_room_is_made_for_what_keeps_the_model_busy_within_the_limits(
    limits: dict[str, Any], places: int
) -> None:
    checkpoint: Any = SimpleNamespace(
        threads=ThreadPlan(streams=2, threads_per_stream=1, cores=2),
        max_batch_size=8,
        pixel_spec=PixelSpec(resize="exact", height=4, width=4),
    )

    assert places_for(WorkerSettings(**limits), checkpoint) == places
