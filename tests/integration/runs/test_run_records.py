"""Records of runs on a real ledger: each change happens once, whatever is repeated."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from labelyard.errors import IdempotencyConflictError, RunNotFoundError
from labelyard.ledger import Ledger, connect
from labelyard.messages import Failure
from labelyard.runs.ledger import RunLedger
from labelyard.runs.parts import ShardPart, ShardRange, end_of, shard_of
from labelyard.runs.record import RunRecord, counts_of
from labelyard.runs.request import RunRequest
from labelyard.settings import ClientSettings
from labelyard_worker.runs.shard_trail import Trail
from tests.support.run_samples import sample_run

LINES = ShardRange(plan="shard-00000", first=0, lines=10)
COUNTS = counts_of(lines=10, succeeded=8, failed=2, errors={"image_not_found": 2})


@pytest.fixture
def runs(ledger_url: str) -> Iterator[RunLedger]:
    settings = ClientSettings(ledger_url=ledger_url, namespace="test")
    with closing(connect(settings)) as client:
        yield RunLedger(Ledger(client, settings))


@pytest.fixture
def run(runs: RunLedger) -> RunRequest:
    request = sample_run()
    runs.open(request)
    return request


def plan(runs: RunLedger, run: RunRequest, *, expected: int, is_complete: bool = False) -> str:
    return runs.plan(
        run.run_id,
        expected=expected,
        name="" if is_complete else f"{expected:05d}",
        lines=None if is_complete else LINES,
        checkpoint={"shard": expected, "is_complete": is_complete},
        counts={} if is_complete else {"lines": 10, "images": 10},
        is_complete=is_complete,
    )


def open_shard(runs: RunLedger, run: RunRequest, name: str = "00000") -> ShardPart:
    part = shard_of(run.run_id, name, LINES, tenant=run.tenant, epoch=0)
    runs.open_part(part)
    runs.note_opened(run.run_id, name, next_open_at=0.0)
    return part


def start(runs: RunLedger, part: ShardPart, *, worker: str = "w1") -> int:
    started = runs.ledger.start(part.job_id, worker=worker, quarantine_after=9, dead_after=9)
    runs.begin(part, start=started.start)
    return started.start


def finish(runs: RunLedger, part: ShardPart, *, failure: Failure | None = None) -> bool:
    return runs.finish(part, state="partial", result="{}", counts=COUNTS, failure=failure)


def record(runs: RunLedger, run: RunRequest) -> RunRecord:
    return runs.find(run.run_id)


def test_the_same_run_is_opened_once_and_another_one_under_its_id_is_refused(
    runs: RunLedger,
) -> None:
    request = sample_run(run_id="the-run")

    opened = [runs.open(request), runs.open(request)]

    assert opened == [True, False]
    with pytest.raises(IdempotencyConflictError):
        runs.open(sample_run(run_id="the-run", out="s3://results/another/"))
    assert [each.run_id for each in runs.newest(limit=9)] == ["the-run"]
    with pytest.raises(RunNotFoundError):
        runs.progress("another")


def test_a_planner_that_was_overtaken_adds_nothing(runs: RunLedger, run: RunRequest) -> None:
    verdicts = [plan(runs, run, expected=0), plan(runs, run, expected=1)]
    repeated = plan(runs, run, expected=1)

    overtaken = runs.plan(
        run.run_id,
        expected=1,
        name="00001",
        lines=LINES,
        checkpoint={"shard": "another"},
        counts={"lines": 10},
        is_complete=False,
    )

    assert (verdicts, repeated, overtaken) == (["planned", "planned"], "planned", "stale")
    now = record(runs, run)
    assert (now.state, now.lines, now.shards, now.is_planned) == ("running", 20, 2, False)
    assert plan(runs, run, expected=2, is_complete=True) == "planned"
    assert record(runs, run).is_planned
    assert list(runs.waiting(run.run_id, limit=9)) == ["00000", "00001"]


def test_a_shard_is_counted_once_even_if_its_record_was_lost(
    runs: RunLedger, run: RunRequest
) -> None:
    plan(runs, run, expected=0)
    part = open_shard(runs, run)
    start(runs, part)

    first = finish(runs, part)
    runs.ledger.client.delete(runs.ledger.keys.job(part.job_id))
    runs.adopt(part)
    again = finish(runs, part)

    now = record(runs, run)
    assert (first, again, runs.count_shards(run.run_id)) == (True, True, (0, 0))
    assert (now.done, now.succeeded, now.failed, now.shards_done) == (10, 8, 2, 1)
    assert now.errors == {"image_not_found": 2}
    assert runs.done_shards(run.run_id) == ["00000"]


def test_what_a_lost_attempt_had_done_counts_as_computed_again_once(
    runs: RunLedger, run: RunRequest
) -> None:
    plan(runs, run, expected=0)
    part = open_shard(runs, run)
    first = start(runs, part, worker="gone")
    runs.note_trail(part, {"start": first, "done": 7})

    running = runs.progress(run.run_id).done
    second = start(runs, part)
    runs.note_trail(part, {"start": second, "done": 3})
    runs.begin(part, start=second)  # its reply was lost, and the call came again

    assert running == 7
    assert record(runs, run).computed_again == 7


def test_each_line_that_a_lost_shard_had_written_counts_as_computed_again(
    runs: RunLedger, run: RunRequest
) -> None:
    plan(runs, run, expected=0)
    part = open_shard(runs, run)
    trail = Trail(runs, part, start=start(runs, part, worker="gone"), is_careful=False)

    for done in (3, 6, 9):
        trail.note_sent(done - 3, done)
        trail.note_done(done)
    start(runs, part)

    assert record(runs, run).computed_again == 9


def test_a_shard_that_may_kill_its_worker_notes_what_it_sends_next(
    runs: RunLedger, run: RunRequest
) -> None:
    plan(runs, run, expected=0)
    part = open_shard(runs, run)
    trail = Trail(runs, part, start=start(runs, part), is_careful=True)

    trail.note_sent(3, 6)
    trail.note_done(6)

    noted = runs.read_trail(part)
    assert (noted["done"], noted["low"], noted["high"]) == (3, 3, 6)


def test_a_split_shard_is_replaced_by_its_parts_once(runs: RunLedger, run: RunRequest) -> None:
    plan(runs, run, expected=0)
    part = open_shard(runs, run)
    parts = {f"00000.{n}": lines for n, lines in enumerate(LINES.cut(4, 5))}

    split = [runs.split(part, parts, computed_again=4) for _ in range(2)]

    now = record(runs, run)
    assert split == [True, True]
    assert (now.shards, now.computed_again) == (3, 4)
    assert runs.waiting(run.run_id, limit=9) == parts
    assert [(each.first, each.lines) for each in parts.values()] == [(0, 4), (4, 1), (5, 5)]


def test_a_shard_that_failed_as_a_whole_is_kept_for_the_end(
    runs: RunLedger, run: RunRequest
) -> None:
    plan(runs, run, expected=0)
    part = open_shard(runs, run)
    failure = Failure(code="unknown_label_set", message="pets", is_retryable=False)
    start(runs, part)

    finish(runs, part, failure=failure)
    counted = runs.fail_shard(run.run_id, part.name, LINES, failure=failure, counts=COUNTS)

    assert not counted
    assert runs.failed_shards(run.run_id) == {"00000": (LINES, failure)}


def test_steps_follow_the_states_of_a_run(runs: RunLedger, run: RunRequest) -> None:
    plan(runs, run, expected=0)
    states = []
    for step in ("pause", "pause", "resume", "cancel", "cancel", "resume"):
        assert runs.steer(run.run_id, step)
        states.append(record(runs, run).state)

    assert states == ["paused", "paused", "running", "cancelling", "cancelling", "running"]
    assert record(runs, run).epoch == 1
    assert runs.steer(run.run_id, "finish")
    refused = [runs.steer(run.run_id, step) for step in ("pause", "resume", "cancel")]
    assert refused == [False, False, False]


def test_a_run_is_made_final_by_its_end_once(runs: RunLedger, run: RunRequest) -> None:
    plan(runs, run, expected=0)
    runs.steer(run.run_id, "finish")
    part = end_of(run, epoch=0)
    runs.open_part(part)
    runs.ledger.start(part.job_id, worker="w1", quarantine_after=9, dead_after=9)

    ended = [
        runs.finish_run(part, state=state, summary="", failure=None, result="{}")
        for state in ("partial", "succeeded")
    ]

    assert ended == [True, False]
    assert record(runs, run).state == "partial"
    assert runs.list_open() == []
    assert runs.ledger.state(part.job_id) == "succeeded"
