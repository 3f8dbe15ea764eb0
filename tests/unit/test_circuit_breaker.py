"""A host that fails is left alone, and probed now and then."""

from hypothesis import given
from hypothesis import strategies as st

from labelyard_worker.jobs.delivery.breaker import (
    FIRST_PAUSE_S,
    MAX_GROWTH,
    OPEN_AFTER,
    CircuitBreaker,
)


def broken(*, now: float = 0.0) -> CircuitBreaker:
    breaker = CircuitBreaker()
    for _ in range(OPEN_AFTER):
        breaker.begin()
        breaker.fail(now=now)
    return breaker


def test_a_few_failures_leave_the_circuit_closed() -> None:
    breaker = CircuitBreaker()
    for _ in range(OPEN_AFTER - 1):
        breaker.begin()
        breaker.fail(now=0.0)

    assert breaker.wait_s(now=0.0) == 0


def test_failures_in_a_row_open_the_circuit_for_a_pause() -> None:
    assert broken().wait_s(now=1.0) == FIRST_PAUSE_S - 1


def test_one_probe_at_a_time_goes_after_the_pause() -> None:
    breaker = broken()
    assert breaker.wait_s(now=FIRST_PAUSE_S) == 0

    breaker.begin()

    assert breaker.wait_s(now=FIRST_PAUSE_S) > 0


def test_a_probe_that_succeeds_closes_the_circuit() -> None:
    breaker = broken()
    breaker.begin()

    breaker.succeed()

    assert breaker.is_closed
    assert (breaker.wait_s(now=0.0), breaker.pause_s) == (0, FIRST_PAUSE_S)


def test_a_probe_that_fails_doubles_the_pause() -> None:
    breaker = broken()
    breaker.begin()

    breaker.fail(now=FIRST_PAUSE_S)

    assert breaker.wait_s(now=FIRST_PAUSE_S) == 2 * FIRST_PAUSE_S


def test_a_probe_without_an_answer_lets_another_go() -> None:
    breaker = broken()
    breaker.begin()

    breaker.give_up_probe()

    assert breaker.wait_s(now=FIRST_PAUSE_S) == 0


def test_calls_that_were_in_flight_when_the_circuit_opened_do_not_prolong_it() -> None:
    breaker = broken(now=0.0)

    breaker.fail(now=5.0)

    assert breaker.wait_s(now=FIRST_PAUSE_S) == 0


@given(st.lists(st.sampled_from(["begin", "fail", "succeed", "give_up"]), max_size=60))
def test_whatever_happens_a_call_may_go_again_within_the_longest_pause(steps: list[str]) -> None:
    breaker, now = CircuitBreaker(), 0.0
    for step in steps:
        now += 1.0
        match step:
            case "begin":
                breaker.begin()
            case "fail":
                breaker.fail(now=now)
            case "succeed":
                breaker.succeed()
            case _:
                breaker.give_up_probe()
    breaker.give_up_probe()

    assert breaker.wait_s(now=now + MAX_GROWTH * FIRST_PAUSE_S) == 0
