"""Worker's model: device, number format, checkpoint, and how many images a second to expect."""

import io
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import torch
from huggingface_hub import constants as hub_constants
from PIL import Image
from transformers.utils import cached_file

from labelyard.doctor import Finding
from labelyard.errors import LabelyardError, ModelLoadError
from labelyard_worker.cpu_budget import usable_cores
from labelyard_worker.intake.decode import decode
from labelyard_worker.intake.pool import default_children
from labelyard_worker.intake_wiring import start_intake, with_checkpoint_decode
from labelyard_worker.operations.doctor import kinds
from labelyard_worker.operations.doctor.machine import check_memory
from labelyard_worker.pixels import ImageLimits
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision import devices, precision
from labelyard_worker.vision.checkpoint import Checkpoint, blank_pixels, load_checkpoint
from labelyard_worker.vision.lite.build import FORMAT_VERSION, default_cache, digest_of_inputs

MEASURE_S: Final = 2.0
DECODE_S: Final = 0.5
CHILDREN_WITHIN_S: Final = 15.0
CHECK_EVERY_S: Final = 0.02
PHOTO_PX: Final = (1632, 1224)
NVIDIA_DEVICE: Final = Path("/dev/nvidia0")
#: First compute capability with bfloat16.
AMPERE: Final = (8, 0)


def examine_model(settings: WorkerSettings) -> Iterator[Finding]:
    """Check device, number format and checkpoint, and measure the model for some seconds."""
    sound = settings
    faults = [*check_device(settings)]
    if any(one.code == kinds.DEVICE_MISSING.code for one in faults):
        sound = sound.model_copy(update={"device": "cpu", "dtype": "float32"})
    else:
        faults += check_dtype(settings)
    if any(one.code == kinds.DTYPE_UNSUPPORTED.code for one in faults):
        sound = sound.model_copy(update={"dtype": "float32"})
    yield from faults
    with without_downloads():
        if command := command_to_get(settings):
            yield kinds.CHECKPOINT_NOT_HERE.at(checkpoint=settings.checkpoint, command=command)
        else:
            yield from check_checkpoint(sound)


def check_device(settings: WorkerSettings) -> Iterator[Finding]:
    """Find a device that is not there, or one that is there and not used."""
    try:
        device = devices.choose_device(settings.device)
    except ModelLoadError as error:
        yield kinds.DEVICE_MISSING.at(why=text_of(error))
        return
    if settings.device == "auto" and device.type == "cpu" and NVIDIA_DEVICE.exists():
        yield kinds.DEVICE_UNUSED.at(path=NVIDIA_DEVICE, version=torch.__version__)


def check_dtype(settings: WorkerSettings) -> Iterator[Finding]:
    """Find a number format that the device refuses, or has to emulate."""
    device = devices.choose_device(settings.device)
    if settings.dtype == "auto":
        return
    try:
        dtype = precision.choose_dtype(settings.dtype, device, "clip")
    except ModelLoadError as error:
        yield kinds.DTYPE_UNSUPPORTED.at(device=device, why=text_of(error))
        return
    if dtype is torch.bfloat16 and not can_bfloat16(device):
        yield kinds.DTYPE_SLOW.at(dtype=settings.dtype, device=device)


def can_bfloat16(device: torch.device) -> bool:
    """Return whether a device has instructions for bfloat16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= AMPERE
    return bool(precision.cpu_flags() & precision.BFLOAT16_FLAGS)


def command_to_get(settings: WorkerSettings) -> str:
    """Return the command that builds or downloads the checkpoint; empty if it is here."""
    wanted = settings.checkpoint
    if wanted == "lite":
        is_here = lite_folder(settings.cache_dir).is_dir()
        return "" if is_here else "python -m labelyard_worker.vision.lite"
    name, _, revision = wanted.partition("@")
    path = Path(wanted).expanduser()
    if path.exists() or path.is_absolute() or wanted.startswith((".", "~")) or name.count("/") > 1:
        return ""  # a folder, or none: loading it says what is wrong
    if cached_config(name, revision) is not None:
        return ""
    return f"hf download {name}" + (f" --revision {revision}" if revision else "")


def lite_folder(cache: Path | None) -> Path:
    """Name the folder that ``ensure_lite`` returns, and do not build it.

    It is not a function of ``vision/lite``, whose code is hashed into the name: a change there
    has every installation build the checkpoint again.
    """
    name = f"lite-v{FORMAT_VERSION}-{digest_of_inputs()[:16]}"
    return (default_cache() if cache is None else cache) / name


def cached_config(name: str, revision: str) -> Path | None:
    """Return the configuration of a hub name in the local cache."""
    try:
        found = cached_file(name, "config.json", local_files_only=True, revision=revision or None)
    except (OSError, ValueError):
        return None
    return Path(found) if found else None


@contextmanager
def without_downloads() -> Iterator[None]:
    """Keep the hub's library from the network while the block runs."""
    before = hub_constants.HF_HUB_OFFLINE
    hub_constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        hub_constants.HF_HUB_OFFLINE = before


