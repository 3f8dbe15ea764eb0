"""Walk through docs/tutorial-moderation.md with photographs, by its own commands.

    python -m benchmarks.labels.tutorial --photos PHOTOS

PHOTOS is a folder with the set ``moderation``. Servers of its own on 127.0.0.1 and a real worker with
the lite checkpoint. Prints each command with its output; the folder is removed at the end.
"""

import argparse
import json
import os
import random
import re
import shlex
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any, Final

from PIL import Image
from tests.support.command_line import run

from benchmarks.folders import REPOSITORY
from benchmarks.labels.zero_shot import OTHER, service

PAGE: Final = REPOSITORY / "docs/tutorial-moderation.md"
#: Name of the pictures that show nothing unwanted.
EVERYDAY: Final = "everyday things"
#: Pictures that teach a label.
TAUGHT: Final = 4
SEED: Final = 1
CANARY: Final = "labelyard label-sets canary moderation@prod"
COUNTED: Final = "with 2 pictures"
COUNTED_WITHIN_S: Final = 120.0


def blocks(language: str) -> list[str]:
    """Return the code blocks of the page in a language."""
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def manifest_lines(photos: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of the team's manifest: few pictures teach, all others are as they were."""
    text = (photos / "manifest.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    random.Random(SEED).shuffle(rows)
    taught = Counter[str]()
    for row in rows:
        label = EVERYDAY if row["label"] == OTHER else row["label"]
        taught[label] += row["split"] == "train"
        if row["split"] != "train" or taught[label] <= TAUGHT:
            yield {"image": f"photos/{row['file']}", "label": label, "split": row["split"]}


def prepare(folder: Path, photos: Path) -> None:
    """Write the label set, the manifest and two new pictures, as the tutorial expects them."""
    (folder / "moderation.json").write_text(blocks("json")[0], encoding="utf-8")
    lines = list(manifest_lines(photos))
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    (folder / "photos").mkdir()
    for part in photos.iterdir():
        if part.is_dir():
            (folder / "photos" / part.name).symlink_to(part)
    judged = [line for line in lines if line["split"] == "test"]
    for number, label in enumerate(("a gun", EVERYDAY), start=1):
        file = next(line["image"] for line in judged if line["label"] == label)
        Image.open(photos / Path(file).relative_to("photos")).save(
            folder / f"photos/today-{number}.png"
        )


def walk(folder: Path, photos: Path) -> None:
    """Run every command of the tutorial in a folder, in its order, against a running service.

    Raises:
        RuntimeError: A command failed.
    """
    prepare(folder, photos / "moderation")
    with chdir(folder):
        for command in "".join(blocks("bash")).splitlines():
            print(f"$ {command}\n{output_of(command)}", flush=True)


def output_of(command: str) -> str:
    """Run a command, and return what it printed; the canary is read until it was counted.

    Raises:
        RuntimeError: It failed.
    """
    until = time.monotonic() + COUNTED_WITHIN_S
    while True:
        result = run(*shlex.split(command)[1:])
        if result.exit_code:
            raise RuntimeError(f"{command}: exit code {result.exit_code}: {result.stderr}")
        if command != CANARY or COUNTED in result.stdout or time.monotonic() > until:
            return result.stdout
        time.sleep(1.0)


def main() -> None:
    """Walk through the tutorial."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True)
    options = parser.parse_args()
    os.environ["COLUMNS"] = "100"
    with tempfile.TemporaryDirectory() as name, service():
        walk(Path(name), options.photos.absolute())


if __name__ == "__main__":
    main()
