"""Measure what titles beside photographs of clothes are worth, with the lite checkpoint.

    python -m benchmarks.labels.titles PHOTOS

PHOTOS is a folder with the folder ``clothes``. The titles are made here, of templates as shops have
them, and of words that go with the kind of clothes; five seeds draw them.

- nouns: a word for the kind, as a shop writes it ("joggers", "sneakers").
- no nouns: what goes with the kind, but not its name ("leather soles, size 42").
- half: one of the two, or nothing of use, by chance.
- useless: brand, colour and season alone.
- misleading: every title is of another kind.
- partly misleading: one title in five is of another kind.

The weights are fitted to drawn pictures of the split ``train``; the test pictures judge.
"""

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.labels.quality import DRAWS, zero_shot
from benchmarks.labels.vectors import PhotoSet, load_sets
from labelyard.evaluation.title_weights import TitledSample, fit_title_weights
from labelyard.label_sets import as_label_set
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision.checkpoint import Checkpoint, load_checkpoint
from labelyard_worker.vision.ensembles import ensembles_of
from labelyard_worker.vision.title_scores import TitleLabels

#: Words of each label: names as shops have them, then what goes with it.
WORDS: Final = {
    "a T-shirt": (
        ["tee", "t-shirt", "crew neck tee", "graphic tee"],
        ["short sleeves, crew neck", "round neck with print", "soft jersey for summer"],
    ),
    "a dress": (
        ["maxi dress", "gown", "sundress", "cocktail dress"],
        ["floor length with a waist seam", "for weddings and evenings", "flowing, zip at the back"],
    ),
    "a hat": (
        ["cap", "beanie", "bucket hat", "fedora"],
        ["one size, brim 6 cm", "keeps your head warm", "adjustable strap, sun visor"],
    ),
    "a jacket or coat": (
        ["parka", "trench coat", "puffer jacket", "blazer"],
        ["down filled, windproof, hood", "lined for winter, two-way zip", "water repellent shell"],
    ),
    "a long-sleeved shirt": (
        ["longsleeve", "sweatshirt", "pullover", "henley"],
        ["ribbed cuffs at the wrists", "long sleeves, cotton fleece", "warm layer, crew neck"],
    ),
    "a shirt with a collar": (
        ["button-down", "polo", "oxford shirt", "blouse"],
        ["buttoned front, chest pocket", "easy iron for the office", "kent collar, slim cut"],
    ),
    "a skirt": (
        ["mini skirt", "pencil skirt", "pleated skirt", "midi skirt"],
        ["pleats from the waist to the knee", "A-line, elastic waistband", "high waist, slit"],
    ),
    "shoes": (
        ["sneakers", "boots", "loafers", "running shoes"],
        ["rubber sole, size 42", "laces, padded heel", "leather upper and insole"],
    ),
    "shorts": (
        ["bermudas", "denim shorts", "swim trunks", "gym shorts"],
        ["above the knee, drawstring", "for the beach and the gym", "inseam 7 inch"],
    ),
    "trousers": (
        ["jeans", "chinos", "joggers", "pants"],
        ["W32 L34, five pockets", "slim leg, stretch denim", "straight leg, full length"],
    ),
}
TEMPLATES: Final = (
    "{brand} {words}, {colour}",
    "{colour} {words} - {brand} {season}",
    "{brand} {season} collection: {words}",
    "NEW {words} {colour} men women {brand}",
)
BRANDS: Final = ("Nordwind", "Casa Lino", "Urban Peak", "Maru", "Atelier 9", "Fjord & Co")
COLOURS: Final = ("black", "navy", "white", "olive", "burgundy", "grey", "light blue")
SEASONS: Final = ("SS24", "autumn", "winter", "outlet")


def written(words: str, generator: random.Random) -> str:
    """Write a title as a shop does."""
    return " ".join(
        generator.choice(TEMPLATES)
        .format(
            words=words,
            brand=generator.choice(BRANDS),
            colour=generator.choice(COLOURS),
            season=generator.choice(SEASONS),
        )
        .split()
    )


def with_nouns(label: str, generator: random.Random) -> str:
    """Write a title that names the kind."""
    return written(generator.choice(WORDS[label][0]), generator)


def without_nouns(label: str, generator: random.Random) -> str:
    """Write a title of what goes with the kind."""
    return written(generator.choice(WORDS[label][1]), generator)


def useless(_: str, generator: random.Random) -> str:
    """Write a title without the kind."""
    return written("", generator)


def half(label: str, generator: random.Random) -> str:
    """Write a title of one of the three kinds."""
    return generator.choice((with_nouns, without_nouns, useless))(label, generator)


def misleading(label: str, generator: random.Random) -> str:
    """Write a title of another kind of clothes."""
    return with_nouns(generator.choice([other for other in WORDS if other != label]), generator)


def partly_misleading(label: str, generator: random.Random) -> str:
    """Write a title; one in five is of another kind of clothes."""
    return (misleading if generator.random() < 0.2 else with_nouns)(label, generator)


VARIANTS: Final[dict[str, Callable[[str, random.Random], str]]] = {
    "nouns": with_nouns,
    "no nouns": without_nouns,
    "half": half,
    "useless": useless,
    "misleading": misleading,
    "partly misleading": partly_misleading,
}


def title_logits(photos: PhotoSet, checkpoint: Checkpoint, texts: list[str]) -> NDArray[np.float64]:
    """Return the logits of titles with a weight of 1, as a worker computes them."""
    prompts = [prompt for (prompt,) in ensembles_of(as_label_set(photos.labels))]
    labels = TitleLabels(checkpoint.title_embeds(prompts), len(prompts), 1.0, 1.0)
    return labels.logits(checkpoint.title_embeds(texts))


def draw(photos: PhotoSet, seed: int, count: int) -> NDArray[np.intp]:
    """Draw pictures to fit the weights to."""
    return np.random.default_rng(seed).permutation(photos.rows("train"))[:count]


def main() -> None:
    """Print a line for each kind of titles and number of pictures."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        raise SystemExit(__doc__)
    photos = load_sets(Path(sys.argv[1]))["clothes"]
    checkpoint = load_checkpoint(WorkerSettings(device="cpu"))
    truth = np.eye(len(photos.labels), dtype=bool)[photos.classes]
    test = photos.rows("test")
    heads = ("picture", "title", "both", "least", "picture ×", "title ×")
    print(f"{'accuracy, %':28}{'fitted to':>10}" + "".join(f"{head:>10}" for head in heads))
    for variant, write in VARIANTS.items():
        for count in (50, 160):
            rows = []
            for seed in range(DRAWS):
                generator = random.Random(seed)
                texts = [write(photos.labels[label], generator) for label in photos.classes]
                pictures, titles = zero_shot(photos), title_logits(photos, checkpoint, texts)
                sample = TitledSample(pictures, titles, truth)
                is_drawn = np.isin(np.arange(len(truth)), draw(photos, seed, count))
                fitted = fit_title_weights(sample.rows(is_drawn))
                judged = sample.rows(np.isin(np.arange(len(truth)), test))
                pairs = ((1.0, 0.0), (0.0, 1.0), (fitted.picture, fitted.title))
                found = [100 * float(judged.hits(*pair).mean()) for pair in pairs]
                rows.append((*found, found[2] - max(found[:2]), fitted.picture, fitted.title))
            mean, least = np.mean(rows, axis=0), min(row[3] for row in rows)
            cells = (*mean[:3], least, *mean[4:])
            print(f"{variant:28}{count:10}" + "".join(f"{cell:10.2f}" for cell in cells))


if __name__ == "__main__":
    main()
