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

from benchmarks.labels.quality import DRAWS, shares
from benchmarks.labels.vectors import PhotoSet, load_sets
from labelyard.errors import InvalidMessageError
from labelyard.evaluation.few_shot import fit_examples
from labelyard.evaluation.metrics import auroc
from labelyard.evaluation.none_of_these import LimitChoice, fit_limit

Floats = NDArray[np.float64]
COUNTS: Final = (1, 4, 16)
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
        """Return the fit of all pictures after *count* examples a label, and the best share."""
        by_text = self.photos.cosines[:, self.known].max(axis=1)
        if not count:
            return by_text, shares(self.logits()).max(axis=1)
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
        return (by_text + nearest) / 2, shares(taught).max(axis=1)


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
            fit, best = half.fits(0, seed=seed)
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


def main() -> None:
    """Print both tables."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        raise SystemExit(__doc__)
    sets = load_sets(Path(sys.argv[1]))
    measure_areas(sets)
    measure_limits(sets)


if __name__ == "__main__":
    main()
