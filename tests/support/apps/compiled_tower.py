"""Compares a compiled image tower with the plain one, in every batch size; prints JSON.

A process of its own: torch's compiler leaves threads and processes behind.
"""

import json
import sys
from typing import Any

import numpy as np

from labelyard_worker.intake.decode import ImageLimits, decode
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision.checkpoint import Checkpoint, load_checkpoint
from tests.support import pictures

EXACT = ImageLimits(decode="exact", transparency="drop")


def load(folder: str, device: str, **options: Any) -> Checkpoint:
    """Load the checkpoint in float32."""
    settings = WorkerSettings(checkpoint=folder, device=device, dtype="float32", **options)
    return load_checkpoint(settings)


def main(folder: str, device: str, largest: int) -> None:
    """Print the largest difference of two numbers of a vector, by batch size."""
    plain = load(folder, device)
    compiled = load(folder, device, compile=True, max_batch_size=largest)
    compiled.warm_up()
    images = [
        decode(pictures.jpeg(seed=seed), uri="x", spec=plain.pixel_spec, limits=EXACT)
        for seed in range(largest)
    ]
    differences = {
        count: float(
            np.abs(plain.image_embeds(images[:count]) - compiled.image_embeds(images[:count])).max()
        )
        for count in range(1, largest + 1)
    }
    print(json.dumps(differences))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
