"""Linears that are laid out once give the numbers that torch's own give."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from labelyard_worker.vision.cpu import packed
from labelyard_worker.vision.cpu.packed import PackedLinear, PackedPatches, can_pack
from labelyard_worker.vision.towers import prepare_model
from tests.support.checkpoints import IMAGE_PX, tiny_model

CPU = torch.device("cpu")
SMALLEST_COSINE = {torch.float32: 1 - 1e-6, torch.bfloat16: 0.999}
# Types whose image tower takes plain pictures of one size.
TYPES = ["clip", "metaclip_2", "altclip", "chinese_clip", "siglip"]

needs_packing = pytest.mark.skipif(
    not can_pack(CPU, torch.float32), reason="this torch, or this processor, packs nothing"
)


def features(model: Any, dtype: torch.dtype, *, count: int = 3) -> torch.Tensor:
    """Embed random pictures, shape (count, dim)."""
    pictures = torch.rand(count, 3, IMAGE_PX, IMAGE_PX, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        output = model.get_image_features(pixel_values=pictures.to(dtype)).pooler_output
    return torch.nn.functional.normalize(output.float(), dim=-1)


@needs_packing
@pytest.mark.parametrize("dtype", SMALLEST_COSINE, ids=str)
@pytest.mark.parametrize("model_type", TYPES)
def test_a_packed_tower_gives_the_same_vectors(
    model_type: str, dtype: torch.dtype, folder: Path
) -> None:
    model = tiny_model(model_type, folder)
    plain = prepare_model(copy.deepcopy(model), CPU, dtype, is_compiled=True)
    tower = prepare_model(model, CPU, dtype)

    cosines = (features(plain, dtype) * features(tower, dtype)).sum(-1)

    assert any(isinstance(module, PackedLinear) for module in tower.modules())
    assert cosines.min() >= SMALLEST_COSINE[dtype]


@needs_packing
def test_every_linear_of_both_towers_is_packed(folder: Path) -> None:
    model = prepare_model(tiny_model("clip", folder), CPU, torch.float32)

    assert not any(type(module) is torch.nn.Linear for module in model.modules())
    assert isinstance(model.vision_model.embeddings.patch_embedding, PackedPatches)
    assert isinstance(model.visual_projection, PackedLinear)
    assert isinstance(model.text_projection, PackedLinear)


@needs_packing
def test_prompts_keep_float32_whatever_the_image_tower_computes_in(folder: Path) -> None:
    model = prepare_model(tiny_model("clip", folder), CPU, torch.bfloat16)

    assert model.text_projection.weight.dtype is torch.float32
    assert model.visual_projection.weight.dtype is torch.bfloat16


@needs_packing
@pytest.mark.parametrize("padding", ["valid", "same", (1, 1)], ids=str)
def test_a_pointwise_convolution_is_packed_unless_it_is_padded(padding: Any) -> None:
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(6, 8, kernel_size=1, padding=padding)
    convolution.requires_grad_(requires_grad=False)
    pictures = torch.randn(2, 6, 5, 7).contiguous(memory_format=torch.channels_last)
    expected = convolution(pictures)

    layer = packed.packed(convolution)

    assert isinstance(layer, PackedPatches) == (padding != (1, 1))
    torch.testing.assert_close(layer(pictures), expected, atol=1e-5, rtol=1e-5)


@needs_packing
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu", "gelu_pytorch_tanh", "relu"])
def test_an_activation_is_fused_only_where_it_is_known(activation: str) -> None:
    torch.manual_seed(0)
    block = transformers.models.clip.modeling_clip.CLIPMLP(
        transformers.CLIPVisionConfig(
            hidden_size=16, num_attention_heads=2, intermediate_size=24, hidden_act=activation
        )
    ).requires_grad_(requires_grad=False)
    values = 4 * torch.randn(5, 7, 16)
    expected = block(values)

    fused = packed.packed(block)

    assert isinstance(fused.activation_fn, torch.nn.Identity) == (activation != "relu")
    torch.testing.assert_close(fused(values), expected, atol=1e-5, rtol=1e-5)


@needs_packing
def test_patches_that_do_not_fill_the_picture_are_cut_off_as_a_convolution_does() -> None:
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(3, 8, kernel_size=4, stride=4).requires_grad_(requires_grad=False)
    pictures = torch.randn(2, 3, 14, 11)

    torch.testing.assert_close(
        PackedPatches(convolution)(pictures), convolution(pictures), atol=1e-5, rtol=1e-5
    )


def test_a_tower_stays_as_it_is_where_torch_lacks_the_operators(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setattr(packed, "OPERATORS", ("_an_operator_of_another_torch",))

    model = prepare_model(tiny_model("clip", folder), CPU, torch.float32)

    assert not any(isinstance(module, PackedLinear) for module in model.modules())
