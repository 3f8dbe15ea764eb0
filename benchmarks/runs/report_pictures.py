"""Make the report of a real run, and screenshots of it for docs/images.

    python -m benchmarks.runs.report_pictures --out docs/images

Servers of its own on 127.0.0.1 and a real worker with the lite checkpoint. The pictures are cuts of
the free photographs that come in the wheels of scikit-image and scikit-learn, some hundred, with a
few repeated, broken and missing ones. Chromium draws the page, on a desktop and on a phone.
"""

import argparse
import faulthandler
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from PIL import Image
from tests.support.browser import Browser, browser_program, running_browser

from benchmarks.checkpoints import LITE, ensure_checkpoint
from benchmarks.runs.rig import joined, say, upload_to, wait_until
from benchmarks.stack import BUCKET, Stack, isolate, running_stack
from benchmarks.systems.labelyard import LabelyardWorker
from benchmarks.systems.system import Engine
from labelyard.messages import Label, LabelSet
from labelyard.runs.report import write_report

CUTS: Final = 36
CUT_PX: Final = 360
FEWEST_PX: Final = 0.45
MORE: Final = (
    "camera",
    "coins",
    "brick",
    "grass",
    "gravel",
    "hubble_deep_field",
    "moon",
    "motorcycle_left",
)
LABELS: Final[Mapping[str, float | None]] = {
    "a cat": 0.5,
    "a dog": None,
    "a cup of coffee": 0.5,
    "an astronaut": None,
    "a rocket": None,
    "a temple": 0.4,
    "a flower": None,
    "a motorcycle": None,
    "coins on a table": None,
    "a lawn of grass": None,
    "a brick wall": None,
    "the moon": None,
    "a pizza": None,
}
NOTHING: Final = ("a blurred picture of nothing",)
RUNS_WITHIN_S: Final = 900.0
COLOURS: Final = 192
DESKTOP_PX: Final = (1280, 2500)
PHONE_PX: Final = (390, 844)
Scheme: TypeAlias = Literal["light", "dark"]
# Where the screens of the phone begin: at the top, and at these headings.
PHONE_PLACES: Final = ("Report of a run", "Labels", "Typical")
SCROLL: Final = """
{{
  const all = [...document.querySelectorAll("h1, h2, h3, h4")];
  const wanted = all.find((one) => one.textContent.trim() === {place});
  window.scrollTo(0, wanted ? wanted.getBoundingClientRect().top + window.scrollY - 90 : 0);
}}
"""
TOP: Final = """
[...document.querySelectorAll("h2")].find((one) => one.textContent.trim() === {place})
  .getBoundingClientRect().top
"""
GAP_PX: Final = 24


def photographs() -> dict[str, Image.Image]:
    """Read the free photographs out of the wheels."""
    skimage = Path(str(distribution("scikit-image").locate_file("skimage/data")))
    sklearn = Path(str(distribution("scikit-learn").locate_file("sklearn/datasets/images")))
    names = ("chelsea", "coffee", "astronaut", "rocket", *MORE)
    paths = [path for name in names for path in sorted(skimage.glob(f"{name}.*"))]
    paths += [sklearn / "china.jpg", sklearn / "flower.jpg"]
    return {path.stem.replace("_", "-"): Image.open(path).convert("RGB") for path in paths}


