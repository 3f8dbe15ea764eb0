"""Notifications become jobs in the ledger: each event one job, in order, and the sender knows it."""

import base64
import http.client
import json
import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labelyard import Client
from labelyard.errors import ServiceConfigError, UnknownLabelSetError
from labelyard.label_sets import as_label_set
from labelyard.ledger import Record
from labelyard.settings import ClientSettings
from labelyard.tenants import TenantPolicy
from labelyard_worker.local.servers import ValkeyServer
from tests.support.ingesting import LABELS, RULE, RunningIngest, record, records, running_ingest
from tests.support.waiting import wait_until

SECRET = "a-secret-of-the-sender"
TOPIC = "arn:aws:sns:us-west-2:123456789012:uploads"
GOLDEN = Path(__file__).parents[2] / "support/data/notifications"
OLDER, NEWER = "0055AED6DCD90281E5", "0055AED6DCD90281F0"
BATCH = RULE + "batch = 4\nbatch_wait_s = 5\n"


@pytest.fixture
def settings(broker_url: str, ledger_url: str) -> ClientSettings:
    return ClientSettings(broker_url=broker_url, ledger_url=ledger_url)


@pytest.fixture
def client(settings: ClientSettings) -> Iterator[Client]:
    with Client(settings) as made:
        yield made


@pytest.fixture
def ingest(tmp_path: Path, settings: ClientSettings) -> Iterator[RunningIngest]:
    with running_ingest(tmp_path, settings) as running:
        yield running


def all_jobs(client: Client) -> list[Record]:
    """Return the records of all jobs, the newest first."""
    return [client.status(summary.job_id) for summary in client.list_jobs(limit=1000).jobs]


def images_of(job: Record) -> list[str]:
    return [image["uri"] for image in json.loads(job.message)["images"]]


def test_an_event_becomes_a_job_before_its_sender_gets_200(
    ingest: RunningIngest, client: Client
) -> None:
    answer = ingest.send(records(record("in/red+flower%2B1%C3%A9.jpg")))

    [job] = all_jobs(client)
    assert (answer.status, answer.content) == (200, {"events": 1, "ignored": 0, "job": 1})
    assert images_of(job) == ["s3://photos/in/red flower+1é.jpg"]
    assert (job.state, job.queue) == ("pending", "interactive")
    assert client.queue_lengths()["interactive"] == 1


def test_an_event_that_is_sent_again_makes_no_second_job(
    ingest: RunningIngest, client: Client
) -> None:
    answers = [ingest.send(records(record())).content for _ in range(3)]

    assert [answer.get("duplicate", 0) for answer in answers] == [0, 1, 1]
    assert len(all_jobs(client)) == 1


