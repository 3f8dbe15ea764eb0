"""Evaluate cuts of free photographs, and make screenshots of the report for docs/images.

    python -m benchmarks.labels.report_pictures --out docs/images
    python -m benchmarks.labels.report_pictures --out docs/images --tutorial PHOTOS

Servers of its own on 127.0.0.1 and a real worker with the lite checkpoint. The pictures are cuts of
the photographs that come in the wheels of scikit-image and scikit-learn, some hundred; a few of
them have a wrong label on purpose. Chromium draws the page, on a desktop and on a phone.

``--tutorial`` runs the commands of docs/tutorial-moderation.md with the set ``moderation`` of PHOTOS
in place of the cuts, and draws the reports that they write.
"""

import argparse
import faulthandler
import random
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.support.browser import browser_program, running_browser

from benchmarks.labels.tutorial import walk
from benchmarks.labels.zero_shot import service
from benchmarks.runs.report_pictures import (
    beside,
    cuts,
    desktop_screen,
    draw,
    phone_screens,
    save,
)
from labelyard import Client, LabelSet
from labelyard.evaluation.evaluation import Evaluation
from labelyard.label_sets import as_label_set

#: Labels by photograph; the others show none of them.
SHOWN: Final[Mapping[str, str]] = {
    "chelsea": "a cat",
    "coffee": "a cup of coffee",
    "astronaut": "an astronaut",
    "rocket": "a rocket",
    "china": "a temple",
    "flower": "a flower",
    "motorcycle-left": "a motorcycle",
    "coins": "coins on a table",
    "grass": "a lawn of grass",
    "brick": "a brick wall",
    "moon": "the moon",
}
NOTHING: Final = ("a blurred picture of nothing",)
REQUIRED: Final = ("accuracy>=0.8", "recall[a cat]>=0.9", "ece<=0.05")
WRONG: Final = 4
#: Of the pictures of the tutorial, so that three screens with photographs stay small.
TUTORIAL_COLOURS: Final = 128
PHONE_PLACES: Final = ("Evaluation of a label set", "Calibration", "Suspicious labels")
TIME_LIMIT_S: Final = 2400.0


def label_set() -> LabelSet:
    """Return the labels, with a sentence for none of them."""
    return as_label_set(list(dict.fromkeys(SHOWN.values())), abstain=NOTHING)


def evaluate(client: Client, folder: Path) -> Evaluation:
    """Write the pictures and their manifest, and evaluate them."""
    lines = []
    for key, body in cuts():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        lines.append({"image": str(path), "label": SHOWN.get(path.parent.name)})
    for line in random.Random(7).sample(lines, WRONG):
        line["label"] = "a rocket" if line["label"] != "a rocket" else "a cat"
    return client.evaluate(label_set(), lines, require=REQUIRED)


def draw_tutorial(folder: Path, out: Path) -> dict[str, int]:
    """Write the pictures of the tutorial's reports; returns their sizes in bytes."""
    reports = {name: folder / name / "report.html" for name in ("before", "comparison", "after")}
    with running_browser(folder / "profile") as browser:
        made = {
            "before": desktop_screen(browser, reports["before"], folder, until="Calibration"),
            "comparison": desktop_screen(browser, reports["comparison"], folder, until="Changed"),
            "after": desktop_screen(
                browser, reports["after"], folder, until="Confusions", scheme="dark"
            ),
        }
        screens = [
            *phone_screens(browser, reports["before"], folder, places=("Suspicious labels",)),
            *phone_screens(browser, reports["comparison"], folder, places=("Fixed",)),
            *phone_screens(
                browser, reports["after"], folder, places=("Requirements",), scheme="dark"
            ),
        ]
    made["phone"] = beside(screens)
    return dict(
        save(picture, out / f"tutorial-{name}.png", colours=TUTORIAL_COLOURS)
        for name, picture in made.items()
    )


def main() -> int:
    """Evaluate, and draw the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--tutorial", type=Path, metavar="PHOTOS", help="labelled photographs")
    options = parser.parse_args()
    if browser_program() is None:
        print("chromium is not installed", file=sys.stderr)
        return 2
    faulthandler.dump_traceback_later(TIME_LIMIT_S, exit=True)
    out = options.out.absolute()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.tutorial is not None:
            with service():
                walk(folder, options.tutorial.absolute())
            print(draw_tutorial(folder, out))
            return 0
        with service() as client:
            written = evaluate(client, folder).write(folder / "evaluation")
        page = written / "report.html"
        print(draw(page, out, folder, name="evaluation", places=PHONE_PLACES))
    return 0


if __name__ == "__main__":
    sys.exit(main())
