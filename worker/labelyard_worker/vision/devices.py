"""Devices that the model runs on: their choice, threads, batch sizes and errors."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch

from labelyard.errors import (
    BatcherFullError,
    DeviceFailedError,
    LabelyardError,
    ModelLoadError,
)
from labelyard_worker.settings import WorkerSettings

Item = TypeVar("Item")
Part = TypeVar("Part")
Answer = TypeVar("Answer")

# A CPU gains little beyond 8 images in a batch and nothing beyond 32; with two forward
# passes at once 12 to 16 is best. A convolutional tower gained nothing beyond 8 on pictures
# of 0.3 megapixels, and with 16 its activations take 500 MB more. A GPU needs more to be filled.
CPU_BATCH_SIZE = 16
CPU_CONVOLUTIONAL_BATCH_SIZE = 8
CUDA_BATCH_SIZE = 64
CUDA_STREAMS = 2

OUT_OF_MEMORY_WORDS = (
    "out of memory",
    "can't allocate memory",
    "cublas_status_alloc_failed",
    "could not create a memory object",  # oneDNN
)
DEVICE_LOST_WORDS = (
    "device-side assert",
    "illegal memory access",
    "unspecified launch failure",
    "uncorrectable ecc error",
    "misaligned address",
    "device is lost",
    "gpu is lost",
    "driver shutting down",
    "no cuda-capable device",
    "device(s) is/are busy or unavailable",
)


@dataclass(frozen=True)
class ThreadPlan:
    """How forward passes share the cores.

    Attributes:
        streams: Forward passes at once.
        threads_per_stream: CPU threads of each while others run.
        cores: CPU threads of the first stream while it runs alone.
    """

    streams: int
    threads_per_stream: int
    cores: int


def plan_threads(settings: WorkerSettings, device: torch.device, cores: int) -> ThreadPlan:
    """Decide how many forward passes run at once, and on how many threads.

    Two passes with half of the cores each beat one with all of them by 18 % under
    load: one computes while the other gathers its batch and hands out answers.
    """
    if device.type == "cuda":
        streams = settings.model_streams or CUDA_STREAMS
        return ThreadPlan(streams, settings.model_threads or 1, settings.model_threads or 1)
    streams = settings.model_streams or min(2, cores)
    threads = settings.model_threads or max(1, cores // streams)
    # torch.compile guards on the number of threads: a pass that may have all cores would be
    # compiled again, in the middle of a job, and past eight shapes not at all.
    alone = threads if settings.compile else cores
    return ThreadPlan(streams, threads, settings.model_threads or alone)


def plan_batch_size(
    settings: WorkerSettings, device: torch.device, *, is_convolutional: bool
) -> int:
    """Decide the most images in one forward pass."""
    on_cpu = CPU_CONVOLUTIONAL_BATCH_SIZE if is_convolutional else CPU_BATCH_SIZE
    return settings.max_batch_size or (CUDA_BATCH_SIZE if device.type == "cuda" else on_cpu)


def choose_device(wanted: str) -> torch.device:
    """Turn the setting into a device that is there.

    Raises:
        ModelLoadError: CUDA is wanted and this machine or this torch has none.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(wanted)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelLoadError(
            f"LABELYARD_DEVICE={wanted}, but torch {torch.__version__} sees "
            f"{torch.cuda.device_count()} CUDA devices: set it to auto or cpu, "
            "or install a CUDA build of torch and a driver"
        )
    return device


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a smaller batch may succeed where this one failed."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in text for word in OUT_OF_MEMORY_WORDS)


def is_device_lost(error: BaseException) -> bool:
    """Return whether only a new process can use the device again.

    Source:
        CUDA Runtime API, cudaError_t: errors after which "the process must be
        terminated and relaunched".
    """
    if is_out_of_memory(error):
        return False
    accelerator_error = getattr(torch, "AcceleratorError", None)
    if accelerator_error is not None and isinstance(error, accelerator_error):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in text for word in DEVICE_LOST_WORDS)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text: CUDA's texts have several paragraphs."""
    text = str(error).strip().partition("\n")[0]
    return text if isinstance(error, LabelyardError) else f"{type(error).__name__}: {text}"


def keep_float32_exact() -> None:
    """Have CUDA compute float32 in float32.

    torch lets cuDNN round the inputs of convolutions to TF32, ten bits, unless it is told not
    to. The checkpoints that get float32 because bfloat16 changes their answers are the
    convolutional ones, and ``LABELYARD_DTYPE=float32`` promises the answers of a CPU.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Memory of a GPU.

    Attributes:
        allocated_bytes: Held by tensors of this process.
        reserved_bytes: Held by this process, free parts included.
        total_bytes: Of the device.
    """

    allocated_bytes: int
    reserved_bytes: int
    total_bytes: int


