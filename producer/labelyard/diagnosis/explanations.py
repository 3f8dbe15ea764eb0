"""Explain each situation of a job: one sentence about it, and what an operator should do."""

from collections.abc import Callable, Mapping
from typing import Final

from labelyard.diagnosis.phrases import (
    Explanation,
    comes_again,
    count_of,
    reconciled_in_s,
    span,
    worker_needed,
)
from labelyard.diagnosis.situations import Evidence, Situation
from labelyard.ledger.records import DeliveryState
from labelyard.message_search import FoundMessage


def explain(situation: Situation, evidence: Evidence) -> Explanation:
    """Explain the situation of a job."""
    return EXPLANATIONS[situation](evidence)


def _unknown(evidence: Evidence) -> Explanation:
    settings = evidence.settings
    return Explanation(
        f"The ledger has no record of this job in the namespace {settings.namespace}.",
        (
            (
                "Check the id, LABELYARD_NAMESPACE and LABELYARD_LEDGER_URL: the job may be in another "
                "namespace or ledger."
            ),
            (
                f"A record is dropped {span(settings.result_ttl_s)} after its job was final "
                "(LABELYARD_RESULT_TTL_S); a submit that raised ledger_unavailable may never have "
                "been accepted: submit the job again."
            ),
        ),
    )


def _dropped(evidence: Evidence) -> Explanation:
    state = evidence.ledger.tombstone
    return Explanation(
        f"The job was {state}, and its record was dropped since.",
        ("Submit the job again under another id if its result is still wanted.",),
    )


def _unrecorded(evidence: Evidence) -> Explanation:
    return Explanation(
        "The broker holds a message of this job, and the ledger has no record of it.",
        (
            (
                "Wait: the worker that receives the message writes the record anew, or sets the "
                "message aside if its job may have been final before."
            ),
            *worker_needed(evidence),
        ),
    )


def _set_aside(evidence: Evidence) -> Explanation:
    message = evidence.ledger.set_aside[0]
    return Explanation(
        f"A worker set the job's message aside: {message.reason}.",
        (
            f"Look at it with `labelyard set-aside show {message.id}`.",
            (
                f"Once workers can read it, `labelyard set-aside replay {message.id}`; else "
                f"`labelyard set-aside purge {message.id}`."
            ),
        ),
    )


def _queued(evidence: Evidence) -> Explanation:
    search, queue = evidence.search, evidence.record.queue
    message = search.queued if search else None
    if message is None:
        searched = search.searched if search else 0
        where = f"behind more than the {searched} messages that were searched"
    elif message.ahead:
        where = f"behind {count_of(message.ahead, 'message')}"
    else:
        where = "as the next one"
    if message and message.line:
        where += f" of tenant {message.line}; {_turn_of(message)}"
    return Explanation(
        f"The job's message waits in the queue {message.queue if message else queue}, {where}.",
        worker_needed(evidence) or ("Wait, or start more workers.",),
    )


def _turn_of(message: FoundMessage) -> str:
    """Describe whose turn it is in a queue that is sorted by tenant."""
    if not message.lines_ahead:
        return "it is this tenant's turn"
    others = count_of(message.lines_ahead, "tenant")
    verb = "comes" if message.lines_ahead == 1 else "come"
    return f"{others} {verb} first, it is the turn of {message.next_line}"


def _unacknowledged(evidence: Evidence) -> Explanation:
    held = evidence.search.held if evidence.search else None
    held_for_s = held.held_for_s if held else 0.0
    return Explanation(
        "A worker holds the job's message and has not begun the job; it claimed the message, or "
        f"renewed its claim, {span(held_for_s)} ago.",
        (
            "Wait: the job begins when that worker has a free slot, or room for another suspect.",
            f"If that worker is dead, another one gets the message in {comes_again(evidence)}.",
            *worker_needed(evidence),
        ),
    )


def _lost(evidence: Evidence) -> Explanation:
    wait_s = reconciled_in_s(evidence)
    return Explanation(
        "The job is pending, and no queue of the broker holds its message: the broker lost it, or "
        "it is being published.",
        worker_needed(evidence)
        or (f"Wait {span(wait_s)}: the reconciler of a worker publishes the job again.",),
    )


