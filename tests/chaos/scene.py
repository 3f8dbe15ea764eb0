"""What a fault may touch, and what a kind of fault is."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.effects import EffectsLog
from tests.chaos.recovery import Hit
from tests.chaos.stage import Stage
from tests.chaos.traffic import Traffic


class NoVictimError(Exception):
    """There was nothing that the fault could have hit."""


@dataclass(frozen=True)
class Scene:
    """What a fault may touch."""

    stage: Stage
    effects: EffectsLog
    traffic: Traffic

    def hit_all_workers(self, hit: Hit) -> None:
        """Have every worker prove that it has recovered."""
        hit.slots |= {slot.name for slot in self.stage.slots}


# Inflicts one fault, and returns when it is over; what it affects goes into the hit.
Inflict = Callable[[Scene, random.Random, Hit], None]


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