def test_an_event_that_comes_on_many_connections_at_once_makes_one_job(
    ingest: RunningIngest, client: Client
) -> None:
    answers: list[int] = []
    senders = [
        threading.Thread(target=lambda: answers.append(ingest.send(records(record())).status))
        for _ in range(16)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()

    assert answers == [200] * 16
    assert len(all_jobs(client)) == 1


def test_two_services_that_get_the_same_events_make_one_job_of_each(
    tmp_path: Path, settings: ClientSettings, client: Client, ingest: RunningIngest
) -> None:
    body = records(*(record(f"{number}.jpg") for number in range(50)))
    (tmp_path / "other").mkdir()
    answers: list[int] = []
    with running_ingest(tmp_path / "other", settings) as other:
        senders = [
            threading.Thread(target=lambda one=one: answers.append(one.send(body).status))
            for one in (ingest, other) * 4
        ]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()

    assert answers == [200] * 8
    assert sorted(uri for job in all_jobs(client) for uri in images_of(job)) == sorted(
        f"s3://photos/{number}.jpg" for number in range(50)
    )


def test_an_older_event_makes_no_job_after_a_newer_one(
    ingest: RunningIngest, client: Client
) -> None:
    ingest.send(records(record(sequencer=NEWER)))

    answer = ingest.send(records(record(sequencer=OLDER)))

    assert answer.content["stale"] == 1
    assert len(all_jobs(client)) == 1


def test_a_newer_event_cancels_the_job_of_an_older_one(
    ingest: RunningIngest, client: Client
) -> None:
    ingest.send(records(record(sequencer=OLDER), record(sequencer=NEWER), record("b.jpg")))

    wait_until(
        lambda: sorted(job.state for job in all_jobs(client)) == ["cancelled", "pending", "pending"]
    )
    [cancelled] = [job for job in all_jobs(client) if job.state == "cancelled"]
    assert images_of(cancelled) == ["s3://photos/a.jpg"]


def test_each_version_gets_a_job_if_the_rule_wants_it(
    tmp_path: Path, settings: ClientSettings, client: Client
) -> None:
    newer = record(sequencer=NEWER, versionId="v2")
    older = record(sequencer=OLDER, versionId="v1")
    with running_ingest(tmp_path, settings, RULE + "every_version = true\n") as ingest:
        for event in (newer, older, newer, older):
            ingest.send(records(event))

    jobs = [json.loads(job.message)["images"][0]["version_id"] for job in all_jobs(client)]
    assert sorted(jobs) == ["v1", "v2"]
    assert {job.state for job in all_jobs(client)} == {"pending"}


def test_events_without_a_sequencer_are_ordered_by_their_time(
    ingest: RunningIngest, client: Client
) -> None:
    late, early = record(sequencer=None, eTag="b"), record(sequencer=None, eTag="a")
    early["eventTime"] = "2025-12-31T23:59:59.000Z"

    answers = [ingest.send(records(event)).content for event in (late, early, late)]

    assert [("job" in one, "stale" in one, "duplicate" in one) for one in answers] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]


def test_an_event_from_before_a_removal_makes_no_job(ingest: RunningIngest, client: Client) -> None:
    removed = record(sequencer=NEWER, kind="ObjectRemoved:Delete")

    answers = [ingest.send(records(one)) for one in (removed, record(sequencer=OLDER))]

    assert [one.content for one in answers] == [
        {"events": 1, "ignored": 0, "removed": 1},
        {"events": 1, "ignored": 0, "stale": 1},
    ]
    assert all_jobs(client) == []


def test_events_that_no_rule_takes_are_counted_and_answered_200(
    ingest: RunningIngest, client: Client
) -> None:
    answer = ingest.send(records(record(bucket="other"), record(kind="ObjectTagging:Put")))

    text = ingest.send(method="GET", path="/metrics").body.decode()
    assert (answer.status, answer.content) == (200, {"events": 2, "ignored": 0})
    assert 'labelyard_ingest_events_total{rule="",outcome="unmatched"} 2' in text
    assert all_jobs(client) == []


def test_all_rules_that_take_an_event_make_a_job_of_it(
    tmp_path: Path, settings: ClientSettings, client: Client
) -> None:
    second = RULE.replace("uploads", "second") + 'queue = "bulk"\n'
    with running_ingest(tmp_path, settings, f'match = "all"\n{RULE}{second}') as ingest:
        answer = ingest.send(records(record()))

    assert answer.content["job"] == 2
    assert sorted(job.queue for job in all_jobs(client)) == ["bulk", "interactive"]


def test_events_of_many_requests_become_one_job_if_the_rule_batches(
    tmp_path: Path, settings: ClientSettings, client: Client
) -> None:
    answers: list[int] = []
    with running_ingest(tmp_path, settings, BATCH) as ingest:
        senders = [
            threading.Thread(
                target=lambda n=n: answers.append(ingest.send(records(record(f"{n}.jpg"))).status)
            )
            for n in range(4)
        ]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()

    [job] = all_jobs(client)
    assert answers == [200] * 4
    assert sorted(images_of(job)) == [f"s3://photos/{n}.jpg" for n in range(4)]


