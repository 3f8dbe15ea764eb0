"""Invariants that must hold when all faults are over and all jobs have run."""

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
from tests.chaos.environment import Environment
from tests.chaos.traffic import Traffic

LOOK_EVERY_S: Final = 0.25
RESULT_STATES: Final = ("succeeded", "partial", "failed")
# Errors of a server that is away or busy.
NO_ANSWER: Final = (redis.RedisError, LabelyardError, subprocess.SubprocessError)


@dataclass
class Findings:
    """Violated invariants, by job id.

    Attributes:
        final: How many jobs came to each final state.
        lost: No final state, and nothing that could bring it.
        stuck: No final state, though something holds the job.
        twice_visible: A result that changed, or was delivered to the stream twice.
        not_visible: A final state without its entry in the stream.
        unjustly_dead: Dead letters that are no poison.
        alive_poison: Poison that is not a dead letter.
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
        """Count the violations of each kind."""
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


def count_unfinished(environment: Environment) -> int:
    """Count open jobs, pending deliveries and queued messages; if none, unacknowledged messages."""
    open_jobs: Any = environment.ledger_admin.zcard(KEYS.open)
    owed: Any = environment.ledger_admin.zcard(KEYS.pending_deliveries)
    # Asked last: on RabbitMQ it costs a process.
    return (
        open_jobs + owed + sum(environment.broker.depths().values()) or environment.broker.unacked()
    )


def check(environment: Environment, traffic: Traffic) -> Findings:
    """Check ledger, broker and stream against the promises."""
    findings = Findings()
    known = list(traffic.submitted)
    doubtful = traffic.read(traffic.doubtful)
    known += [job for job, state in zip(traffic.doubtful, doubtful, strict=True) if state]
    held = list_held_jobs(environment)
    for job_id, state in zip(known, traffic.read(known), strict=True):
        if state in FINAL_STATES:
            findings.final[str(state)] += 1
        else:
            (findings.stuck if job_id in held else findings.lost).append(job_id)
    check_visibility(findings, traffic, known)
    check_dead_letters(findings, environment, traffic)
    check_deliveries(findings, environment, known)
    check_webhooks(findings, environment, traffic)
    findings.leftovers = count_leftovers(environment)
    return findings


def list_held_jobs(environment: Environment) -> set[str]:
    """List the jobs that a message, a retry or a living worker may still finish."""
    ledger = environment.ledger_admin
    held = environment.broker.job_ids()
    due: Any = ledger.zrange(KEYS.due, 0, -1)
    held |= set(due)
    open_ids: Any = ledger.zrange(KEYS.open, 0, -1)
    for job_id in open_ids:
        runner: Any = ledger.hget(KEYS.job(job_id), "runner")
        if runner and ledger.exists(KEYS.worker(runner)):
            held.add(job_id)
    return held


def check_visibility(findings: Findings, traffic: Traffic, known: Sequence[str]) -> None:
    """Check that every result is visible once and never changes."""
    entries = traffic.observed.entries
    twice = {job_id for job_id, count in entries.items() if count > 1}
    findings.twice_visible = sorted(traffic.observed.changed | twice)
    findings.not_visible = [
        job_id for job_id in known if job_id in traffic.observed.final and not entries[job_id]
    ]


def check_dead_letters(findings: Findings, environment: Environment, traffic: Traffic) -> None:
    """Check that the dead letters are the poison jobs, and no others."""
    dead: Any = environment.ledger_admin.zrange(KEYS.dead_letters, 0, -1)
    findings.unjustly_dead = sorted(set(dead) - set(traffic.poison))
    findings.alive_poison = sorted(set(traffic.poison) - set(dead))


def check_deliveries(findings: Findings, environment: Environment, known: Sequence[str]) -> None:
    """Check that no delivery to a consumer is pending."""
    with environment.ledger_admin.pipeline(transaction=False) as pipeline:
        for job_id in known:
            pipeline.hget(KEYS.job(job_id), "undelivered")
        owed = pipeline.execute()
    findings.undelivered = [job for job, what in zip(known, owed, strict=True) if what]


def check_webhooks(findings: Findings, environment: Environment, traffic: Traffic) -> None:
    """Check that every requested webhook has reached the receiver."""
    asked = [
        job_id
        for job_id in sorted(traffic.webhooks)
        if traffic.observed.final.get(job_id, ("", ""))[0] in RESULT_STATES
    ]
    findings.uncalled = [job_id for job_id in asked if not environment.receiver.calls[job_id]]


def count_leftovers(environment: Environment) -> dict[str, int]:
    """Count the entries left in queues and counters."""
    open_images: Any = environment.ledger_admin.get(KEYS.open_images)
    backlog: Any = environment.ledger_admin.hlen(KEYS.backlog)
    return {
        **{f"queue_{queue}": depth for queue, depth in environment.broker.depths().items()},
        "unacked": environment.broker.unacked(),
        "open_images": int(open_images or 0),
        "backlog_fields": int(backlog),
    }