def check_checkpoint(settings: WorkerSettings) -> Iterator[Finding]:
    """Load the checkpoint, measure it, and start the intake's children for it."""
    started_at = time.perf_counter()
    try:
        checkpoint = load_checkpoint(settings)
    except LabelyardError as error:
        yield kinds.CHECKPOINT_FAILS.at(why=text_of(error))
        yield from check_memory(settings)
        return
    load_s = time.perf_counter() - started_at
    try:
        yield from check_pinned(settings)
        yield from check_pixels(settings, checkpoint)
        yield from check_memory(settings)
        yield from measure_model(settings, checkpoint, load_s=load_s)
        yield from check_children(settings, checkpoint)
    finally:
        checkpoint.close()


def check_pinned(settings: WorkerSettings) -> Iterator[Finding]:
    """Find a hub name without a commit, and name the commit that is here."""
    name, _, revision = settings.checkpoint.partition("@")
    if name == "lite" or Path(settings.checkpoint).expanduser().is_dir() or revision:
        return
    config = cached_config(name, "")
    if config is not None:  # …/snapshots/COMMIT/config.json
        yield kinds.CHECKPOINT_UNPINNED.at(checkpoint=name, commit=config.parent.name)


def check_pixels(settings: WorkerSettings, checkpoint: Checkpoint) -> Iterator[Finding]:
    """Find a limit on decoded pixels that is smaller than a batch of this checkpoint."""
    image_bytes = len(blank_pixels(checkpoint.pixel_spec).data)
    batch = checkpoint.max_batch_size * checkpoint.threads.streams
    fit = settings.max_pixels_in_flight_bytes // image_bytes
    if fit < batch:
        yield kinds.PIXELS_BELOW_BATCH.at(fit=fit, batch=batch, needed=batch * image_bytes)


def measure_model(
    settings: WorkerSettings, checkpoint: Checkpoint, *, load_s: float
) -> Iterator[Finding]:
    """Measure forward passes and decoding one after the other, and estimate them together."""
    try:
        images_per_s = measure_embedding(checkpoint)
    except Exception as error:  # noqa: BLE001 - torch raises many kinds, out of memory among them
        why = devices.first_line(error)
        yield kinds.MODEL_RUN_FAILS.at(batch_size=checkpoint.max_batch_size, why=why)
        return
    children = settings.intake_children or default_children()
    per_core = measure_decoding(settings, checkpoint)
    decodes_per_s = per_core * min(children, usable_cores())
    if checkpoint.device.type == "cpu":  # both take turns on the same cores
        expected_per_s = 1 / (1 / images_per_s + 1 / decodes_per_s)
    else:
        expected_per_s = min(images_per_s, decodes_per_s)
    yield kinds.MODEL_MEASURED.at(
        checkpoint=settings.checkpoint,
        device=checkpoint.device,
        dtype=checkpoint.info.dtype,
        load_s=load_s,
        images_per_s=images_per_s,
        batch_size=checkpoint.max_batch_size,
        children=children,
        decodes_per_s=decodes_per_s,
        expected_per_s=expected_per_s,
    )


def measure_embedding(checkpoint: Checkpoint) -> float:
    """Return the images per second that all streams of the model embed in full batches."""
    batch = [blank_pixels(checkpoint.pixel_spec)] * checkpoint.max_batch_size
    streams = checkpoint.threads.streams

    def embed_until(due: float) -> int:
        images = 0
        while time.perf_counter() < due:
            checkpoint.image_embeds(batch, leaves_cores=streams > 1)
            images += len(batch)
        return images

    with ThreadPoolExecutor(streams) as pool:
        list(pool.map(lambda _: embed_until(time.perf_counter() + 0.001), range(streams)))  # warm
        started_at = time.perf_counter()
        images = sum(pool.map(embed_until, [started_at + MEASURE_S] * streams))
    return images / (time.perf_counter() - started_at)


def measure_decoding(settings: WorkerSettings, checkpoint: Checkpoint) -> float:
    """Return the JPEGs of 2 megapixels per second that one core decodes and resizes."""
    file = io.BytesIO()
    noise = Image.frombytes("RGB", (204, 153), os.urandom(204 * 153 * 3))
    noise.resize(PHOTO_PX).save(file, "JPEG", quality=85)
    raw, spec = file.getvalue(), checkpoint.pixel_spec
    limits = ImageLimits.of(with_checkpoint_decode(settings, checkpoint))
    started_at, images = time.perf_counter(), 0
    while time.perf_counter() < started_at + DECODE_S:
        decode(raw, uri="a photograph of the doctor", spec=spec, limits=limits)
        images += 1
    return images / (time.perf_counter() - started_at)


def check_children(settings: WorkerSettings, checkpoint: Checkpoint) -> Iterator[Finding]:
    """Start the intake's children, and wait until one of each kind is ready."""
    pool = start_intake(with_checkpoint_decode(settings, checkpoint), checkpoint)
    try:
        due = time.monotonic() + CHILDREN_WITHIN_S
        while not (pool.decoder_pids and pool.fetcher_pids):
            if time.monotonic() > due or not pool.is_alive():
                yield kinds.CHILDREN_FAIL.at(seconds=CHILDREN_WITHIN_S)
                return
            time.sleep(CHECK_EVERY_S)
    finally:
        pool.close()


def text_of(error: LabelyardError) -> str:
    """Return an error's text without its code and full stop."""
    return str(error).removeprefix(f"{error.code}: ").rstrip(".")
