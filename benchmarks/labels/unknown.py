"""Measure how pictures of other things are told from those of the labels, with the lite checkpoint.

    python -m benchmarks.labels.unknown PHOTOS

PHOTOS is a folder with a folder for each set, each with a ``manifest.jsonl``. A drawn half of the
labels of a set is hidden: their pictures show none of the labels that are left. Nothing is tuned
for one set.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.labels.quality import DRAWS, SPLITS, shares
from benchmarks.labels.vectors import PhotoSet, load_sets
from labelyard.errors import InvalidMessageError
from labelyard.evaluation.calibration import fit_temperature
from labelyard.evaluation.certificates import certify_together
from labelyard.evaluation.few_shot import fit_examples
from labelyard.evaluation.metrics import auroc
from labelyard.evaluation.none_of_these import LimitChoice, fit_limit

Floats = NDArray[np.float64]
COUNTS: Final = (1, 4, 16)
#: Set whose promises are tried, and pictures of each calibration.
PROMISED: Final = ("everyday",)
CALIBRATED_ON: Final = 300
CHOICES: Final[tuple[LimitChoice, ...]] = ("labelled", 0.95)


@dataclass(frozen=True)
class Half:
    """A set of photographs of which a drawn half of the labels is hidden.

    Attributes:
        known: Indices of the labels that are left, shape (left,).
        is_known: Whether a picture shows one of them, shape (pictures,).
    """

    photos: PhotoSet
    known: NDArray[np.intp]
    is_known: NDArray[np.bool_]

    @classmethod
    def draw(cls, photos: PhotoSet, seed: int) -> "Half":
        """Hide labels."""
        count = len(photos.labels)
        known = np.sort(np.random.default_rng(seed).permutation(count)[: count // 2])
        return cls(photos, known, np.isin(photos.classes, known))

    def logits(self) -> Floats:
        """Return the logits of all pictures by the texts of the labels that are left."""
        return self.photos.cosines[:, self.known] * self.photos.scale

    def fits(self, count: int, *, seed: int) -> tuple[Floats, Floats]:
        """Return the fit of all pictures after *count* examples a label, and their logits."""
        by_text: Floats = self.photos.cosines[:, self.known].max(axis=1)
        if not count:
            return by_text, self.logits()
        generator = np.random.default_rng(100 + seed)
        train = self.photos.rows("train")
        classes = self.photos.classes
        drawn = np.concatenate(
            [generator.permutation(train[classes[train] == one])[:count] for one in self.known]
        )
        fitted = fit_examples(
            self.logits()[drawn],
            self.photos.features[drawn],
            np.searchsorted(self.known, classes[drawn]),
            np.arange(len(self.known)),
        )
        nearest = fitted.cosines(self.photos.features).max(axis=1)
        taught = fitted.logits(self.logits(), self.photos.features)
        return (by_text + nearest) / 2, taught.astype(np.float64)


def area(half: Half, figures: Floats) -> float:
    """Return the AUROC of test pictures, in percent."""
    test = half.photos.rows("test")
    is_known = half.is_known[test]
    return 100 * (auroc(figures[test][is_known], figures[test][~is_known]) or 0.0)


def measure_areas(sets: dict[str, PhotoSet]) -> None:
    """Print the AUROC by the best share, and by the fit with and without examples."""
    heads = ("set", "best share", "fit", *(f"fit, {count} examples a label" for count in COUNTS))
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name, photos in sets.items():
        rows = []
        for seed in range(DRAWS):
            half = Half.draw(photos, seed)
            fit, logits = half.fits(0, seed=seed)
            best = shares(logits).max(axis=1)
            taught = [area(half, half.fits(count, seed=seed)[0]) for count in COUNTS]
            rows.append((area(half, best), area(half, fit), *taught))
        print(f"| {name} | {' | '.join(f'{each:.1f}' for each in np.mean(rows, axis=0))} |")


def measure_limits(sets: dict[str, PhotoSet]) -> None:
    """Print what limits from the calibration pictures keep and reject of the test pictures."""
    heads = ("set", "examples a label", "limit by", "limits", "kept", "rejected")
    print(f"\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name, photos in sets.items():
        test, rows = photos.rows("test"), photos.rows("calibration")
        for count in (0, 4):
            for choice in CHOICES:
                found = []
                for seed in range(DRAWS):
                    half = Half.draw(photos, seed)
                    fits, _ = half.fits(count, seed=seed)
                    try:
                        limit = fit_limit(fits[rows], half.is_known[rows], choice).limit
                    except InvalidMessageError:
                        continue
                    passed, is_known = fits[test] >= limit, half.is_known[test]
                    found.append((passed[is_known].mean(), (~passed[~is_known]).mean()))
                shown = (
                    [f"{100 * each:.1f} %" for each in np.mean(found, axis=0)] if found else "––"
                )
                print(f"| {name} | {count} | {choice} | {len(found)} | {' | '.join(shown)} |")


def measure_promises(sets: dict[str, PhotoSet]) -> None:
    """Print how a limit changes what is promised if half of the pictures show other things."""
    heads = ("set", "examples a label", "limit by", "promise", "given", "broken", "accepted")
    print(f"\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name in PROMISED:
        for count in (0, 4):
            for choice in (None, *CHOICES):
                for wanted in (0.90, 0.95):
                    found = [
                        promise(sets[name], count, choice, wanted, seed=seed)
                        for seed in range(SPLITS)
                    ]
                    given = [one for one in found if one is not None]
                    broken = sum(precision < wanted for precision, _ in given)
                    accepted = 100 * sum(share for _, share in given) / SPLITS
                    print(
                        f"| {name} | {count} | {choice or 'none'} | {wanted} | {len(given)} "
                        f"| {broken} | {accepted:.0f} % |",
                        flush=True,
                    )


def promise(
    photos: PhotoSet, count: int, choice: LimitChoice | None, wanted: float, *, seed: int
) -> tuple[float, float] | None:
    """Calibrate on drawn pictures, half of them of other things, and judge by the rest.

    Returns:
        The precision of accepted pictures, and their share of those with a label; ``None`` if
        nothing is promised.
    """
    half = Half.draw(photos, seed)
    fits, logits = half.fits(count, seed=seed)
    pool = np.concatenate([photos.rows("calibration"), photos.rows("test")])
    mixed = np.random.default_rng(seed).permutation(pool)
    drawn, rest = mixed[:CALIBRATED_ON], mixed[CALIBRATED_ON:]
    known = drawn[half.is_known[drawn]]
    classes = np.searchsorted(half.known, photos.classes[known])
    scores = shares(logits / fit_temperature(logits[known], classes).value)
    best = scores.max(axis=1)
    is_right = half.is_known & (half.known[scores.argmax(axis=1)] == photos.classes)
    limit = -np.inf
    if choice is not None:
        limit = fit_limit(fits[drawn], half.is_known[drawn], choice).limit
    passed, left = drawn[fits[drawn] >= limit], rest[fits[rest] >= limit]
    certificate = certify_together(best[passed], is_right[passed], precision=wanted, confidence=0.9)
    if certificate is None:
        return None
    accepted = left[best[left] >= certificate.threshold]
    precision = float(is_right[accepted].mean()) if len(accepted) else 1.0
    return precision, len(accepted) / int(half.is_known[rest].sum())


def main() -> None:
    """Print the tables."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        raise SystemExit(__doc__)
    sets = load_sets(Path(sys.argv[1]))
    measure_areas(sets)
    measure_limits(sets)
    measure_promises(sets)


if __name__ == "__main__":
    main()