def test_a_batch_that_does_not_fill_up_becomes_a_job_when_it_is_due(
    tmp_path: Path, settings: ClientSettings, client: Client
) -> None:
    with running_ingest(tmp_path, settings, RULE + "batch = 64\nbatch_wait_s = 0.05\n") as ingest:
        ingest.send(records(record("0.jpg"), record("1.jpg"), record("0.jpg")))

    assert [len(images_of(job)) for job in all_jobs(client)] == [2]


def test_sigterm_answers_the_requests_that_wait_for_a_batch(
    tmp_path: Path, settings: ClientSettings, client: Client
) -> None:
    answers: list[int] = []
    with running_ingest(tmp_path, settings, BATCH) as ingest:
        sender = threading.Thread(
            target=lambda: answers.append(ingest.send(records(record())).status)
        )
        sender.start()
        wait_until(lambda: ingest.service.counters.waiting == 1)
        ingest.stop()
        sender.join()

    assert answers == [200]
    assert len(all_jobs(client)) == 1


def test_a_restart_remembers_the_events_of_before(
    tmp_path: Path, settings: ClientSettings, client: Client
) -> None:
    for _ in range(2):
        with running_ingest(tmp_path, settings) as ingest:
            answer = ingest.send(records(record()))

    assert answer.content["duplicate"] == 1
    assert len(all_jobs(client)) == 1


def test_a_service_that_died_before_its_answer_leaves_one_job(
    tmp_path: Path, settings: ClientSettings, client: Client, ledger_redis: Any
) -> None:
    """The claim is held and not settled, as after a SIGKILL between record and answer."""
    with running_ingest(tmp_path, settings) as ingest:
        ingest.send(records(record()))
        [mark] = ledger_redis.keys("labelyard:object_event:uploads:*")
        ledger_redis.hset(mark, "held_until", "9999999999")

        answer = ingest.send(records(record()))

    assert answer.content["duplicate"] == 1
    assert len(all_jobs(client)) == 1


def test_a_service_that_died_before_its_job_loses_no_event(
    tmp_path: Path, settings: ClientSettings, client: Client, ledger_redis: Any
) -> None:
    """The claim is held for a job without a record; its lease ends."""
    limits = "[limits]\nhold_s = 0\n"
    with running_ingest(tmp_path, settings, limits + RULE) as ingest:
        ingest.send(records(record()))
        [job] = all_jobs(client)
        [mark] = ledger_redis.keys("labelyard:object_event:uploads:*")
        ledger_redis.hset(mark, mapping={"job": "never-opened", "held_until": "9999999999"})

        held = ingest.send(records(record()))
        ledger_redis.hset(mark, "held_until", "1")
        again = ingest.send(records(record()))

    assert (held.status, held.headers["Retry-After"]) == (503, "2")
    assert again.content["job"] == 1
    assert {one.job_id for one in all_jobs(client)} > {job.job_id}


@pytest.mark.allow_persistent_keys(reason="a tenant's policy")
def test_a_quota_that_is_used_up_is_429_with_its_time(
    tmp_path: Path, settings: ClientSettings, client: Client
) -> None:
    client.tenants.set("shop", **TenantPolicy(max_open_images=1).model_dump())
    rules = "[limits]\nhold_s = 0.2\n" + RULE + 'tenant = "shop"\n'
    with running_ingest(tmp_path, settings, rules) as ingest:
        first = ingest.send(records(record("1.jpg")))
        second = ingest.send(records(record("2.jpg")))
        [job] = all_jobs(client)
        client.cancel(job.job_id)
        again = ingest.send(records(record("2.jpg")))

    assert [one.status for one in (first, second, again)] == [200, 429, 200]
    assert second.content == {"error": "tenant_quota_exceeded"}
    assert int(second.headers["Retry-After"]) >= 1
    client.tenants.reset("shop")


def test_a_request_is_held_while_the_queue_is_full(
    tmp_path: Path, broker_url: str, ledger_url: str, client: Client
) -> None:
    settings = ClientSettings(broker_url=broker_url, ledger_url=ledger_url, max_queued_images=1)
    answers: list[int] = []
    with running_ingest(tmp_path, settings) as ingest:
        ingest.send(records(record("1.jpg")))
        sender = threading.Thread(
            target=lambda: answers.append(ingest.send(records(record("2.jpg"))).status)
        )
        sender.start()
        wait_until(lambda: ingest.service.counters.waiting == 1)
        [job] = all_jobs(client)
        client.cancel(job.job_id)
        sender.join()

    assert answers == [200]


