"""Run a labelyard worker with an instant model: only the queue and the intake are left."""

from collections.abc import Sequence

import numpy as np
import torch

from labelyard.messages import ModelInfo
from labelyard_worker.celery_app import make_app
from labelyard_worker.pixels import Pixels, PixelSpec
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision.checkpoint import Checkpoint
from labelyard_worker.vision.devices import ThreadPlan
from labelyard_worker.vision.scoring import Floats
from labelyard_worker.vision.vector_layout import VectorLayout

EDGE_PX = 32
DIM = 64


class InstantCheckpoint(Checkpoint):
    """A model without weights."""

    def __init__(self) -> None:
        self.info = ModelInfo(
            checkpoint="instant", fingerprint="sha256:instant", dtype="float32", device="cpu"
        )
        self.device = torch.device("cpu")
        self.pixel_spec = PixelSpec(resize="exact", height=EDGE_PX, width=EDGE_PX)
        self.scoring = "softmax"
        self.logit_scale, self.logit_bias = 10.0, 0.0
        self.dim = DIM
        self.layout = VectorLayout(DIM)
        self.threads = ThreadPlan(streams=1, threads_per_stream=1, cores=1)
        self.max_batch_size = 64
        self.decode = "draft"

    def image_vectors(self, batch: Sequence[Pixels], *, leaves_cores: bool = False) -> Floats:
        """Return the same vector for every picture."""
        del leaves_cores
        return np.full((len(batch), DIM), DIM**-0.5, dtype=np.float32)

    def text_embeds(self, prompts: Sequence[str]) -> Floats:
        """Return a basis vector for each prompt."""
        rows: Floats = np.eye(DIM, dtype=np.float32)[np.arange(len(prompts)) % DIM]
        return rows

    def warm_up(self) -> None:
        """Do nothing: there is nothing to warm."""

    def close(self) -> None:
        """Do nothing: there is no memory to free."""


def load_instant(settings: WorkerSettings) -> Checkpoint:
    """Make the model, in place of ``vision.checkpoint.load_checkpoint``."""
    del settings
    return InstantCheckpoint()


app = make_app(load=load_instant)
