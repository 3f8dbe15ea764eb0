"""Aliases in place of labels: each job names the version that the alias named at its submit."""

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from labelyard import AsyncClient, Client, ClientSettings
from labelyard.drift.baselines import baseline_json
from labelyard.drift.counts import AnswerCounts
from labelyard.drift.report import WINDOW_S
from labelyard.errors import InvalidMessageError, UnknownLabelSetError
from labelyard.label_sets import as_label_set
from labelyard.ledger.answer_commands import add_counts
from labelyard.messages import Job
from labelyard.testing import AsyncFakeClient, FakeClient
from tests.integration.client.test_cli import run

PHOTO = "s3://photos/cat.jpg"
PETS, FARM = as_label_set(["cat", "dog"]), as_label_set(["cat", "cow"])
pytestmark = pytest.mark.allow_persistent_keys("versions and aliases stay until they are deleted")


@pytest.fixture
def client_settings(broker_url: str, ledger_url: str) -> ClientSettings:
    return ClientSettings(broker_url=broker_url, ledger_url=ledger_url)


@pytest.fixture(params=["real", "fake"])
def client(request: pytest.FixtureRequest, client_settings: ClientSettings) -> Iterator[Client]:
    if request.param == "fake":
        yield FakeClient()
        return
    with Client(client_settings) as client:
        yield client


def two_versions(client: Client) -> tuple[str, str]:
    old = client.label_sets.register("pets", PETS)
    client.label_sets.promote(old, "pets@prod")
    return old, client.label_sets.register("pets", FARM, parent=old)


def job_of(client: Client, job_id: str) -> Job:
    return client.status(job_id).job()


def test_a_job_names_the_version_that_its_alias_named_at_the_submit(client: Client) -> None:
    old, new = two_versions(client)

    before = client.submit([PHOTO], "pets@prod")
    client.label_sets.promote(new, "pets@prod")
    after = client.submit([PHOTO], "pets@prod")

    jobs = [job_of(client, handle.id) for handle in (before, after)]
    assert [job.label_set for job in jobs] == [old, new]
    assert [job.alias for job in jobs] == ["pets@prod", "pets@prod"]
    assert [job.canary for job in jobs] == [None, None]


def test_a_share_of_the_jobs_names_the_canary_too(client: Client) -> None:
    old, new = two_versions(client)
    alias = client.label_sets.promote(new, "pets@prod", share=0.5)

    jobs = [client.prepare([PHOTO], alias) for _ in range(60)]

    assert {job.label_set for job in jobs} == {old}
    assert [job.canary for job in jobs] == [alias.canary_of(job.job_id) for job in jobs]
    assert {job.canary for job in jobs} == {None, new}


def test_a_second_submit_under_a_key_is_the_first_job_though_the_alias_moved(
    client: Client,
) -> None:
    _, new = two_versions(client)

    first = client.submit([PHOTO], "pets@prod", idempotency_key="order 7")
    client.label_sets.promote(new, "pets@prod")
    second = client.submit([PHOTO], "pets@prod", idempotency_key="order 7")

    assert (second.id, second.is_new) == (first.id, False)


def test_an_unknown_alias_is_an_unknown_label_set(client: Client) -> None:
    with pytest.raises(UnknownLabelSetError, match="pets@prod: there is no such alias"):
        client.submit([PHOTO], "pets@prod")


def test_each_of_many_submits_names_a_version_that_was_promoted_and_later_ones_the_last(
    client_settings: ClientSettings,
) -> None:
    with Client(client_settings) as client:
        old, new = two_versions(client)

        def submit(_: int) -> str:
            return client.submit([PHOTO], "pets@prod").id

        with ThreadPoolExecutor(3) as pool:
            waiting = [pool.submit(submit, number) for number in range(60)]
            client.label_sets.promote(new, "pets@prod", expect=old)
            later = submit(0)
            ids = [one.result() for one in waiting]

        assert {str(job_of(client, job_id).label_set) for job_id in ids} <= {old, new}
        assert job_of(client, later).label_set == new


def test_a_run_names_the_version_that_its_alias_names(client: Client) -> None:
    old, _ = two_versions(client)

    run_id = client.runs.start("s3://photos/a/", "pets@prod", out="s3://results/a/").id

    assert client.runs.get(run_id).request.label_set == old


@pytest.mark.parametrize("kind", ["real", "fake"])
def test_the_asynchronous_client_reads_an_alias_at_the_submit(
    kind: str, client_settings: ClientSettings
) -> None:
    async def submit() -> tuple[str, list[Any]]:
        client = AsyncFakeClient() if kind == "fake" else AsyncClient(client_settings)
        async with client:
            old = await client.label_sets.register("pets", PETS)
            alias = await client.label_sets.promote(old, "pets@prod")
            with pytest.raises(InvalidMessageError, match="is an alias: read it with"):
                client.prepare([PHOTO], "pets@prod")
            handles = [await client.submit([PHOTO], labels) for labels in ("pets@prod", alias)]
            return old, [(await client.status(one.id)).job() for one in handles]

    old, jobs = asyncio.run(submit())

    assert [(job.label_set, job.alias) for job in jobs] == [(old, "pets@prod")] * 2


