"""What jobs and models do to their worker."""

import random
import time
from typing import Final

from tests.chaos.recovery import Hit
from tests.chaos.scene import Inflict, NoVictimError, Scene
from tests.support.apps import orders

OBEYED_WITHIN_S: Final = 30.0
LOOK_EVERY_S: Final = 0.02


def poison(tenant: str) -> Inflict:
    """Make the fault of sending a job that misbehaves whenever it runs."""

    def send(scene: Scene, rng: random.Random, hit: Hit) -> None:
        hit.job_id = scene.traffic.send_poison(tenant)

    return send


def order(flag: str) -> Inflict:
    """Make the fault of ordering the next forward pass to fail."""

    def give(scene: Scene, rng: random.Random, hit: Hit) -> None:
        with scene.stage.turns["model"]:
            path = scene.stage.flags / flag
            obeyed = scene.effects.obeyed[flag]
            before = len(obeyed)
            path.touch()
            until = time.monotonic() + OBEYED_WITHIN_S
            while len(obeyed) == before:
                if time.monotonic() >= until:
                    path.unlink(missing_ok=True)
                    raise NoVictimError(f"no model obeyed {flag}")
                time.sleep(LOOK_EVERY_S)
            slot, pid = obeyed[-1]
            hit.slots.add(slot)
            if flag != orders.RUN_OUT_OF_MEMORY:  # the others end the process
                hit.old_pids.add(pid)

    return give
