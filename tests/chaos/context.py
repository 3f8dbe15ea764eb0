"""A kind of fault, and the context in which it is inflicted."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.effects import EffectsLog
from tests.chaos.environment import Environment
from tests.chaos.recovery import Hit
from tests.chaos.traffic import Traffic


class NoVictimError(Exception):
    """The fault found no victim."""


@dataclass(frozen=True)
class FaultContext:
    """Everything that a fault may touch: environment, effects log and traffic."""

    environment: Environment
    effects: EffectsLog
    traffic: Traffic

    def hit_all_workers(self, hit: Hit) -> None:
        """Have every worker prove that it has recovered."""
        hit.slots |= {slot.name for slot in self.environment.slots}


# Inflicts one fault, and returns when it is over; notes the affected workers in the hit.
Inflict = Callable[[FaultContext, random.Random, Hit], None]


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes:
        quota: How many belong into twenty minutes.
        least: How many belong into a run of any length.
    """

    name: str
    inflict: Inflict
    quota: int
    least: int = 0
