"""Every served type of model gives the scores of transformers' own pipeline, and the rest is refused."""

import gc
import io
import json
import shutil
import weakref
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from labelyard.errors import ModelLoadError
from labelyard.label_sets import as_label_set
from labelyard_worker.intake.decode import ImageLimits, Pixels, decode
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision.checkpoint import SUPPORTED_TYPES, Checkpoint, load_checkpoint
from labelyard_worker.vision.label_index import LabelIndex
from labelyard_worker.vision.scorer import Scorer
from tests.support import pictures
from tests.support.checkpoints import MODEL_TYPES, pipeline_for, tiny_checkpoint

TOLERANCE = 1e-4
AS_THE_PIPELINE = ImageLimits(decode="exact", transparency="drop")
LABELS = [
    "cat",
    "dog",
    "a bowl of soup",
    "rocket",
    "temple",
    "flower",
    "astronaut",
    "street at night",
    "red car",
    "tree",
    "river",
    "bridge",
    "book",
    "clock",
    "a very long label that goes on and on and on",
    "chair",
    "bird",
    "fish",
    "bread",
    "snow",
]
TITLE = "white cotton shirt with long sleeves for women"
PICTURES = {
    "jpeg": pictures.jpeg((160, 120), seed=1),
    "png with alpha": pictures.transparent_png((90, 70)),
    "greyscale": pictures.greyscale_jpeg((64, 80)),
    "rotated by EXIF": pictures.rotated_jpeg((120, 60)),
    "very wide": pictures.png((400, 12), seed=2),
    "very tall": pictures.png((9, 300), seed=3),
}

Load = Callable[..., Checkpoint]


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Make each tiny checkpoint once a session."""
    cache_folder = tmp_path_factory.mktemp("checkpoints")
    return lambda model_type: tiny_checkpoint(model_type, cache_folder)


@pytest.fixture(scope="session")
def load(folder_of: Callable[[str], Path]) -> Load:
    """Load a type's checkpoint once a session, on the CPU in float32."""

    @cache
    def load(model_type: str, dtype: str = "float32") -> Checkpoint:
        return load_checkpoint(settings_for(folder_of(model_type), dtype=dtype))

    return load


@pytest.fixture(scope="session")
def pipeline_of(folder_of: Callable[[str], Path]) -> Callable[[str], Any]:
    """Load transformers' pipeline on the same checkpoint."""

    return cache(lambda model_type: pipeline_for(folder_of(model_type)))


def settings_for(folder: Path | str, **options: Any) -> WorkerSettings:
    """Set the worker up for a checkpoint on the CPU."""
    return WorkerSettings(checkpoint=str(folder), **{"device": "cpu", **options})


def decoded(checkpoint: Checkpoint, raw: bytes) -> Pixels:
    """Decode every pixel, as the pipeline does."""
    return decode(raw, uri="s3://b/k", spec=checkpoint.pixel_spec, limits=AS_THE_PIPELINE)


def scored(checkpoint: Checkpoint, embeds: Any, labels: list[str]) -> dict[str, float]:
    """Score one image, by label."""
    with closing(LabelIndex(checkpoint, capacity_bytes=1 << 20)) as index:
        matrix = index.matrix(as_label_set(labels))
    scorer = Scorer.of(checkpoint, capacity_bytes=1 << 20)
    (scores,) = scorer.score([embeds], matrix, top_k=len(labels))
    return {label.name: label.score for label in scores.labels}


def test_every_served_type_is_tested_here() -> None:
    assert set(MODEL_TYPES) == set(SUPPORTED_TYPES)


@pytest.mark.parametrize("count", [1, 2, 20])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_scores_equal_the_pipelines_alone_and_in_mixed_batches(
    model_type: str, count: int, load: Load, pipeline_of: Callable[[str], Any]
) -> None:
    checkpoint, labels = load(model_type), LABELS[:count]
    expected = [
        {
            found["label"]: found["score"]
            for found in pipeline_of(model_type)(
                Image.open(io.BytesIO(raw)),
                candidate_labels=labels,
                hypothesis_template="This is a photo of {}.",
            )
        }
        for raw in PICTURES.values()
    ]
    batch = [decoded(checkpoint, raw) for raw in PICTURES.values()]

    mixed = checkpoint.image_embeds(batch)
    alone = [checkpoint.image_embeds([pixels])[0] for pixels in batch]

    for embeds in (mixed, alone):
        for name, row, wanted in zip(PICTURES, embeds, expected, strict=True):
            assert scored(checkpoint, row, labels) == pytest.approx(wanted, abs=TOLERANCE), name


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_vectors_of_titles_have_unit_length_and_are_the_same_in_any_company(
    model_type: str, load: Load
) -> None:
    checkpoint, company = load(model_type), [TITLE, *LABELS]

    alone, mixed = checkpoint.title_embeds([TITLE]), checkpoint.title_embeds(company)

    np.testing.assert_allclose(np.linalg.norm(mixed, axis=1), 1.0, atol=TOLERANCE)
    np.testing.assert_allclose(mixed[0], alone[0], atol=TOLERANCE)
    is_text_space = mixed.shape == checkpoint.text_embeds(company).shape
    assert is_text_space == (model_type != "lite_zeroshot")


