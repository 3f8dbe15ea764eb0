"""Each script's head, the command that calls it and the keys that it names agree."""

import re
from collections.abc import Callable
from typing import get_args

import pytest
from docs.key_page import entries

from labelyard.ledger import Pending, Receipt, limits
from labelyard.ledger.answer_commands import add_counts
from labelyard.ledger.commands import Command, Commands, RetrySchedule
from labelyard.ledger.event_commands import EventCommands
from labelyard.ledger.keys import LedgerKeys
from labelyard.ledger.label_set_commands import LabelSetCommands
from labelyard.ledger.object_event_commands import ObjectEventClaim, ObjectEventCommands
from labelyard.ledger.run_commands import RunCommands
from labelyard.ledger.scripts import SCRIPTS, ScriptName, script_text, source_of
from labelyard.queues import Queue
from labelyard.settings import ClientSettings
from labelyard.testing import sample_job

JOB = sample_job(job_id="the-job")
EVENTS = EventCommands(LedgerKeys("test"), open_ttl_s=60)
OBJECT_EVENTS = ObjectEventCommands(LedgerKeys("test"))
LABEL_SETS = LabelSetCommands(LedgerKeys("test"))
CLAIM = ObjectEventClaim(("uploads", "0" * 64), "e", "sequencer", "1", "1", job_id="the-job")
CALLS: dict[ScriptName, Callable[[Commands], Command]] = {
    "open": lambda commands: commands.open(JOB, queue=Queue.BULK, is_limited=True),
    "start": lambda commands: commands.start(
        "the-job",
        worker="w1",
        isolation="none",
        quarantine_after=2,
        dead_after=2,
        receipt=Receipt(),
    ),
    "release": lambda commands: commands.release("the-job", worker="w1", delay_s=1.5),
    "finish": lambda commands: commands.finish(
        "the-job", state="failed", result="{}", pending=Pending(("webhook",))
    ),
    "replay": lambda commands: commands.replay("the-job"),
    "purge": lambda commands: commands.purge("the-job"),
    "forget": lambda commands: commands.forget("the-job"),
    "sent": lambda commands: commands.sent("the-job", due=None),
    "crowd": lambda commands: commands.crowd("the-job", worker="w1"),
    "take_deliveries": lambda commands: commands.take_deliveries(worker="w1", lease_s=1, limit=1),
    "hold_deliveries": lambda commands: commands.hold_deliveries("the-job", worker="w1", lease_s=1),
    "settle_deliveries": lambda commands: commands.settle_deliveries(
        "the-job", worker="w1", outcomes={}, jitter=0.5, schedule=RetrySchedule()
    ),
    "replay_deliveries": lambda commands: commands.replay_deliveries(
        "the-job", kind="webhook", states=("dead",)
    ),
    "purge_deliveries": lambda commands: commands.purge_deliveries("the-job"),
    "lead": lambda commands: commands.lead(worker="w1", ttl_s=1),
    "take_due": lambda commands: commands.take_due(lease_s=1, limit=1),
    "list_overdue": lambda commands: commands.list_overdue(limit=1),
    "take_passed": lambda commands: commands.take_passed(
        {Queue.BULK: 1.5}, only="", earliest="-inf", latest=1.5, offset=0, limit=1
    ),
    "add_set_aside": lambda commands: commands.add_set_aside(
        "entry", "{}", max_entries=1, max_total_bytes=1
    ),
    "drop_lost": lambda commands: commands.drop_lost(Queue.BULK, offset=0, limit=1),
    "add_missed": lambda commands: commands.add_missed(offset=0, limit=1),
    "claim_object_event": lambda _: OBJECT_EVENTS.claim(CLAIM, lease_s=1, window_s=1),
    "settle_object_event": lambda _: OBJECT_EVENTS.settle(CLAIM, is_kept=True),
    "register_label_set": lambda _: LABEL_SETS.register(
        "pets@sha256:0", "{}", parent="", author="", note=""
    ),
    "delete_label_set": lambda _: LABEL_SETS.delete("pets@sha256:0"),
    "move_alias": lambda _: LABEL_SETS.move_alias("move", "pets@prod", reference="pets@sha256:0"),
    "add_counts": lambda _: add_counts("key", {"n": 1}, worker="w1", number=1),
    "remove_set_aside": lambda commands: commands.remove_set_aside("entry"),
    "join_events": lambda _: EVENTS.join("group", start="new", after="", where="{}"),
    "read_events": lambda _: EVENTS.read(
        "group", consumer="c", limit=1, claim_after_s=1, is_claiming=True, own_after=""
    ),
    "hold_events": lambda _: EVENTS.hold("group", consumer="c", event_ids=["1-1"]),
    "leave_events": lambda _: EVENTS.leave("group", consumer="c", is_releasing=True),
    "ack_gap": lambda _: EVENTS.ack_gap("group", gap_id="1"),
    "delete_event_group": lambda _: EVENTS.delete("group"),
    "erase_events": lambda _: EVENTS.erase("the-job", after="0-0", count=1),
    "trim_events": lambda _: EVENTS.trim(max_entries=1, max_age_s=60, result_max_bytes=1),
    "open_run": lambda commands: RunCommands(commands).open_run(
        "run", "{}", digest="d", tenant="t", expires_at=None
    ),
    "plan_shards": lambda commands: RunCommands(commands).plan_shards(
        "run", expected=0, name="00000", lines="{}", checkpoint="{}", counts={}, is_complete=False
    ),
    "open_shard": lambda commands: RunCommands(commands).open_shard(
        "run", "00000", next_open_at=0.0
    ),
    "reopen_shards": lambda commands: RunCommands(commands).reopen_shards("run", ["00000"]),
    "begin_shard": lambda commands: RunCommands(commands).begin_shard("run", "00000", start=1),
    "finish_shard": lambda commands: RunCommands(commands).finish_shard(
        "run", "00000", job_id="the-job", state="succeeded", result="{}", counts={}
    ),
    "fail_shard": lambda commands: RunCommands(commands).fail_shard(
        "run", "00000", counts={}, failed="{}"
    ),
    "split_shard": lambda commands: RunCommands(commands).split_shard(
        "run", "00000", parts=[("00000.0", "{}")], computed_again=0
    ),
    "steer_run": lambda commands: RunCommands(commands).steer_run("run", "pause"),
    "finish_run": lambda commands: RunCommands(commands).finish_run(
        "run", job_id="the-job", state="failed", summary="", failure="", result="{}"
    ),
}
COMMANDS = Commands(ClientSettings(namespace="test"))


