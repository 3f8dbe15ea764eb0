"""Compare what is measured on labelled photographs with what was aimed at; writes docs/labels.md.

    python -m benchmarks.labels.targets PHOTOS [--print]

PHOTOS is a folder with a folder for each set, each with a ``manifest.jsonl``. Means of five seeded
draws, where examples or pictures are drawn; the lite checkpoint, and its default template.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.folders import REPOSITORY
from benchmarks.labels import explain_boxes, hierarchy, prior, unknown
from benchmarks.labels.quality import (
    DRAWS,
    Tempered,
    accuracy,
    count_broken_at_large,
    count_promises,
    few_shot,
    scorers,
    shares,
    temper,
    time_parts,
    zero_shot,
)
from benchmarks.labels.vectors import PhotoSet, lite, load_sets
from labelyard.evaluation.certificates import certify, count_missing
from labelyard.evaluation.metrics import average_precision

PAGE: Final = REPOSITORY / "docs" / "labels.md"
BEGIN: Final = "<!-- measured -->\n"
Sets = dict[str, PhotoSet]
PROMISE: Final = {"precision": 0.95, "confidence": 0.9}


@dataclass(frozen=True)
class Row:
    """One figure and its target.

    Attributes:
        what: What was done.
        of: Set, and what of it.
        value: The figure.
        target: Its bound.
        is_most: Whether the target is the most that the figure may be, else the least.
        unit: Of both.
    """

    what: str
    of: str
    value: float
    target: float
    is_most: bool = False
    unit: str = "%"

    @property
    def holds(self) -> bool:
        """Return whether the figure reaches its target."""
        return self.value <= self.target if self.is_most else self.value >= self.target

    def to_line(self) -> str:
        """Return the row as a line of a table in Markdown."""
        sign = "≤" if self.is_most else "≥"
        digits = 1 if self.unit == "%" else 3
        number, bound = f"{self.value:.{digits}f}", f"{self.target:g}"
        if self.value < 0.001 and self.unit != "%":
            number = f"{self.value:.1g}"
        unit = f" {self.unit}" if self.unit else ""
        verdict = "yes" if self.holds else "**no**"
        return f"| {self.what} | {self.of} | {number}{unit} | {sign} {bound}{unit} | {verdict} |"


def mean_accuracy(photos: PhotoSet, count: int) -> float:
    """Return the mean accuracy on test pictures with *count* examples a label."""
    test = photos.rows("test")
    return float(
        np.mean([accuracy(photos, few_shot(photos, count, seed=s), test) for s in range(DRAWS)])
    )


def taught(sets: Sets) -> Iterator[Row]:
    """Yield the accuracies with 16, 4, 2 and 1 examples a label."""
    wanted = {
        16: {"everyday": 96.0, "clothes": 76.0, "grocery": 78.0, "trash": 66.0, "textile": 62.0},
        4: {"everyday": 94.0, "clothes": 70.0, "grocery": 64.0, "trash": 56.5, "textile": 62.0},
    }
    for count, of in wanted.items():
        for name, target in of.items():
            yield Row(f"{count} examples a label", name, mean_accuracy(sets[name], count), target)
    for count in (1, 2):
        for name, photos in sets.items():
            text = accuracy(photos, zero_shot(photos), photos.rows("test"))
            lost = text - mean_accuracy(photos, count)
            what = f"loss by {count} example{'s' if count > 1 else ''} a label"
            yield Row(what, name, lost, 1.0, is_most=True)


def half(sets: Sets) -> Iterator[Row]:
    """Yield the accuracies where a drawn half of the labels has 8 examples."""
    wanted = {"clothes": (66.0, 1.5), "grocery": (43.0, 9.0), "everyday": (86.0, 4.0)}
    for name, (overall, most_lost) in wanted.items():
        photos, found = sets[name], []
        test = photos.rows("test")
        for seed in range(DRAWS):
            count = len(photos.labels)
            labels = np.sort(np.random.default_rng(seed).permutation(count)[: count // 2])
            logits = few_shot(photos, 8, seed=seed, labels=labels)
            others = test[~np.isin(photos.classes[test], labels)]
            before = accuracy(photos, zero_shot(photos), others)
            found.append(
                (accuracy(photos, logits, test), before - accuracy(photos, logits, others))
            )
        reached, lost = np.mean(found, axis=0)
        yield Row("8 examples for half of the labels", name, float(reached), overall)
        yield Row(
            "8 examples for half of the labels",
            f"{name}, loss of the others",
            float(lost),
            most_lost,
            is_most=True,
        )


def calibrated(sets: Sets) -> Iterator[Row]:
    """Yield calibration errors, and the change of the likelihood, after 100 pictures."""
    few = {"everyday": 1.5, "clothes": 4.5, "grocery": 6.0, "trash": 8.0}
    for name, photos in sets.items():
        if name == "moderation":
            continue
        found: dict[str, list[Tempered]] = {}
        for seed in range(DRAWS):
            for scorer, one in scorers(photos, seed).items():
                found.setdefault(scorer, []).append(temper(photos, one, seed=seed))
        for scorer, each in found.items():
            mean = Tempered(*np.mean(each, axis=0).tolist())
            zero = 6.0 if name == "everyday" else 8.5
            target = zero if scorer == "zero-shot" else few.get(name)
            if target is not None:
                of = f"{name}, {scorer}; without any fault {100 * mean.floor:.1f} %"
                what = "calibration error after 100 pictures"
                yield Row(what, of, 100 * mean.error_after, target, is_most=True)
            rise = 100 * (mean.nll_after / mean.nll - 1)
            yield Row(
                "change of −log likelihood by it", f"{name}, {scorer}", rise, 1.0, is_most=True
            )


def promised(sets: Sets) -> Iterator[Row]:
    """Yield how often a promise of precision broke, in 100 splits, and what it kept."""
    kept_at_least = {
        ("everyday", "zero-shot", 0.90, 400): 65.0,
        ("everyday", "few-shot 16", 0.95, 200): 90.0,
        ("clothes", "few-shot 16", 0.90, 400): 45.0,
    }
    for name, photos in sets.items():
        pool = np.concatenate([photos.rows("calibration"), photos.rows("test")])
        for scorer, one in scorers(photos, 0).items():
            for count in (100, 200, 400):
                for wanted in (0.90, 0.95):
                    if count > len(pool) - 60:
                        continue
                    of = f"{name}, {scorer}, {wanted:.2f} from {count}"
                    _, broken, kept = count_promises(photos, one, pool, count, wanted)
                    yield Row("promise broken, of 100 splits", of, broken, 10, is_most=True)
                    if count > len(pool) / 2:
                        broken = count_broken_at_large(photos, one, pool, count, wanted)
                        what = "promise broken, judged by all"
                        yield Row(what, of, broken, 10, is_most=True)
                    key = (name, scorer, wanted, count)
                    if key in kept_at_least:
                        yield Row("kept by a promise", of, kept, kept_at_least[key])


def refused(sets: Sets) -> Iterator[Row]:
    """Yield how many labels 20 pictures each certify for .95, and if the missing ones suffice."""
    for name, photos in sets.items():
        pool = np.concatenate([photos.rows("calibration"), photos.rows("test")])
        for scorer, one in scorers(photos, 0).items():
            drawn = np.concatenate(
                [pool[photos.classes[pool] == label][:20] for label in range(len(photos.labels))]
            )
            scores = shares(one.logits[drawn])
            best, answers = scores.max(1), scores.argmax(1)
            is_right = answers == photos.classes[drawn]
            places = [answers == label for label in set(answers.tolist())]
            given = sum(certify(best[own], is_right[own], **PROMISE) is not None for own in places)
            of = f"{name}, {scorer}"
            yield Row("labels certified for .95 by 20 pictures each", of, given, 0, True, "")
            exact = [is_exact(best[own], is_right[own]) for own in places]
            share = 100 * float(np.mean([one for one in exact if one is not None] or [True]))
            yield Row("missing pictures right within 10 %", of, share, 100.0)


def is_exact(scores: NDArray[np.float64], is_right: NDArray[np.bool_]) -> bool | None:
    """Return whether the missing pictures and a tenth suffice, and a tenth less do not.

    Returns:
        ``None`` if no number of such pictures suffices.
    """
    missing = count_missing(scores, is_right, **PROMISE)
    if not missing:
        return None
    ranked = is_right[np.argsort(-scores, kind="stable")]
    curve = np.concatenate([[0], np.cumsum(~ranked)])

    def is_given(more: float) -> bool:
        total = len(ranked) + round(more)
        places = np.arange(total + 1) * len(ranked) / total  # the same mix, but larger
        errors = np.round(
            np.interp(places, np.arange(len(ranked) + 1), curve) * total / len(ranked)
        )
        return certify(np.linspace(1.0, 0.0, total), np.diff(errors) == 0, **PROMISE) is not None

    return is_given(1.1 * missing) and not is_given(0.9 * missing)


def rare(sets: Sets) -> Iterator[Row]:
    """Yield the average precision of rare labels with 4 examples."""
    photos = sets["moderation"]
    test = photos.rows("test")
    for name, target in {"banknotes": 0.95, "a gun": 0.96}.items():
        label = list(photos.labels).index(name)
        is_true = photos.classes[test] == label
        each = [
            average_precision(shares(few_shot(photos, 4, seed=seed))[test, label], is_true) or 0.0
            for seed in range(DRAWS)
        ]
        yield Row("average precision, 4 examples", name, float(np.mean(each)), target, unit="")


def shifted(sets: Sets) -> Iterator[Row]:
    """Yield the gain by true shares, on pictures drawn with skewed shares."""
    for name in prior.SETS:
        photos = sets[name]
        gains = []
        for seed in range(DRAWS):
            before, _, with_sample, _ = prior.gains(photos, zero_shot(photos), seed)
            gains.append(with_sample - before)
        yield Row("gain by true shares", f"{name}, zero-shot", float(np.mean(gains)), 2.0)


def unknown_pictures(sets: Sets) -> Iterator[Row]:
    """Yield how well pictures of a hidden half of the labels are told from the others."""
    wanted = {("everyday", 0): 92.5, ("everyday", 4): 96.5, ("trash", 4): 74.0}
    for (name, count), target in wanted.items():
        areas = []
        for seed in range(DRAWS):
            drawn = unknown.Half.draw(sets[name], seed)
            areas.append(unknown.area(drawn, drawn.fits(count, seed=seed)[0]))
        of = f"{name}, {count} examples a label" if count else f"{name}, zero-shot"
        yield Row("AUROC, half of the labels hidden", of, float(np.mean(areas)), target)


def levels(sets: Sets) -> Iterator[Row]:
    """Yield the accuracy at the first level of hierarchies that has several nodes."""
    for name, (level, target) in {
        "everyday": (1, 91.0),
        "clothes": (2, 78.0),
        "grocery": (1, 80.0),
    }.items():
        scores = hierarchy.by_text(sets[name])
        tree, nodes = hierarchy.score(sets[name], scores)
        error = hierarchy.largest_error(tree, nodes, scores)
        yield Row("a parent less the sum of its labels", name, error, 1e-6, is_most=True, unit="")
        reached = hierarchy.accuracy(sets[name], scores, level=level)
        yield Row("accuracy at the top level", f"{name}, zero-shot", reached, target)


def explained(photos: Path) -> Iterator[Row]:
    """Yield how often the hottest window is on its object, on 40 scenes."""
    found = explain_boxes.measure(
        photos / "everyday", ["test"], scenes=40, grid=4, seed=0, checkpoint=lite()
    )
    there = [one for one in found if one.placed is not None]
    hit = float(np.mean([one.is_hit for one in there]))
    area = float(np.mean([one.placed.area for one in there if one.placed is not None]))
    absent = [one.explained.warning is not None for one in found if one.placed is None]
    of = f"{len(there)} objects in scenes"
    yield Row("hottest window on the object", of, 100 * hit, 55.0)
    yield Row("the same beside the box's part of the scene", of, hit / area, 2.5, unit="×")
    share = 100 * float(np.mean(absent))
    yield Row("warning for a label that is not there", f"{len(absent)} labels", share, 100.0)
    extra = float(max(one.extra for one in found))
    yield Row(
        "extra images of an explained picture", "4 × 4 windows", extra, 16.0, is_most=True, unit=""
    )


def quick(sets: Sets) -> Iterator[Row]:
    """Yield what examples cost, at 30 labels with 16 each, on one core."""
    found = time_parts(sets["everyday"])
    image_ms = 1e3 * found.image_s
    yield Row("scores of a taught set", "an image", image_ms, 2.0, is_most=True, unit="ms")
    of = "1,000 scored pictures"
    yield Row("a calibration", of, found.calibration_s, 2.0, is_most=True, unit="s")


PARTS: Final[tuple[Callable[[Sets], Iterator[Row]], ...]] = (
    taught,
    half,
    calibrated,
    promised,
    refused,
    rare,
    unknown_pictures,
    levels,
    shifted,
    quick,
)


def main() -> None:
    """Measure everything, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--print", action="store_true", help="do not write the page")
    options = parser.parse_args()
    sets = load_sets(options.photos)
    rows = [row for part in PARTS for row in part(sets)]
    rows += explained(options.photos)
    lines = ["| what | of | measured | target | holds |", "|---|---|---|---|---|"]
    table = "\n".join([*lines, *(row.to_line() for row in rows)]) + "\n"
    print(table)
    if not options.print:
        head = PAGE.read_text(encoding="utf-8").partition(BEGIN)[0]
        PAGE.write_text(f"{head}{BEGIN}\n{table}", encoding="utf-8")


if __name__ == "__main__":
    main()
