"""A suspect job runs alone; all others run beside each other."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelyard_worker.durability.lanes import Lanes
from tests.support.waiting import wait_until


class Visitor(threading.Thread):
    """Enters, says so, and stays until told to leave."""

    def __init__(self, lanes: Lanes, *, is_alone: bool) -> None:
        super().__init__()
        self._lanes = lanes
        self._is_alone = is_alone
        self.is_inside = threading.Event()
        self._may_leave = threading.Event()
        self.start()

    def run(self) -> None:
        with self._lanes.enter(is_alone=self._is_alone):
            self.is_inside.set()
            self._may_leave.wait()

    def leave(self) -> None:
        self._may_leave.set()
        self.join()


@contextmanager
def visitors(*are_alone: bool) -> Iterator[list[Visitor]]:
    lanes = Lanes()
    made: list[Visitor] = []
    for is_alone in are_alone:
        made.append(Visitor(lanes, is_alone=is_alone))
        wait_until(lambda: made[-1].is_inside.is_set() or has_to_wait(lanes, made))
    try:
        yield made
    finally:
        for visitor in made:
            visitor._may_leave.set()
        for visitor in made:
            visitor.join()


def has_to_wait(lanes: Lanes, made: list[Visitor]) -> bool:
    """Tell whether the last visitor stands before the door."""
    with lanes._changed:
        waiters = len(vars(lanes._changed)["_waiters"])
        return waiters == sum(not one.is_inside.is_set() for one in made)


def test_ordinary_jobs_run_beside_each_other() -> None:
    with visitors(False, False) as (first, second):
        assert first.is_inside.is_set()
        assert second.is_inside.is_set()


def test_a_suspect_waits_until_nothing_else_runs() -> None:
    with visitors(False, True) as (ordinary, suspect):
        assert not suspect.is_inside.is_set()

        ordinary.leave()

        assert suspect.is_inside.wait(5)


@pytest.mark.parametrize("is_second_alone", [True, False])
def test_nothing_runs_beside_a_suspect(is_second_alone: bool) -> None:
    with visitors(True, is_second_alone) as (suspect, other):
        assert not other.is_inside.is_set()

        suspect.leave()

        assert other.is_inside.wait(5)


def test_a_waiting_suspect_is_not_overtaken_for_ever() -> None:
    with visitors(False, True, False) as (running, suspect, newcomer):
        assert not newcomer.is_inside.is_set()

        running.leave()

        assert suspect.is_inside.wait(5)
        suspect.leave()
        assert newcomer.is_inside.wait(5)


def test_a_job_that_fails_leaves_the_lane_free() -> None:
    lanes = Lanes()
    for is_alone in (True, False):
        with pytest.raises(MemoryError), lanes.enter(is_alone=is_alone):
            raise MemoryError

    with lanes.enter(is_alone=True):
        pass


@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_any_mix_of_jobs_comes_to_an_end_and_suspects_are_alone(are_alone: list[bool]) -> None:
    lanes = Lanes()
    lock = threading.Lock()
    inside: list[bool] = []
    seen: list[list[bool]] = []

    def work(is_alone: bool) -> None:
        with lanes.enter(is_alone=is_alone):
            with lock:
                inside.append(is_alone)
                seen.append(list(inside))
            with lock:
                inside.remove(is_alone)

    threads = [threading.Thread(target=work, args=(is_alone,)) for is_alone in are_alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=5)

    assert len(seen) == len(are_alone)
    assert all(len(together) == 1 for together in seen if True in together)
