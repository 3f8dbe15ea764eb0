"""Settings of the model and its batches."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, NonNegativeInt, PositiveFloat, PositiveInt

from labelyard_worker.settings.values import MIB


class ModelSettings(BaseModel):
    """Worker settings of the model: its checkpoint, device and precision."""

    #: ``lite``, a folder that transformers can load, a hub name, or ``name@revision`` with a
    #: branch, tag or commit of the hub. Pin a commit: a name alone loads whatever is newest at the
    #: start.
    checkpoint: str = "lite"
    #: ``auto`` (CUDA, else CPU), ``cpu``, ``cuda`` or ``cuda:N``.
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    #: ``auto`` is bfloat16 where the device is faster in it (a CPU is tried at the start), else
    #: float32.
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    #: Compile the image tower with ``torch.compile``; a slower start.
    compile: bool = False
    #: Threads of one forward pass on a CPU; 0 decides from the cores.
    model_threads: NonNegativeInt = 0
    #: Forward passes at once; 0 decides from the device and the cores.
    model_streams: NonNegativeInt = 0
    #: Where the lite checkpoint is built; unset means the user's cache.
    cache_dir: Path | None = None


class BatchSettings(BaseModel):
    """Worker settings of batches, and of the images that are about to join one."""

    #: Most images in one forward pass; 0 decides from the device.
    max_batch_size: NonNegativeInt = 0
    #: Images that may wait for the model; past it a job is retried.
    queue_capacity: PositiveInt = 4096
    #: Most decoded pixels held at once, over all jobs; of these no more than 16 batches for each
    #: stream of the model.
    max_pixels_in_flight_bytes: PositiveInt = 256 * MIB
    #: Seconds that one forward pass may take; twice that ends the worker.
    inference_timeout_s: PositiveFloat = 60.0
