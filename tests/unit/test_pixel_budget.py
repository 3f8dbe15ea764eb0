"""As many decoded images are held as there are places, whoever takes and returns them."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from labelyard_worker.intake.pixel_budget import PixelBudget
from labelyard_worker.intake_wiring import count_pixel_slots
from labelyard_worker.pixels import PixelSpec
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision.devices import ThreadPlan


def test_places_are_taken_and_given_back() -> None:
    budget = PixelBudget(2)

    taken = [budget.take(is_bulk=True) for _ in range(3)]
    budget.give_back()

    assert taken == [True, True, False]
    assert budget.taken == 1
    assert budget.take(is_bulk=True)


@pytest.mark.parametrize("places", [0, -1])
def test_there_is_one_place_at_least(places: int) -> None:
    assert PixelBudget(places).take(is_bulk=True)


def test_the_intake_is_woken_only_by_a_place_that_somebody_may_wait_for() -> None:
    budget = PixelBudget(2)
    woken: list[int] = []
    budget.on_freed = lambda: woken.append(budget.taken)

    budget.take(is_bulk=True)
    budget.give_back()
    budget.take(is_bulk=True)
    budget.take(is_bulk=True)
    budget.give_back()

    assert woken == [1]


def test_bulk_images_leave_some_places_to_interactive_ones() -> None:
    budget = PixelBudget(16)
    woken: list[int] = []
    budget.on_freed = lambda: woken.append(budget.taken)

    bulk = [budget.take(is_bulk=True) for _ in range(16)]
    interactive = [budget.take(is_bulk=False) for _ in range(3)]
    for _ in range(4):
        budget.give_back()

    assert bulk.count(True) == 14
    assert interactive == [True, True, False]
    assert woken == [15, 13]  # when an interactive image may go on, and when a bulk one may


def test_no_more_than_all_places_are_held_by_many_threads() -> None:
    budget = PixelBudget(3)
    lock = threading.Lock()
    inside = most = 0

    def pass_through(_: int) -> None:
        nonlocal inside, most
        while not budget.take(is_bulk=True):
            pass
        with lock:
            inside += 1
            most = max(most, inside)
        with lock:
            inside -= 1
        budget.give_back()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(pass_through, range(200)))

    assert most <= 3
    assert budget.taken == 0


@pytest.mark.parametrize(
    ("limits", "places"),
    [
        ({}, 16 * 2 * 8),
        ({"max_pixels_in_flight_bytes": 50 * 4 * 4 * 3}, 50),
        ({"queue_capacity": 7}, 7),
        ({"max_pixels_in_flight_bytes": 1}, 1),
    ],
)
def test_there_are_slots_for_a_busy_model_within_the_limits(
    limits: dict[str, Any], places: int
) -> None:
    checkpoint: Any = SimpleNamespace(
        threads=ThreadPlan(streams=2, threads_per_stream=1, cores=2),
        max_batch_size=8,
        pixel_spec=PixelSpec(resize="exact", height=4, width=4),
    )

    assert count_pixel_slots(WorkerSettings(**limits), checkpoint) == places
