"""Messages that were set aside: bounded, listed, sent again and dropped, on a real Valkey."""

import json
from collections.abc import Iterator
from contextlib import closing

import pytest
import redis

from labelyard.errors import InvalidMessageError, JobNotFoundError
from labelyard.ledger import Ledger, connect
from labelyard.ledger.set_aside import MAX_KEPT_BYTES, SetAside, SetAsideMessage
from labelyard.messages import Failure
from labelyard.publisher import Publisher
from labelyard.settings import ClientSettings
from labelyard.testing import sample_job
from tests.support.envelopes import envelope_of, job_of

QUEUE = "test.interactive"


def message(number: int, *, size_bytes: int = 10, job_id: str = "") -> SetAsideMessage:
    raw = f"{number:04d}".encode().ljust(size_bytes, b".")
    return SetAsideMessage("unknown task", QUEUE, len(raw), raw, job_id)


@pytest.fixture
def client(ledger_url: str) -> Iterator[redis.Redis]:
    with closing(connect(settings_for(ledger_url, ledger_url))) as connection:
        yield connection


@pytest.fixture
def set_aside(client: redis.Redis, ledger_url: str, broker_url: str) -> Iterator[SetAside]:
    settings = settings_for(ledger_url, broker_url)
    with closing(Publisher(settings)) as publisher:
        yield SetAside(client, settings, publisher=publisher)


def settings_for(ledger_url: str, broker_url: str) -> ClientSettings:
    return ClientSettings(ledger_url=ledger_url, broker_url=broker_url, namespace="test")


def test_what_is_kept_reads_as_it_was_the_newest_first(set_aside: SetAside) -> None:
    for number in range(3):
        set_aside.add(message(number))

    assert [kept.raw[:4] for kept in set_aside.messages()] == [b"0002", b"0001", b"0000"]
    assert set_aside.find(message(1).id).reason == "unknown task"
    assert (set_aside.count(), set_aside.dropped()) == (3, 0)


def test_a_message_that_is_delivered_twice_is_kept_once(set_aside: SetAside) -> None:
    set_aside.add(message(1))
    set_aside.add(message(1))

    assert set_aside.count() == 1


def test_bytes_that_are_no_text_are_kept(set_aside: SetAside) -> None:
    odd = SetAsideMessage("not JSON", QUEUE, 3, b"\xff\x00\xfe")
    set_aside.add(odd)

    assert set_aside.find(odd.id).raw == b"\xff\x00\xfe"


def test_beyond_the_number_the_oldest_are_dropped_and_counted(
    client: redis.Redis, ledger_url: str
) -> None:
    bounded = SetAside(client, settings_for(ledger_url, ledger_url), max_entries=3)
    for number in range(5):
        bounded.add(message(number))

    assert [kept.raw[:4] for kept in bounded.messages()] == [b"0004", b"0003", b"0002"]
    assert bounded.dropped() == 2


def test_beyond_the_bytes_the_oldest_are_dropped_and_counted(
    client: redis.Redis, ledger_url: str
) -> None:
    bounded = SetAside(client, settings_for(ledger_url, ledger_url), max_total_bytes=5_000)
    for number in range(5):
        bounded.add(message(number, size_bytes=1_500))

    kept = bounded.messages()
    assert sum(len(one.to_json()) for one in kept) <= 5_000
    assert (len(kept), bounded.dropped()) == (2, 3)
    assert client.hget("test:set_aside:figures", "bytes") == str(
        sum(len(one.to_json()) for one in kept)
    )


def test_every_key_has_a_time_to_live(set_aside: SetAside, client: redis.Redis) -> None:
    set_aside.add(message(1))

    keys = list(client.scan_iter("test:set_aside*"))
    assert len(keys) == 3
    assert all(client.ttl(key) > 86_400 for key in keys)


def test_what_was_removed_is_gone_and_its_bytes_are_free(
    set_aside: SetAside, client: redis.Redis
) -> None:
    set_aside.add(message(1))

    assert set_aside.remove([message(1).id, "unknown"]) == [message(1).id]

    assert client.hget("test:set_aside:figures", "bytes") == "0"
    with pytest.raises(JobNotFoundError):
        set_aside.find(message(1).id)


def test_a_message_is_sent_again_as_it_came(set_aside: SetAside, broker_redis: redis.Redis) -> None:
    set_aside.add(message(1))

    set_aside.replay(message(1).id)

    assert broker_redis.lrange(QUEUE, 0, -1) == [message(1).raw]
    assert set_aside.count() == 0


def test_the_failure_of_a_message_that_is_sent_again_is_forgotten(
    set_aside: SetAside, client: redis.Redis, ledger_url: str
) -> None:
    job = job_of("s3://pictures/a.jpg")
    ledger = Ledger(client, settings_for(ledger_url, ledger_url))
    raw = json.dumps(envelope_of(job)).encode()
    kept = SetAsideMessage("unknown task", QUEUE, len(raw), raw, job["job_id"])
    failure = Failure.of(InvalidMessageError("unknown task"))
    ledger.refuse(job["job_id"], raw.decode(), failure)
    set_aside.add(kept)

    set_aside.replay(kept.id)

    assert ledger.read(job["job_id"]) is None


def test_the_record_of_a_real_job_outlives_a_replay(
    set_aside: SetAside, client: redis.Redis, ledger_url: str
) -> None:
    job = sample_job()
    ledger = Ledger(client, settings_for(ledger_url, ledger_url))
    ledger.open(job, queue="bulk")
    set_aside.add(message(1, job_id=job.job_id))

    set_aside.replay(message(1).id)

    assert ledger.state(job.job_id) == "pending"


@pytest.mark.parametrize(
    "kept",
    [
        SetAsideMessage("too long", QUEUE, 10**9, b"x" * MAX_KEPT_BYTES),
        SetAsideMessage("not a job", "", 2, b"{}"),
    ],
    ids=["cut", "no envelope"],
)
def test_what_was_not_kept_as_it_came_is_not_sent_again(
    set_aside: SetAside, kept: SetAsideMessage
) -> None:
    set_aside.add(kept)

    with pytest.raises(InvalidMessageError, match="not kept as it came"):
        set_aside.replay(kept.id)

    assert set_aside.count() == 1
