"""Events on a real Valkey: each final job reaches each group of consumers at least once."""

import itertools
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from labelyard import Client
from labelyard.errors import EventGroupNotFoundError, InvalidMessageError, ServiceConfigError
from labelyard.events import Event, EventGap
from labelyard.events.options import EventOptions
from labelyard.ledger import Ledger, connect
from labelyard.ledger.erasure import erase_job
from labelyard.ledger.event_commands import EventCommands
from labelyard.ledger.limits import EVENT_RESULT_MAX_BYTES, MAX_EVENT_GROUPS
from labelyard.messages import ScoredLabel
from labelyard.settings import ClientSettings
from labelyard.testing import sample_job, sample_result
from tests.support.waiting import wait_until

NOW: EventOptions = {"timeout_s": 0.0}
OLDEST: EventOptions = {"timeout_s": 0.0, "start": "oldest"}
CONSUMER = """
import sys
from labelyard import Client
from labelyard.settings import ClientSettings
settings = ClientSettings(ledger_url=sys.argv[1], namespace="test")
for event in Client(settings).events("indexer", start="oldest", claim_after_s=60):
    print(event.id, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def settings(ledger_url: str, broker_url: str) -> ClientSettings:
    return ClientSettings(ledger_url=ledger_url, broker_url=broker_url, namespace="test")


@pytest.fixture
def client(settings: ClientSettings) -> Iterator[Client]:
    with Client(settings) as client:
        yield client


@pytest.fixture
def ledger(settings: ClientSettings) -> Iterator[Ledger]:
    with closing(connect(settings)) as client:
        yield Ledger(client, settings)


def finish(ledger: Ledger, job_id: str, **fields: Any) -> None:
    job = sample_job(job_id=job_id, **fields)
    ledger.open(job, queue="bulk")
    ledger.finish(job_id, sample_result(job=job))


def finish_many(ledger: Ledger, count: int, *, first: int = 1) -> list[str]:
    names = [f"job-{n}" for n in range(first, first + count)]
    for name in names:
        finish(ledger, name)
    return names


def ids(items: Any) -> list[str]:
    return [item.id if isinstance(item, Event) else f"gap of {item.lost}" for item in items]


def trim_to(ledger: Ledger, length: int) -> None:
    ledger.client.xtrim(ledger.keys.events, maxlen=length, approximate=False)


def trim_command(ledger: Ledger, **bounds: Any) -> Any:
    commands = EventCommands(ledger.keys, open_ttl_s=ledger.commands.open_ttl_s)
    wanted = {"max_entries": 1000, "max_age_s": 3600, "result_max_bytes": 2048, **bounds}
    return ledger.run(commands.trim(**wanted))


def test_an_event_names_the_final_job_and_holds_a_short_result(
    client: Client, ledger: Ledger
) -> None:
    finish(ledger, "the-job", tenant="shop-eu")

    [event] = client.events("indexer", **OLDEST)

    assert isinstance(event, Event)
    assert (event.kind, event.id, event.state) == ("job", "the-job", "succeeded")
    assert (event.tenant, event.images, event.deliveries) == ("shop-eu", 2, 1)
    assert event.result == client.result("the-job")
    assert event.at == pytest.approx(client.status("the-job").finished_at, abs=0.002)


def test_a_long_result_is_left_in_the_record(client: Client, ledger: Ledger) -> None:
    job = sample_job(job_id="the-job")
    result = sample_result(job=job)
    labels = tuple(ScoredLabel(name="a" * 200, score=0.5) for _ in range(20))
    images = tuple(image.model_copy(update={"labels": labels}) for image in result.images)
    ledger.open(job, queue="bulk")
    ledger.finish("the-job", result.model_copy(update={"images": images}))

    [event] = client.events("indexer", **OLDEST)

    assert isinstance(event, Event)
    assert event.result is None
    assert event.result_bytes > EVENT_RESULT_MAX_BYTES
    assert len(client.result(event.id).images[0].labels) == 20


def test_a_cancelled_job_has_an_event_without_a_result(client: Client, ledger: Ledger) -> None:
    ledger.open(sample_job(job_id="the-job"), queue="bulk")
    ledger.cancel("the-job")

    [event] = client.events("indexer", **OLDEST)

    assert isinstance(event, Event)
    assert (event.state, event.result, event.result_bytes) == ("cancelled", None, 0)


def test_every_group_gets_every_event_and_a_group_goes_on_where_it_stopped(
    client: Client, ledger: Ledger
) -> None:
    first = finish_many(ledger, 20)
    assert ids(client.events("indexer", **OLDEST)) == first

    later = finish_many(ledger, 3, first=21)

    assert ids(client.events("indexer", **NOW)) == later
    assert ids(client.events("moderation", **OLDEST)) == first + later


def test_a_new_group_begins_with_what_becomes_final_after_it(
    client: Client, ledger: Ledger
) -> None:
    finish(ledger, "before")
    assert ids(client.events("indexer", **NOW)) == []

    finish(ledger, "after")

    assert ids(client.events("indexer", **NOW)) == ["after"]


def test_a_group_that_must_exist_is_not_made(client: Client) -> None:
    with pytest.raises(EventGroupNotFoundError, match="indexer"):
        list(client.events("indexer", start="existing", timeout_s=0.0))

    client.event_groups.create("indexer")

    assert list(client.events("indexer", start="existing", timeout_s=0.0)) == []


def test_an_event_whose_handling_failed_comes_again(client: Client, ledger: Ledger) -> None:
    finish_many(ledger, 3)
    stream = client.events("indexer", **OLDEST)

    def fail_at_second() -> None:
        for event in stream:
            if isinstance(event, Event) and event.id == "job-2":
                raise OSError("the index is away")

    with pytest.raises(OSError, match="away"):
        fail_at_second()

    again = list(stream)
    assert ids(again) == ["job-2", "job-3"]
    assert [event.deliveries for event in again if isinstance(event, Event)] == [2, 2]
    assert list(client.events("indexer", **NOW)) == []


def test_an_event_at_which_the_loop_was_left_comes_again_unless_it_was_acknowledged(
    client: Client, ledger: Ledger
) -> None:
    finish_many(ledger, 2)
    for event in client.events("indexer", **OLDEST):
        assert ids([event]) == ["job-1"]
        break
    for event in client.events("indexer", **NOW):
        assert ids([event]) == ["job-1"]
        event.ack()
        break

    assert ids(client.events("indexer", **NOW)) == ["job-2"]


def test_events_that_are_acknowledged_by_hand_stay_pending_until_then(
    client: Client, ledger: Ledger
) -> None:
    finish_many(ledger, 3)
    held = list(client.events("indexer", consumer="a", ack="manual", **OLDEST))
    assert ids(client.events("indexer", consumer="b", **NOW)) == []

    held[1].ack()

    assert ids(client.events("indexer", consumer="a", ack="manual", **NOW)) == ["job-1", "job-3"]


def test_events_of_a_killed_consumer_are_given_to_another_one(
    client: Client, ledger: Ledger, ledger_url: str
) -> None:
    names = finish_many(ledger, 3)
    with subprocess.Popen(
        [sys.executable, "-c", CONSUMER, ledger_url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "job-1\n"
        process.kill()
    assert ids(client.events("indexer", **NOW)) == []

    got = list(itertools.islice(client.events("indexer", claim_after_s=0.2), 3))

    assert ids(got) == names
    assert {event.deliveries for event in got if isinstance(event, Event)} == {2}


def test_events_of_a_slow_consumer_are_not_given_to_another_one(
    client: Client, ledger: Ledger
) -> None:
    names = finish_many(ledger, 4)
    other = client.events("indexer", consumer="b", claim_after_s=1.5, timeout_s=0.6)
    slow = client.events("indexer", consumer="a", claim_after_s=1.5, **OLDEST)

    handled, stolen = [], []
    for event in slow:
        handled.append(event)
        stolen += list(other)

    assert ids(handled) == names
    assert stolen == []


def test_two_consumers_share_the_events_of_their_group(client: Client, ledger: Ledger) -> None:
    names = finish_many(ledger, 30)
    got: dict[str, list[str]] = {"a": [], "b": []}
    both_have_one = threading.Barrier(2, timeout=20)

    def consume(name: str) -> None:
        for event in client.events("indexer", consumer=name, prefetch=2, **OLDEST):
            if not got[name]:
                both_have_one.wait()
            got[name] += ids([event])

    threads = [threading.Thread(target=consume, args=[name]) for name in got]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(got["a"] + got["b"]) == sorted(names)


def test_a_filter_leaves_other_events_out_for_the_whole_group(
    client: Client, ledger: Ledger
) -> None:
    for n in range(40):
        finish(ledger, f"job-{n}", tenant="shop" if n % 20 == 19 else "flood")

    found = ids(client.events("indexer", tenants=["shop"], prefetch=1, **OLDEST))

    assert found == ["job-19", "job-39"]
    [group] = client.event_groups.list()
    assert (group.pending, group.waiting, group.where) == (0, 0, {"tenant": ("shop",)})
    assert ids(client.events("runs", kinds=["run"], **OLDEST)) == []
    with pytest.raises(InvalidMessageError, match="another filter"):
        list(client.events("indexer", **NOW))


def test_a_group_that_fell_behind_the_trimming_gets_a_gap_with_what_it_lost(
    client: Client, ledger: Ledger
) -> None:
    names = finish_many(ledger, 3)
    assert ids(client.events("indexer", **OLDEST)) == names
    finish_many(ledger, 10, first=4)
    trim_to(ledger, 2)

    gap, *rest = client.events("indexer", **NOW)

    assert isinstance(gap, EventGap)
    assert (gap.kind, gap.reason, gap.lost) == ("gap", "trimmed", 8)
    assert gap.after_id.endswith("-3")
    assert gap.before_id.endswith("-11")
    assert gap.since <= gap.until
    assert ids(rest) == ["job-12", "job-13"]
    assert ids(client.events("indexer", **NOW)) == []


def test_events_that_were_trimmed_before_they_were_acknowledged_are_in_a_gap(
    client: Client, ledger: Ledger
) -> None:
    finish_many(ledger, 5)
    held = client.events("indexer", consumer="a", ack="manual", **OLDEST)
    assert len(list(held)) == 5
    trim_to(ledger, 2)

    assert ids(held) == ["gap of 3", "job-4", "job-5"]


def test_a_gap_comes_again_until_it_is_acknowledged(client: Client, ledger: Ledger) -> None:
    finish_many(ledger, 5)
    client.event_groups.create("indexer", start="oldest")
    trim_to(ledger, 1)
    held = client.events("indexer", consumer="a", ack="manual", claim_after_s=0.2, timeout_s=0.0)
    assert ids(held) == ["gap of 4", "job-5"]
    assert ids(held) == ["gap of 4", "job-5"]
    [group] = client.event_groups.list()
    assert group.gap is not None
    assert group.gap.lost == 4

    other, got = client.events("indexer", consumer="b", claim_after_s=0.2, **NOW), []

    def has_both() -> bool:
        got.extend(ids(other))
        return len(got) == 2

    wait_until(has_both)
    assert sorted(got) == ["gap of 4", "job-5"]

    assert ids(client.events("indexer", claim_after_s=0.05, **NOW)) == []
    assert client.event_groups.list()[0].gap is None


def test_a_gap_that_grows_before_it_is_acknowledged_comes_again(
    client: Client, ledger: Ledger
) -> None:
    finish_many(ledger, 5)
    client.event_groups.create("indexer", start="oldest")
    trim_to(ledger, 1)
    [gap, _] = client.events("indexer", consumer="a", ack="manual", **NOW)
    finish_many(ledger, 3, first=6)
    trim_to(ledger, 1)

    [wider, _] = client.events("indexer", consumer="b", ack="manual", **NOW)

    assert isinstance(gap, EventGap)
    assert isinstance(wider, EventGap)
    # job-5 was never acknowledged, and is gone as well
    assert (gap.lost, wider.lost, wider.after_id) == (4, 7, gap.after_id)
    gap.ack()
    assert client.event_groups.list()[0].gap is not None
    wider.ack()
    assert client.event_groups.list()[0].gap is None


def test_a_group_from_the_oldest_event_on_has_not_lost_the_earlier_ones(
    client: Client, ledger: Ledger
) -> None:
    finish_many(ledger, 5)
    trim_to(ledger, 2)

    assert ids(client.events("indexer", **OLDEST)) == ["job-4", "job-5"]


def test_an_erased_job_is_neither_an_event_nor_lost(client: Client, ledger: Ledger) -> None:
    client.event_groups.create("indexer")
    held = client.events("moderation", consumer="a", ack="manual", **OLDEST)
    finish_many(ledger, 4)
    assert len(list(held)) == 4

    for name in ("job-1", "job-3"):
        erase_job(ledger, name)

    assert ids(client.events("indexer", **NOW)) == ["job-2", "job-4"]
    assert ids(held) == ["job-2", "job-4"]


def test_a_lost_stream_is_a_gap_with_the_number_of_events(client: Client, ledger: Ledger) -> None:
    finish_many(ledger, 2)
    assert len(list(client.events("indexer", **OLDEST))) == 2
    finish_many(ledger, 3, first=3)
    ledger.client.delete(ledger.keys.events)
    finish(ledger, "job-6")

    assert ids(client.events("indexer", **NOW)) == ["gap of 3", "job-6"]


def test_a_consumer_notices_that_the_ledger_was_emptied(client: Client, ledger: Ledger) -> None:
    finish_many(ledger, 2)
    stream = client.events("indexer", **OLDEST)
    assert len(list(stream)) == 2
    ledger.client.flushdb()
    finish(ledger, "job-3")

    gap, *rest = stream

    assert isinstance(gap, EventGap)
    assert (gap.reason, gap.lost) == ("stream_lost", None)
    assert ids(rest) == ["job-3"]


def test_a_consumer_that_was_away_notices_an_emptied_ledger_by_the_event_that_it_kept(
    client: Client, ledger: Ledger
) -> None:
    finish_many(ledger, 2)
    *_, last = client.events("indexer", **OLDEST)
    assert isinstance(last, Event)
    ledger.client.flushdb()
    finish_many(ledger, 5, first=3)

    gap, *rest = client.events("indexer", after=last.event_id, **NOW)

    assert isinstance(gap, EventGap)
    assert gap.reason == "stream_lost"
    assert len(rest) == 5


def test_a_new_group_can_begin_after_an_event_that_was_kept(client: Client, ledger: Ledger) -> None:
    finish_many(ledger, 5)
    kept = [event for event in client.events("old", **OLDEST) if isinstance(event, Event)][1]

    assert ids(client.events("new", after=kept.event_id, **NOW)) == ["job-3", "job-4", "job-5"]


def test_the_consumers_of_a_deleted_group_get_an_error(client: Client, ledger: Ledger) -> None:
    finish(ledger, "job-1")
    stream = client.events("indexer", **OLDEST)
    assert len(list(stream)) == 1

    client.event_groups.delete("indexer")

    with pytest.raises(EventGroupNotFoundError):
        list(stream)
    with pytest.raises(EventGroupNotFoundError):
        client.event_groups.delete("indexer")
    assert client.event_groups.list() == []


def test_many_groups_get_all_events_and_there_is_a_limit(client: Client, ledger: Ledger) -> None:
    for n in range(MAX_EVENT_GROUPS):
        client.event_groups.create(f"group-{n}")
    names = finish_many(ledger, 3)

    for n in (0, 50, 99):
        assert ids(client.events(f"group-{n}", **NOW)) == names
    with pytest.raises(InvalidMessageError, match="100 groups"):
        client.event_groups.create("one-too-many")
    client.event_groups.create("group-7")


def test_a_listed_group_shows_what_waits_and_what_is_pending(
    client: Client, ledger: Ledger
) -> None:
    finish_many(ledger, 5)
    client.event_groups.create("indexer", start="oldest")
    list(itertools.islice(client.events("indexer", consumer="a", prefetch=2, ack="manual"), 1))

    [group] = client.event_groups.list()

    assert (group.name, group.waiting, group.pending, group.consumers) == ("indexer", 3, 2, 1)
    assert group.created_at <= group.used_at


def test_a_worker_s_bounds_hold_for_length_age_and_results(client: Client, ledger: Ledger) -> None:
    trim_command(ledger, max_entries=100, result_max_bytes=10)
    finish_many(ledger, 220)
    recent = client.recent_events(limit=1000)
    assert 100 <= len(recent) < 200
    assert {event.result for event in recent} == {None}

    ledger.client.xadd(ledger.keys.events, {"kind": "job"}, id="9999999999999-1")
    dropped = trim_command(ledger, max_entries=0)

    assert dropped == 0
    finish(ledger, "unwritten")
    assert client.recent_events(limit=1)[0].id == ""
    with pytest.raises(ServiceConfigError, match="LABELYARD_EVENTS_MAX_ENTRIES"):
        list(client.events("indexer", **NOW))


def test_old_events_are_dropped_and_missed(client: Client, ledger: Ledger) -> None:
    client.event_groups.create("indexer", start="oldest")
    finish_many(ledger, 3)

    assert trim_command(ledger, max_age_s=-1) == 3

    assert ids(client.events("indexer", **NOW)) == ["gap of 3"]


def test_a_group_whose_record_expired_is_deleted_from_the_stream(
    client: Client, ledger: Ledger
) -> None:
    client.event_groups.create("indexer")
    finish(ledger, "job-1")
    ledger.client.delete(ledger.keys.event_group("indexer"))

    trim_command(ledger)

    assert ledger.client.xinfo_groups(ledger.keys.events) == []
    assert client.event_groups.list() == []


def test_an_event_is_written_although_what_is_known_of_the_stream_was_lost(
    client: Client, ledger: Ledger
) -> None:
    finish_many(ledger, 2)
    ledger.client.hset(ledger.keys.event_state, "last", "1-1")
    ledger.client.xadd(ledger.keys.events, {"kind": "job", "id": "later"}, id="9999999999999-7")

    finish(ledger, "job-3")

    assert [event.id for event in client.recent_events(limit=2)] == ["later", "job-3"]


@pytest.mark.parametrize(
    "options",
    [
        {"group": "a b"},
        {"consumer": "a:b"},
        {"start": "newest"},
        {"after": "yesterday"},
        {"ack": "never"},
        {"claim_after_s": 0},
        {"prefetch": 0},
        {"kinds": ["picture"]},
        {"tenants": "shop"},
        {"tenants": []},
        {"timeout_s": float("nan")},
        {"blocking": True},
    ],
    ids=str,
)
def test_options_are_checked_before_the_loop(client: Client, options: Any) -> None:
    with pytest.raises(InvalidMessageError, match=next(iter(options))):
        client.events(**{"group": "indexer", **options})


def test_a_shard_names_its_run_and_the_other_parts_of_a_run_write_no_event(
    client: Client, ledger: Ledger
) -> None:
    for name, task in (("plan", "labelyard.plan"), ("shard", "labelyard.shard")):
        job = sample_job(job_id=name)
        ledger.open(job, queue="bulk")
        fields = {"task": task, "message": '{"job_id":"a","run_id":"run-7"}'}
        ledger.client.hset(ledger.keys.job(name), mapping=fields)
        ledger.finish(name, sample_result(job=job))

    [event] = client.events("indexer", **OLDEST)

    assert isinstance(event, Event)
    assert (event.kind, event.id, event.parent) == ("shard", "shard", "run-7")
    assert event.result is None
    assert event.summary is not None
    assert event.summary["status"] == "succeeded"


def test_consumers_choose_jobs_by_their_tag_however_they_came(
    client: Client, ledger: Ledger
) -> None:
    trace = {"tag": "spring"}
    client.submit(["s3://a/b.jpg"], ["cat"], tag="spring", idempotency_key="tagged")
    client.submit(["s3://a/b.jpg"], ["cat"], trace=trace)
    ledger.adopt(sample_job(job_id="adopted", tag="spring", trace=trace), queue="bulk")
    client.cancel_all()

    found = list(client.events("indexer", tags=["spring", "autumn"], **OLDEST))

    assert [event.tag for event in found if isinstance(event, Event)] == ["spring", "spring"]
    assert {event.tag for event in client.recent_events()} == {"spring", ""}
