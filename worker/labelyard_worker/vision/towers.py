"""Differences between the models of transformers, and the arithmetic around their towers."""

import math
from typing import Any, Final

import torch

from labelyard_worker.pixels import ImageFacts, Pixels, PixelSpec
from labelyard_worker.vision.cpu.attention import use_products
from labelyard_worker.vision.cpu.last_layer import shorten_last_layer
from labelyard_worker.vision.cpu.packed import can_pack, packed
from labelyard_worker.vision.devices import free_cached_memory
from labelyard_worker.vision.lite.modeling import mean_of_tokens
from labelyard_worker.vision.scoring import Floats

IMAGE_MODULES: Final = ("vision_model", "visual_projection")
TEXT_MODULES: Final = ("text_model", "text_projection")
CONVOLUTIONAL_TYPES: Final = frozenset({"align", "lite_zeroshot"})


def logit_scale_and_bias(model: Any) -> tuple[float, float]:
    """Read how the checkpoint turns cosines into logits.

    Source:
        ``forward`` of each model in transformers: ALIGN divides by a temperature, all
        others multiply by the exponential of ``logit_scale``; SigLIP adds a bias.
    """
    if hasattr(model, "temperature"):
        return 1.0 / model.temperature.item(), 0.0
    bias = model.logit_bias.item() if hasattr(model, "logit_bias") else 0.0
    return math.exp(model.logit_scale.item()), bias


def prepare_model(
    model: Any, device: torch.device, dtype: torch.dtype, *, is_compiled: bool = False
) -> Any:
    """Move *model* to *device*, and only its image tower to *dtype*, in its fastest layout.

    Args:
        is_compiled: Whether ``torch.compile`` will see the image tower, and lay it out itself.
    """
    model = model.eval().requires_grad_(False).to(device)
    is_convolutional = model.config.model_type in CONVOLUTIONAL_TYPES
    is_packed = not is_compiled and can_pack(device, dtype)
    shorten_last_layer(model)
    if is_packed and dtype is torch.bfloat16:
        use_products(model)
    for name in IMAGE_MODULES:
        if hasattr(model, name):
            module = getattr(model, name).to(dtype)
            if is_convolutional:
                module.to(memory_format=torch.channels_last)
            if is_packed:
                setattr(model, name, packed(module))
    if can_pack(device, torch.float32):
        for name in TEXT_MODULES:
            if hasattr(model, name):
                setattr(model, name, packed(getattr(model, name)))
    for parameter in model.parameters(recurse=False):  # logit scale and bias, read before
        parameter.data = parameter.data.to(dtype)  # the first says what pixels are cast to
    if device.type == "cuda":
        # The float32 weights that were converted: freed, but kept for the default stream, which
        # no pass uses.
        free_cached_memory()
    return model


def take_vectors(output: Any) -> torch.Tensor:
    """Take the projected vectors, shape (batch, dim), out of what a tower returns."""
    vectors: torch.Tensor = output.pooler_output
    return vectors


def features_dim(config: Any) -> int:
    """Return the length of the features that examples are compared by; 0: by the embedding.

    The lite checkpoint's embedding says how much of each ImageNet class is in a picture. The
    features before its last layer tell pictures of other things apart far better.
    """
    return int(config.vision_config.hidden_size) if config.model_type == "lite_zeroshot" else 0


def take_features(output: Any) -> torch.Tensor:
    """Take the features before the projection, shape (batch, features), of a tower with them."""
    features: torch.Tensor = output.last_hidden_state
    return features


def take_sentences(config: Any, output: Any, inputs: Any) -> torch.Tensor:
    """Take the vectors by which texts are compared with texts, shape (batch, dim).

    The lite checkpoint's text tower is a sentence encoder, whose mean of tokens tells sentences
    apart far better than the concepts that are made of it for pictures.
    """
    if config.model_type != "lite_zeroshot":
        return take_vectors(output)
    return mean_of_tokens(output.last_hidden_state.float(), inputs["attention_mask"])


def to_unit_length(features: torch.Tensor) -> Floats:
    """Scale each row to length 1 in float32, and bring them to the host."""
    features = features.float()
    embeds: Floats = (features / features.norm(p=2, dim=-1, keepdim=True)).cpu().numpy()
    return embeds


def pad_batch(values: torch.Tensor, size: int) -> torch.Tensor:
    """Repeat the last row until there are *size* of them."""
    missing = size - values.shape[0]
    if missing <= 0:
        return values
    return torch.cat([values, values[-1:].expand(missing, *values.shape[1:])])


def blank_pixels(spec: PixelSpec) -> Pixels:
    """Make a black picture of the shape that the checkpoint takes."""
    edge = spec.patch_size * math.isqrt(spec.max_num_patches)
    height, width = spec.output_size or (edge, edge)
    facts = ImageFacts(sha256="", width=width, height=height)
    return Pixels(bytes(3 * height * width), height, width, facts)