def test_a_full_queue_is_429_after_the_hold(
    tmp_path: Path, broker_url: str, ledger_url: str
) -> None:
    settings = ClientSettings(broker_url=broker_url, ledger_url=ledger_url, max_queued_images=1)
    with running_ingest(tmp_path, settings, "[limits]\nhold_s = 0.1\n" + RULE) as ingest:
        answer = ingest.send(records(record("1.jpg"), record("2.jpg")))
        again = ingest.send(records(record("1.jpg")))

    assert (answer.status, answer.content) == (429, {"error": "queue_full"})
    assert int(answer.headers["Retry-After"]) >= 1
    assert again.status in {200, 429}


def test_a_ledger_that_is_away_is_503_and_the_event_is_taken_when_it_is_back(
    tmp_path: Path, own_valkey: ValkeyServer
) -> None:
    settings = ClientSettings(broker_url=own_valkey.url_of(0), ledger_url=own_valkey.url_of(1))
    with running_ingest(tmp_path, settings, "[limits]\nhold_s = 0.1\n" + RULE) as ingest:
        own_valkey.stop()
        away = ingest.send(records(record()))
        ready = ingest.send(method="GET", path="/ready")
        live = ingest.send(method="GET", path="/live")
        own_valkey.start()
        back = ingest.send(records(record()))

    assert (away.status, away.content) == (503, {"error": "ledger_unavailable"})
    assert int(away.headers["Retry-After"]) >= 1
    assert [one.status for one in (ready, live, back)] == [503, 200, 200]


def test_a_stop_does_not_wait_for_a_ledger_that_hangs(
    tmp_path: Path, own_valkey: ValkeyServer
) -> None:
    settings = ClientSettings(broker_url=own_valkey.url_of(0), ledger_url=own_valkey.url_of(1))
    failed: list[Exception] = []

    def send() -> None:
        try:
            ingest.send(records(record()))
        except (OSError, http.client.HTTPException) as error:
            failed.append(error)

    with running_ingest(tmp_path, settings, "[limits]\ndrain_s = 0.1\n" + RULE) as ingest:
        sender = threading.Thread(target=send)
        assert own_valkey._pid is not None
        os.kill(own_valkey._pid, signal.SIGSTOP)
        try:
            sender.start()
            wait_until(lambda: ingest.service.counters.waiting == 1)
            ingest.stop()
            wait_until(ingest.loop.is_closed, within_s=8.0)  # a call to the ledger may take 10 s
        finally:
            os.kill(own_valkey._pid, signal.SIGCONT)
            sender.join()

    assert len(failed) == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"no json", b"[]", b'{"Records": [{}]}', b'{"Records": ' + b"[" * 50_000, b"\xff\xfe"],
)
def test_a_malformed_body_is_400_and_harms_nothing(
    ingest: RunningIngest, client: Client, body: bytes
) -> None:
    answer = ingest.send(body)

    assert answer.status == 400
    assert "notification" in answer.content["error"]
    assert ingest.send(records(record())).status == 200
    assert len(all_jobs(client)) == 1


def test_a_queue_that_ended_fails_the_probe(ingest: RunningIngest) -> None:
    """A queue's task cannot end by itself; if it did, its senders would wait in vain."""
    before = ingest.send(method="GET", path="/live")
    [task] = ingest.service._rules._tasks
    ingest.loop.call_soon_threadsafe(task.cancel)
    wait_until(task.done)

    after = ingest.send(method="GET", path="/live")

    assert [one.status for one in (before, after)] == [200, 500]