def read_memory(device: torch.device) -> DeviceMemory | None:
    """Read the memory of a GPU; ``None`` for a CPU.

    Raises:
        RuntimeError: The device is lost.
    """
    if device.type != "cuda":
        return None
    return DeviceMemory(
        allocated_bytes=torch.cuda.memory_allocated(device),
        reserved_bytes=torch.cuda.memory_reserved(device),
        total_bytes=torch.cuda.get_device_properties(device).total_memory,
    )


def free_cached_memory() -> None:
    """Return torch's cached memory to the device; do nothing if the device is lost."""
    if not torch.cuda.is_available():
        return
    try:
        torch.cuda.empty_cache()
    except RuntimeError as error:
        if not is_device_lost(error):
            raise


def halve_when_out_of_memory(
    run: Callable[[Sequence[Item]], list[Part]], items: Sequence[Item]
) -> list[Part]:
    """Run over all items, in halves where the whole does not fit.

    Raises:
        Exception: Whatever *run* raises on one item alone, or besides out-of-memory.
    """
    try:
        return run(items)
    except Exception as error:
        if len(items) == 1 or not is_out_of_memory(error):
            raise
    # Outside the handler: the traceback held on to the tensors of the failed try.
    free_cached_memory()
    middle = len(items) // 2
    return [
        part
        for half in (items[:middle], items[middle:])
        for part in halve_when_out_of_memory(run, half)
    ]


@contextmanager
def device_errors_as_ours() -> Iterator[None]:
    """Translate device errors raised inside the block into ours; leave other errors alone.

    Raises:
        BatcherFullError: There is no memory left, even for the smallest piece of work.
        DeviceFailedError: The device is lost.
    """
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise BatcherFullError("the device has no memory left") from error
        if is_device_lost(error):
            raise DeviceFailedError(str(error).partition("\n")[0]) from error
        raise


def run_in_temporary_thread(run: Callable[[], Answer]) -> Answer:
    """Run in a thread that ends, and whose OpenMP team ends with it.

    libgomp keeps a team of threads for every thread that ever computed in parallel. Once
    all teams together have more threads than there are cores, none of them spins any
    more, and each parallel region waits to be woken: a lone image took 81 ms in place of
    64 on 2 cores. So only model threads may keep a team; see :class:`ThreadShare`.

    Raises:
        BaseException: What *run* raises.
    """
    answer: Future[Answer] = Future()

    def fill() -> None:
        try:
            answer.set_result(run())
        except BaseException as error:  # noqa: BLE001 - the caller raises it
            answer.set_exception(error)

    thread = threading.Thread(target=fill, name="labelyard-passing", daemon=True)
    thread.start()
    thread.join()
    return answer.result()


class ThreadShare:
    """Assigns the first model thread all cores while it is alone, and its share otherwise.

    The first is the first that may have them. The others get their share always: two teams as
    large as the machine would slow each other down even when only one of them works
    (:func:`run_in_temporary_thread`). And a pass that others will follow gets its share as
    well: the intake needs the other cores to bring them, and a team spins at each of its
    barriers for a member that has none.
    OpenMP keeps the number of threads for each calling thread, so that two passes can
    differ.
    """

    def __init__(self, plan: ThreadPlan) -> None:
        self._plan = plan
        self._lock = threading.Lock()
        self._running = 0
        self._first: threading.Thread | None = None

    @contextmanager
    def taken(self, *, is_passing: bool = False, leaves_cores: bool = False) -> Iterator[None]:
        """Set this thread's share for the block.

        Args:
            is_passing: Whether this thread, and its team, end with the block.
            leaves_cores: Whether it gets its share, even if it is alone.
        """
        with self._lock:
            self._running += 1
            is_alone = self._running == 1 and not leaves_cores
            may_have_all = is_alone and (is_passing or self._is_first())
        try:
            threads = self._plan.cores if may_have_all else self._plan.threads_per_stream
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
            yield
        finally:
            with self._lock:
                self._running -= 1

    def _is_first(self) -> bool:
        """Return whether the current thread is the first of the living threads that came here."""
        if self._first is None or not self._first.is_alive():
            self._first = threading.current_thread()
        return self._first is threading.current_thread()
