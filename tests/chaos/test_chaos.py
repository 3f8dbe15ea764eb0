"""The chaos suite in its short form; ``make chaos`` and ``make chaos-long`` are the others."""

import random
from pathlib import Path

import pytest

from tests.chaos.driver import Options, run, wrong_exits
from tests.chaos.faults import FAULTS, TWENTY_MINUTES_S, draw_schedule
from tests.chaos.slots import Exit
from tests.support.rabbitmq import NOT_INSTALLED, is_installed

# Of RabbitMQ each start takes seconds.
SECONDS = {"redis": 20.0, "rabbitmq": 30.0}
BROKERS = [
    "redis",
    pytest.param(
        "rabbitmq",
        marks=[
            pytest.mark.rabbitmq,
            pytest.mark.skipif(not is_installed(), reason=NOT_INSTALLED),
        ],
    ),
]


@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.parametrize("broker", BROKERS)
def test_nothing_is_lost_stuck_or_seen_twice_whatever_fails(tmp_path: Path, broker: str) -> None:
    seed = random.SystemRandom().randrange(10**6)

    report = run(tmp_path, Options(seconds=SECONDS[broker], seed=seed, broker=broker))

    assert report.is_clean, "\n".join(report.lines())
    assert report.submitted > 100
    assert sum(report.faults.values()) >= len([fault for fault in FAULTS if fault.least])


@pytest.mark.parametrize("seed", range(20))
def test_twenty_minutes_hold_the_faults_that_were_promised(seed: int) -> None:
    schedule = draw_schedule(random.Random(seed), seconds=TWENTY_MINUTES_S)

    names = [fault.name for _, fault in schedule]

    assert names.count("sigkill_busy_worker") >= 40
    assert names.count("sigterm_under_load") >= 40
    assert names.count("broker_killed") >= 15
    assert min(names.count(name) for name in ("half_open", "storage_away", "ledger_away")) >= 10


def test_a_seed_draws_the_same_faults_again() -> None:
    first, second = (draw_schedule(random.Random(7), seconds=120) for _ in range(2))

    assert first == second


def test_a_worker_that_was_asked_to_end_must_leave_with_0_unless_its_model_broke_first() -> None:
    exits = [
        Exit("0", pid, code, cause)
        for pid, code, cause in [
            (1, 0, "sigterm_under_load"),
            (2, 70, "sigterm_under_load"),
            (3, 70, "sigterm_under_load"),
            (4, 137, "sigkill_busy_worker"),
        ]
    ]

    assert wrong_exits(exits, excused={3}) == 1
