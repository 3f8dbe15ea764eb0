"""Clocks: the difference between this machine's and that of a server."""

from collections.abc import Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import redis

from labelyard.doctor.examination import Examination
from labelyard.doctor.report import Finding, FindingKind, Severity

TOLERATED_S: Final = 2.0
#: S3 refuses requests that are signed 15 minutes before or after its own time.
#: Source: "Error responses" of Amazon S3, RequestTimeTooSkewed.
SIGNATURE_WINDOW_S: Final = 900.0

CLOCK_AGREES: Final = FindingKind(
    "clock_agrees",
    "clocks",
    Severity.OK,
    "This machine's clock differs from that of the {server} by {seconds:.1f} s.",
)
CLOCK_DIFFERS: Final = FindingKind(
    "clock_differs",
    "clocks",
    Severity.WARNING,
    "This machine's clock is {seconds:.0f} s {direction} that of the {server}: times in logs and "
    "results do not compare.",
    "Synchronise the clock of the machine that is wrong: timedatectl set-ntp true, or chronyc "
    "makestep.",
)
CLOCK_BREAKS_SIGNATURES: Final = FindingKind(
    "clock_breaks_signatures",
    "clocks",
    Severity.SERIOUS,
    "This machine's clock is {seconds:.0f} s {direction} that of the {server}, which refuses "
    "signatures past 900 s: no picture can be read or uploaded.",
    "Synchronise the clock of the machine that is wrong: timedatectl set-ntp true, or chronyc "
    "makestep.",
)
KINDS: Final = (CLOCK_AGREES, CLOCK_DIFFERS, CLOCK_BREAKS_SIGNATURES)


def check_ledger_clock(client: "redis.Redis", exam: Examination) -> Iterator[Finding]:
    """Compare this machine's clock with the ledger's."""
    before = exam.clock()
    answer: Any = client.time()
    after = exam.clock()
    theirs = answer[0] + answer[1] / 1_000_000
    difference = (before + after) / 2 - theirs
    if abs(difference) > TOLERATED_S + (after - before) / 2:
        yield CLOCK_DIFFERS.at(server="ledger", **_measure(difference))
    else:
        yield CLOCK_AGREES.at(server="ledger", seconds=abs(difference))


def check_storage_clock(date_header: str, exam: Examination) -> Iterator[Finding]:
    """Compare this machine's clock with the ``Date`` of an S3 answer, which has whole seconds."""
    try:
        theirs: datetime = parsedate_to_datetime(date_header)
    except ValueError:
        return
    difference = exam.clock() - theirs.timestamp() - 0.5
    if abs(difference) > SIGNATURE_WINDOW_S:
        yield CLOCK_BREAKS_SIGNATURES.at(server="S3 server", **_measure(difference))
    elif abs(difference) > TOLERATED_S + 0.5:
        yield CLOCK_DIFFERS.at(server="S3 server", **_measure(difference))


def _measure(difference: float) -> dict[str, Any]:
    return {"seconds": abs(difference), "direction": "ahead of" if difference > 0 else "behind"}