def _unclear(evidence: Evidence) -> Explanation:
    search, queue = evidence.search, evidence.record.queue
    if search is None:
        return Explanation(
            f"The broker gives no answer: {evidence.broker_fault}.",
            (
                (
                    "Repair the broker, or check LABELYARD_BROKER_URL. The job is safe in the ledger: "
                    "a worker publishes it when the broker is back."
                ),
            ),
        )
    if not search.can_search:
        waiting = search.lengths.get(queue, 0)
        return Explanation(
            "The job is pending. RabbitMQ does not show which messages its queues hold: "
            f"{waiting} wait in the queue {queue}.",
            worker_needed(evidence)
            or (
                (
                    "Wait: the message is queued, held by a worker, or lost, and a lost one is "
                    f"published again {span(reconciled_in_s(evidence))} after its queue has passed "
                    "it. `rabbitmqctl list_queues name messages_ready messages_unacknowledged` shows "
                    "how many messages workers hold."
                ),
            ),
        )
    return Explanation(
        f"The job's message is not among the first {search.searched} messages; the search ended "
        f"in {search.cut_in}.",
        worker_needed(evidence) or ("Wait, or start more workers; then look again.",),
    )


def _due(evidence: Evidence) -> Explanation:
    ledger, record = evidence.ledger, evidence.record
    due_in_s = (ledger.due_at or ledger.now) - ledger.now
    when = f"is due in {span(due_in_s)}" if due_in_s > 0 else f"was due {span(-due_in_s)} ago"
    death = f"; its last death: {record.last_death}" if record.last_death else ""
    return Explanation(
        f"The job waits for its next attempt, which {when} "
        f"({record.attempts} of {evidence.settings.max_attempts} attempts are used{death}).",
        worker_needed(evidence)
        or (
            (
                f"Wait {span(due_in_s + 1)}. If it repeats, look for `job_retry` with this id in the "
                "workers' logs: its code names the bucket, host or setting to check."
            ),
        ),
    )


def _quarantined(evidence: Evidence) -> Explanation:
    record, dead_after = evidence.record, evidence.settings.dead_after
    as_suspect = record.deaths_alone + record.deaths_suspect
    return Explanation(
        f"The job is in quarantine: its worker died {count_of(record.deaths, 'time')} while it ran, "
        f"{count_of(as_suspect, 'time')} as the suspect; after {count_of(dead_after, 'such death')}, the last one alone "
        f"in its worker, it is a dead letter. Last death: {record.last_death or 'none'}.",
        (
            (
                "Wait: a worker runs one suspect at a time. Look at its images if it dies again, or "
                f"end it with `labelyard cancel {evidence.job_id}`."
            ),
            *worker_needed(evidence),
        ),
    )


def _overdue(evidence: Evidence) -> Explanation:
    ledger, expires_at = evidence.ledger, evidence.record.expires_at
    late_s = ledger.now - (expires_at or ledger.now)
    return Explanation(
        f"The job's expires_at passed {span(late_s)} ago, and no worker has made it expired yet.",
        worker_needed(evidence)
        or (f"Wait a second, or end it with `labelyard cancel {evidence.job_id}`.",),
    )


def _running(evidence: Evidence) -> Explanation:
    ledger, record = evidence.ledger, evidence.record
    since_s = ledger.now - (ledger.started_at or ledger.now)
    as_suspect = ", as its only suspect" if ledger.worker and ledger.worker.is_suspect else ""
    return Explanation(
        f"Worker {record.runner} is alive and has run the job for {span(since_s)}{as_suspect} "
        f"(attempt {record.attempts} of {evidence.settings.max_attempts}).",
        (
            "Wait: a job that hangs is ended by its worker's watchdog, and runs again.",
            f"To end it now: `labelyard cancel {evidence.job_id}`.",
        ),
    )


def _abandoned(evidence: Evidence) -> Explanation:
    return Explanation(
        f"Worker {evidence.record.runner} is alive and does not run the job: its attempt ended, "
        "and the ledger does not know it yet.",
        (f"Wait {comes_again(evidence)}: then the job's message comes again and it is run.",),
    )


def _worker_died(evidence: Evidence) -> Explanation:
    runner = evidence.record.runner or "that ran it"
    return Explanation(
        f"Worker {runner} died or hangs: it has not renewed its presence key.",
        worker_needed(evidence)
        or (
            (
                f"Wait {comes_again(evidence)}: then the job's message comes again, and the death is "
                "counted."
            ),
        ),
    )


