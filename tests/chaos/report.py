"""The report of a run: ``chaos-report.json``, and a few lines for a person.

The keys: ``submitted`` (jobs whose submit returned), ``final`` (how many came to each state),
``lost``, ``stuck``, ``twice_visible`` (see ``invariants``), ``executions`` (attempts that workers
began), ``faults`` (how many of each kind were inflicted), ``recovery_s`` (see ``recovery``),
``seed``. And further: ``broker``, ``doubtful`` (submits that raised), ``violations`` (all that
must not be), ``unrecovered``, ``missed_faults``, ``skipped_faults`` (kinds that this machine
cannot make, or this broker cannot have),
``damaged_files`` (times that the broker could not read its own file, and began without),
``worker_exits`` (by cause and exit code), ``settings``, ``examples`` (ids to look at).
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.invariants import Findings
from tests.chaos.slots import Exit


@dataclass
class Report:
    """Report of a run; its fields are described at the head of this file."""

    submitted: int
    final: dict[str, int]
    lost: int
    stuck: int
    twice_visible: int
    executions: int
    faults: dict[str, int]
    recovery_s: dict[str, dict[str, float]]
    seed: int
    broker: str = "redis"
    doubtful: int = 0
    violations: dict[str, int] = field(default_factory=dict)
    unrecovered: list[str] = field(default_factory=list)
    missed_faults: dict[str, str] = field(default_factory=dict)
    skipped_faults: dict[str, str] = field(default_factory=dict)
    damaged_files: int = 0
    worker_exits: dict[str, int] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def is_clean(self) -> bool:
        """Return whether every promise was kept."""
        return not self.violations and not self.unrecovered

    def write(self, path: Path) -> None:
        """Write the report as JSON."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")

    def lines(self) -> Iterable[str]:
        """Summarise the report in a few lines."""
        yield f"seed {self.seed} on {self.broker}: {self.submitted} jobs submitted, {self.executions} executions"
        yield "final: " + in_words(self.final)
        yield "faults: " + in_words(self.faults)
        for name, times in self.recovery_s.items():
            yield f"  {name}: recovered in {times['median']} s (median), {times['max']} s (max)"
        yield "worker exits: " + in_words(self.worker_exits)
        yield f"lost {self.lost}, stuck {self.stuck}, twice_visible {self.twice_visible}"
        if not self.is_clean:
            yield f"VIOLATED: {in_words(self.violations)} {' '.join(self.unrecovered)}"
            yield json.dumps(self.examples, indent=2)


def in_words(counts: dict[str, int]) -> str:
    """Write counts in one line."""
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


def examples_of(findings: Findings, *, most: int = 5) -> dict[str, list[str]]:
    """Pick ids to look for in the logs."""
    lists: dict[str, Any] = asdict(findings)
    return {name: ids[:most] for name, ids in lists.items() if isinstance(ids, list) and ids}


def exits_by_cause(exits: Iterable[Exit]) -> dict[str, int]:
    """Count exits as ``cause:code``; one that no fault was meant to cause is ``unasked``."""
    codes: Counter[str] = Counter()
    for one in exits:
        code = "never_ready" if one.code is None else str(one.code)
        codes[f"{one.cause or 'unasked'}:{code}"] += 1
    return dict(sorted(codes.items()))
