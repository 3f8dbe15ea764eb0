"""``labelyard webhooks``: what it lists, replays and purges, and what it refuses."""

import asyncio
import json
from collections.abc import Iterator

import pytest

from labelyard import AsyncClient, Client, ClientSettings
from labelyard.diagnosis import Situation, diagnose
from labelyard.ledger import Ledger, Pending, connect
from labelyard.ledger.deliveries import DeliveryLedger, DeliveryOutcome
from labelyard.messages import Deliver
from labelyard.testing import sample_job, sample_result
from tests.support.command_line import run

pytestmark = pytest.mark.usefixtures("service_environment")

HOOK = "https://hooks.example.com/a-secret-path"


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    """The worker's side."""
    used = ClientSettings()
    with connect(used) as connection:
        yield Ledger(connection, used)


def finish(ledger: Ledger, outcome: DeliveryOutcome, *, hook: str = HOOK) -> str:
    """Finish a job whose webhook was tried once."""
    job = sample_job(deliver=Deliver(webhook=hook))
    ledger.open(job, queue="bulk")
    pending = Pending(("webhook",), deliverer="w1")
    ledger.finish(job.job_id, sample_result(job=job), pending=pending)
    DeliveryLedger(ledger, worker="w1").settle(job.job_id, {"webhook": outcome})
    return job.job_id


def refused(ledger: Ledger, *, hook: str = HOOK) -> str:
    return finish(ledger, DeliveryOutcome("refused", "status 410: the receiver is gone"), hook=hook)


def failed(ledger: Ledger) -> str:
    return finish(ledger, DeliveryOutcome("failed", "status 503", 600.0))


def test_the_list_is_a_table_without_paths(ledger: Ledger) -> None:
    dead, waiting = refused(ledger), failed(ledger)

    result = run("webhooks", "list")

    assert result.exit_code == 0
    rows = result.stdout.splitlines()
    assert [row.split()[0] for row in rows if row.split()[0] in (dead, waiting)] == [dead, waiting]
    assert "hooks.example.com" in result.stdout
    assert "status 410: the receiver is gone" in result.stdout
    assert "a-secret-path" not in result.stdout


def test_the_list_has_a_json_object_a_line_and_says_if_there_are_more(ledger: Ledger) -> None:
    dead = {refused(ledger), refused(ledger)}

    result = run("webhooks", "list", "--state", "dead", "--limit", "1", "--json")

    (line,) = result.stdout.splitlines()
    fields = json.loads(line)
    assert fields["job_id"] in dead
    assert (fields["state"], fields["host"]) == ("dead", "hooks.example.com")
    assert fields["attempts"] == 1
    assert result.stderr == "These are the first 1; --limit shows more.\n"


def test_an_empty_list_says_so() -> None:
    assert run("webhooks", "list", "--since", "2h").stderr == "No delivery matches.\n"


def test_named_webhooks_are_replayed(ledger: Ledger) -> None:
    job_id = refused(ledger)

    result = run("webhooks", "replay", job_id)

    assert result.stdout == f"{job_id} pending\n"
    assert DeliveryLedger(ledger, worker="w2").take(9).job_ids == (job_id,)


def test_all_webhooks_of_a_host_are_replayed_and_the_rest_purged(ledger: Ledger) -> None:
    here, _ = refused(ledger), refused(ledger, hook="https://other.example.com/")

    replayed = run("webhooks", "replay", "--all", "--host", "hooks.example.com", "--since", "1h")
    purged = run("webhooks", "purge", "--all")

    assert (replayed.stdout, purged.stdout) == ("1 webhook pending\n", "1 webhook purged\n")
    assert DeliveryLedger(ledger, worker="w2").take(9).job_ids == (here,)


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (("replay",), "name the jobs, or add --all"),
        (("replay", "a", "--all"), "name the jobs, or add --all"),
        (("replay", "a", "--host", "b"), "--host goes with --all"),
        (("purge", "a", "--since", "2h"), "--since goes with --all"),
        (("list", "--since", "yesterday"), "--since yesterday"),
        (("listen", "--forward", "ftp://x"), "forward: "),
        (("listen", "--secret", "whsec_no base64"), "webhook secret: write whsec_"),
    ],
)
def test_a_command_that_means_nothing_is_refused(args: tuple[str, ...], complaint: str) -> None:
    result = run("webhooks", *args)

    assert result.exit_code == 2
    assert complaint in result.stderr
    assert "no base64" not in result.stderr


def test_submit_names_the_receiver_of_the_results() -> None:
    labels = ("--labels", "cat, dog")

    submitted = run("submit", "s3://photos/cat.jpg", *labels, "--webhook", HOOK)
    refusal = run("submit", "s3://photos/cat.jpg", *labels, "--webhook", "ftp://example.com/")

    with Client() as client:
        assert client.status(submitted.stdout.strip()).job().deliver.webhook == HOOK
    assert (refusal.exit_code, refusal.stdout) == (2, "")
    assert "webhook" in refusal.stderr


def test_submit_gives_its_jobs_a_tag() -> None:
    labels = ("--labels", "cat, dog")

    tagged = run("submit", "s3://photos/cat.jpg", *labels, "--tag", "spring/2031")
    refusal = run("submit", "s3://photos/cat.jpg", *labels, "--tag", "a b")

    with Client() as client:
        assert client.status(tagged.stdout.strip()).job().tag == "spring/2031"
    assert (refusal.exit_code, refusal.stdout) == (2, "")
    assert "tag" in refusal.stderr


def test_an_unknown_job_is_reported() -> None:
    assert run("webhooks", "replay", "nobody").exit_code == 1
    assert run("webhooks", "purge", "nobody").exit_code == 1


def test_status_and_why_show_dead_webhooks_and_the_way_on(ledger: Ledger) -> None:
    job_id = refused(ledger)

    shown = run("status", job_id, "--json")
    service = run("status")
    diagnosis = diagnose(job_id)

    assert json.loads(shown.stdout)["deliveries"]["webhook"]["is_dead"]
    assert "1 result could not be delivered: `labelyard webhooks list --state dead`" in " ".join(
        service.stdout.split()
    )
    assert "1 dead, 1 refused" in service.stdout
    assert diagnosis.situation is Situation.UNDELIVERED
    assert "webhook (refused after 1 attempt, last reason: status 410" in diagnosis.summary
    assert f"labelyard webhooks replay {job_id}" in diagnosis.advice[0]


def test_a_job_whose_webhook_failed_is_as_successful_as_before(ledger: Ledger) -> None:
    job_id = refused(ledger)

    with Client() as client:
        assert client.result(job_id).status == "succeeded"
        assert client.totals() == {"succeeded": 1}


def test_the_asynchronous_client_does_the_same(ledger: Ledger) -> None:
    first, second = refused(ledger), refused(ledger)

    async def use() -> set[str]:
        async with AsyncClient() as client:
            found = await client.webhooks.list(state="dead")
            await client.webhooks.replay(first)
            assert await client.webhooks.replay_all() == 1
            return {one.job_id for one in found.deliveries}

    assert asyncio.run(use()) == {first, second}
    assert set(DeliveryLedger(ledger, worker="w2").take(9).job_ids) == {first, second}
