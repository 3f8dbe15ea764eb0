"""Attention by products gives what transformers' own gives, within bfloat16."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from labelyard_worker.vision.cpu import attention
from labelyard_worker.vision.cpu.attention import NAME, attend, use_products
from labelyard_worker.vision.cpu.packed import can_pack
from labelyard_worker.vision.towers import prepare_model
from tests.support.checkpoints import tiny_checkpoint

CPU = torch.device("cpu")
ANY_LAYER = torch.nn.Identity()


def heads(*shape: int, seed: int, dtype: torch.dtype = torch.bfloat16) -> list[torch.Tensor]:
    """Make queries, keys and values of *shape* (batch, heads, tokens, head_dim)."""
    batch, count, tokens, dim = shape
    draw = torch.Generator().manual_seed(seed)
    return [  # laid out as the projections of a layer lay them out
        torch.randn(batch, tokens, count, dim, generator=draw).to(dtype).transpose(1, 2)
        for _ in range(3)
    ]


@settings(deadline=None)
@given(
    batch=st.integers(1, 5),
    count=st.integers(1, 4),
    tokens=st.integers(1, 70),
    seed=st.integers(0, 1000),
)
def test_it_equals_the_fused_kernel(batch: int, count: int, tokens: int, seed: int) -> None:
    parts = heads(batch, count, tokens, 16, seed=seed)
    expected = scaled_dot_product_attention(*(part.float() for part in parts)).transpose(1, 2)

    attended, weights = attend(ANY_LAYER, *parts, attention_mask=None, scaling=None)

    assert weights is None
    assert attended.shape == (batch, tokens, count, 16)
    torch.testing.assert_close(attended.float(), expected, atol=0.04, rtol=0.02)


def test_images_that_are_taken_in_parts_come_back_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = heads(5, 2, 9, 16, seed=1)
    whole, _ = attend(ANY_LAYER, *parts, attention_mask=None)

    monkeypatch.setattr(attention, "SCORES_AT_ONCE", 2 * 2 * 9 * 9)
    in_parts, _ = attend(ANY_LAYER, *parts, attention_mask=None)

    torch.testing.assert_close(in_parts, whole, atol=0.0, rtol=0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_masked_tokens_are_left_to_transformers(dtype: torch.dtype) -> None:
    parts = heads(2, 2, 6, 16, seed=3, dtype=dtype)
    mask = torch.ones(2, 1, 6, 6, dtype=torch.bool)
    mask[:, :, :, 4:] = False
    seen = [parts[0], *(part[:, :, :4] for part in parts[1:])]
    expected = scaled_dot_product_attention(*seen).transpose(1, 2)

    attended, _ = attend(ANY_LAYER, *parts, attention_mask=mask)

    torch.testing.assert_close(attended, expected, atol=0.02, rtol=0.02)


@pytest.fixture
def clip(tmp_path: Path) -> Any:
    return transformers.AutoModelForZeroShotImageClassification.from_pretrained(
        tiny_checkpoint("clip", tmp_path / "clip"), dtype=torch.float32
    )


def test_the_text_tower_keeps_its_own(clip: Any) -> None:
    use_products(clip)

    assert clip.vision_model.config._attn_implementation == NAME
    assert clip.text_model.config._attn_implementation == "sdpa"


@pytest.mark.skipif(not can_pack(CPU, torch.bfloat16), reason="no bfloat16 products here")
def test_it_is_chosen_for_bfloat16_alone(clip: Any) -> None:
    exact = prepare_model(copy.deepcopy(clip), CPU, torch.float32)
    rounded = prepare_model(clip, CPU, torch.bfloat16)

    assert exact.vision_model.config._attn_implementation == "sdpa"
    assert rounded.vision_model.config._attn_implementation == NAME
