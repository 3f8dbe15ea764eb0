"""A last layer that computes the pooled token alone gives the numbers of the whole layer."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from labelyard_worker.vision.cpu.last_layer import (
    POOLS_FIRST_TOKEN,
    LastLayer,
    shorten_last_layer,
)
from tests.support.checkpoints import IMAGE_PX, tiny_model


def features(model: Any) -> torch.Tensor:
    """Embed random pictures, shape (3, dim)."""
    pictures = torch.rand(3, 3, IMAGE_PX, IMAGE_PX, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        vectors: torch.Tensor = model.get_image_features(pixel_values=pictures).pooler_output
    return vectors


@pytest.mark.parametrize("model_type", sorted(POOLS_FIRST_TOKEN))
def test_a_shortened_tower_gives_the_same_vectors(model_type: str, folder: Path) -> None:
    model = tiny_model(model_type, folder)
    whole = features(copy.deepcopy(model))

    shorten_last_layer(model)

    assert isinstance(model.vision_model.encoder.layers[-1], LastLayer)
    torch.testing.assert_close(features(model), whole, atol=1e-5, rtol=1e-5)


def test_only_the_first_token_leaves_the_last_layer(folder: Path) -> None:
    model = tiny_model("clip", folder)
    shorten_last_layer(model)

    hidden = torch.randn(2, 7, model.config.vision_config.hidden_size)
    with torch.inference_mode():
        answer = model.vision_model.encoder.layers[-1](hidden, None)

    assert answer.shape == (2, 1, hidden.shape[-1])


def test_towers_that_pool_all_tokens_keep_their_last_layer(folder: Path) -> None:
    model = tiny_model("siglip", folder)

    shorten_last_layer(model)

    assert not any(isinstance(module, LastLayer) for module in model.modules())


def test_a_layer_of_unknown_parts_is_left_as_it_is(folder: Path) -> None:
    """As another release of transformers may have it."""
    model = tiny_model("clip", folder)
    layers = model.vision_model.encoder.layers
    layers[-1] = torch.nn.Identity()

    shorten_last_layer(model)

    assert isinstance(layers[-1], torch.nn.Identity)
