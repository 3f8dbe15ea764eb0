"""The hand-written ways to classify local files, the best of which is the limit."""

import os
import shutil
from dataclasses import dataclass, replace

from benchmarks.checkpoints import LITE
from benchmarks.machine import gains_by_bfloat16, has_bfloat16, usable_cores
from benchmarks.systems.system import Engine


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to compute the limit.

    Attributes:
        shape: ``solo``, independent processes that decode and compute; or ``overlapped``,
            processes that decode beside model threads in one process.
        streams: Processes (solo) or model threads (overlapped).
        threads: Torch threads of each stream.
        decoders: Decoding processes (overlapped).
        decode: ``draft`` or ``exact``, as labelyard decodes for the same checkpoint.
    """

    shape: str
    streams: int
    threads: int
    batch_size: int
    dtype: str
    decoders: int = 0
    is_compiled: bool = False
    decode: str = "draft"

    def __str__(self) -> str:
        beside = f"+{self.decoders} decoders" if self.decoders else ""
        compiled = " compiled" if self.is_compiled else ""
        return (
            f"{self.shape} {self.streams}x{self.threads}{beside} "
            f"batch {self.batch_size} {self.dtype}{compiled}"
        )


def candidates(engine: Engine, *, is_quick: bool) -> list[Candidate]:
    """List the candidates on this machine, with the shortcuts that leave answers as they are."""
    every = _on_cuda if engine.device == "cuda" else _on_cpu
    decode = "exact" if engine.checkpoint.name == LITE else "draft"
    return [replace(one, decode=decode) for one in every(engine, is_quick=is_quick)]


def _on_cpu(engine: Engine, *, is_quick: bool) -> list[Candidate]:
    is_sensitive = engine.checkpoint.name == LITE
    best = "bfloat16" if gains_by_bfloat16() and not is_sensitive else "float32"
    cores = usable_cores()
    found = [Candidate("solo", cores, 1, size, best) for size in (8, 16, 32)]
    found.append(Candidate("overlapped", 1, cores, 32, best, decoders=cores))
    if is_quick:
        return found[1:2]
    found += [Candidate("solo", cores, 1, size, best) for size in (4, 64)]
    halves = max(1, cores // 2)
    found += [Candidate("overlapped", 2, halves, size, best, decoders=cores) for size in (12, 16)]
    found += [Candidate("overlapped", 1, cores, size, best, decoders=cores) for size in (16, 64)]
    if cores >= 4:
        found += [Candidate("solo", cores // 2, 2, size, best) for size in (16, 32)]
    if has_bfloat16() and not is_sensitive:
        other = "float32" if best == "bfloat16" else "bfloat16"
        found.append(Candidate("solo", cores, 1, 16, other))
    if shutil.which(os.environ.get("CXX", "g++")):  # torch.compile calls it
        found.append(Candidate("solo", cores, 1, 16, best, is_compiled=True))
    return found


def _on_cuda(engine: Engine, *, is_quick: bool) -> list[Candidate]:
    decoders = max(1, usable_cores() - 1)
    dtypes = ("float32",) if engine.checkpoint.name == LITE else ("float16", "bfloat16")
    found = [
        Candidate("overlapped", streams, 1, size, dtype, decoders=decoders)
        for dtype in dtypes
        for streams in (1, 2)
        for size in (32, 64, 128)
    ]
    return found[1:5:3] if is_quick else found
