"""Measure what known shares of labels are worth on labelled photographs, with the lite checkpoint.

    python -m benchmarks.labels.prior PHOTOS

PHOTOS is a folder with a folder for each set. Of each set five draws are judged: a seed deals out
shares of 1, 1/2, 1/3 … among the labels, and draws test pictures and a sample of calibration
pictures with these shares. The sample's labels are not used.
"""

import sys
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.labels.quality import DRAWS, Logits, accuracy, few_shot, zero_shot
from benchmarks.labels.vectors import PhotoSet, load_sets
from labelyard.evaluation.prior import bayes_bias, fit_bias, level_bias

SETS: Final = ("everyday", "clothes", "grocery", "trash", "textile")
#: Least number of pictures in a draw; rare labels then have more than their share.
LEAST: Final = 60
HEADS: Final = ("as it was", "shares alone", "with sample", "gain", "least gain", "level")


def draw(
    photos: PhotoSet, split: str, shares: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.intp]:
    """Draw pictures of a split with the shares, as many as there are; one of each label at least."""
    rows = photos.rows(split)
    each = [
        generator.permutation(rows[photos.classes[rows] == label]) for label in range(len(shares))
    ]
    most = max(LEAST, min(len(own) / share for own, share in zip(each, shares, strict=True)))
    counts = [max(1, round(most * share)) for share in shares.tolist()]
    return np.concatenate([own[:count] for own, count in zip(each, counts, strict=True)])


def gains(photos: PhotoSet, logits: Logits, seed: int) -> list[float]:
    """Return the accuracy of one draw: as it was, and with each kind of bias."""
    generator = np.random.default_rng(seed)
    dealt = 1.0 / np.arange(1, len(photos.labels) + 1)
    shares = generator.permutation(dealt / dealt.sum())
    test = draw(photos, "test", shares, generator)
    sample = logits[draw(photos, "calibration", shares, generator)]
    biases = (0.0 * shares, bayes_bias(shares), fit_bias(sample, shares), level_bias(sample))
    return [accuracy(photos, logits + bias, test) for bias in biases]


def main() -> None:
    """Print a line for each set and scorer."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        raise SystemExit(__doc__)
    sets = load_sets(Path(sys.argv[1]))
    print(f"{'accuracy, %':24}" + "".join(f"{head:>14}" for head in HEADS))
    for name in SETS:
        photos = sets[name]
        for scorer in ("zero-shot", "few-shot 4"):
            rows = []
            for seed in range(DRAWS):
                taught = few_shot(photos, 4, seed=seed) if scorer != "zero-shot" else None
                rows.append(gains(photos, zero_shot(photos) if taught is None else taught, seed))
            before, alone, with_sample, level = np.mean(rows, axis=0)
            least = min(row[2] - row[0] for row in rows)
            cells = (before, alone, with_sample, with_sample - before, least, level)
            print(f"{name + ' ' + scorer:24}" + "".join(f"{cell:14.1f}" for cell in cells))


if __name__ == "__main__":
    main()
