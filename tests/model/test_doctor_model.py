"""The worker's doctor finds what is wrong with a checkpoint, its device and its number format."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from labelyard.doctor import Finding, Severity
from labelyard_worker.operations.doctor import model
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision import precision
from labelyard_worker.vision.lite import ensure_lite
from tests.support.checkpoints import tiny_checkpoint


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure for a moment only."""
    monkeypatch.setattr(model, "MEASURE_S", 0.05)
    monkeypatch.setattr(model, "DECODE_S", 0.05)


@pytest.fixture
def childless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the children out, whose start takes most of an examination."""
    monkeypatch.setattr(model, "check_children", lambda *_: [])


@pytest.fixture
def clip(folder: Path, tmp_path: Path) -> Path:
    """Copy a tiny CLIP, to damage it."""
    return shutil.copytree(tiny_checkpoint("clip", folder), tmp_path / "clip")


def examine(checkpoint: Path | str, **settings: Any) -> dict[str, Finding]:
    """Examine the model of a worker with these settings."""
    wanted = {"device": "cpu", "dtype": "float32", "intake_children": 1, **settings}
    found = model.examine_model(WorkerSettings(checkpoint=str(checkpoint), **wanted))
    return {one.code: one for one in found}


def test_a_sound_checkpoint_is_measured_and_its_children_start(clip: Path) -> None:
    found = examine(clip)

    assert set(found) == {"model_measured"}
    assert found["model_measured"].severity is Severity.OK
    assert "images/s in batches of 16" in found["model_measured"].found


def remove(*patterns: str) -> Callable[[Path], None]:
    """Remove files of a checkpoint."""

    def damage(folder: Path) -> None:
        for path in (path for pattern in patterns for path in folder.glob(pattern)):
            path.unlink()

    return damage


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (remove("*.safetensors"), "model.safetensors"),
        (remove("tokenizer*", "vocab*", "merges*", "special*"), "tokenizer"),
        (remove("*processor*"), "image processor"),
        (remove("config.json"), "model_type"),
        (shutil.rmtree, "there is no such folder"),
    ],
    ids=["weights", "tokenizer", "processor", "config", "folder"],
)
def test_a_damaged_checkpoint_is_found(
    clip: Path, damage: Callable[[Path], None], words: str
) -> None:
    damage(clip)

    found = examine(clip)

    assert set(found) == {"checkpoint_fails"}
    assert found["checkpoint_fails"].severity is Severity.SERIOUS
    assert words in found["checkpoint_fails"].found
    assert "LABELYARD_CHECKPOINT" in found["checkpoint_fails"].advice


@pytest.mark.parametrize(
    ("settings", "code", "advice"),
    [
        ({"device": "cuda:7"}, "device_missing", "LABELYARD_DEVICE"),
        ({"dtype": "float16"}, "dtype_unsupported", "LABELYARD_DTYPE"),
        (
            {"max_pixels_in_flight_bytes": 10_000},
            "pixels_below_batch",
            "LABELYARD_MAX_PIXELS_IN_FLIGHT_BYTES",
        ),
    ],
)
@pytest.mark.usefixtures("childless")
def test_a_setting_that_the_device_refuses_is_found_and_the_checkpoint_checked_all_the_same(
    clip: Path, settings: dict[str, Any], code: str, advice: str
) -> None:
    found = examine(clip, **settings)

    assert set(found) == {code, "model_measured"}
    assert advice in found[code].advice


def test_a_format_that_the_cpu_emulates_is_found(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "cpu_flags", frozenset)

    [finding] = model.check_dtype(WorkerSettings(device="cpu", dtype="bfloat16"))

    assert (finding.code, finding.severity) == ("dtype_slow", Severity.WARNING)


def test_nothing_is_downloaded_or_built(tmp_path: Path) -> None:
    hub = examine("openai/clip-vit-base-patch32@main")
    lite = examine("lite", cache_dir=tmp_path)

    assert set(hub) == set(lite) == {"checkpoint_not_here"}
    assert "hf download openai/clip-vit-base-patch32 --revision main" in (
        hub["checkpoint_not_here"].advice
    )
    assert "labelyard_worker.vision.lite" in lite["checkpoint_not_here"].advice
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_lite_is_the_one_that_is_built() -> None:
    assert model.lite_folder(None) == ensure_lite()


def test_children_that_do_not_start_are_found(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "CHILDREN_WITHIN_S", 0.0)

    found = examine(clip)

    assert found["children_fail"].severity is Severity.SERIOUS
    assert "LABELYARD_INTAKE_CHILDREN" in found["children_fail"].advice


@pytest.mark.usefixtures("childless")
def test_a_model_that_does_not_run_is_found(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("the device is full")

    monkeypatch.setattr(model, "measure_embedding", fail)

    found = examine(clip)

    assert found["model_run_fails"].severity is Severity.SERIOUS
    assert "LABELYARD_MAX_BATCH_SIZE" in found["model_run_fails"].advice
