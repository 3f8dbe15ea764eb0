"""Advice of ``labelyard status``: sentences on what is not well with the service, and what to do."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from labelyard.cli.service_state import SOUND, ServiceFigures, ServiceState
from labelyard.cli.words import ago, count, lasted
from labelyard.diagnosis.phrases import START_WORKER, count_of
from labelyard.queues import Queue

#: Age in seconds at which a job that somebody waits for is late.
LATE_S: Final = 60.0


def advise(state: ServiceState) -> list[str]:
    """Return a sentence for each thing that is not well, the most urgent first."""
    sentences = list(_advise_on_servers(state))
    if state.figures is not None:
        figures = state.figures
        sentences += _advise_on_workers(figures)
        sentences += _advise_on_fleet(figures)
        sentences += _advise_on_jobs(figures)
    return sentences


def _advise_on_servers(state: ServiceState) -> Iterator[str]:
    if state.ledger != SOUND:
        yield (
            "The ledger does not answer: check that its Redis runs, and that "
            "LABELYARD_LEDGER_URL is its address."
        )
    if state.broker != SOUND:
        yield (
            "The broker does not answer: check that it runs, and that LABELYARD_BROKER_URL is "
            "its address. Jobs are accepted meanwhile, and sent when it is back."
        )


def _advise_on_workers(figures: ServiceFigures) -> Iterator[str]:
    states = Counter(worker.state for worker in figures.live)
    if not figures.live:
        yield START_WORKER
    elif set(states) <= {"starting", "draining"}:
        yield (
            f"No worker takes jobs now: {states['starting']} start and {states['draining']} shut "
            "down. Wait for one that is ready, or start one with `labelyard-worker start`."
        )
    if figures.lost:
        last = min(figures.lost, key=lambda worker: worker.last_seen_s or 0.0)
        where = f" on {last.host}" if last.host else ""
        yield (
            f"{count_of(len(figures.lost), 'worker')} ended without a shutdown in the last hour, "
            f"{last.name}{where} {ago(last.last_seen_s)}. The jobs come again by themselves; its "
            "log or the kernel's has the reason."
        )
    if breakers := figures.breakers:
        named = ", ".join(breakers)
        yield (
            f"Workers do not call what fails as a whole now: {named}. Jobs that need it wait; "
            "look at that bucket or host."
        )


def _advise_on_fleet(figures: ServiceFigures) -> Iterator[str]:
    """Compare the workers with each other."""
    known = [worker for worker in figures.live if worker.state != "unknown"]
    models = Counter(f"{worker.checkpoint} ({worker.dtype})" for worker in known)
    if len({worker.fingerprint for worker in known}) > 1:
        named = ", ".join(f"{name} on {number}" for name, number in models.most_common())
        yield (
            f"Workers serve different checkpoints: {named}. Their scores do not compare; give all "
            "the same LABELYARD_CHECKPOINT, or each checkpoint a LABELYARD_NAMESPACE."
        )
    versions = Counter(worker.version for worker in known)
    if len(versions) > 1:
        named = ", ".join(f"{name} on {number}" for name, number in versions.most_common())
        yield f"Workers run different versions: {named}. Finish the upgrade."
    unknown = len(figures.live) - len(known)
    if unknown:
        yield f"{count_of(unknown, 'worker')} of another version: no details are known."
    if risky := [worker.name for worker in known if worker.has_atomic_claim is False]:
        yield (
            f"{count_of(len(risky), 'worker')} may lose a message when killed, {risky[0]} for "
            "example: LABELYARD_ATOMIC_CLAIM is off there."
        )


def _advise_on_jobs(figures: ServiceFigures) -> Iterator[str]:
    late_s = figures.oldest_open.get(Queue.INTERACTIVE, 0.0)
    if figures.live and late_s > LATE_S:
        yield (
            f"The oldest interactive job is {lasted(late_s)} old: `labelyard jobs --queue "
            "interactive --state pending` lists those that wait, and `labelyard why JOB_ID` finds "
            "the reason. More workers shorten the queue."
        )
    if suspects := figures.by_queue().get(Queue.QUARANTINE):
        yield (
            f"{count_of(suspects.jobs, 'job')} may have killed a worker, and run one at a time: "
            "`labelyard jobs --queue quarantine`."
        )
    if figures.dead_letters:
        yield (
            f"{count_of(figures.dead_letters, 'dead letter')}: `labelyard dead list`, then replay "
            "or purge."
        )
    if dead := figures.deliveries.get("dead", 0):
        yield (
            f"{count_of(dead, 'result')} could not be delivered: `labelyard webhooks list --state "
            "dead` has the reasons (`--kind object` those of objects), then replay or purge."
        )
    if figures.set_aside or figures.set_aside_dropped:
        yield (
            f"{count_of(figures.set_aside, 'message')} could not be read and were set aside "
            f"({count(figures.set_aside_dropped)} more were dropped): `labelyard set-aside list`."
        )
