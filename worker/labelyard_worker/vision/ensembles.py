"""The prompts of each label, and the one vector that they become."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from labelyard.messages import Label, LabelSet
from labelyard_worker.vision.scoring import Floats


def ensembles_of(label_set: LabelSet) -> Iterator[tuple[str, ...]]:
    """Yield the prompts of each label, then each abstain prompt by itself."""
    for label in label_set.labels:
        yield prompts_of(label, label_set.templates)
    for prompt in label_set.abstain:
        yield (prompt,)


def prompts_of(label: Label, templates: Sequence[str]) -> tuple[str, ...]:
    """Put the label into every template, unless it brings sentences of its own."""
    return label.prompts or tuple(template.replace("{}", label.name) for template in templates)


def mean_direction(vectors: Floats) -> Floats:
    """Make one vector of an ensemble's.

    Args:
        vectors: Unit-length vectors, shape (prompts, dim).

    Returns:
        Their mean, made a unit vector again, shape (dim,).

    Source:
        Radford et al. 2021, arXiv:2103.00020, section 3.1.4.
    """
    if len(vectors) == 1:
        only: Floats = vectors[0]
        return only
    mean = vectors.mean(axis=0, dtype=np.float64)
    length = max(float(np.linalg.norm(mean)), 1e-12)  # opposite prompts cancel out
    direction: Floats = (mean / length).astype(np.float32)
    return direction


def group_ensembles(
    ensembles: Iterable[tuple[str, ...]], *, most_prompts: int
) -> Iterator[list[tuple[str, ...]]]:
    """Cut ensembles into runs of about *most_prompts* prompts, at least one ensemble each.

    100,000 prompts as vectors take 200 MB and more.
    """
    group: list[tuple[str, ...]] = []
    size = 0
    for ensemble in ensembles:
        if group and size + len(ensemble) > most_prompts:
            yield group
            group, size = [], 0
        group.append(ensemble)
        size += len(ensemble)
    if group:
        yield group
