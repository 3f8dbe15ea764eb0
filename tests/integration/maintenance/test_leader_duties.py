"""The leader repeats its duties: an emptied broker gets the weights, a lost record leaves no count."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from labelyard.ledger import Ledger, connect
from labelyard.publisher import Publisher
from labelyard.testing import sample_job
from labelyard_worker.maintenance.leader import LeaderElection
from labelyard_worker.maintenance.leader_duties import LeaderDuties, duties_of
from labelyard_worker.settings import WorkerSettings
from tests.support.waiting import wait_until

pytestmark = pytest.mark.allow_persistent_keys("the broker keeps the weights of tenants")
FAST_S = 0.01


@pytest.fixture
def settings(ledger_url: str, broker_url: str) -> WorkerSettings:
    return WorkerSettings(ledger_url=ledger_url, broker_url=broker_url, namespace="test")


@pytest.fixture
def ledger(settings: WorkerSettings) -> Iterator[Ledger]:
    with closing(connect(settings)) as client:
        yield Ledger(client, settings)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    calls: list[dict[str, float]] = []
    monkeypatch.setattr(Publisher, "write_weights", lambda _, weights: calls.append(weights))
    return calls


@pytest.fixture
def leader(ledger: Ledger) -> LeaderElection:
    return LeaderElection(ledger, worker="w1")


@pytest.fixture
def start(
    ledger: Ledger, settings: WorkerSettings, leader: LeaderElection
) -> Iterator[Callable[..., LeaderDuties]]:
    with ExitStack() as stack:
        publisher = stack.enter_context(closing(Publisher(settings)))

        def start(**duties: Callable[[], object]) -> LeaderDuties:
            one = LeaderDuties(
                duties or duties_of(ledger, publisher, settings),
                leader=leader,
                every_s=FAST_S,
            )
            stack.callback(one.close)
            one.start()
            return one

        yield start


def test_the_weights_are_written_again_and_again(
    ledger: Ledger,
    leader: LeaderElection,
    start: Callable[..., LeaderDuties],
    written: list[dict[str, float]],
) -> None:
    ledger.client.hset(ledger.keys.tenants, "shop", '{"weight": 3.0}')
    leader.is_leader()

    start()

    wait_until(lambda: len(written) >= 2)
    assert written[0] == {"shop": 3.0}


class LateElection(LeaderElection):
    """Election that this worker wins when it is looked at for the fourth time."""

    looks = 0

    @property
    def is_leading(self) -> bool:
        self.looks += 1
        return self.looks > 3

    @is_leading.setter
    def is_leading(self, value: bool) -> None:
        """Leave it to the looks."""


def test_a_worker_does_its_duties_only_while_it_leads(ledger: Ledger) -> None:
    election = LateElection(ledger, worker="w1")
    done_at: list[int] = []
    duties = LeaderDuties(
        {"duty": lambda: done_at.append(election.looks)}, leader=election, every_s=FAST_S
    )

    with closing(duties):
        duties.start()
        wait_until(lambda: len(done_at) >= 2)

    assert done_at[0] == 4


def test_a_lost_record_is_taken_out_of_the_backlog(
    ledger: Ledger,
    leader: LeaderElection,
    start: Callable[..., LeaderDuties],
    written: list[dict[str, float]],
) -> None:
    job = sample_job()
    ledger.open(job, queue="bulk")
    ledger.client.delete(ledger.keys.job(job.job_id))
    leader.is_leader()

    start()

    wait_until(lambda: not ledger.backlog())
    wait_until(lambda: ledger.open_images() == 0)


def test_a_duty_that_fails_does_not_keep_the_next_one_from_its_turn(
    leader: LeaderElection, start: Callable[..., LeaderDuties]
) -> None:
    done: list[str] = []

    def fail() -> None:
        raise OSError("the broker is away")

    def break_down() -> None:
        raise ValueError("a fault of ours")

    leader.is_leader()

    start(first=fail, second=break_down, third=lambda: done.append("third"))

    wait_until(lambda: len(done) >= 2)


@pytest.mark.usefixtures("written")
def test_the_bounds_of_the_event_stream_are_written_for_the_scripts(
    ledger: Ledger,
    leader: LeaderElection,
    start: Callable[..., LeaderDuties],
    settings: WorkerSettings,
) -> None:
    leader.is_leader()

    start()

    wait_until(lambda: ledger.client.exists(ledger.keys.event_state))
    known = ledger.client.hgetall(ledger.keys.event_state)
    assert known == {
        "max_entries": str(settings.events_max_entries),
        "max_age_s": str(settings.events_max_age_s),
        "result_max_bytes": str(settings.event_result_max_bytes),
    }


def test_a_woken_duty_does_not_wait_for_its_turn(leader: LeaderElection) -> None:
    leader.is_leader()
    calls: list[int] = []
    woken = threading.Event()
    duties = LeaderDuties({"one": lambda: calls.append(1)}, leader=leader, every_s=600, woken=woken)
    duties.start()

    with closing(duties):
        for wanted in (1, 2, 3):
            woken.set()
            wait_until(lambda wanted=wanted: len(calls) == wanted)

    assert len(calls) == 3
