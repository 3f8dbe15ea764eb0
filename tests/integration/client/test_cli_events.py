"""``labelyard events`` and ``labelyard event-groups``, as a shell sees them."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from labelyard import Client, ClientSettings
from labelyard.ledger import Ledger, connect
from tests.integration.events.test_event_stream import finish, finish_many, trim_to
from tests.support.command_line import lines, run

pytestmark = pytest.mark.usefixtures("service_environment")
LABELYARD = str(Path(sys.executable).with_name("labelyard"))


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    settings = ClientSettings()
    with closing(connect(settings)) as client:
        yield Ledger(client, settings)


def test_the_newest_events_are_listed_without_a_group(ledger: Ledger) -> None:
    finish(ledger, "other", tenant="flood")
    finish_many(ledger, 3)

    listed = run("events", "--tenant", "default", "--limit", "3")
    as_json = lines(run("events", "--json", "--limit", "1"))

    assert [line.split()[2:4] for line in listed.stdout.splitlines()[1:]] == [
        ["job-1", "succeeded"],
        ["job-2", "succeeded"],
        ["job-3", "succeeded"],
    ]
    [event] = as_json
    assert (event["id"], event["state"], event["images"]) == ("job-3", "succeeded", 2)
    assert event["result"]["job_id"] == "job-3"
    assert lines(run("events", "--json", "--kind", "run")) == []


def test_what_a_group_was_shown_is_acknowledged_and_a_gap_is_a_line(ledger: Ledger) -> None:
    finish_many(ledger, 2)
    first = run("events", "--group", "indexer", "--from", "oldest")
    finish_many(ledger, 5, first=3)
    trim_to(ledger, 1)

    gap, event = lines(run("events", "--group", "indexer", "--json"))

    assert [line.split()[2] for line in first.stdout.splitlines()] == ["job-1", "job-2"]
    assert (gap["kind"], gap["reason"], gap["lost"]) == ("gap", "trimmed", 4)
    assert event["id"] == "job-7"
    assert run("events", "--group", "indexer").stdout == ""


def test_groups_are_made_listed_and_deleted(ledger: Ledger) -> None:
    assert run("event-groups", "create", "indexer", "--tenant", "shop").exit_code == 0
    run("event-groups", "create", "audit", "--from", "oldest")
    finish_many(ledger, 4)
    trim_to(ledger, 3)

    listed = run("event-groups", "list")
    as_json = lines(run("event-groups", "list", "--json"))

    assert "tenant shop" in listed.stdout
    assert [(one["group"], one["waiting"]) for one in as_json] == [("audit", 4), ("indexer", 4)]
    run("events", "--group", "audit")
    assert run("event-groups", "delete", "audit").stdout == "audit deleted\n"
    missing = run("events", "--group", "indexer")
    assert (missing.exit_code, "another filter" in missing.stderr) == (2, True)
    assert run("event-groups", "delete", "audit").exit_code == 1


def test_follow_prints_events_as_they_come_and_leaves_no_group_behind(
    ledger: Ledger, service_environment: dict[str, str]
) -> None:
    finish(ledger, "before")
    with subprocess.Popen(
        [LABELYARD, "events", "--follow", "--json"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        got = [json.loads(process.stdout.readline())["id"]]
        finish(ledger, "after")
        got.append(json.loads(process.stdout.readline())["id"])
        process.send_signal(signal.SIGINT)

    assert got == ["before", "after"]
    assert process.returncode == 130
    with Client() as client:
        assert client.event_groups.list() == []
    assert service_environment
