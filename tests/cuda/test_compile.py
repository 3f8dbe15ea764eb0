"""A compiled image tower gives what the plain one gives, in every batch size."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch._inductor.config

from labelyard_worker.intake.images import Pixels
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision.checkpoint import Checkpoint, load_checkpoint
from tests.cuda.conftest import Load

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.timeout(170),
    # torch's compiler uses what torch deprecates, and other things from version to version.
    pytest.mark.filterwarnings("ignore"),
]

LARGEST = {"cuda": 8, "cpu": 2}  # each batch size is compiled by itself


def test_a_compiled_tower_gives_the_same_vectors(
    load: Load,
    device: torch.device,
    folder_of: Callable[[str], Path],
    batch_for: Callable[[Checkpoint, int], list[Pixels]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if shutil.which("g++") is None and shutil.which("gcc") is None:
        pytest.skip("torch.compile needs a C++ compiler")
    plain, largest = load("clip", device.type), LARGEST[device.type]
    settings = WorkerSettings(
        checkpoint=str(folder_of("clip")),
        device=device.type,
        dtype="float32",
        compile=True,
        max_batch_size=largest,
    )
    # Or a pool of compiling processes would live as long as this one.
    monkeypatch.setattr(torch._inductor.config, "compile_threads", 1)
    images = batch_for(plain, largest)
    compiled = load_checkpoint(settings)

    compiled.warm_up()

    for count in range(1, largest + 1):
        expected = plain.image_embeds(images[:count])
        assert compiled.image_embeds(images[:count]) == pytest.approx(expected, abs=1e-4)
    compiled.close()
