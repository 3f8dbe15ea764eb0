"""Circuit breaker of one host: stop calls to a failing host, and probe it now and then."""

from dataclasses import dataclass, field
from typing import Final, Literal

# Failures in a row that open the circuit.
OPEN_AFTER: Final = 5
FIRST_PAUSE_S: Final = 10.0
# The longest pause is so many times the first.
MAX_GROWTH: Final = 12

CircuitState = Literal["closed", "open", "probing"]


@dataclass
class CircuitBreaker:
    """State of one host's circuit; call from one thread.

    Attributes:
        first_pause_s: Seconds for which the open circuit lets no call go at first.

    Closed, every call may go. After OPEN_AFTER failures in a row it is open: no call goes
    for a pause. Then one call goes as a probe; success closes the circuit, failure opens
    it again for twice the pause.
    """

    first_pause_s: float = FIRST_PAUSE_S
    failures: int = 0
    opened_until: float = 0.0
    pause_s: float = field(init=False)
    is_probing: bool = False

    def __post_init__(self) -> None:
        self.pause_s = self.first_pause_s

    @property
    def is_closed(self) -> bool:
        """Return whether calls are not restricted."""
        return self.failures < OPEN_AFTER

    @property
    def state(self) -> CircuitState:
        """State of the circuit: open, or probing while one call tests the host."""
        if self.is_closed:
            return "closed"
        return "probing" if self.is_probing else "open"

    def wait_s(self, *, now: float) -> float:
        """Return the seconds until a call may start; 0 means now."""
        if self.is_closed:
            return 0.0
        if now < self.opened_until:
            return self.opened_until - now
        return self.pause_s if self.is_probing else 0.0

    def begin(self) -> None:
        """Note that a call starts; the first one after the pause is the probe."""
        self.is_probing = not self.is_closed

    def succeed(self) -> None:
        """Note an answer that shows the host to be well."""
        self.failures = 0
        self.pause_s = self.first_pause_s
        self.is_probing = False

    def fail(self, *, now: float) -> None:
        """Note a failure of the host."""
        was_probe = self.is_probing
        self.is_probing = False
        self.failures += 1
        if was_probe:
            self.pause_s = min(MAX_GROWTH * self.first_pause_s, 2 * self.pause_s)
        if was_probe or self.failures == OPEN_AFTER:
            self.opened_until = now + self.pause_s

    def give_up_probe(self) -> None:
        """Note that a call ended without an answer about the host."""
        self.is_probing = False
