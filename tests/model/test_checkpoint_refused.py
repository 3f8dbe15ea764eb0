"""A checkpoint that cannot work is refused at the start, with a sentence that gives the reason."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from labelyard.errors import ModelLoadError
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision.checkpoint import load_checkpoint
from tests.support.checkpoints import MAKERS, tiny_checkpoint

TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges*", "special*", "*.model")

Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture
def copy_of(checkpoints: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Copy a tiny checkpoint, to damage it."""

    def copy(model_type: str) -> Path:
        return shutil.copytree(tiny_checkpoint(model_type, checkpoints), tmp_path / model_type)

    return copy


def load(folder: Path, **options: Any) -> None:
    load_checkpoint(WorkerSettings(checkpoint=str(folder), **{"device": "cpu", **options}))


def delete(folder: Path, *patterns: str) -> None:
    for pattern in patterns:
        for path in folder.glob(pattern):
            path.unlink()


def weights_changed(change: Callable[[dict[str, torch.Tensor]], None]) -> Damage:
    """Rewrite the weights after *change*."""

    def damage(folder: Path) -> None:
        file = folder / "model.safetensors"
        weights = load_file(file)
        change(weights)
        save_file(weights, file, metadata={"format": "pt"})

    return damage


def filled(name: str, value: float, *, index: int | None = None) -> Damage:
    """Write *value* into one weight, or into one number of it."""

    def change(weights: dict[str, torch.Tensor]) -> None:
        target = weights[name]
        target.fill_(value) if index is None else target.view(-1)[index].fill_(value)

    return weights_changed(change)


def json_changed(file: str, **fields: Any) -> Damage:
    """Rewrite fields of a JSON file."""

    def damage(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return damage


def zero_token_embeddings(weights: dict[str, torch.Tensor]) -> None:
    """Have the text tower ignore its tokens: only positions are left."""
    weights["text_model.embeddings.token_embedding.weight"].zero_()


@pytest.mark.parametrize("model_type", MAKERS)
def test_a_checkpoint_without_its_tokenizer_is_refused(
    model_type: str, copy_of: Callable[[str], Path]
) -> None:
    folder = copy_of(model_type)
    delete(folder, *TOKENIZER_FILES)

    with pytest.raises(ModelLoadError, match=r"its tokenizer .* are all files of the tokenizer"):
        load(folder)


@pytest.mark.parametrize("model_type", ["clip", "siglip2"])
def test_a_checkpoint_without_its_image_processor_is_refused(
    model_type: str, copy_of: Callable[[str], Path]
) -> None:
    folder = copy_of(model_type)
    delete(folder, "*processor_config.json")

    with pytest.raises(ModelLoadError, match=r"image processor .* preprocessor_config\.json"):
        load(folder)


def test_a_tokenizer_of_another_checkpoint_is_refused(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("clip")
    delete(folder, *TOKENIZER_FILES)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(str, range(2000)), "cat", "dog"]
    vocab = {piece: number for number, piece in enumerate([*pieces, "a", "photo", "of"])}
    transformers.BertTokenizer(vocab=vocab, model_max_length=77).save_pretrained(folder)

    with pytest.raises(ModelLoadError, match="belongs to another checkpoint"):
        load(folder)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (json_changed("tokenizer_config.json", model_max_length=2), "the same tokens"),
        (weights_changed(zero_token_embeddings), "different prompts the same vector"),
        (filled("text_projection.weight", 0.0), "text tower gives vectors that are not finite"),
        (filled("text_projection.weight", math.nan, index=3), "text_projection.weight"),
        (filled("visual_projection.weight", math.inf, index=3), "visual_projection.weight"),
        (
            filled("text_model.encoder.layers.1.mlp.fc1.bias", -math.inf, index=0),
            r"fc1\.bias holds numbers that are not finite",
        ),
        (filled("visual_projection.weight", 0.0), "image tower gives vectors that are not finite"),
        (
            filled("vision_model.embeddings.patch_embedding.weight", 0.0),
            "different pictures the same vector",
        ),
        (
            json_changed("preprocessor_config.json", image_std=[1e30, 1e30, 1e30]),
            "different pictures the same vector",
        ),
        (
            json_changed("preprocessor_config.json", image_std=[0.0, 0.2, 0.2]),
            "not finite: check its weights and the image processor",
        ),
        (filled("logit_scale", math.nan), "weight logit_scale holds numbers"),
        (filled("logit_scale", 100.0), "its logit scale comes to"),
        (filled("logit_scale", 1e4), "its logit scale comes to"),
        (filled("logit_scale", -1e4), "its logit scale comes to"),
    ],
)
def test_a_clip_that_cannot_tell_things_apart_is_refused(
    damage: Damage, why: str, copy_of: Callable[[str], Path]
) -> None:
    folder = copy_of("clip")
    damage(folder)

    with pytest.raises(ModelLoadError, match=why):
        load(folder)


@pytest.mark.parametrize(
    ("model_type", "damage", "why"),
    [
        ("align", filled("temperature", 0.0), "its logit scale comes to"),
        ("align", filled("temperature", -1.0), "its logit scale comes to"),
        ("siglip", filled("logit_bias", math.inf), "logit_bias holds numbers"),
    ],
)
def test_a_scale_that_no_trained_model_has_is_refused(
    model_type: str, damage: Damage, why: str, copy_of: Callable[[str], Path]
) -> None:
    folder = copy_of(model_type)
    damage(folder)

    with pytest.raises(ModelLoadError, match=why):
        load(folder)


def test_an_overflow_of_a_narrow_dtype_names_the_setting(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("clip")
    filled("visual_projection.weight", 3e38)(folder)

    with pytest.raises(ModelLoadError, match="LABELYARD_DTYPE=float32"):
        load(folder, dtype="bfloat16")
