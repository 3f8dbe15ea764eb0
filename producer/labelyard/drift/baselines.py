"""Baseline of a label set's answers, as the ledger holds it, and the hours that are compared."""

import json
import time
from typing import Any, Final

from labelyard.drift.counts import AnswerCounts
from labelyard.drift.report import WINDOW_S
from labelyard.errors import InvalidMessageError
from labelyard.ledger.limits import COUNTS_TTL_S
from labelyard.ledger.redis_errors import foreign_content

KEPT_HOURS: Final = COUNTS_TTL_S // WINDOW_S


def checked_hours(hours: Any) -> int:
    """Return *hours* if the ledger keeps as many.

    Raises:
        InvalidMessageError: It is not a whole number from 1 to 840.
    """
    if isinstance(hours, bool) or not isinstance(hours, int) or not 1 <= hours <= KEPT_HOURS:
        raise InvalidMessageError(f"hours: write a whole number from 1 to {KEPT_HOURS}")
    return hours


def baseline_json(counts: Any, *, at: float | None = None) -> str:
    """Write a baseline for the ledger.

    Raises:
        InvalidMessageError: It is none, or holds no answers.
    """
    if not isinstance(counts, AnswerCounts):
        raise InvalidMessageError("counts: pass AnswerCounts, as labelyard.drift makes them")
    if not counts.n:
        raise InvalidMessageError("the baseline needs answers: no worker has counted any yet")
    made_at = time.time() if at is None else at
    return json.dumps({"at": made_at, "fields": counts.bounded().fields()}, ensure_ascii=False)


def read_baseline(reference: str, stored: str) -> tuple[AnswerCounts, float]:
    """Read a baseline as the ledger holds it, and when it was set.

    Raises:
        LedgerUnavailableError: It cannot be read.
    """
    try:
        known = json.loads(stored)
        return AnswerCounts.of_fields(known["fields"]), float(known["at"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise foreign_content(f"the baseline of {reference}") from error