def documented(file_name: str, table: str) -> list[str]:
    """Return the indices of KEYS or ARGV that the head of a script describes, with its prelude's."""
    text = source_of(file_name)
    preludes = re.findall(
        r"^-- @include (_prelude|_event_groups|_run)\.lua$", text, flags=re.MULTILINE
    )
    inherited = [index for one in preludes for index in documented(f"{one}.lua", table)]
    return inherited + re.findall(rf"^-- {table}\[([\d.]+)\]  ", text, flags=re.MULTILINE)


def test_every_script_has_a_name_and_a_command() -> None:
    assert set(SCRIPTS) == set(get_args(ScriptName)) == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_the_head_of_a_script_describes_the_keys_and_arguments_of_its_command(
    name: ScriptName,
) -> None:
    command = CALLS[name](COMMANDS)

    arguments = documented(f"{name}.lua", "ARGV")
    listed = [index for index in arguments if not index.endswith("..")]
    assert command.script == name
    assert documented(f"{name}.lua", "KEYS") == [str(n + 1) for n in range(len(command.keys))]
    assert listed == [str(n + 1) for n in range(len(listed))]
    if listed == arguments:
        assert len(command.args) == len(listed)
    else:  # a list of pairs stands at the end
        assert arguments[-1] == f"{len(listed) + 1}.."
        assert len(command.args) == len(listed) + 2


@pytest.mark.parametrize("name", CALLS)
def test_a_script_reads_every_argument_that_its_head_describes(name: str) -> None:
    body = re.sub(r"^--.*$", "", script_text(f"{name}.lua"), flags=re.MULTILINE)

    arguments = [n for n in documented(f"{name}.lua", "ARGV") if not n.endswith("..")]
    assert [n for n in arguments if f"ARGV[{n}]" not in body] == []


@pytest.mark.parametrize("name", CALLS)
def test_the_arguments_are_all_text(name: ScriptName) -> None:
    _, keys, args = CALLS[name](COMMANDS)

    assert {type(value) for value in (*keys, *args)} <= {str}


def test_scripts_make_no_keys_but_those_of_the_list() -> None:
    made = {
        suffix
        for text in SCRIPTS.values()
        for suffix in re.findall(r"(?:NAMESPACE|namespace) \.\. '(:\w+:?)'", text)
    }
    listed = {entry.pattern.removeprefix("{namespace}") for entry in entries(LedgerKeys)}

    assert {":job:", ":worker:", ":suspect:", ":stream:", ":done:", ":stopped"} <= made
    assert made <= {re.sub(r"\{\w+\}$", "", pattern) for pattern in listed}


def test_constants_have_the_values_that_python_has() -> None:
    text = script_text("start.lua")

    assert (
        f"local PRESENCE_S, UNCONFIRMED_DEATHS, SUSPECT_TTL_S, QUARANTINE_QUEUE = "
        f'{limits.PRESENCE_S}, {limits.UNCONFIRMED_DEATHS}, {limits.SUSPECT_TTL_S}, "quarantine"'
    ) in text
    assert all("-- @" not in script for script in SCRIPTS.values())
