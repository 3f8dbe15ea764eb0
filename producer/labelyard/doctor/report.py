"""Report of the doctor: kinds of findings, findings with their values, and the exit code."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

REDACTED: Final = "***"


class Severity(StrEnum):
    """Severity of a finding, the most severe first."""

    SERIOUS = "serious"
    WARNING = "warning"
    ADVICE = "advice"
    UNCHECKED = "unchecked"
    OK = "ok"

    @property
    def rank(self) -> int:
        """Position in a report: serious findings come first."""
        return list(Severity).index(self)


@dataclass(frozen=True, slots=True)
class Finding:
    """Finding of the doctor.

    Attributes:
        code: Code of its kind, for programs and for docs/doctor.md.
        group: Part of the installation that it concerns, such as ``redis``.
        found: Sentence that names the values that were found.
        advice: Sentence that names the setting or the command to change; empty if nothing is
            to be done.
    """

    code: str
    group: str
    severity: Severity
    found: str
    advice: str

    def fields(self) -> dict[str, str]:
        """Describe the finding for programs."""
        return {
            "code": self.code,
            "group": self.group,
            "severity": str(self.severity),
            "found": self.found,
            "advice": self.advice,
        }

    def without(self, secrets: Iterable[str]) -> "Finding":
        """Return the finding with each of *secrets* replaced by ``***``."""
        found, advice = self.found, self.advice
        for secret in secrets:
            found, advice = found.replace(secret, REDACTED), advice.replace(secret, REDACTED)
        return replace(self, found=found, advice=advice)


@dataclass(frozen=True, slots=True)
class FindingKind:
    """Kind of finding, declared as data: the tables of docs/doctor.md are made of it.

    Attributes:
        code: Name for programs; never changed.
        group: Part of the installation that it concerns.
        found: Sentence with ``{…}`` for what was found.
        advice: Sentence with ``{…}`` that says what to do; empty if nothing is to be done.
        in_worker: Severity in ``labelyard-worker doctor``, if it differs.
    """

    code: str
    group: str
    severity: Severity
    found: str
    advice: str = ""
    in_worker: Severity | None = None

    def at(self, *, is_worker: bool = False, **values: Any) -> Finding:
        """Make a finding of this kind.

        Args:
            is_worker: Whether a worker's machine is examined.
            values: Values of the ``{…}`` in the two sentences.
        """
        severity = self.in_worker if is_worker and self.in_worker else self.severity
        found, advice = self.found.format(**values), self.advice.format(**values)
        return Finding(self.code, self.group, severity, found, advice)


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """Findings of one examination, the most severe first.

    Attributes:
        seconds: Time that the examination took.
    """

    findings: tuple[Finding, ...]
    seconds: float

    @classmethod
    def of(
        cls, findings: Iterable[Finding], *, seconds: float, secrets: Iterable[str]
    ) -> "DoctorReport":
        """Sort findings, drop repeated ones, and redact *secrets* in their sentences."""
        secrets = tuple(secrets)
        unique = dict.fromkeys(finding.without(secrets) for finding in findings)
        return cls(tuple(sorted(unique, key=lambda one: one.severity.rank)), seconds)

    @property
    def exit_code(self) -> int:
        """Exit code for shells: 1 if a finding is serious, else 0."""
        return int(any(one.severity is Severity.SERIOUS for one in self.findings))

    def count(self, severity: Severity) -> int:
        """Count the findings of one severity."""
        return sum(one.severity is severity for one in self.findings)

    def fields(self) -> dict[str, Any]:
        """Describe the report for programs."""
        return {
            "is_sound": not self.exit_code,
            "seconds": round(self.seconds, 2),
            "counts": {str(severity): self.count(severity) for severity in Severity},
            "findings": [finding.fields() for finding in self.findings],
        }