def test_too_many_requests_at_once_are_503(tmp_path: Path, settings: ClientSettings) -> None:
    answers: list[int] = []
    limits = "[limits]\nmax_requests = 1\n"
    with running_ingest(tmp_path, settings, limits + BATCH) as ingest:
        sender = threading.Thread(
            target=lambda: answers.append(ingest.send(records(record())).status)
        )
        sender.start()
        wait_until(lambda: ingest.service.counters.waiting == 1)
        answer = ingest.send(records(record("b.jpg")))
        ingest.stop()
        sender.join()

    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert answers == [200]


def test_a_reload_loses_no_event_that_waits_for_a_batch(
    tmp_path: Path, settings: ClientSettings, client: Client
) -> None:
    answers: list[int] = []
    with running_ingest(tmp_path, settings, RULE + "batch = 4\nbatch_wait_s = 0.2\n") as ingest:
        sender = threading.Thread(
            target=lambda: answers.append(ingest.send(records(record())).status)
        )
        sender.start()
        wait_until(lambda: ingest.service.counters.waiting == 1)
        (tmp_path / "rules.toml").write_text(RULE.replace("photos", "other"))
        ingest.reload()
        sender.join()

    assert answers == [200]
    assert len(all_jobs(client)) == 1


def test_one_malformed_record_refuses_the_body_before_any_job(
    ingest: RunningIngest, client: Client
) -> None:
    answer = ingest.send(records(record(), record(key="%FF")))

    assert answer.status == 400
    assert all_jobs(client) == []


def test_an_event_whose_job_the_contract_refuses_is_counted_and_answered_200(
    tmp_path: Path, settings: ClientSettings, client: Client
) -> None:
    rules = RULE + f'deliver = {{ object_uri = "s3://results/{"x" * 500}/{{key}}.json" }}\n'
    with running_ingest(tmp_path, settings, rules) as ingest:
        answer = ingest.send(records(record("a" * 1000), record("b")))

    assert answer.content == {"events": 2, "ignored": 0, "unusable": 1, "job": 1}
    assert len(all_jobs(client)) == 1


def test_no_address_of_a_picture_is_logged(
    ingest: RunningIngest, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="labelyard"):
        ingest.send(
            records(record("private-name.jpg"), record("private-name.jpg", sequencer=NEWER))
        )
        ingest.send(b'{"Records": "private-name.jpg"}')
        ingest.send(records(record("private-name.jpg%FF")))

    written = [f"{one.getMessage()} {getattr(one, 'fields', '')}" for one in caplog.records]
    assert any("ingest_notification_refused" in line for line in written)
    assert not any("private-name" in line for line in written)


def test_rules_are_read_again_and_a_fault_leaves_them_as_they_are(
    tmp_path: Path, ingest: RunningIngest, client: Client
) -> None:
    path = tmp_path / "rules.toml"
    path.write_text("[[rules]]\nname = 3\n")
    ingest.reload()
    before = ingest.send(records(record("1.jpg")))
    path.write_text(RULE.replace("photos", "pictures"))
    ingest.reload()
    after = [ingest.send(records(record("2.jpg", bucket=one))) for one in ("photos", "pictures")]

    assert before.content["job"] == 1
    assert ["job" in one.content for one in after] == [False, True]
    text = ingest.service.counters.text()
    assert 'reloads_total{outcome="refused"} 1' in text
    assert 'reloads_total{outcome="done"} 1' in text


@pytest.mark.allow_persistent_keys(reason="a registered label set")
def test_a_rule_with_an_alias_follows_its_moves_without_a_reload(
    tmp_path: Path, settings: ClientSettings, client: Client
) -> None:
    rules = RULE.replace(LABELS, 'label_set = "pets@prod"\n')
    with pytest.raises(UnknownLabelSetError), running_ingest(tmp_path, settings, rules):
        pass
    old = client.label_sets.register("pets", as_label_set(["a cat", "a dog"]))
    new = client.label_sets.register("pets", as_label_set(["a cat", "a cow"]))
    client.label_sets.promote(old, "pets@prod")
    with running_ingest(tmp_path, settings, rules) as ingest:
        ingest.send(records(record("1.jpg")))
        client.label_sets.promote(new, "pets@prod")
        ingest.send(records(record("2.jpg")))

    named = {one.job().images[0].uri[-5:]: one.job().label_set for one in all_jobs(client)}
    assert named == {"1.jpg": old, "2.jpg": new}


