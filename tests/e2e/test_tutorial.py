"""Every command of the moderation tutorial, in its order, as a team would run them."""

import json
import random
import re
import shlex
from pathlib import Path
from typing import Final

import pytest
from PIL import Image

from labelyard import Client
from tests.e2e.instant import NAMESPACE, InstantService
from tests.support.command_line import run
from tests.support.service import RESULTS
from tests.support.waiting import wait_until

PAGE: Final = Path(__file__).parents[2] / "docs/tutorial-moderation.md"
# To the model without weights an embedding is a picture's first colours, and its texts are noise.
COLOURS: Final = {
    "a gun": (200, 40, 40),
    "banknotes": (40, 200, 40),
    "everyday things": (40, 40, 200),
}
CANARY: Final = ["label-sets", "canary", "moderation@prod"]
#: Pictures of each label; 0.95 needs that many right answers for all labels together.
SPLITS: Final = {"train": 4, "calibration": 40, "test": 4}
pytestmark = pytest.mark.allow_persistent_keys("versions and aliases stay")


@pytest.fixture
def folder(instant: InstantService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Lead the command line to the worker without a real model, in a folder with the pictures."""
    for name, value in instant.service.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LABELYARD_NAMESPACE", NAMESPACE)
    monkeypatch.setenv("LABELYARD_UPLOAD_BUCKET", RESULTS)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    rows = []
    generator = random.Random(1)
    for split, each in SPLITS.items():
        for number in range(each * len(COLOURS)):
            label = list(COLOURS)[number % len(COLOURS)]
            name = f"photos/{split}-{number}.png"
            draw(COLOURS[label], generator).save(name)
            rows.append(json.dumps({"image": name, "label": label, "split": split}))
    (tmp_path / "manifest.jsonl").write_text("\n".join(rows))
    for number, label in enumerate(("a gun", "everyday things"), start=1):
        draw(COLOURS[label], generator).save(f"photos/today-{number}.png")
    return tmp_path


def draw(colour: tuple[int, ...], generator: random.Random) -> Image.Image:
    """Draw a picture that is all in about one colour; no two are equal."""
    around = tuple(min(255, max(0, part + generator.randint(-30, 30))) for part in colour)
    picture = Image.new("RGB", (24, 24), around)
    picture.putpixel((20, 20), tuple(generator.randint(0, 255) for _ in range(3)))
    return picture


def blocks(language: str) -> list[str]:
    """Return the code blocks of the page in a language."""
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_commands_of_the_tutorial_lead_from_names_to_a_deployed_promise(folder: Path) -> None:
    label_set, lines = blocks("json")
    (folder / "moderation.json").write_text(label_set)
    assert {json.loads(line)["label"] for line in lines.splitlines()} == set(COLOURS)
    outputs: dict[str, str] = {}

    for command in "".join(blocks("bash")).splitlines():
        words = shlex.split(command)
        assert words[0] == "labelyard"
        if words[1:] == CANARY:
            wait_until(lambda: "2 pictures" in run(*CANARY).stdout, within_s=60)
        result = run(*words[1:])
        assert (command, result.exit_code, result.stderr) == (command, 0, result.stderr)
        outputs[command] = result.stdout

    with Client() as client:
        newest, taught, plain = client.label_sets.log("moderation")
        drift = client.label_sets.drift("moderation@prod")
    assert newest.aliases == ("moderation@prod",)
    assert (newest.parent, taught.parent) == (taught.reference, plain.reference)
    assert (newest.metrics["accuracy"], plain.metrics["accuracy"] < 0.9) == (1.0, True)
    assert (newest.note[-18:], taught.note) == ("certified for 0.95", "12 examples of 3 labels")
    assert drift.baseline is not None
    assert drift.baseline.n == 120
    changes = outputs["labelyard label-sets diff moderation@prod moderation"]
    assert all(f"learned.{name}: null" in changes for name in ("examples", "certified"))
    assert all((folder / name / "report.html").exists() for name in ("before", "taught", "after"))
