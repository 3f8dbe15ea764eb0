"""A worker whose model answers at once, misbehaves on demand, and leaves a line for all it does.

Everything else is the real worker. Configured by ``TEST_EFFECTS`` (file that gets the lines),
``TEST_SLOT`` (name of this worker in them) and ``TEST_FLAGS`` (folder of orders to the process).
How it is told to misbehave is in ``orders``.
"""

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from celery.signals import task_postrun

from labelyard.messages import Job, ModelInfo, Result
from labelyard_worker import tasks
from labelyard_worker.celery_app import make_app
from labelyard_worker.classify import classify
from labelyard_worker.intake.spec import Pixels, PixelSpec
from labelyard_worker.services import Services
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.tokens import Token
from labelyard_worker.vision.checkpoint import Checkpoint
from labelyard_worker.vision.devices import ThreadPlan
from labelyard_worker.vision.scoring import Floats
from tests.support.apps import orders

EDGE_PX = 8
DIM = 8
EFFECTS = os.open(os.environ["TEST_EFFECTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
SLOT = os.environ.get("TEST_SLOT", "0")
FLAGS = Path(os.environ["TEST_FLAGS"])


def note(event: str, job_id: str) -> None:
    """Append one line to the effects; a short write is atomic, also from several processes."""
    os.write(EFFECTS, f"{event} {job_id} {SLOT} {os.getpid()} {time.time():.3f}\n".encode())


def is_ordered(flag: str) -> bool:
    """Take an order to the process, which one worker gets once."""
    try:
        (FLAGS / flag).unlink()
    except FileNotFoundError:
        return False
    note("obey", flag)
    return True


class InstantCheckpoint(Checkpoint):
    """A model without weights: an embedding is made of a picture's mean colours."""

    def __init__(self) -> None:
        self.info = ModelInfo(
            checkpoint="instant", fingerprint="sha256:instant", dtype="float32", device="cpu"
        )
        self.pixel_spec = PixelSpec(resize="exact", height=EDGE_PX, width=EDGE_PX)
        self.scoring = "softmax"
        self.logit_scale, self.logit_bias = 10.0, 0.0
        self.dim = DIM
        self.threads = ThreadPlan(streams=1, threads_per_stream=1, cores=1)
        self.max_batch_size = 16

    def image_embeds(self, batch: Sequence[Pixels]) -> Floats:
        """Embed pictures, or obey an order to fail."""
        if is_ordered(orders.HANG_MODEL):
            hang()
        if is_ordered(orders.LOSE_DEVICE):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if len(batch) > 1 and is_ordered(orders.RUN_OUT_OF_MEMORY):
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        rows = [np.frombuffer(pixels.data, dtype=np.uint8)[:DIM] + 1.0 for pixels in batch]
        return unit_length(np.stack(rows))

    def text_embeds(self, prompts: Sequence[str]) -> Floats:
        """Embed prompts by their first letters."""
        rows = [np.frombuffer(prompt.ljust(DIM).encode()[-DIM:], np.uint8) for prompt in prompts]
        return unit_length(np.stack(rows))

    def warm_up(self) -> None:
        """Do nothing: there is nothing to warm, and orders are meant for jobs."""

    def close(self) -> None:
        """Do nothing: there is no memory to free."""


def unit_length(rows: Any) -> Floats:
    """Scale each row to length 1."""
    vectors: Floats = np.asarray(rows, dtype=np.float32)
    lengths: Floats = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Floats = vectors / lengths
    return scaled


def hang() -> None:
    """Hang as native code does: nothing that is asked of it is heard."""
    while True:
        time.sleep(3600)


def end_process() -> None:
    """End the process as the kernel does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def raise_memory_error() -> None:
    """Fail as an allocation does."""
    raise MemoryError("poison")


def raise_system_exit() -> None:
    """Raise what no ``except Exception`` holds."""
    raise SystemExit("poison")


MISBEHAVIOUR: Final[dict[str, Callable[[], None]]] = {
    orders.KILLS_PROCESS: end_process,
    orders.RAISES_MEMORY_ERROR: raise_memory_error,
    orders.RAISES_SYSTEM_EXIT: raise_system_exit,
    orders.HANGS: hang,
}


def be_slow(seconds: float, token: Token) -> None:
    """Take a while, and stop when told to."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        token.check()
        time.sleep(0.05)


def noted_classify(job: Job, services: Services, *, token: Token, **options: Any) -> Result:
    """Note that an attempt begins and that its result is there; misbehave if ordered to."""
    note("begin", job.job_id)
    if job.tenant in MISBEHAVIOUR:
        MISBEHAVIOUR[job.tenant]()
    if slow := orders.SLOW.fullmatch(job.tenant):
        be_slow(float(slow[1]), token)
    result = classify(job, services, token=token, **options)
    note("result", job.job_id)
    return result


def load_instant(settings: WorkerSettings) -> Checkpoint:
    """Make the model, in place of ``vision.checkpoint.load_checkpoint``."""
    return InstantCheckpoint()


def on_postrun(task_id: str, state: str, **_: Any) -> None:
    """Note that a delivery came to its end; the ledger has the job's fate by then."""
    if state == "SUCCESS":
        note("end", task_id)


vars(tasks)["classify"] = noted_classify
task_postrun.connect(on_postrun, weak=False)
app = make_app(load=load_instant)
