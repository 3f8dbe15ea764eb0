"""A model that answers at once, in place of the module ``labelyard_worker.vision.checkpoint``.

It stands in for the whole module because importing transformers takes seconds of CPU, which a
suite that starts a hundred workers cannot pay.
"""

import os
import signal
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from labelyard.messages import ModelInfo
from labelyard_worker.pixels import ImageFacts, Pixels, PixelSpec
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision.devices import ThreadPlan
from labelyard_worker.vision.scoring import Floats
from labelyard_worker.vision.vector_layout import VectorLayout
from tests.support.apps import orders
from tests.support.apps.notes import hang, is_ordered

OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 20.00 MiB"
DEVICE_LOST = "CUDA error: an illegal memory access was encountered"
EDGE_PX = 8
DIM = 8
MAX_BATCH_SIZE = 16
# A picture of this colour kills the process that embeds it.
LETHAL = bytes([254, 1, 253])


class Checkpoint:
    """A model without weights: an embedding is made of a picture's first colours."""

    def __init__(self, max_batch_size: int = MAX_BATCH_SIZE) -> None:
        self.info = ModelInfo(
            checkpoint="instant", fingerprint="sha256:instant", dtype="float32", device="cpu"
        )
        self.device = torch.device("cpu")
        self.decode = "exact"
        self.pixel_spec = PixelSpec(resize="exact", height=EDGE_PX, width=EDGE_PX)
        self.scoring = "softmax"
        self.logit_scale, self.logit_bias = 10.0, 0.0
        self.dim = DIM
        self.layout = VectorLayout(DIM)
        self.threads = ThreadPlan(streams=1, threads_per_stream=1, cores=1)
        self.max_batch_size = max_batch_size

    def image_vectors(self, batch: Sequence[Pixels], *, leaves_cores: bool = False) -> Floats:
        """Embed pictures, or obey an order to fail."""
        if any(pixels.data[:3] == LETHAL for pixels in batch):
            os.kill(os.getpid(), signal.SIGKILL)
        if is_ordered(orders.HANG_MODEL):
            hang()
        if is_ordered(orders.LOSE_DEVICE):
            raise RuntimeError(DEVICE_LOST)
        if len(batch) > 1 and is_ordered(orders.RUN_OUT_OF_MEMORY):
            raise RuntimeError(OUT_OF_MEMORY)
        if is_ordered(orders.LEAVE_NO_MEMORY):
            raise RuntimeError(OUT_OF_MEMORY)
        if is_ordered(orders.LOSE_PRECISION):
            return np.full((len(batch), DIM), np.nan, dtype=np.float32)
        rows = [np.frombuffer(pixels.data, dtype=np.uint8)[:DIM] + 1.0 for pixels in batch]
        return unit_length(np.stack(rows))

    def text_embeds(self, prompts: Sequence[str]) -> Floats:
        """Embed prompts by their last letters."""
        rows = [np.frombuffer(prompt.rjust(DIM).encode()[-DIM:], np.uint8) for prompt in prompts]
        return unit_length(np.stack(rows))

    def title_embeds(self, texts: Sequence[str]) -> Floats:
        """Embed titles by the letters that are in them."""
        alphabet = "abcdefghijklmnopqrstuvwxyz"
        return unit_length([[text.lower().count(one) + 0.01 for one in alphabet] for text in texts])

    def warm_up(self) -> None:
        """Do nothing: there is nothing to warm, and orders are meant for jobs."""

    def close(self) -> None:
        """Do nothing: there is no memory to free."""


def load_checkpoint(settings: WorkerSettings) -> Checkpoint:
    """Make the model, whatever checkpoint the settings name."""
    return Checkpoint(min(settings.max_batch_size or MAX_BATCH_SIZE, MAX_BATCH_SIZE))


def blank_pixels(spec: PixelSpec) -> Pixels:
    """Make a black picture of the shape that the model takes."""
    facts = ImageFacts(sha256="", width=EDGE_PX, height=EDGE_PX)
    return Pixels(bytes(3 * EDGE_PX**2), EDGE_PX, EDGE_PX, facts)


def unit_length(rows: Any) -> Floats:
    """Scale each row to length 1."""
    vectors: Floats = np.asarray(rows, dtype=np.float32)
    lengths: Floats = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Floats = vectors / lengths
    return scaled
