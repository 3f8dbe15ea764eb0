"""Mutated envelopes at a real worker, a few hundred; ``python -m tests.chaos.envelopes`` takes more."""

import random
from pathlib import Path

import pytest

from tests.chaos.envelopes import environment_for, run
from tests.chaos.test_chaos import BROKERS

COUNT = 200


@pytest.mark.chaos
@pytest.mark.timeout(180)
@pytest.mark.parametrize("broker", BROKERS)
def test_no_envelope_ends_freezes_or_fools_a_worker(tmp_path: Path, broker: str) -> None:
    seed = random.SystemRandom().randrange(10**6)

    with environment_for(tmp_path, broker) as environment:
        report = run(environment, count=COUNT, seed=seed)
        log = environment.slots[0].log_path.read_text()

    # Whether a job was held up for a second is for the program to say, on a quiet machine.
    broken = (len(report.vanished), report.late, report.exits)
    assert broken == (0, 0, 0), f"seed {seed}: {report.line()}, vanished {report.vanished[:3]}"
    assert report.set_aside > COUNT / 2
    assert "a cat" not in log  # no body in any line
