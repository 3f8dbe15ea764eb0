"""The lite checkpoint: an ordinary transformers checkpoint that knows what is in a photograph."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForZeroShotImageClassification,
    AutoProcessor,
    AutoTokenizer,
    pipeline,
)

from labelyard_worker.vision.lite import ensure_lite, register

EVERYDAY_LABELS = [
    "a cat",
    "a dog",
    "a bird",
    "a horse",
    "a flower",
    "a cup of coffee",
    "a pizza",
    "a car",
    "a bicycle",
    "an airplane",
    "a rocket",
    "an astronaut",
    "a temple",
    "a beach",
    "a city street",
]
DEFAULT_TEMPLATE = "This is a photo of {}."
PHOTOS = {
    "chelsea.png": ("scikit-image", "skimage/data/chelsea.png"),
    "coffee.png": ("scikit-image", "skimage/data/coffee.png"),
    "astronaut.png": ("scikit-image", "skimage/data/astronaut.png"),
    "rocket.jpg": ("scikit-image", "skimage/data/rocket.jpg"),
    "china.jpg": ("scikit-learn", "sklearn/datasets/images/china.jpg"),
    "flower.jpg": ("scikit-learn", "sklearn/datasets/images/flower.jpg"),
}
LABELS_BY_PHOTO = {
    "chelsea.png": "a cat",
    "coffee.png": "a cup of coffee",
    "astronaut.png": "an astronaut",
    "rocket.jpg": "a rocket",
    "china.jpg": "a temple",
    "flower.jpg": "a flower",
}
DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    register()
    return ensure_lite()


@pytest.fixture(scope="module")
def processor(checkpoint: Path) -> Any:
    return AutoProcessor.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def models(checkpoint: Path) -> dict[torch.dtype, Any]:
    return {
        dtype: AutoModelForZeroShotImageClassification.from_pretrained(
            checkpoint, dtype=dtype
        ).eval()
        for dtype in DTYPES
    }


def photo(name: str) -> Image.Image:
    """Open a photograph out of the wheel that carries it."""
    distribution, path = PHOTOS[name]
    located = metadata.distribution(distribution).locate_file(path)
    return Image.open(str(located)).convert("RGB")


def embed_images(model: Any, processor: Any, images: list[Image.Image]) -> Tensor:
    with torch.inference_mode():
        pixels = processor(images=images, return_tensors="pt")
        embeds: Tensor = model.get_image_features(**pixels).pooler_output
    return embeds


def embed_texts(model: Any, processor: Any, texts: list[str]) -> Tensor:
    with torch.inference_mode():
        tokens = processor(text=texts, padding=True, return_tensors="pt")
        embeds: Tensor = model.get_text_features(**tokens).pooler_output
    return embeds


def scores(
    model: Any, processor: Any, images: list[Image.Image], labels: list[str], template: str
) -> Tensor:
    """Score as a worker does: both towers apart, then the scaled cosine."""
    text_embeds = embed_texts(model, processor, [template.format(label) for label in labels])
    image_embeds = embed_images(model, processor, images)
    logit_scale: Tensor = model.logit_scale.detach().float().exp()
    return (logit_scale * image_embeds @ text_embeds.T).softmax(-1)


def test_the_auto_classes_load_it_whole(checkpoint: Path) -> None:
    config = AutoConfig.from_pretrained(checkpoint)
    model, report = AutoModelForZeroShotImageClassification.from_pretrained(
        checkpoint, dtype=torch.float32, output_loading_info=True
    )

    assert config.model_type == "lite_zeroshot"
    assert model.logit_scale.exp().item() == pytest.approx(20)
    assert not any(report.values())
    assert AutoTokenizer.from_pretrained(checkpoint).model_max_length == 128
    assert AutoImageProcessor.from_pretrained(checkpoint).size == {"shortest_edge": 256}


def test_registering_again_is_silent(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    register()
    register()

    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


@pytest.mark.parametrize(
    "template", [DEFAULT_TEMPLATE, "{}", "a picture of {}", "A photograph showing {} in it"]
)
def test_six_photographs_get_their_label_of_fifteen(
    models: dict[torch.dtype, Any], processor: Any, template: str
) -> None:
    images = [photo(name) for name in LABELS_BY_PHOTO]

    rows = scores(models[torch.float32], processor, images, EVERYDAY_LABELS, template)

    best = {
        name: (EVERYDAY_LABELS[row.argmax()], row.max().item())
        for name, row in zip(LABELS_BY_PHOTO, rows, strict=True)
    }
    assert {name: label for name, (label, _) in best.items()} == LABELS_BY_PHOTO
    assert min(score for _, score in best.values()) > 0.8, best


def test_labels_without_articles_work_too(models: dict[torch.dtype, Any], processor: Any) -> None:
    labels = ["cat", "dog", "a bowl of soup"]

    [row] = scores(
        models[torch.float32], processor, [photo("chelsea.png")], labels, DEFAULT_TEMPLATE
    )

    assert row[0] > 0.9


@pytest.mark.parametrize(
    ("name", "label"), [("astronaut.png", "a person"), ("china.jpg", "a building")]
)
def test_a_coarser_word_is_understood(
    models: dict[torch.dtype, Any], processor: Any, name: str, label: str
) -> None:
    coarse = {"an astronaut": "a person", "a temple": "a building"}
    labels = [coarse.get(everyday, everyday) for everyday in EVERYDAY_LABELS]

    [row] = scores(models[torch.float32], processor, [photo(name)], labels, DEFAULT_TEMPLATE)

    assert labels[row.argmax()] == label


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_embeddings_are_float32_unit_vectors(
    models: dict[torch.dtype, Any], processor: Any, dtype: torch.dtype
) -> None:
    image_embeds = embed_images(models[dtype], processor, [photo("coffee.png")])
    text_embeds = embed_texts(models[dtype], processor, ["a dog", "anything else, 42"])

    assert models[dtype].dtype == dtype
    for embeds in (image_embeds, text_embeds):
        assert embeds.dtype == torch.float32
        torch.testing.assert_close(embeds.norm(dim=-1), torch.ones(len(embeds)))


def test_bfloat16_moves_no_score_by_two_hundredths(
    models: dict[torch.dtype, Any], processor: Any
) -> None:
    images = [photo(name) for name in PHOTOS]

    exact, rounded = (
        scores(models[dtype], processor, images, EVERYDAY_LABELS, DEFAULT_TEMPLATE)
        for dtype in DTYPES
    )

    assert (exact.argmax(-1) == rounded.argmax(-1)).all()
    torch.testing.assert_close(rounded, exact, rtol=0, atol=0.02)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_pipeline_gives_the_same_scores(
    checkpoint: Path, models: dict[torch.dtype, Any], processor: Any, dtype: torch.dtype
) -> None:
    classify = pipeline("zero-shot-image-classification", model=str(checkpoint), dtype=dtype)
    image = photo("rocket.jpg")

    answers = classify(image, candidate_labels=EVERYDAY_LABELS)

    [ours] = scores(models[dtype], processor, [image], EVERYDAY_LABELS, DEFAULT_TEMPLATE)
    theirs = {answer["label"]: answer["score"] for answer in answers}
    for label, score in zip(EVERYDAY_LABELS, ours.tolist(), strict=True):
        assert theirs[label] == pytest.approx(score, abs=1e-5)


def test_neighbours_in_a_batch_change_nothing(
    models: dict[torch.dtype, Any], processor: Any
) -> None:
    model = models[torch.float32]
    images = [photo("chelsea.png"), photo("flower.jpg"), photo("china.jpg")]
    texts = ["a cat", "a very long label about a cat that sleeps on a red sofa in the afternoon"]

    image_embeds = embed_images(model, processor, images)
    text_embeds = embed_texts(model, processor, texts)

    for embeds, alone in [
        (image_embeds, [embed_images(model, processor, [image]) for image in images]),
        (text_embeds, [embed_texts(model, processor, [text]) for text in texts]),
    ]:
        torch.testing.assert_close(embeds, torch.cat(alone), rtol=0, atol=1e-4)


def test_the_folder_of_a_built_checkpoint_is_found_without_torch(checkpoint: Path) -> None:
    program = (
        "import sys; from labelyard_worker.vision.lite import ensure_lite; "
        "print(ensure_lite()); assert 'torch' not in sys.modules"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.strip() == str(checkpoint)


def test_anyone_may_read_the_weights(checkpoint: Path) -> None:
    modes = {path.stat().st_mode for path in checkpoint.iterdir()}

    assert len(modes) == 1
