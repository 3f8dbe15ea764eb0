"""A compiled image tower gives what the plain one gives, in every batch size."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

pytestmark = [pytest.mark.cuda, pytest.mark.timeout(170)]

ROOT = Path(__file__).parent.parent.parent
LARGEST = {"cuda": 8, "cpu": 1}  # each batch size is compiled by itself, half a minute on a CPU
WITHIN_S = 160.0


def test_a_compiled_tower_gives_the_same_vectors(
    device: torch.device, folder_of: Callable[[str], Path]
) -> None:
    if shutil.which("g++") is None and shutil.which("gcc") is None:
        pytest.skip("torch.compile needs a C++ compiler")
    largest = LARGEST[device.type]
    arguments = [str(folder_of("clip")), device.type, str(largest)]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]

    answer = subprocess.run(
        [sys.executable, "-m", "tests.support.apps.compiled_tower", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )

    assert answer.returncode == 0, answer.stderr[-2000:]
    differences = json.loads(answer.stdout.splitlines()[-1])
    assert len(differences) == largest
    assert max(differences.values()) < 1e-4