@pytest.mark.allow_persistent_keys(reason="a registered label set")
def test_a_rule_may_name_a_registered_label_set(
    tmp_path: Path, settings: ClientSettings, client: Client
) -> None:
    rules = RULE.replace(LABELS, 'label_set = "pets"\n')
    with pytest.raises(UnknownLabelSetError), running_ingest(tmp_path, settings, rules):
        pass
    reference = client.label_sets.register("pets", as_label_set(["a cat", "a dog"]))
    with running_ingest(tmp_path, settings, rules) as ingest:
        ingest.send(records(record()))

    [job] = all_jobs(client)
    assert json.loads(job.message)["label_set"] == reference
    client.label_sets.delete(reference)


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"user:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/ingest", {}, 401),
        ("/ingest/", {}, 401),
        ("/ingest/wrong-secret-of-a-sender", {}, 401),
        ("/ingest", {"Authorization": "Bearer wrong"}, 401),
        ("/ingest", {"Authorization": basic("wrong")}, 401),
        ("/ingest", {"Authorization": "Basic !"}, 401),
        (f"/ingest/{SECRET}", {}, 200),
        ("/ingest", {"Authorization": f"Bearer {SECRET}"}, 200),
        ("/ingest", {"Authorization": SECRET}, 200),
        ("/ingest", {"Authorization": basic(SECRET)}, 200),
        ("/ingest", {"Authorization": "Bearer the-next-secret-of-it"}, 200),
        (f"/elsewhere/{SECRET}", {}, 404),
    ],
)
def test_only_a_sender_with_a_secret_is_heard(
    tmp_path: Path,
    broker_url: str,
    ledger_url: str,
    path: str,
    headers: dict[str, str],
    status: int,
) -> None:
    settings = ClientSettings(
        broker_url=broker_url,
        ledger_url=ledger_url,
        ingest_secret=(SECRET, "the-next-secret-of-it"),
    )
    with running_ingest(tmp_path, settings) as ingest:
        answer = ingest.send(records(record()), path=path, headers=headers)

    assert answer.status == status


def test_a_secret_is_needed_where_strangers_can_send(tmp_path: Path) -> None:
    from labelyard.ingest.service import check_secrets

    check_secrets((), host="127.0.0.1")
    check_secrets((SECRET,), host="0.0.0.0")
    with pytest.raises(ServiceConfigError, match="LABELYARD_INGEST_SECRET"):
        check_secrets((), host="0.0.0.0")
    with pytest.raises(ServiceConfigError, match="at least 16"):
        check_secrets(("short",), host="127.0.0.1")


def test_a_subscription_is_confirmed_for_a_listed_topic_alone(
    tmp_path: Path, settings: ClientSettings, client: Client
) -> None:
    body = (GOLDEN / "sns_confirmation.json").read_bytes()
    listed = f'sns_topics = ["{TOPIC}"]\n{RULE.replace("photos", "amzn-s3-demo-bucket")}'
    confirmed: list[str] = []
    with running_ingest(tmp_path, settings, RULE, confirm=confirmed.append) as ingest:
        refused = ingest.send(body)
        (tmp_path / "rules.toml").write_text(listed)
        ingest.reload()
        accepted = ingest.send(body)
        elsewhere = ingest.send(body.replace(b"https://sns.us-west-2", b"https://evil.example"))
        notified = ingest.send((GOLDEN / "sns_notification.json").read_bytes())

    assert [one.status for one in (refused, accepted, elsewhere, notified)] == [403, 200, 400, 200]
    assert confirmed == [json.loads(body)["SubscribeURL"]]
    assert [images_of(job) for job in all_jobs(client)] == [
        ["s3://amzn-s3-demo-bucket/photos/red flower+1é.jpg"]
    ]