def test_titles_of_the_lite_checkpoint_are_compared_as_sentences(load: Load) -> None:
    checkpoint = load("lite_zeroshot")
    texts = [TITLE, "women's blouse, long sleeves, cotton, white", "set of four steel pans"]

    sentences, concepts = (
        embeds[1:] @ embeds[0]
        for embeds in (checkpoint.title_embeds(texts), checkpoint.text_embeds(texts))
    )

    assert sentences[0] > 0.7
    assert sentences[0] - sentences[1] > 0.4
    assert sentences[0] - sentences[1] > concepts[0] - concepts[1]


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_embeddings_are_unit_vectors_and_tell_pictures_and_prompts_apart(
    model_type: str, load: Load
) -> None:
    checkpoint = load(model_type)
    batch = [decoded(checkpoint, raw) for raw in PICTURES.values()]

    images, texts = checkpoint.image_embeds(batch), checkpoint.text_embeds(LABELS)

    for embeds in (images, texts):
        assert embeds.dtype == np.float32
        assert embeds.shape[1] == checkpoint.dim
        assert np.linalg.norm(embeds, axis=1) == pytest.approx(1, abs=1e-5)
        cosines = embeds @ embeds.T
        assert cosines[~np.eye(len(embeds), dtype=bool)].max() < 1 - 1e-5


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_examples_are_compared_by_features_of_the_same_pass_where_a_checkpoint_has_them(
    model_type: str, load: Load
) -> None:
    checkpoint = load(model_type)
    batch = [decoded(checkpoint, raw) for raw in PICTURES.values()]
    layout = checkpoint.layout

    vectors = checkpoint.image_vectors(batch)

    assert layout.space == ("penultimate" if model_type == "lite_zeroshot" else "joint")
    assert vectors.shape == (len(batch), layout.length)
    assert np.array_equal(layout.joint(vectors), checkpoint.image_embeds(batch))
    assert np.linalg.norm(layout.features(vectors), axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_bfloat16_moves_images_little_and_prompts_not_at_all(model_type: str, load: Load) -> None:
    exact, fast = load(model_type), load(model_type, "bfloat16")
    batch = [decoded(exact, raw) for raw in PICTURES.values()]

    cosines = (exact.image_embeds(batch) * fast.image_embeds(batch)).sum(axis=1)

    assert cosines.min() > 0.99  # random weights, scaled up; trained ones stay above 0.999
    assert np.array_equal(exact.text_embeds(LABELS), fast.text_embeds(LABELS))
    assert (fast.info.dtype, exact.info.dtype) == ("bfloat16", "float32")


@pytest.mark.parametrize("model_type", ["clip", "siglip", "altclip", "metaclip_2", "align"])
def test_prompts_that_are_too_long_are_cut(model_type: str, load: Load) -> None:
    checkpoint = load(model_type)

    embeds = checkpoint.text_embeds(["word " * 500, "word " * 501])

    assert np.isfinite(embeds).all()


def test_prompts_come_back_in_their_order_whatever_their_length(load: Load) -> None:
    checkpoint = load("clip")
    prompts = [f"{'very ' * (number * 7 % 11)}{number}" for number in range(150)]

    together = checkpoint.text_embeds(prompts)

    assert together[17] == pytest.approx(checkpoint.text_embeds(prompts[17:18])[0], abs=1e-5)
    assert together[149] == pytest.approx(checkpoint.text_embeds(prompts[149:])[0], abs=1e-5)


def test_the_fingerprint_follows_the_content_and_not_the_place(
    folder_of: Callable[[str], Path], load: Load, tmp_path: Path
) -> None:
    moved = shutil.copytree(folder_of("clip"), tmp_path / "moved")
    changed = shutil.copytree(folder_of("clip"), tmp_path / "changed")
    weights = changed / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)

    prints = [load_checkpoint(settings_for(folder)).info.fingerprint for folder in (moved, changed)]

    assert prints[0] == load("clip").info.fingerprint
    assert prints[1] != prints[0]
    assert prints[0].startswith("sha256:")


