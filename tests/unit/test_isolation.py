"""One suspect at a time runs beside ordinary jobs, and alone only in an idle process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelyard_worker.jobs.isolation import Quarantine
from tests.support.waiting import wait_until


class Visitor(threading.Thread):
    """An ordinary job or a suspect that runs until it is released."""

    def __init__(self, quarantine: Quarantine, *, is_suspect: bool = False) -> None:
        super().__init__()
        self._enter = quarantine.suspect if is_suspect else quarantine.ordinary
        self.is_inside = threading.Event()
        self._may_leave = threading.Event()
        self.start()

    def run(self) -> None:
        with self._enter():
            self.is_inside.set()
            self._may_leave.wait()

    def leave(self) -> None:
        self._may_leave.set()
        self.join()


@contextmanager
def visitor(quarantine: Quarantine, *, is_suspect: bool = False) -> Iterator[Visitor]:
    made = Visitor(quarantine, is_suspect=is_suspect)
    try:
        yield made
    finally:
        made.leave()


def never() -> bool:
    return False


def nothing() -> None:
    """Stand in for the call that notes other suspects in the ledger."""


def test_a_suspect_runs_beside_ordinary_jobs_and_they_beside_it() -> None:
    quarantine = Quarantine()
    with (
        visitor(quarantine) as before,
        visitor(quarantine, is_suspect=True) as suspect,
        visitor(quarantine) as after,
    ):
        for one in (before, suspect, after):
            assert one.is_inside.wait(5)


def test_a_suspect_waits_for_the_one_before_it() -> None:
    quarantine = Quarantine()
    with (
        visitor(quarantine, is_suspect=True) as first,
        visitor(quarantine, is_suspect=True) as second,
    ):
        assert first.is_inside.wait(5)
        assert not second.is_inside.is_set()

        first.leave()

        assert second.is_inside.wait(5)


def test_ordinary_jobs_wait_while_a_suspect_is_alone_and_go_on_after_it() -> None:
    quarantine = Quarantine()
    with quarantine.suspect(), quarantine.alone(should_stop=never, on_company=nothing) as is_alone:
        newcomer = Visitor(quarantine)
        wait_until(lambda: len(vars(quarantine._changed)["_waiters"]) == 1)
        was_inside = newcomer.is_inside.is_set()
    assert newcomer.is_inside.wait(5)
    newcomer.leave()

    assert (is_alone, was_inside) == (True, False)


def test_a_suspect_that_takes_long_alone_gets_company_and_the_ledger_knows_first() -> None:
    quarantine = Quarantine(alone_s=0.05)
    told = threading.Event()
    newcomers: list[Visitor] = []
    seen: list[bool] = []

    def on_company() -> None:
        seen.append(newcomers[0].is_inside.is_set())
        told.set()

    with quarantine.suspect(), quarantine.alone(should_stop=never, on_company=on_company):
        newcomers.append(Visitor(quarantine))

        assert newcomers[0].is_inside.wait(5)
        assert told.is_set()
    newcomers[0].leave()

    assert seen == [False]


@pytest.mark.parametrize("is_draining", [False, True])
def test_a_busy_process_lets_its_suspect_go_on_in_company(is_draining: bool) -> None:
    quarantine = Quarantine(idle_within_s=60 if is_draining else 0.05)
    with visitor(quarantine) as busy:
        assert busy.is_inside.wait(5)

        with (
            quarantine.alone(should_stop=lambda: is_draining, on_company=nothing) as is_alone,
            visitor(quarantine) as newcomer,
        ):
            assert newcomer.is_inside.wait(5)

        assert not is_alone


def test_a_job_that_fails_leaves_the_quarantine_free() -> None:
    quarantine = Quarantine()
    for enter in (quarantine.ordinary, quarantine.suspect):
        with pytest.raises(MemoryError), enter():
            raise MemoryError

    with quarantine.suspect(), quarantine.alone(should_stop=never, on_company=nothing) as is_alone:
        assert is_alone
    with quarantine.ordinary():
        pass


@given(st.lists(st.sampled_from(["ordinary", "suspect", "alone"]), min_size=1, max_size=10))
def test_any_mix_of_jobs_comes_to_an_end_with_one_suspect_at_a_time(kinds: list[str]) -> None:
    quarantine = Quarantine()
    lock = threading.Lock()
    inside: list[str] = []
    faults: list[list[str]] = []

    def stay(kind: str) -> None:
        with lock:
            inside.append(kind)
            is_mixed = "alone" in inside and len(inside) > 1
            if is_mixed or len([one for one in inside if one != "ordinary"]) > 1:
                faults.append(list(inside))
        with lock:
            inside.remove(kind)

    def work(kind: str) -> None:
        if kind == "ordinary":
            with quarantine.ordinary():
                stay(kind)
            return
        with quarantine.suspect():
            if kind == "suspect":
                stay(kind)
                return
            with quarantine.alone(should_stop=never, on_company=nothing) as is_alone:
                stay("alone" if is_alone else "suspect")

    threads = [threading.Thread(target=work, args=(kind,)) for kind in kinds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert faults == []
    assert not any(thread.is_alive() for thread in threads)
