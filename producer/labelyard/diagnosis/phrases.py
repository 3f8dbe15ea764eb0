"""Phrases that the explanations share: durations, counts, and when a job's message comes again."""

from dataclasses import dataclass
from typing import Final

from labelyard.diagnosis.situations import Evidence


@dataclass(frozen=True, slots=True)
class Explanation:
    """One sentence about a situation, and one or two about what to do."""

    summary: str
    advice: tuple[str, ...]


START_WORKER: Final = (
    "No worker of this namespace is alive: start one with `labelyard-worker start`."
)


def count_of(number: int, noun: str) -> str:
    """Write a number of things for people."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def span(seconds: float) -> str:
    """Write a duration for people."""
    seconds = max(0.0, seconds)
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


def worker_needed(evidence: Evidence) -> tuple[str, ...]:
    """Advise to start a worker if none leads: each worker tries to, four times a second."""
    return () if evidence.ledger.leader else (START_WORKER,)


def comes_again(evidence: Evidence) -> str:
    """Write when the message that a worker holds comes again unless the worker renews it."""
    held, settings = evidence.search.held if evidence.search else None, evidence.settings
    if held is not None:
        return span(settings.visibility_timeout_s - held.held_for_s)
    if evidence.search is not None and not evidence.search.can_search:
        return "a few seconds"
    return span(reconciled_in_s(evidence))


def reconciled_in_s(evidence: Evidence) -> float:
    """Return the longest time until the reconciler looks for the job's message."""
    settings, now = evidence.settings, evidence.ledger.now
    age_s = now - evidence.record.published_at
    return max(0.0, settings.reconcile_after_s - age_s) + settings.reconcile_every_s
