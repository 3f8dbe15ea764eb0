"""Choices that save time and could cost answers: number format, and how JPEGs are decoded."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import torch

from labelyard.errors import ModelLoadError

DTYPES: Final = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

# In bfloat16 an EfficientNet is twice as fast on a CPU, but its answers change: over 120
# cuts of photographs the lite checkpoint's scores moved by up to 0.08, and 2 top labels
# with them. Transformers hold theirs.
SENSITIVE_TYPES: Final = frozenset({"align", "lite_zeroshot"})

BFLOAT16_FLAGS: Final = frozenset({"amx_bf16", "avx512_bf16"})
# A feed-forward layer of ViT-B over a small batch of tokens: rows, in, out.
TRIAL_SHAPE: Final = (256, 768, 3072)
TRIALS: Final = 8
WORTHWHILE: Final = 1.15


def choose_decode(
    wanted: Literal["auto", "draft", "exact"], model_type: str
) -> Literal["draft", "exact"]:
    """Turn the setting into how JPEGs are decoded, so that answers hold.

    Drafting moved scores of the lite checkpoint by up to 0.08 on 500 photographs, and
    none of a CLIP by 0.02: ``tests/model/test_answers_hold.py``.
    """
    if wanted != "auto":
        return wanted
    return "exact" if model_type in SENSITIVE_TYPES else "draft"


def choose_dtype(
    wanted: str,
    device: torch.device,
    model_type: str,
    *,
    flags: frozenset[str] | None = None,
    speed_up: "Callable[[], float] | None" = None,
) -> torch.dtype:
    """Turn the setting into the format that the image tower computes in.

    Args:
        wanted: ``auto``, ``float32``, ``bfloat16`` or ``float16``.
        device: What the image tower runs on.
        model_type: Of the checkpoint: some towers need float32 to hold their answers.
        flags: What the CPU can do; this machine's when left out.
        speed_up: Measures how much faster the CPU is in bfloat16; on this machine when
            left out.

    Raises:
        ModelLoadError: float16 on a CPU, which overflows and is slow there.
    """
    if wanted == "float16" and device.type == "cpu":
        raise ModelLoadError("LABELYARD_DTYPE=float16 needs CUDA: set auto, bfloat16 or float32")
    if wanted != "auto":
        return DTYPES[wanted]
    if model_type in SENSITIVE_TYPES:
        return torch.float32
    if device.type == "cuda":
        ampere = torch.cuda.get_device_capability(device) >= (8, 0)
        return torch.bfloat16 if ampere else torch.float32
    flags = cpu_flags() if flags is None else flags
    if not flags & BFLOAT16_FLAGS:
        return torch.float32
    return torch.bfloat16 if (speed_up or bfloat16_speed_up)() >= WORTHWHILE else torch.float32


def bfloat16_speed_up() -> float:
    """Measure how many times faster this CPU multiplies matrices in bfloat16 than in float32.

    The flags do not say: an Intel server whose AMX is masked has ``avx512_bf16`` and is
    half as fast with it as in float32, where an AMD one is twice as fast. Takes about
    0.1 s; the fastest of several alternating trials counts, so that a busy machine
    changes it little.
    """
    rows, inputs, outputs = TRIAL_SHAPE
    seconds: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    operands = {
        dtype: (torch.ones(rows, inputs, dtype=dtype), torch.ones(outputs, inputs, dtype=dtype))
        for dtype in seconds
    }
    with torch.inference_mode():
        for _ in range(TRIALS):
            for dtype, (values, weight) in operands.items():
                started_at = time.perf_counter()
                torch.nn.functional.linear(values, weight)
                seconds[dtype].append(time.perf_counter() - started_at)
    return min(seconds[torch.float32]) / min(seconds[torch.bfloat16])


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Return the CPU's feature flags; none if the system does not list them."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return frozenset()
    found = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(found.partition(":")[2].split())
