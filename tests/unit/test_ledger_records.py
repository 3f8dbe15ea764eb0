"""A record that cannot be read is an error of its own job, and raises nothing while it is read."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelyard.errors import (
    InvalidMessageError,
    LabelyardError,
    ResultTimeoutError,
    ResultUnreadableError,
)
from labelyard.ledger.clock import LedgerClock
from labelyard.ledger.records import Record, read_glance, read_record
from labelyard.testing.samples import sample_job, sample_result

RESULT = sample_result()
WHOLE = {
    "state": "succeeded",
    "tenant": "shop-eu",
    "queue": "bulk",
    "images": "1",
    "submitted_at": "1.5",
    "published_at": "1.5",
    "finished_at": "2.5",
    "attempts": "1",
    "deaths": "0",
    "deaths_alone": "0",
    "message": sample_job().model_dump_json(),
    "undelivered": "",
    "expires_at": "",
    "result": RESULT.model_dump_json(),
}


def record_of(**changes: str | None) -> Record:
    fields = {name: value for name, value in {**WHOLE, **changes}.items() if value is not None}
    record = read_record("a", fields)
    assert record is not None
    return record


def test_a_whole_record_has_its_result() -> None:
    record = record_of()

    assert record.outcome() == RESULT
    assert record.fault == ""


@pytest.mark.parametrize(
    "result",
    [
        "not JSON",
        "[]",
        "null",
        '{"version": 1}',
        WHOLE["result"].replace('"score":', '"score":null, "was":'),
        WHOLE["result"].replace('"score":', '"score":NaN, "was":'),
        WHOLE["result"].replace('"version":1', '"version":3'),
    ],
)
def test_a_result_that_cannot_be_read_leaves_the_rest_of_its_record(result: str) -> None:
    record = record_of(result=result)

    assert (record.state, record.attempts, record.images) == ("succeeded", 1, 1)
    assert record.result is None
    with pytest.raises(ResultUnreadableError, match="result_unreadable: a: "):
        record.outcome()


@pytest.mark.parametrize("name", ["images", "submitted_at", "attempts", "tenant", "queue"])
def test_a_record_that_lost_a_field_is_known_by_its_state(name: str) -> None:
    record = record_of(**{name: None})

    assert record.state == "succeeded"
    with pytest.raises(ResultUnreadableError):
        record.outcome()


def test_a_final_record_without_a_result_says_so() -> None:
    with pytest.raises(ResultUnreadableError, match="holds no result"):
        record_of(result=None).outcome()
    with pytest.raises(ResultTimeoutError):
        record_of(result=None, state="running").outcome()


def test_a_message_that_cannot_be_read_is_refused_by_the_names_of_its_fields() -> None:
    message = json.dumps({**json.loads(WHOLE["message"]), "top_k": 0})
    record = record_of(message=message)

    assert not record.is_job
    with pytest.raises(InvalidMessageError, match="top_k"):
        record.job()


@pytest.mark.parametrize("expires_at", ["", None, "soon", "nan", "inf", "-inf", "1e999"])
def test_an_expiry_that_cannot_be_read_ends_no_wait(expires_at: str | None) -> None:
    glance = read_glance(["running", expires_at], clock=LedgerClock())

    assert glance is not None
    assert (glance.state, glance.expires_at) == ("running", None)


def test_an_expiry_is_read() -> None:
    clock = LedgerClock()

    glance = read_glance(["running", str(clock.now() + 60)], clock=clock)

    assert glance is not None
    assert glance.expires_at is not None
    assert glance.expires_at > clock.now()


@given(changes=st.dictionaries(st.sampled_from(sorted(WHOLE)), st.text() | st.none(), max_size=4))
def test_whatever_a_record_holds_reading_it_raises_nothing(changes: dict[str, str | None]) -> None:
    """The outcome of every record is a result, or an error of ours."""
    fields = {name: value for name, value in {**WHOLE, **changes}.items() if value is not None}

    record = read_record("a", fields)

    assert (record is None) == ("state" not in fields)
    if record is not None:
        with suppress(LabelyardError):
            assert record.outcome().job_id == RESULT.job_id