def test_an_older_checkpoint_has_a_file_of_its_own_for_the_image_processor(
    folder_of: Callable[[str], Path], load: Load, tmp_path: Path
) -> None:
    older = shutil.copytree(folder_of("clip"), tmp_path / "older")
    config = json.loads((older / "preprocessor_config.json").read_text())
    config["image_processor_type"] = "CLIPImageProcessor"  # as transformers 4 wrote it
    config["feature_extractor_type"] = "CLIPFeatureExtractor"
    (older / "preprocessor_config.json").write_text(json.dumps(config))

    checkpoint = load_checkpoint(settings_for(older))

    assert checkpoint.pixel_spec == load("clip").pixel_spec


def test_a_processor_in_one_file_is_read_as_well(
    folder_of: Callable[[str], Path], load: Load, tmp_path: Path
) -> None:
    newer = shutil.copytree(folder_of("clip"), tmp_path / "newer")
    (newer / "preprocessor_config.json").unlink()
    transformers.CLIPProcessor(
        transformers.AutoImageProcessor.from_pretrained(folder_of("clip"), backend="pil"),
        transformers.AutoTokenizer.from_pretrained(folder_of("clip")),
    ).save_pretrained(newer)

    checkpoint = load_checkpoint(settings_for(newer))

    assert (newer / "processor_config.json").exists()
    assert not (newer / "preprocessor_config.json").exists()
    assert checkpoint.pixel_spec == load("clip").pixel_spec


@pytest.mark.parametrize("model_type", ["blip", "blip-2", "bert", "vit"])
def test_what_has_no_two_embeddings_to_compare_is_refused(model_type: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))

    with pytest.raises(ModelLoadError, match="clip, clipseg, lite_zeroshot") as refused:
        load_checkpoint(settings_for(tmp_path))

    assert model_type in str(refused.value)


def test_a_checkpoint_without_all_its_weights_is_refused(
    folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    torn = shutil.copytree(folder_of("clip"), tmp_path / "torn")
    weights = transformers.CLIPModel.from_pretrained(torn).state_dict()
    del weights["visual_projection.weight"]
    (torn / "model.safetensors").unlink()
    torch.save(weights, torn / "pytorch_model.bin")

    with pytest.raises(ModelLoadError, match=r"visual_projection\.weight"):
        load_checkpoint(settings_for(torn))


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("/no/such/folder", "no such folder"),
        ("./nor/this", "no such folder"),
        ("nobody/has-this-checkpoint", "cannot be loaded from the hub"),
    ],
)
def test_a_checkpoint_that_is_not_there_is_an_error_with_advice(name: str, advice: str) -> None:
    with pytest.raises(ModelLoadError, match=advice):
        load_checkpoint(settings_for(name))


def test_an_empty_folder_is_an_error_with_advice(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="cannot be loaded as a checkpoint"):
        load_checkpoint(settings_for(tmp_path))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_where_there_is_none_is_an_error_with_advice(
    folder_of: Callable[[str], Path],
) -> None:
    with pytest.raises(ModelLoadError, match="set it to auto or cpu"):
        load_checkpoint(settings_for(folder_of("clip"), device="cuda"))


def test_float16_on_a_cpu_is_an_error_with_advice(folder_of: Callable[[str], Path]) -> None:
    with pytest.raises(ModelLoadError, match="float16 needs CUDA"):
        load_checkpoint(settings_for(folder_of("clip"), dtype="float16"))


@pytest.mark.parametrize("model_type", ["clip", "siglip2"])
def test_warm_up_runs_and_close_lets_go(model_type: str, folder_of: Callable[[str], Path]) -> None:
    checkpoint = load_checkpoint(settings_for(folder_of(model_type)))

    checkpoint.warm_up()
    model = weakref.ref(checkpoint._model)
    checkpoint.close()
    gc.collect()

    assert model() is None


def test_warm_up_runs_as_many_passes_at_once_as_there_will_be(
    folder_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(folder_of("clip"), model_streams=2, max_batch_size=4)
    checkpoint = load_checkpoint(settings)
    together = Barrier(2, timeout=30)
    sizes: list[int] = []

    def run(batch: Sequence[Pixels], *, leaves_cores: bool) -> None:
        assert leaves_cores  # or the passes' teams would be larger than under load
        together.wait()
        sizes.append(len(batch))

    monkeypatch.setattr(checkpoint, "image_embeds", run)

    checkpoint.warm_up()

    assert sorted(sizes) == [1, 1, 4, 4]
