"""Examination: sections of checks run side by side, within one time limit and without a traceback."""

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from labelyard.doctor.report import DoctorReport, Finding, FindingKind, Severity
from labelyard.doctor.settings import DoctorSettings
from labelyard.errors import LabelyardError

#: Longest wait for one answer of a server.
ANSWER_S: Final = 3.0
#: A shorter password would also redact plain words.
MIN_SECRET_LENGTH: Final = 4
SECRET_VARIABLES: Final = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "LABELYARD_WEBHOOK_SECRET",
)
_USER_INFO: Final = re.compile(r"(://)[^/@\s]*@")

CHECK_FAILED: Final = FindingKind(
    "check_failed",
    "doctor",
    Severity.UNCHECKED,
    "{what} could not be checked: {why}.",
    "Check it by hand; if the cause is not a server's refusal, report it as a fault of the doctor.",
)
CHECK_UNFINISHED: Final = FindingKind(
    "check_unfinished",
    "doctor",
    Severity.UNCHECKED,
    "{what} could not be checked: not finished within {seconds:g} s.",
    "Run the doctor again with a larger --time-limit-s; if that does not help, look for a server "
    "that accepts connections and does not answer.",
)
KINDS: Final = (CHECK_FAILED, CHECK_UNFINISHED)


@dataclass(frozen=True, slots=True)
class Examination:
    """Installation that is examined, and the values that a test replaces.

    Attributes:
        is_worker: Whether this is a worker's machine, whose user must be allowed more.
        clock: This machine's clock, in seconds since the epoch.
    """

    settings: DoctorSettings
    environ: Mapping[str, str]
    is_worker: bool = False
    clock: Callable[[], float] = time.time


#: Findings of one part of the installation; sections run side by side.
Section = Callable[[], Iterable[Finding]]


def guarded(what: str, check: Callable[..., Iterable[Finding]], *args: Any) -> Iterator[Finding]:
    """Yield the findings of a check; an exception becomes a finding, too.

    Args:
        what: Subject of the sentence "… could not be checked".
    """
    try:
        yield from check(*args)
    except Exception as error:  # noqa: BLE001 - whatever a server or a library raises
        yield CHECK_FAILED.at(what=what, why=describe(error))


def describe(error: BaseException) -> str:
    """Describe an exception in one line, without user and password of an address."""
    text = str(error).strip().partition("\n")[0].rstrip(".")
    name = "" if isinstance(error, LabelyardError) else type(error).__name__
    return _USER_INFO.sub(r"\1", ": ".join(filter(None, (name, text))))


def run_sections(
    sections: Mapping[str, Section], *, time_limit_s: float, secrets: Iterable[str]
) -> DoctorReport:
    """Run *sections* side by side, and report what they found within *time_limit_s* seconds.

    A section that is not finished by then goes on in a daemon thread, which ends with the
    process; each wait of a check has a limit of its own.

    Args:
        sections: Each by the subject of the sentence "… could not be checked".
    """
    started_at = time.monotonic()
    findings: dict[str, list[Finding]] = {what: [] for what in sections}

    def collect(what: str, section: Section) -> None:
        for finding in guarded(what, section):
            findings[what].append(finding)

    threads = {
        what: threading.Thread(
            target=collect, args=(what, section), name=f"doctor-{what}", daemon=True
        )
        for what, section in sections.items()
    }
    for thread in threads.values():
        thread.start()
    for what, thread in threads.items():
        thread.join(max(0.0, started_at + time_limit_s - time.monotonic()))
        if thread.is_alive():
            findings[what].append(CHECK_UNFINISHED.at(what=what, seconds=time_limit_s))
    seconds = time.monotonic() - started_at
    everything = [finding for some in findings.values() for finding in list(some)]
    return DoctorReport.of(everything, seconds=seconds, secrets=secrets)


def secrets_in(settings: DoctorSettings, environ: Mapping[str, str]) -> list[str]:
    """List the passwords and keys that no sentence may hold, the longest first."""
    urls = (settings.broker_url, settings.ledger_url, settings.embeddings_url or "")
    found = {environ.get(name, "") for name in SECRET_VARIABLES}
    for url in (one for several in urls for one in several.split(";")):
        password = urlsplit(url).password or ""
        found |= {password, unquote(password)}
    return sorted((one for one in found if len(one) >= MIN_SECRET_LENGTH), key=len, reverse=True)