def jpeg(picture: Image.Image) -> bytes:
    """Encode a picture."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return file.getvalue()


def cuts(seed: int = 3) -> Iterator[tuple[str, bytes]]:
    """Yield the keys and files of all pictures: whole, cut, turned over and repeated ones."""
    numbers = random.Random(seed)
    for name, whole in photographs().items():
        small = whole.copy()
        small.thumbnail((2 * CUT_PX, 2 * CUT_PX))
        yield f"shop/{name}/whole.jpg", jpeg(small)
        yield f"shop/{name}/again.jpg", jpeg(small)
        for number in range(CUTS):
            part = numbers.uniform(FEWEST_PX, 1.0)
            width, height = int(whole.width * part), int(whole.height * part)
            left = numbers.randint(0, whole.width - width)
            top = numbers.randint(0, whole.height - height)
            cut = whole.crop((left, top, left + width, top + height))
            cut.thumbnail((CUT_PX, CUT_PX))
            if numbers.random() < 0.5:
                cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            yield f"shop/{name}/{number:02d}.jpg", jpeg(cut)


def broken(body: bytes) -> dict[str, bytes]:
    """Return files that are no pictures."""
    return {
        "shop/broken/half.jpg": body[: len(body) // 6],
        "shop/broken/empty.jpg": b"",
        "shop/broken/page.jpg": b"<!doctype html><title>404</title>",
        "shop/broken/text.jpg": b"to be photographed",
    }


def label_set() -> LabelSet:
    """Return the labels, three with a threshold."""
    labels = tuple(Label(name=name, threshold=threshold) for name, threshold in LABELS.items())
    return LabelSet(labels=labels, abstain=NOTHING)


def run(stack: Stack, folder: Path) -> dict[str, Any]:
    """Run the pictures through a real worker, and write the report."""
    made = dict(cuts())
    made |= broken(next(iter(made.values())))
    upload_to(stack.seaweed, BUCKET, made.items())
    keys = [*made, "shop/missing/front.jpg", "shop/missing/back.jpg"]
    random.Random(5).shuffle(keys)
    lines = [json.dumps({"custom_id": key, "uri": f"s3://{BUCKET}/{key}"}) for key in keys]
    stack.put("shop.jsonl", joined([*lines, '{"custom_id": "sku-17"}']))
    say(f"uploaded {len(made)} files")
    worker = LabelyardWorker(
        stack,
        Engine(ensure_checkpoint(LITE)),
        title="report",
        settings={"result_buckets": BUCKET, "shard_lines": "64"},
    )
    try:
        say(f"the worker was ready after {worker.start():.0f} s")
        handle = worker.client.runs.start(
            f"s3://{BUCKET}/shop.jsonl",
            label_set(),
            out=f"s3://{BUCKET}/runs/2031-03-14/",
            top_k=20,
        )
        wait_until(
            lambda: worker.client.runs.get(handle.id).is_final,
            within_s=RUNS_WITHIN_S,
            what="the run's end",
        )
        record = worker.client.runs.get(handle.id)
        os.environ.update({k: v for k, v in stack.variables.items() if k.startswith("AWS")})
        written = write_report(record.request.out, folder / "report.html")
    finally:
        worker.stop()
    return {
        "state": record.state,
        "succeeded": record.succeeded,
        "errors": dict(record.errors),
        "report_lines": written.lines,
        "report_missing": written.missing,
        "report_bytes": (folder / "report.html").stat().st_size,
    }


def draw(
    page: Path,
    out: Path,
    folder: Path,
    *,
    name: str = "run-report",
    places: Sequence[str] = PHONE_PLACES,
) -> dict[str, int]:
    """Write the screenshots as PNG of few colours; returns their sizes in bytes.

    Args:
        folder: For what the browser writes.
        name: What the files' names begin with.
        places: Texts of headings at which the screens of the phone begin.
    """
    with running_browser(folder / "profile") as browser:
        desktop = desktop_screen(browser, page, folder)
        screens = phone_screens(browser, page, folder, places=places)
    few = {"desktop": desktop, "phone": beside(screens)}
    return dict(save(picture, out / f"{name}-{kind}.png") for kind, picture in few.items())


def desktop_screen(
    browser: Browser,
    page: Path,
    folder: Path,
    *,
    until: str | None = None,
    scheme: Scheme = "light",
) -> Image.Image:
    """Take a picture of the top of a page on a desktop.

    Args:
        until: Text of the heading before which the picture ends.

    Raises:
        RuntimeError: The browser complains about the page.
    """
    browser.show(page, width=DESKTOP_PX[0], height=DESKTOP_PX[1], scheme=scheme)
    raw = browser.screenshot(folder / "desktop.png")
    check_sound(browser)
    whole = Image.open(raw).convert("RGB")
    if until is None:
        return whole
    top = browser.evaluate(TOP.format(place=json.dumps(until)))
    return whole.crop((0, 0, whole.width, int(top) - GAP_PX))


def phone_screens(
    browser: Browser, page: Path, folder: Path, *, places: Sequence[str], scheme: Scheme = "light"
) -> list[Image.Image]:
    """Take a picture of a page on a phone for each of some headings.

    Raises:
        RuntimeError: The browser complains about the page.
    """
    browser.show(page, width=PHONE_PX[0], height=PHONE_PX[1], scheme=scheme)
    screens = []
    for number, place in enumerate(places):
        browser.evaluate(SCROLL.format(place=json.dumps(place)))
        raw = browser.screenshot(folder / f"phone-{number}.png")
        screens.append(Image.open(raw).convert("RGB"))
    check_sound(browser)
    return screens


def check_sound(browser: Browser) -> None:
    """Refuse a page that the browser complains about.

    Raises:
        RuntimeError: It does.
    """
    if complaints := browser.complaints():
        raise RuntimeError(f"the page is not sound: {complaints}")


def save(picture: Image.Image, path: Path, *, colours: int = COLOURS) -> tuple[str, int]:
    """Write a PNG of few colours, and return its name and size in bytes."""
    picture.quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)
    return path.name, path.stat().st_size


def beside(screens: list[Image.Image]) -> Image.Image:
    """Put screens of a phone, drawn at twice the size, beside each other."""
    small = [one.resize((one.width * 2 // 3, one.height * 2 // 3)) for one in screens]
    width = sum(one.width for one in small) + GAP_PX * (len(small) - 1)
    found = Image.new("RGB", (width, small[0].height), "white")
    left = 0
    for one in small:
        found.paste(one, (left, 0))
        left += one.width + GAP_PX
    return found


def main() -> int:
    """Read the command line, run, and draw; prints the figures as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.runs.report_pictures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--page", type=Path, help="draw this report; run nothing")
    parser.add_argument("--keep", type=Path, help="keep the report here")
    options = parser.parse_args()
    if browser_program() is None:
        print("chromium is not installed", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # clean up, as after Ctrl-C
    isolate(os.environ)
    faulthandler.dump_traceback_later(RUNS_WITHIN_S + 900, exit=True)
    with tempfile.TemporaryDirectory() as name:
        folder, report = Path(name), {}
        page = options.page
        if page is None:
            page = folder / "report.html"
            with running_stack() as stack:
                report = run(stack, folder)
            if options.keep:
                shutil.copy(page, options.keep)
        report["screenshots"] = draw(page, options.out, folder)
    print(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
