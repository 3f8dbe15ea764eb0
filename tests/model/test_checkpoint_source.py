"""LABELYARD_CHECKPOINT names lite, a folder, or a hub name with or without a revision."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest

from labelyard.errors import ModelLoadError
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision.checkpoint import Checkpoint, load_checkpoint
from labelyard_worker.vision.checkpoint_source import CheckpointSource
from tests.support.checkpoints import tiny_checkpoint

OLD, NEW = "a" * 40, "b" * 40


def load(name: str) -> Checkpoint:
    return load_checkpoint(WorkerSettings(checkpoint=name, device="cpu"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, Path], None]:
    """Lay out an offline hub cache; the returned function adds a snapshot of ``yard/tiny``."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def add(commit: str, ref: str, folder: Path) -> None:
        repository = cache / "models--yard--tiny"
        shutil.copytree(folder, repository / "snapshots" / commit)
        path = repository / "refs" / ref
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(commit)

    return add


@pytest.fixture
def two_revisions(hub: Callable[[str, str, Path], None], tmp_path: Path) -> None:
    """Put two revisions into the cache; they differ in model, tokenizer and image processor."""
    old = tiny_checkpoint("clip", tmp_path / "made")
    new = shutil.copytree(old, tmp_path / "new")
    for file, changes in {
        "preprocessor_config.json": {"size": {"shortest_edge": 48}},
        "tokenizer_config.json": {"model_max_length": 20},
        "config.json": {"logit_scale_init_value": 2.0},
    }.items():
        path = new / file
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    hub(OLD, "v1.0", old)
    hub(NEW, "main", new)


@pytest.mark.usefixtures("two_revisions")
@pytest.mark.parametrize("revision", ["v1.0", OLD])
def test_a_revision_pins_model_tokenizer_and_image_processor(revision: str) -> None:
    newest, pinned = load("yard/tiny"), load(f"yard/tiny@{revision}")

    assert (newest.pixel_spec.shortest_edge, pinned.pixel_spec.shortest_edge) == (48, 36)
    lengths = [
        checkpoint._tokenizer(["word " * 100])["input_ids"].shape[1]
        for checkpoint in (newest, pinned)
    ]
    assert lengths == [20, 77]
    scales = [one._model.config.logit_scale_init_value for one in (newest, pinned)]
    assert scales[0] != scales[1]
    assert pinned.info.checkpoint == f"yard/tiny@{revision}"
    assert pinned.info.fingerprint != newest.info.fingerprint


@pytest.mark.usefixtures("two_revisions")
def test_a_revision_that_is_not_there_is_refused() -> None:
    with pytest.raises(ModelLoadError, match="Check the name, the revision and the network"):
        load("yard/tiny@v9")


def test_a_folder_may_have_an_at_sign_in_its_name(tmp_path: Path) -> None:
    made = tiny_checkpoint("clip", tmp_path)
    folder = made.rename(tmp_path / "clip@v2")

    assert load(str(folder)).info.checkpoint == str(folder)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("openai/clip@main", ("openai/clip", "main")),
        ("openai/clip@refs/pr/1", ("openai/clip", "refs/pr/1")),
        ("clip@" + OLD, ("clip", OLD)),
        ("openai/clip", ("openai/clip", None)),
    ],
)
def test_what_follows_the_at_sign_is_the_revision(name: str, source: tuple[str, str]) -> None:
    found = CheckpointSource.of(WorkerSettings(checkpoint=name))

    assert (found.name, found.revision) == source


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("yard/tiny@", "names no revision after the @"),
        ("lite@v1", "lite is built on this machine and has no revisions"),
        ("here@v1", "here is a folder and has no revisions"),
        ("./nowhere@v1", "no such folder"),
        ("/no/where@v1", "no such folder"),
    ],
)
def test_a_revision_that_would_be_ignored_is_refused(
    name: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ModelLoadError, match=why):
        CheckpointSource.of(WorkerSettings(checkpoint=name))
