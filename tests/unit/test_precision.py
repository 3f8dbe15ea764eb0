"""The number format is chosen by what holds the answers, and by what this CPU is fast in."""

from pathlib import Path

import pytest
import torch

from labelyard.errors import ModelLoadError
from labelyard_worker.vision import precision
from labelyard_worker.vision.precision import bfloat16_speed_up, choose_dtype, cpu_flags

CPU = torch.device("cpu")
CUDA = torch.device("cuda")


@pytest.mark.parametrize(
    ("flags", "speed_up", "model_type", "expected"),
    [
        ({"avx512_bf16"}, 2.0, "clip", torch.bfloat16),
        ({"amx_bf16"}, 5.0, "siglip", torch.bfloat16),
        ({"avx512_bf16"}, 0.5, "clip", torch.float32),  # an Intel server with its AMX masked
        ({"avx2"}, 2.0, "clip", torch.float32),
        ({"avx512_bf16"}, 2.0, "lite_zeroshot", torch.float32),
    ],
)
def test_bfloat16_is_chosen_where_it_is_fast_and_holds_the_answers(
    flags: set[str], speed_up: float, model_type: str, expected: torch.dtype
) -> None:
    chosen = choose_dtype(
        "auto", CPU, model_type, flags=frozenset(flags), speed_up=lambda: speed_up
    )

    assert chosen is expected


def test_the_speed_of_a_format_is_measured_by_its_fastest_trial(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A CPU that takes 4 s in float32 and 2 s in bfloat16, disturbed now and then."""
    now = 0.0
    trials = 0

    def linear(values: torch.Tensor, _: torch.Tensor) -> None:
        nonlocal now, trials
        trials += 1
        disturbed_s = 10.0 if trials % 3 == 0 else 0.0
        now += (4.0 if values.dtype is torch.float32 else 2.0) + disturbed_s

    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    monkeypatch.setattr(precision.time, "perf_counter", lambda: now)

    assert bfloat16_speed_up() == 2.0


def test_a_dtype_that_is_asked_for_is_taken() -> None:
    assert choose_dtype("bfloat16", CPU, "lite_zeroshot") is torch.bfloat16
    assert choose_dtype("float16", CUDA, "clip") is torch.float16
    with pytest.raises(ModelLoadError, match="float16 needs CUDA"):
        choose_dtype("float16", CPU, "clip")


def test_cpu_flags_are_read_and_may_be_missing(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu avx512_bf16 sse\n\nprocessor\t: 1\n")

    assert "avx512_bf16" in cpu_flags(cpuinfo)
    assert cpu_flags(tmp_path / "missing") == frozenset()
