"""Circuit breakers of buckets and hosts: probes show whether one is failing as a whole."""

import random
from collections import Counter
from dataclasses import dataclass, field

from labelyard_worker.intake.queue import IntakeRequest

# Seconds between two probes of a source of which single objects fail.
BETWEEN_PROBES_S = 0.2
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0
PAUSE_GROWTH = 1.5
# Without an image that wants it, a source's state is dropped after this time.
UNWANTED_S = 60.0


@dataclass(slots=True)
class SourceState:
    """State of one source.

    Attributes:
        uri: Address of an image, for probes of its bucket or host.
        is_away: Whether the last probe failed.
        is_probing: Whether a probe is on its way.
        probe_at: Time of the next probe.
        pause_s: Seconds until the probe after that.
        probed_at: Time of the last probe.
        wanted_at: Time at which an image last wanted the source; else it is not probed.
        suspects: Images whose last retry failed, until a probe shows if the source is at fault.
    """

    uri: str
    is_away: bool = False
    is_probing: bool = False
    probe_at: float = 0.0
    pause_s: float = FIRST_PAUSE_S
    probed_at: float = float("-inf")
    wanted_at: float = 0.0
    suspects: list[tuple[IntakeRequest, float]] = field(default_factory=list)


class SourceHealth:
    """States of the sources that fail; a source that answers has none. Not thread-safe."""

    def __init__(self) -> None:
        self._by_source: dict[str, SourceState] = {}

    def is_away(self, source: str, now: float) -> bool:
        """Return whether *source*, which an image wants, is known to be failing as a whole."""
        health = self._by_source.get(source)
        if health is None or not health.is_away:
            return False
        health.wanted_at = now
        return True

    @property
    def away(self) -> list[str]:
        """Names of the sources that are failing."""
        return [source for source, health in self._by_source.copy().items() if health.is_away]

    def count_circuits(self) -> Counter[str]:
        """Count the failing sources by state, open or probing; thread-safe."""
        away = [health for health in list(self._by_source.values()) if health.is_away]
        return Counter("probing" if health.is_probing else "open" for health in away)

    def note_answer(self, source: str) -> None:
        """Note a sound answer: the source is back. Suspects still wait for their probe."""
        health = self._by_source.get(source)
        if health is None:
            return
        health.is_away, health.pause_s = False, FIRST_PAUSE_S
        if not health.suspects and not health.is_probing:
            del self._by_source[source]

    def note_failure(self, request: IntakeRequest, now: float) -> None:
        """Keep an image whose last retry failed until a probe shows if its source is at fault."""
        health = self._by_source.setdefault(request.source, SourceState(request.image.uri))
        health.suspects.append((request, now))
        health.wanted_at = now
        if not health.is_away:
            health.probe_at = max(now, health.probed_at + BETWEEN_PROBES_S)

    def forget(self, request: IntakeRequest) -> None:
        """Withdraw a suspect."""
        health = self._by_source.get(request.source)
        if health is not None:
            health.suspects = [one for one in health.suspects if one[0] is not request]

    def due(self, now: float) -> list[tuple[str, str]]:
        """Return sources to probe now, each with the address of one of its images."""
        due = []
        for source, health in list(self._by_source.items()):
            if now - health.wanted_at > UNWANTED_S and not (health.suspects or health.is_probing):
                del self._by_source[source]
                continue
            is_unsure = (health.is_away or health.suspects) and not health.is_probing
            if is_unsure and now >= health.probe_at:
                health.is_probing, health.probed_at = True, now
                due.append((source, health.uri))
        return due

    def next_due_at(self) -> float | None:
        """Return the time of the next probe."""
        waiting = [
            health.probe_at
            for health in self._by_source.values()
            if (health.is_away or health.suspects) and not health.is_probing
        ]
        return min(waiting, default=None)

    def note_probe(self, source: str, *, is_down: bool, now: float) -> list[IntakeRequest]:
        """Note a probe's finding; return the suspects, to be answered accordingly."""
        health = self._by_source.get(source)
        if health is None:
            return []
        health.is_probing = False
        health.is_away = is_down
        if is_down:
            health.probe_at = now + random.uniform(0.5, 1.0) * health.pause_s
            health.pause_s = min(LONGEST_PAUSE_S, health.pause_s * PAUSE_GROWTH)
            answered = health.suspects
        else:
            health.probe_at, health.pause_s = now + BETWEEN_PROBES_S, FIRST_PAUSE_S
            # Images that failed after the probe was sent may have failed with the whole source.
            answered = [one for one in health.suspects if one[1] <= health.probed_at]
        health.suspects = [one for one in health.suspects if one not in answered]
        return [request for request, _ in answered]

    def probe_lost(self, source: str, now: float) -> None:
        """Schedule a probe again after its fetcher died."""
        health = self._by_source.get(source)
        if health is not None:
            health.is_probing, health.probe_at = False, now
