"""Kinds of findings about a worker's machine, its model and its settings."""

from typing import Final

from labelyard.doctor import FindingKind, Severity

DEVICE_MISSING: Final = FindingKind(
    "device_missing",
    "model",
    Severity.SERIOUS,
    "The device cannot be used: {why}.",
    "Set LABELYARD_DEVICE to auto or cpu, or install a CUDA build of torch and a driver.",
)
DEVICE_UNUSED: Final = FindingKind(
    "device_unused",
    "model",
    Severity.WARNING,
    "This machine has an NVIDIA device ({path}), and torch {version} cannot use it: the model runs "
    "on the CPU.",
    "Install a CUDA build of torch that fits the driver (nvidia-smi), or set LABELYARD_DEVICE=cpu "
    "if that is meant.",
)
DTYPE_UNSUPPORTED: Final = FindingKind(
    "dtype_unsupported",
    "model",
    Severity.SERIOUS,
    "The number format cannot be used on {device}: {why}.",
    "Set LABELYARD_DTYPE to auto, or to float32.",
)
DTYPE_SLOW: Final = FindingKind(
    "dtype_slow",
    "model",
    Severity.WARNING,
    "LABELYARD_DTYPE is {dtype}, which {device} does not compute in: it is slower than float32.",
    "Set LABELYARD_DTYPE to auto, or to float32.",
)
CHECKPOINT_FAILS: Final = FindingKind(
    "checkpoint_fails",
    "model",
    Severity.SERIOUS,
    "The checkpoint does not load: {why}.",
    "Complete the files of the checkpoint, or set LABELYARD_CHECKPOINT to another folder or hub "
    "name; a worker does not start with this one.",
)
CHECKPOINT_NOT_HERE: Final = FindingKind(
    "checkpoint_not_here",
    "model",
    Severity.UNCHECKED,
    "The checkpoint {checkpoint} could not be checked: it is not on this machine yet, and the "
    "doctor downloads and builds nothing.",
    "The first worker gets it; to do so now, run {command}.",
)
CHECKPOINT_UNPINNED: Final = FindingKind(
    "checkpoint_unpinned",
    "model",
    Severity.ADVICE,
    "LABELYARD_CHECKPOINT={checkpoint} names no commit: a worker loads whatever is newest when it "
    "starts, so that two workers may differ.",
    "Set LABELYARD_CHECKPOINT={checkpoint}@{commit}, the commit that is here now.",
)
MODEL_MEASURED: Final = FindingKind(
    "model_measured",
    "model",
    Severity.OK,
    "{checkpoint} loads in {load_s:.1f} s on {device} ({dtype}) and embeds {images_per_s:.0f} "
    "images/s in batches of {batch_size}; {children} decoders read about {decodes_per_s:.0f} JPEGs "
    "of 2 megapixels a second: expect up to {expected_per_s:.0f} images/s.",
)
MODEL_RUN_FAILS: Final = FindingKind(
    "model_run_fails",
    "model",
    Severity.SERIOUS,
    "The model does not run in batches of {batch_size}: {why}.",
    "Lower LABELYARD_MAX_BATCH_SIZE or LABELYARD_MODEL_STREAMS, or end other programs that use the "
    "device.",
)
PIXELS_BELOW_BATCH: Final = FindingKind(
    "pixels_below_batch",
    "settings",
    Severity.WARNING,
    "LABELYARD_MAX_PIXELS_IN_FLIGHT_BYTES holds {fit} decoded images of this checkpoint, fewer than "
    "the {batch} that its batches take: batches are never full.",
    "Raise LABELYARD_MAX_PIXELS_IN_FLIGHT_BYTES to {needed}, or lower LABELYARD_MAX_BATCH_SIZE.",
)
CHILDREN_FAIL: Final = FindingKind(
    "children_fail",
    "machine",
    Severity.SERIOUS,
    "The child processes that fetch and decode images do not start within {seconds:g} s.",
    "Look at the lines above for the reason; check the limits on processes and memory (ulimit -u, "
    "ulimit -v), or lower LABELYARD_INTAKE_CHILDREN.",
)
MEMORY_SHORT: Final = FindingKind(
    "memory_short",
    "machine",
    Severity.WARNING,
    "{available_mib:.0f} MiB of memory are free, and a worker may use {needed_mib:.0f} MiB more for "
    "pixels, files, caches and {children} children.",
    "Lower LABELYARD_MAX_PIXELS_IN_FLIGHT_BYTES, LABELYARD_MAX_FETCHED_BYTES, "
    "LABELYARD_LABEL_CACHE_BYTES or LABELYARD_IMAGE_CACHE_BYTES, or give the machine more memory.",
)
FILES_FEW: Final = FindingKind(
    "files_few",
    "machine",
    Severity.WARNING,
    "A process may open {limit} files, and a worker may need {needed}.",
    "Raise the limit: ulimit -n 4096, LimitNOFILE=4096 (systemd), or --ulimit nofile=4096 "
    "(Docker); or lower LABELYARD_FETCHES.",
)
CORES_FEW: Final = FindingKind(
    "cores_few",
    "machine",
    Severity.ADVICE,
    "One core is left to this process: fetching, decoding and the model share it.",
    "Raise the quota of the container, or start the worker with more cores (taskset).",
)
HEALTH_PORT_TAKEN: Final = FindingKind(
    "health_port_taken",
    "machine",
    Severity.SERIOUS,
    "The probes cannot listen on {address}: {why}. A worker does not start.",
    "Set LABELYARD_HEALTH_PORT to a free port (0 picks one, -1 turns the probes off), and "
    "LABELYARD_HEALTH_HOST to an address of this machine.",
)
HEALTH_PORT_OURS: Final = FindingKind(
    "health_port_ours", "machine", Severity.OK, "A worker's probes answer on {address}."
)
KINDS: Final = (
    DEVICE_MISSING,
    DEVICE_UNUSED,
    DTYPE_UNSUPPORTED,
    DTYPE_SLOW,
    CHECKPOINT_FAILS,
    CHECKPOINT_NOT_HERE,
    CHECKPOINT_UNPINNED,
    MODEL_MEASURED,
    MODEL_RUN_FAILS,
    PIXELS_BELOW_BATCH,
    CHILDREN_FAIL,
    MEMORY_SHORT,
    FILES_FEW,
    CORES_FEW,
    HEALTH_PORT_TAKEN,
    HEALTH_PORT_OURS,
)
