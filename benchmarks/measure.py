"""Alternating rounds over systems: rates, CPU seconds by stage, memory, errors, answers."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from benchmarks.processes import Meter
from benchmarks.systems.system import Case, Outcome, System

OWN_STAGES = ("worker", "children")
FIRST_RUN_WITHIN_S = 180.0
SLACK_S = 60.0
SLOWER = 6.0  # than in the warm-up, until a run counts as hung

Say = Callable[[str], None]


class Stoppable(Protocol):
    """A system, or the worker that several systems share."""

    def stop(self) -> None:
        """End the system's processes."""


@dataclass(frozen=True, slots=True)
class Effort:
    """Duration of a measurement.

    Attributes:
        rounds: Runs of each system, alternating with the others.
        seconds: Length of each run, about.
    """

    rounds: int
    seconds: float

    @property
    def total_s(self) -> float:
        """Seconds of all rounds; a system so slow that it takes them sooner runs less often."""
        return self.rounds * self.seconds


@dataclass(frozen=True, slots=True)
class Share:
    """One system's part of each round: so many images, in about so many seconds."""

    images: int
    seconds: float


@dataclass
class Measured:
    """Measurements of one system.

    Attributes:
        rates: Images per second, one for each round.
        cpu_s: CPU seconds for each image, by stage, one for each round.
        seconds: Length of all rounds together.
        failed: Why it could not be measured; empty if it could.
    """

    name: str
    rates: list[float] = field(default_factory=list)
    cpu_s: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    peak_rss_bytes: int = 0
    images: int = 0
    errors: int = 0
    problems: list[str] = field(default_factory=list)
    top: dict[str, str] = field(default_factory=dict)
    failed: str = ""

    @property
    def images_per_s(self) -> float:
        """Median of the rounds; 0 where nothing could be measured or something failed."""
        return statistics.median(self.rates) if self.rates and not self.errors else 0.0

    def add(self, outcome: Outcome, meter: Meter) -> None:
        """Add a round."""
        self.images += outcome.images
        self.seconds += outcome.seconds
        self.errors += outcome.errors
        self.problems = (self.problems + outcome.problems)[:3]
        self.top |= outcome.top
        self.peak_rss_bytes = max(self.peak_rss_bytes, meter.peak_rss_bytes)
        if outcome.images:
            self.rates.append(outcome.images / outcome.seconds)
            self.cpu_s.append({stage: s / outcome.images for stage, s in meter.cpu_s.items()})

    def as_json(self) -> dict[str, Any]:
        """Return the system's entry in ``latest.json``."""
        stages = self.cpu_s[0] if self.cpu_s else {}
        by_stage = {
            stage: round(statistics.median(one.get(stage, 0.0) for one in self.cpu_s), 5)
            for stage in stages
        }
        found: dict[str, Any] = {
            "images_per_s": round(self.images_per_s, 2),
            "images_per_s_rounds": [round(rate, 2) for rate in self.rates],
            "cpu_s_per_image": round(sum(by_stage.values()), 5),
            "cpu_s_per_image_by_stage": by_stage,
            "peak_rss_bytes": self.peak_rss_bytes,
            "images": self.images,
            "errors": self.errors,
        }
        if self.problems or self.failed:
            found["problems"] = self.problems + [self.failed] * bool(self.failed)
        return found


def measure(
    systems: Sequence[System], case: Case, effort: Effort, *, say: Say
) -> dict[str, Measured]:
    """Measure *systems* in alternating rounds; one that fails is left out from then on."""
    found = {system.name: Measured(system.name) for system in systems}
    shares = _warm_up_all(systems, case, effort, found)
    for number in range(effort.rounds):
        turn = number % max(1, len(systems))
        for system in (*systems[turn:], *systems[:turn]):
            one = found[system.name]
            if not one.failed and one.seconds < effort.total_s:
                _run(system, case, shares[system.name], one)
                say(_line(number, one))
    return found


def _warm_up_all(
    systems: Sequence[System], case: Case, effort: Effort, found: Mapping[str, Measured]
) -> dict[str, Share]:
    shares = {}
    for system in systems:
        try:
            shares[system.name] = warm_up(system, case, seconds=effort.seconds)
        except Exception as error:  # noqa: BLE001 - the others must be measured
            found[system.name].failed = f"{type(error).__name__}: {error}"
    return shares


def warm_up(system: System, case: Case, *, seconds: float) -> Share:
    """Start a system, run it until it is warm, and find what takes it *seconds*."""
    system.start()
    first = system.run(case, system.unit, timeout_s=FIRST_RUN_WITHIN_S)
    images = max(1, first.images)
    until = time.monotonic() + seconds / 2
    rate = 0.0
    while time.monotonic() < until:
        outcome = system.run(case, images, timeout_s=FIRST_RUN_WITHIN_S)
        rate = (outcome.images + outcome.errors) / outcome.seconds
        images = whole_units(rate * seconds / 3, system.unit, at_least=1)
    images = whole_units(rate * seconds, system.unit, at_least=2)
    return Share(images, seconds=images / rate if rate else seconds)


def whole_units(images: float, unit: int, *, at_least: int) -> int:
    """Round up to whole units; a measured run needs two, so that one can overlap the other."""
    return max(at_least, math.ceil(images / unit)) * unit


def start_all(systems: Sequence[System], case: Case, *, say: Say) -> None:
    """Start systems at the same time; one that fails will fail again when it is measured."""

    def start(system: System) -> None:
        started_at = time.monotonic()
        try:
            system.start()
            system.run(case, system.unit, timeout_s=FIRST_RUN_WITHIN_S)
        except Exception as error:  # noqa: BLE001 - the others must be measured
            say(f"  {system.name} does not start: {error}")
            return
        say(f"  {system.name} is warm after {time.monotonic() - started_at:.1f} s")

    with ThreadPoolExecutor(len(systems)) as pool:
        list(pool.map(start, systems))


def stop_all(systems: Sequence[Stoppable]) -> None:
    """Stop systems at the same time; each takes seconds to drain."""
    with ThreadPoolExecutor(len(systems)) as pool:
        list(pool.map(lambda system: system.stop(), systems))


def _run(system: System, case: Case, share: Share, found: Measured) -> None:
    meter = Meter(system.stages, measured=OWN_STAGES)
    try:
        with meter:
            outcome = system.run(case, share.images, timeout_s=SLACK_S + SLOWER * share.seconds)
    except Exception as error:  # noqa: BLE001 - the others must be measured
        found.failed = f"{type(error).__name__}: {error}"
        system.stop()
        return
    found.add(outcome, meter)


def _line(number: int, found: Measured) -> str:
    if found.failed:
        return f"  {found.name}: failed: {found.failed}"
    rate = found.rates[-1] if found.rates else 0.0
    return f"  round {number + 1} {found.name}: {rate:.1f} images/s, {found.errors} errors"


def agreement(answers: Mapping[str, str], reference: Mapping[str, str]) -> float | None:
    """Return the fraction of the pictures that got the same best label from both."""
    shared = answers.keys() & reference.keys()
    if not shared:
        return None
    return sum(answers[key] == reference[key] for key in shared) / len(shared)
