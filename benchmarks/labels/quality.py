"""Measure what examples and calibration are worth on labelled photographs, with the lite checkpoint.

    python -m benchmarks.labels.quality PHOTOS [few] [half] [errors] [promises] [refusals] [rare] [speed]

PHOTOS is a folder with a folder for each set, each with a ``manifest.jsonl``. The pictures are
embedded once (some minutes), then every part takes seconds. Nothing is tuned for one set.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.labels.vectors import PhotoSet, load_sets
from labelyard.evaluation.calibration import fit_temperature
from labelyard.evaluation.certificates import certify, certify_together, count_missing
from labelyard.evaluation.example_scores import log_sum_exp, logits_with_examples
from labelyard.evaluation.few_shot import fit_examples
from labelyard.evaluation.metrics import average_precision, expected_calibration_error

DRAWS = 5
SPLITS = 100
#: From a half to 20, for the best one of all.
TEMPERATURES = np.exp(np.linspace(-0.7, 3.0, 200))
Logits = NDArray[np.float64]


def zero_shot(photos: PhotoSet) -> Logits:
    """Return the logits of all pictures by text alone."""
    return photos.cosines * photos.scale


def few_shot(
    photos: PhotoSet, count: int, *, seed: int, labels: NDArray[np.intp] | None = None
) -> Logits:
    """Return the logits of all pictures after *count* drawn examples for each of *labels*."""
    taught = np.arange(len(photos.labels)) if labels is None else labels
    generator = np.random.default_rng(seed)
    train = photos.rows("train")
    drawn = np.concatenate(
        [generator.permutation(train[photos.classes[train] == label])[:count] for label in taught]
    )
    fitted = fit_examples(
        zero_shot(photos)[drawn][:, taught],
        photos.features[drawn],
        np.searchsorted(taught, photos.classes[drawn]),
        taught,
    )
    logits, _ = logits_with_examples(
        zero_shot(photos), photos.features, fitted, labels=len(photos.labels)
    )
    return logits


def accuracy(photos: PhotoSet, logits: Logits, rows: NDArray[np.intp]) -> float:
    """Return the percentage of *rows* whose best label is right."""
    return float(100 * (logits[rows].argmax(1) == photos.classes[rows]).mean())


def shares(logits: Logits) -> Logits:
    """Return the softmax of each row."""
    found: Logits = np.exp(logits - log_sum_exp(logits))
    return found


def measure_few(sets: dict[str, PhotoSet]) -> None:
    """Print the accuracy with 1 to 16 examples a label."""
    print(f"\n{'accuracy, %':12}" + "".join(f"{name:>9}" for name in ("text", 1, 2, 4, 8, 16)))
    for name, photos in sets.items():
        test = photos.rows("test")
        found = [accuracy(photos, zero_shot(photos), test)]
        for count in (1, 2, 4, 8, 16):
            each = [accuracy(photos, few_shot(photos, count, seed=s), test) for s in range(DRAWS)]
            found.append(float(np.mean(each)))
        print(f"{name:12}" + "".join(f"{one:9.1f}" for one in found))


def measure_half(sets: dict[str, PhotoSet]) -> None:
    """Print the accuracy if a drawn half of the labels has 8 examples."""
    print(f"\n{'8 for half':12}{'text':>9}{'overall':>9}{'untaught before':>17}{'after':>8}")
    for name, photos in sets.items():
        rows = []
        for seed in range(DRAWS):
            count = len(photos.labels)
            taught = np.sort(np.random.default_rng(seed).permutation(count)[: count // 2])
            logits = few_shot(photos, 8, seed=seed, labels=taught)
            test = photos.rows("test")
            untaught = test[~np.isin(photos.classes[test], taught)]
            before, text = zero_shot(photos), accuracy(photos, zero_shot(photos), test)
            rows.append(
                (
                    text,
                    accuracy(photos, logits, test),
                    accuracy(photos, before, untaught),
                    accuracy(photos, logits, untaught),
                )
            )
        text, overall, old, new = np.mean(rows, axis=0)
        print(f"{name:12}{text:9.1f}{overall:9.1f}{old:17.1f}{new:8.1f}")


class Scorer(NamedTuple):
    """Logits of all pictures, and whether examples made them."""

    logits: Logits
    is_taught: bool

    def temperature(self, photos: PhotoSet, rows: NDArray[np.intp]) -> float:
        """Return the temperature that some pictures give."""
        logits, classes = self.logits[rows], photos.classes[rows]
        return fit_temperature(logits, classes, is_taught=self.is_taught).value


def scorers(photos: PhotoSet, seed: int) -> dict[str, Scorer]:
    """Return both scorers that are calibrated."""
    return {
        "zero-shot": Scorer(zero_shot(photos), is_taught=False),
        "few-shot 16": Scorer(few_shot(photos, 16, seed=seed), is_taught=True),
    }


class Tempered(NamedTuple):
    """Calibration error and negative log-likelihood, without a temperature and with it.

    Attributes:
        floor: Error that scores without any fault would show on so few pictures.
        pictures: Number of pictures that judge.
        best: Smallest error that any temperature gives on the pictures that judge.
    """

    error: float
    error_after: float
    nll: float
    nll_after: float
    temperature: float
    floor: float
    pictures: int
    best: float


def temper(photos: PhotoSet, scorer: Scorer, *, seed: int) -> Tempered:
    """Fit a temperature to 100 drawn calibration pictures, and judge it on all that are left.

    These are the test pictures, the other calibration pictures, and without examples those of the
    split for examples, which nothing has seen either.
    """
    drawn = np.random.default_rng(seed).permutation(photos.rows("calibration"))[:100]
    temperature = scorer.temperature(photos, drawn)
    is_left = ~np.isin(np.arange(len(photos.classes)), drawn)
    left = np.flatnonzero(is_left & ~((photos.splits == "train") & scorer.is_taught))
    error, nll = _calibration(photos, scorer.logits, left)
    error_after, nll_after = _calibration(photos, scorer.logits / temperature, left)
    best = shares(scorer.logits[left] / temperature).max(1)
    generator = np.random.default_rng(seed)
    floors = [
        expected_calibration_error(best, generator.random(len(best)) < best) for _ in range(100)
    ]
    floor = float(np.mean(floors))
    all_errors = [_calibration(photos, scorer.logits / one, left)[0] for one in TEMPERATURES]
    return Tempered(
        error, error_after, nll, nll_after, temperature, floor, len(left), min(all_errors)
    )


def measure_errors(sets: dict[str, PhotoSet]) -> None:
    """Print calibration error and likelihood before and after a temperature from 100 pictures."""
    heads = ("ECE", "after", "NLL", "after", "T", "floor", "judged", "best")
    print(f"\n{'100 pictures':24}" + "".join(f"{head:>8}" for head in heads))
    for name, photos in sets.items():
        found: dict[str, list[Tempered]] = {}
        for seed in range(DRAWS):
            for scorer, one in scorers(photos, seed).items():
                found.setdefault(scorer, []).append(temper(photos, one, seed=seed))
        for scorer, each in found.items():
            mean = np.mean(each, axis=0) * (100, 100, 1, 1, 1, 100, 1, 100)
            print(f"{name + ' ' + scorer:24}" + "".join(f"{one:8.2f}" for one in mean))


def _calibration(photos: PhotoSet, logits: Logits, rows: NDArray[np.intp]) -> tuple[float, float]:
    scores, truth = shares(logits[rows]), photos.classes[rows]
    error = expected_calibration_error(scores.max(1), scores.argmax(1) == truth)
    nll = -np.log(np.maximum(scores[np.arange(len(rows)), truth], 1e-300)).mean()
    return error, float(nll)


def measure_promises(sets: dict[str, PhotoSet]) -> None:
    """Print how often a promise was given, how often it broke, and what it kept."""
    print(
        f"\n{'promise at .90':24}{'pictures':>9}{'wanted':>7}{'given':>7}{'broken':>7}{'kept':>7}"
    )
    for name, photos in sets.items():
        pool = np.concatenate([photos.rows("calibration"), photos.rows("test")])
        for scorer, one in scorers(photos, 0).items():
            for count in (100, 200, 400):
                if count > len(pool) - 60:
                    continue
                for wanted in (0.90, 0.95):
                    given, broken, kept = count_promises(photos, one, pool, count, wanted)
                    print(
                        f"{name + ' ' + scorer:24}{count:9}{wanted:7}{given:7}{broken:7}{kept:6.0f}%"
                    )


def count_promises(
    photos: PhotoSet, scorer: Scorer, pool: NDArray[np.intp], count: int, wanted: float
) -> tuple[int, int, float]:
    """Return the promises given and broken in 100 splits of *pool*, and the percentage kept.

    Args:
        count: Pictures that calibrate; the rest judges.
        wanted: Promised precision.
    """
    given, broken, kept = 0, 0, []
    for seed in range(SPLITS):
        mixed = np.random.default_rng(seed).permutation(pool)
        drawn, rest = mixed[:count], mixed[count:]
        scores = shares(scorer.logits / scorer.temperature(photos, drawn))
        is_right = scores.argmax(1) == photos.classes
        best = scores.max(1)
        found = certify_together(best[drawn], is_right[drawn], precision=wanted, confidence=0.9)
        accepted = rest[best[rest] >= found.threshold] if found else rest[:0]
        given += found is not None
        broken += bool(len(accepted) and is_right[accepted].mean() < wanted)
        kept.append(len(accepted) / len(rest))
    return given, broken, 100 * float(np.mean(kept))


def count_broken_at_large(
    photos: PhotoSet, scorer: Scorer, pool: NDArray[np.intp], count: int, wanted: float
) -> int:
    """Return the promises that 100 samples of *pool* gave, and that all of *pool* broke.

    The samples are drawn with replacement, so that *pool* is what they are samples of. Pictures
    that a draw without replacement leaves are few if it takes most of them, and the worse the
    better the drawn ones are.

    Args:
        count: Pictures of a sample.
        wanted: Promised precision.
    """
    broken = 0
    for seed in range(SPLITS):
        drawn = np.random.default_rng(seed).choice(pool, count)
        scores = shares(scorer.logits / scorer.temperature(photos, drawn))
        is_right = scores.argmax(1) == photos.classes
        best = scores.max(1)
        found = certify_together(best[drawn], is_right[drawn], precision=wanted, confidence=0.9)
        if found is not None:
            broken += bool(is_right[pool][best[pool] >= found.threshold].mean() < wanted)
    return broken


def measure_refusals(sets: dict[str, PhotoSet]) -> None:
    """Print which labels 20 pictures each certify for .95, and how many more each needs."""
    print(f"\n{'20 a label, .95':24}{'labels':>8}{'given':>8}{'missing, of each label'}")
    for name, photos in sets.items():
        pool = np.concatenate([photos.rows("calibration"), photos.rows("test")])
        for scorer, one in scorers(photos, 0).items():
            drawn = np.concatenate(
                [pool[photos.classes[pool] == label][:20] for label in range(len(photos.labels))]
            )
            scores = shares(one.logits[drawn])
            best, is_right = scores.max(1), scores.argmax(1) == photos.classes[drawn]
            given, missing = 0, []
            for label in range(len(photos.labels)):
                own = scores.argmax(1) == label
                promise = {"precision": 0.95, "confidence": 0.9}
                given += certify(best[own], is_right[own], **promise) is not None
                missing.append(count_missing(best[own], is_right[own], **promise))
            print(f"{name + ' ' + scorer:24}{len(photos.labels):8}{given:8}  {missing}")


def measure_rare(sets: dict[str, PhotoSet]) -> None:
    """Print the average precision of rare labels among look-alikes."""
    photos = sets["moderation"]
    test = photos.rows("test")
    print(f"\n{'average precision':24}{'text':>8}{'4 examples':>12}")
    for label, name in enumerate(photos.labels):
        is_true = photos.classes[test] == label
        text = average_precision(shares(zero_shot(photos))[test, label], is_true)
        taught = [
            average_precision(shares(few_shot(photos, 4, seed=seed))[test, label], is_true)
            for seed in range(DRAWS)
        ]
        print(f"{name:24}{text:8.3f}{np.mean([one or 0.0 for one in taught]):12.3f}")


class Seconds(NamedTuple):
    """Seconds of a fit of *examples*, of one image's scores, and of a calibration."""

    examples: int
    fit_s: float
    image_s: float
    calibration_s: float


