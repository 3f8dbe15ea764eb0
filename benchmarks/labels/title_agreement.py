"""Measure how well titles of another thing are found by their agreement with the picture.

    python -m benchmarks.labels.title_agreement PHOTOS

PHOTOS is a folder with the folder ``clothes``. The titles name the kind of clothes, and 15 % of those
of the test pictures name another kind; five seeds draw them. The weights are fitted to right titles of
160 pictures that are no test pictures. Pictures are scored by the labels' text alone, and with 16
examples of each label.
"""

import random
import sys
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.labels.quality import DRAWS, Logits, few_shot, zero_shot
from benchmarks.labels.titles import misleading, title_logits, with_nouns
from benchmarks.labels.vectors import PhotoSet, lite, load_sets
from labelyard.evaluation.metrics import auroc
from labelyard.evaluation.title_weights import TitledSample, fit_title_weights
from labelyard.label_sets import as_label_set
from labelyard_worker.vision.ensembles import ensembles_of
from labelyard_worker.vision.title_scores import LEAST_AGREEMENT, TitledImages, TitleLabels

SWAPPED: Final = 0.15
FITTED_TO: Final = 160


def agreements_of(
    photos: PhotoSet, logits: Logits, texts: list[str], weights: tuple[float, float]
) -> NDArray[np.float64]:
    """Return the agreement of each picture with its title, as a worker computes it."""
    prompts = [prompt for (prompt,) in ensembles_of(as_label_set(photos.labels))]
    labels = TitleLabels(lite().title_embeds(prompts), len(prompts), *weights)
    images = TitledImages(np.arange(len(texts)), lite().title_embeds(texts), labels)
    found = images.findings(logits, photos.labels, temperature=1.0)
    return np.array([found[row].agreement for row in range(len(texts))])


def judge(photos: PhotoSet, logits: Logits, seed: int) -> tuple[float, ...]:
    """Swap titles of test pictures; return the figures of one draw in percent."""
    generator = random.Random(seed)
    right = [with_nouns(photos.labels[label], generator) for label in photos.classes]
    truth = np.eye(len(photos.labels), dtype=bool)[photos.classes]
    sample = TitledSample(logits, title_logits(photos, lite(), right), truth)
    others = np.random.default_rng(seed).permutation(photos.rows("calibration"))[:FITTED_TO]
    fitted = fit_title_weights(sample.rows(np.isin(np.arange(len(truth)), others)))
    test = photos.rows("test")
    is_swapped = np.random.default_rng(seed).random(len(test)) < SWAPPED
    texts = [
        misleading(photos.labels[photos.classes[row]], generator) if swapped else right[row]
        for row, swapped in zip(test.tolist(), is_swapped.tolist(), strict=True)
    ]
    weights = (fitted.picture, fitted.title)
    agreements = agreements_of(photos, logits[test], texts, weights)
    is_flagged = agreements < LEAST_AGREEMENT
    lowest = np.argsort(agreements)[: int(is_swapped.sum())]
    area = auroc(-agreements[is_swapped], -agreements[~is_swapped])
    shares = (is_flagged[is_swapped].mean(), is_flagged[~is_swapped].mean())
    found = (*shares, is_swapped[lowest].mean(), is_swapped[lowest[: len(lowest) // 3]].mean())
    return (*(100 * float(one) for one in found), 100 * (area or 0.0))


def main() -> None:
    """Print a line for each way of scoring pictures."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        raise SystemExit(__doc__)
    photos = load_sets(Path(sys.argv[1]))["clothes"]
    heads = ("flagged", "wrongly", "lowest", "third", "AUROC")
    print(f"{'swapped titles, %':24}" + "".join(f"{head:>10}" for head in heads))
    for name in ("labels' text alone", "16 examples a label"):
        is_plain = name.startswith("labels")
        draws = [
            judge(photos, zero_shot(photos) if is_plain else few_shot(photos, 16, seed=seed), seed)
            for seed in range(DRAWS)
        ]
        mean = np.mean(draws, axis=0)
        print(f"{name:24}" + "".join(f"{cell:10.1f}" for cell in mean))


if __name__ == "__main__":
    main()