@pytest.mark.usefixtures("service_environment")
def test_versions_are_registered_promoted_logged_and_compared_by_commands(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_text("cat\ndog\n")
    (tmp_path / "new.txt").write_text("cat\ncow\n")
    (tmp_path / "report.json").write_text(json.dumps({"n": 9, "accuracy": 0.75, "ece": 0.1}))

    old = lines("label-sets", "register", "pets", tmp_path / "old.txt")[0]["reference"]
    lines("label-sets", "promote", "pets", "prod", "--expect", "none", "--note", "first")
    more = ("--parent", "pets@prod", "--note", "cows, no dogs", "--author", "ann")
    new = lines("label-sets", "register", "pets", tmp_path / "new.txt", *more)[0]["reference"]
    lines("label-sets", "attach", "pets", tmp_path / "report.json")
    refused = run("label-sets", "delete", old)
    [diff] = lines("label-sets", "diff", "pets@prod", "pets")
    text = run("label-sets", "diff", "pets@prod", "pets").stdout
    canary = lines("label-sets", "promote", "pets", "pets@prod", "--share", 0.05)[0]
    moved = lines("label-sets", "promote", new, "prod", "--expect", "pets@prod")[0]
    stale = run("label-sets", "promote", new, "prod", "--expect", old)
    log = lines("label-sets", "log", "pets")

    assert (canary["reference"], canary["canary"], canary["share"]) == (old, new, 0.05)
    assert (moved["reference"], moved["canary"]) == (new, None)
    assert (refused.exit_code, stale.exit_code) == (1, 1)
    assert stale.stderr.startswith("alias_conflict: pets@prod is not what was expected")
    assert (diff["added"], diff["removed"]) == (["cow"], ["dog"])
    assert text == "+ cow\n- dog\n"
    assert [one["reference"] for one in log] == [new, old]
    assert (log[0]["parent"], log[0]["note"], log[0]["author"]) == (old, "cows, no dogs", "ann")
    assert (log[0]["metrics"]["accuracy"], log[0]["aliases"]) == (0.75, ["pets@prod"])
    assert "0.750" in run("label-sets", "log", "pets").stdout
    assert lines("label-sets", "moves", "pets@prod")[0]["action"] == "move"
    assert lines("label-sets", "aliases")[0]["reference"] == new
    assert new in run("label-sets", "aliases").stdout
    assert "canary 0.05" in run("label-sets", "moves", "pets@prod").stdout
    assert run("label-sets", "show", "pets@prod").stdout.count("cow") == 1


@pytest.mark.usefixtures("service_environment")
def test_an_alias_stands_in_for_labels_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "pets.txt").write_text("cat\ndog\n")
    reference = run("label-sets", "register", "pets", tmp_path / "pets.txt").stdout.strip()
    run("label-sets", "promote", "pets", "prod")

    [job_id] = run("submit", PHOTO, "--labels", "pets@prod").stdout.split()
    run("label-sets", "remove-alias", "pets@prod")
    refused = run("submit", PHOTO, "--labels", "pets@prod")

    with Client() as client:
        assert client.status(job_id).job().label_set == reference
    assert refused.exit_code == 2
    assert refused.stderr == "unknown_label_set: pets@prod: there is no such alias\n"


@pytest.mark.usefixtures("service_environment")
def test_drift_and_canary_are_printed_and_an_alarm_ends_with_1() -> None:
    cats, dogs = (AnswerCounts(n=200, answers={label: 200}) for label in ("cat", "dog"))
    with Client() as client:
        old, new = two_versions(client)
        client.label_sets.promote(new, "pets@prod", share=0.5)
        keys, hour = client._ledger.keys, int(client._ledger.now() // WINDOW_S)
        comparison = {"jobs": 1, "images": 4, "same": 3, "flip:dog\tcow": 1, "failure:a_code": 2}
        for key, counts in (
            (keys.answers(old.partition("@")[2], hour - 1), dogs.fields()),
            (keys.canary("pets@prod", old, new), comparison),
        ):
            client._ledger.run(add_counts(key, counts, worker="w1", number=1))
        nothing = run("drift", "pets@prod")
        baseline = {"baseline": baseline_json(cats, at=(hour - 1) * WINDOW_S)}
        client._ledger.client.hset(keys.label_set_version(old), mapping=baseline)

    drifted, described = run("drift", "pets@prod"), run("drift", "pets@prod", "--json")
    accepted = run("drift", "pets@prod", "--set-baseline")
    canary = run("label-sets", "canary", "pets@prod")
    [ended] = lines("label-sets", "canary", "pets@prod", "--end")

    assert (nothing.exit_code, "no baseline" in nothing.stdout) == (0, True)
    assert drifted.exit_code == described.exit_code == 1
    assert drifted.stdout.splitlines()[-3].split() == ["cat", "1.000", "0.000"]
    assert json.loads(described.stdout)["windows"][0]["answers"]["distance"] == 1.0
    assert (accepted.exit_code, accepted.stderr) == (0, "")
    assert "75.00% have the same answer" in canary.stdout
    assert canary.stdout.splitlines()[-1].split() == ["dog", "cow", "1"]
    assert (ended["canary"], ended["failures"]) == (new, {"a_code": 2})
    assert [one["canary"] for one in lines("label-sets", "aliases")] == [None]


def lines(*args: object) -> list[dict[str, Any]]:
    """Run a command with ``--json``, and read its lines."""
    result = run(*args, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    return [json.loads(line) for line in result.stdout.splitlines()]