def time_parts(photos: PhotoSet) -> Seconds:
    """Time a fit of all examples, scores of images one by one, and a calibration on 1,000 pictures."""
    train = photos.rows("train")
    labels = np.arange(len(photos.labels))
    started_at = time.perf_counter()
    fitted = fit_examples(
        zero_shot(photos)[train], photos.features[train], photos.classes[train], labels
    )
    fit_s = time.perf_counter() - started_at
    repeats = 200
    started_at = time.perf_counter()
    for row in range(repeats):
        one = slice(row, row + 1)
        logits = photos.cosines[one] * photos.scale
        logits_with_examples(logits, photos.features[one], fitted, labels=len(labels))
    image_s = (time.perf_counter() - started_at) / repeats
    drawn = np.random.default_rng(0).integers(0, len(photos.classes), 1000)
    logits = zero_shot(photos)[drawn]
    started_at = time.perf_counter()
    calibrate(logits, photos.classes[drawn])
    return Seconds(len(train), fit_s, image_s, time.perf_counter() - started_at)


def calibrate(logits: Logits, classes: NDArray[np.intp]) -> None:
    """Fit a temperature, and certify all labels, together and one by one."""
    promise = {"precision": 0.95, "confidence": 0.9}
    scores = shares(logits / fit_temperature(logits, classes).value)
    best, answers = scores.max(1), scores.argmax(1)
    is_right = answers == classes
    certify_together(best, is_right, **promise)
    for label in range(logits.shape[1]):
        own = answers == label
        certify(best[own], is_right[own], **promise)
        count_missing(best[own], is_right[own], **promise)


def measure_speed(sets: dict[str, PhotoSet]) -> None:
    """Print the seconds of a fit, of one image's scores, and of a calibration."""
    found = time_parts(sets["everyday"])
    image_ms = 1e3 * found.image_s
    print(f"\nfit {found.examples} examples: {found.fit_s:.3f} s; an image: {image_ms:.3f} ms")
    print(f"calibration on 1,000 pictures: {found.calibration_s:.3f} s")


PARTS: dict[str, Callable[[dict[str, PhotoSet]], None]] = {
    "few": measure_few,
    "half": measure_half,
    "errors": measure_errors,
    "promises": measure_promises,
    "refusals": measure_refusals,
    "rare": measure_rare,
    "speed": measure_speed,
}


def main() -> None:
    """Measure the parts that the command line names; all of them without one."""
    if len(sys.argv) < 2 or not Path(sys.argv[1]).is_dir() or set(sys.argv[2:]) - PARTS.keys():
        raise SystemExit(__doc__)
    sets = load_sets(Path(sys.argv[1]))
    for name, part in PARTS.items():
        if name in (sys.argv[2:] or PARTS):
            part(sets)


if __name__ == "__main__":
    main()
