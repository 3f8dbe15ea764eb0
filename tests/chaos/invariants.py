"""What must hold when the faults are over and what was left has run."""

import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import redis

from labelyard.errors import LabelyardError
from labelyard.ledger import FINAL_STATES
from tests.chaos.brokers import KEYS
from tests.chaos.stage import Stage
from tests.chaos.traffic import Traffic

LOOK_EVERY_S: Final = 0.25
RESULT_STATES: Final = ("succeeded", "partial", "failed")
# What a server that is just away, or busy, answers with.
NO_ANSWER: Final = (redis.RedisError, LabelyardError, subprocess.SubprocessError)


@dataclass
class Findings:
    """What the checker found, by job id.

    Attributes:
        final: How many jobs came to each final state.
        lost: No final state, and nothing that could bring it.
        stuck: No final state, though something holds the job.
        twice_visible: A result that changed, or was delivered to the stream twice.
        not_visible: A final state without its entry in the stream.
        unjustly_dead: Dead letters that are no poison.
        alive_poison: Poison that is no dead letter.
        undelivered: Final, but the object or webhook that was asked for is still pending.
        uncalled: Has a result whose webhook the receiver never saw.
        leftovers: What queues and counters hold although no job is open.
    """

    final: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    twice_visible: list[str] = field(default_factory=list)
    not_visible: list[str] = field(default_factory=list)
    unjustly_dead: list[str] = field(default_factory=list)
    alive_poison: list[str] = field(default_factory=list)
    undelivered: list[str] = field(default_factory=list)
    uncalled: list[str] = field(default_factory=list)
    leftovers: dict[str, int] = field(default_factory=dict)

    @property
    def violations(self) -> dict[str, int]:
        """Count what must not be."""
        found = {
            name: len(getattr(self, name))
            for name in (
                "lost",
                "stuck",
                "twice_visible",
                "not_visible",
                "unjustly_dead",
                "alive_poison",
                "undelivered",
                "uncalled",
            )
        }
        return {name: count for name, count in {**found, **self.leftovers}.items() if count}


def settle(is_settled: Callable[[], int], *, quiet_s: float, within_s: float) -> None:
    """Wait until nothing is left to do, or nothing has changed for too long.

    Args:
        is_settled: Counts what is left to do.
        quiet_s: Seconds without a change after which nothing more is expected.
    """
    until = time.monotonic() + within_s
    before, changed_at = -1, time.monotonic()
    while time.monotonic() < until:
        left = before
        with suppress(*NO_ANSWER):
            left = is_settled()
        if left == 0:
            return
        if left != before:
            before, changed_at = left, time.monotonic()
        if time.monotonic() - changed_at > quiet_s:
            return
        time.sleep(LOOK_EVERY_S)


def left_to_do(stage: Stage) -> int:
    """Count open jobs, owed deliveries and messages; without any, what nobody acknowledged."""
    open_jobs: Any = stage.ledger_admin.zcard(KEYS.open)
    owed: Any = stage.ledger_admin.zcard(KEYS.pending_deliveries)
    # Asked last: on RabbitMQ it costs a process.
    return open_jobs + owed + sum(stage.broker.depths().values()) or stage.broker.unacked()


def check(stage: Stage, traffic: Traffic) -> Findings:
    """Compare what was promised with what the ledger, the broker and the stream hold."""
    findings = Findings()
    known = list(traffic.submitted)
    doubtful = traffic.read(traffic.doubtful)
    known += [job for job, state in zip(traffic.doubtful, doubtful, strict=True) if state]
    held = jobs_held(stage)
    for job_id, state in zip(known, traffic.read(known), strict=True):
        if state in FINAL_STATES:
            findings.final[str(state)] += 1
        else:
            (findings.stuck if job_id in held else findings.lost).append(job_id)
    check_visibility(findings, traffic, known)
    check_dead_letters(findings, stage, traffic)
    check_deliveries(findings, stage, known)
    check_webhooks(findings, stage, traffic)
    findings.leftovers = leftovers(stage)
    return findings


def jobs_held(stage: Stage) -> set[str]:
    """Name the jobs that a message, a retry or a living worker may still bring to an end."""
    ledger = stage.ledger_admin
    held = stage.broker.job_ids()
    due: Any = ledger.zrange(KEYS.due, 0, -1)
    held |= set(due)
    open_ids: Any = ledger.zrange(KEYS.open, 0, -1)
    for job_id in open_ids:
        runner: Any = ledger.hget(KEYS.job(job_id), "runner")
        if runner and ledger.exists(KEYS.worker(runner)):
            held.add(job_id)
    return held


def check_visibility(findings: Findings, traffic: Traffic, known: Sequence[str]) -> None:
    """Every result is seen once and stays as it was."""
    entries = traffic.seen.entries
    twice = {job_id for job_id, count in entries.items() if count > 1}
    findings.twice_visible = sorted(traffic.seen.changed | twice)
    findings.not_visible = [
        job_id for job_id in known if job_id in traffic.seen.final and not entries[job_id]
    ]


def check_dead_letters(findings: Findings, stage: Stage, traffic: Traffic) -> None:
    """Poison is buried, and nothing else is."""
    dead: Any = stage.ledger_admin.zrange(KEYS.dead_letters, 0, -1)
    findings.unjustly_dead = sorted(set(dead) - set(traffic.poison))
    findings.alive_poison = sorted(set(traffic.poison) - set(dead))


def check_deliveries(findings: Findings, stage: Stage, known: Sequence[str]) -> None:
    """Nothing is owed to a consumer any more."""
    with stage.ledger_admin.pipeline(transaction=False) as pipeline:
        for job_id in known:
            pipeline.hget(KEYS.job(job_id), "undelivered")
        owed = pipeline.execute()
    findings.undelivered = [job for job, what in zip(known, owed, strict=True) if what]


def check_webhooks(findings: Findings, stage: Stage, traffic: Traffic) -> None:
    """Every result that a webhook was asked for has reached the receiver."""
    asked = [
        job_id
        for job_id in sorted(traffic.webhooks)
        if traffic.seen.final.get(job_id, ("", ""))[0] in RESULT_STATES
    ]
    findings.uncalled = [job_id for job_id in asked if not stage.receiver.calls[job_id]]


def leftovers(stage: Stage) -> dict[str, int]:
    """Count what queues and counters still hold."""
    open_images: Any = stage.ledger_admin.get(KEYS.open_images)
    return {
        **{f"queue_{queue}": depth for queue, depth in stage.broker.depths().items()},
        "unacked": stage.broker.unacked(),
        "open_images": int(open_images or 0),
    }