def _delivering(evidence: Evidence) -> Explanation:
    ledger, record = evidence.ledger, evidence.record
    pending = [
        _delivery(name, record.deliveries.get(name, DeliveryState()), now=ledger.now)
        for name in record.undelivered
    ]
    by = f"Worker {ledger.deliverer} delivers it now. " if ledger.deliverer else ""
    look = {
        "object": "Look at the bucket and the workers' rights to write there.",
        "webhook": "Look at the webhook's receiver: its answers are in the reason.",
    }
    return Explanation(
        f"The job is {record.state}, and its result is still to be delivered: "
        f"{'; '.join(pending)}. {by}".strip(),
        (
            *(text for name, text in look.items() if name in record.undelivered),
            f"The result can be read meanwhile: `labelyard result {evidence.job_id}`.",
            *worker_needed(evidence),
        ),
    )


def _delivery(name: str, delivery: DeliveryState, *, now: float) -> str:
    if delivery.next_try_at is None:
        next_try = "due now"
    else:
        next_try = f"next try in {span(delivery.next_try_at - now)}"
    reason = f", last reason: {delivery.reason}" if delivery.reason else ""
    return f"{name} ({count_of(delivery.attempts, 'attempt')}, {next_try}{reason})"


def _undelivered(evidence: Evidence) -> Explanation:
    record, job_id = evidence.record, evidence.job_id
    dead = {name: one for name, one in record.deliveries.items() if one.is_dead}
    named = "; ".join(
        f"{name} ({'refused' if one.state == 'refused' else 'given up'} after "
        f"{count_of(one.attempts, 'attempt')}, last reason: {one.reason or 'not recorded'})"
        for name, one in dead.items()
    )
    kinds = ["" if name == "webhook" else f" --kind {name}" for name in dead]
    replays = " and ".join(f"`labelyard webhooks replay {job_id}{kind}`" for kind in kinds)
    return Explanation(
        f"The job is {record.state}, and its result was not delivered: {named}.",
        (
            f"Have it delivered with {replays} once the cause is gone.",
            f"The result can be read meanwhile: `labelyard result {job_id}`.",
        ),
    )


def _dead_letter(evidence: Evidence) -> Explanation:
    record, job_id = evidence.record, evidence.job_id
    return Explanation(
        f"The job is a dead letter after {count_of(record.deaths, 'death')} of its workers; the last one: "
        f"{record.last_death or 'not recorded'}.",
        (
            f"Look at its message with `labelyard dead show {job_id}`.",
            (
                f"Run it again with `labelyard dead replay {job_id}` once the cause is gone, or drop "
                f"it with `labelyard dead purge {job_id}`."
            ),
        ),
    )


ENDINGS: Final[Mapping[str, str]] = {
    "succeeded": "succeeded",
    "partial": "ended with errors of some images",
    "failed": "failed",
    "cancelled": "was cancelled",
    "expired": "expired",
}


def _finished(evidence: Evidence) -> Explanation:
    ledger, record = evidence.ledger, evidence.record
    ago = span(ledger.now - (record.finished_at or ledger.now))
    if record.state in ("cancelled", "expired"):
        advice = "Nothing runs any more. Submit the job again under another id if it is wanted."
    else:
        advice = f"Read the result with `labelyard result {evidence.job_id}`."
    ending = ENDINGS.get(record.state, f"ended as {record.state}")
    return Explanation(f"The job is not stuck: it {ending} {ago} ago.", (advice,))


EXPLANATIONS: Final[Mapping[Situation, Callable[[Evidence], Explanation]]] = {
    Situation.UNKNOWN: _unknown,
    Situation.DROPPED: _dropped,
    Situation.UNRECORDED: _unrecorded,
    Situation.SET_ASIDE: _set_aside,
    Situation.QUEUED: _queued,
    Situation.UNACKNOWLEDGED: _unacknowledged,
    Situation.LOST: _lost,
    Situation.UNCLEAR: _unclear,
    Situation.DUE: _due,
    Situation.QUARANTINED: _quarantined,
    Situation.OVERDUE: _overdue,
    Situation.RUNNING: _running,
    Situation.ABANDONED: _abandoned,
    Situation.WORKER_DIED: _worker_died,
    Situation.DELIVERING: _delivering,
    Situation.UNDELIVERED: _undelivered,
    Situation.DEAD_LETTER: _dead_letter,
    Situation.FINISHED: _finished,
}
