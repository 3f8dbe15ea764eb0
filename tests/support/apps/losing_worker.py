"""The real worker, whose first forward pass loses the device while a file exists."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from labelyard_worker.celery_app import make_app
from labelyard_worker.pixels import Pixels
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision.checkpoint import Checkpoint, load_checkpoint
from labelyard_worker.vision.scoring import Floats


def lose(device: torch.device) -> None:
    """Have a kernel fail an assertion, so that CUDA refuses this process; a CPU raises the same."""
    if device.type == "cuda":
        nowhere = torch.tensor([1 << 20], device=device)
        torch.zeros(2, device=device)[nowhere].cpu()
    raise torch.AcceleratorError("CUDA error: device-side assert triggered")


def load(settings: WorkerSettings) -> Checkpoint:
    """Load the checkpoint, and have it lose its device when the file ``TEST_LOSE`` is there."""
    checkpoint = load_checkpoint(settings)
    embed = checkpoint.image_vectors

    def image_vectors(batch: Sequence[Pixels], **options: Any) -> Floats:
        if is_warm and Path(os.environ["TEST_LOSE"]).exists():
            lose(checkpoint.device)
        return embed(batch, **options)

    is_warm: list[bool] = []
    warm_up = checkpoint.warm_up

    def warm_up_first() -> None:
        warm_up()
        is_warm.append(True)

    vars(checkpoint).update(image_vectors=image_vectors, warm_up=warm_up_first)
    return checkpoint


app = make_app(load=load)
