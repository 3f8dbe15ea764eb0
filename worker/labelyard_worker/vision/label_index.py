"""Label sets to matrices of text embeddings: encoded once, kept, shared."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Literal, Protocol

import numpy as np

from labelyard.label_sets import label_set_digest
from labelyard.messages import Label, LabelSet
from labelyard_worker.vision.lru import ByteLru
from labelyard_worker.vision.scoring import Floats, LabelMatrix
from labelyard_worker.vision.text_store import TextStore

__all__ = ["LabelIndex", "LabelMatrix", "TextEncoder"]

# Prompts encoded in one go, under a lock: a small set waits for at most one such go of
# a large one.
PROMPTS_AT_ONCE = 64
PROMPTS_LOOKED_UP_AT_ONCE = 1_024


class TextEncoder(Protocol):
    """The part of a checkpoint that the index needs."""

    @property
    def scoring(self) -> Literal["softmax", "sigmoid"]:
        """What the checkpoint was trained for."""

    @property
    def dim(self) -> int:
        """Length of a vector."""

    def text_embeds(self, prompts: Sequence[str]) -> Floats:
        """Encode *prompts*, shape (prompts, dim), unit length."""


class LabelIndex:
    """Gives each label set its matrix; the text tower sees each prompt once."""

    def __init__(
        self, checkpoint: TextEncoder, *, capacity_bytes: int, store: TextStore | None = None
    ) -> None:
        """Start empty.

        Args:
            checkpoint: Encodes what is not known.
            capacity_bytes: Most bytes kept, half of them for matrices and half for
                the vectors of single prompts, which sets share.
            store: What other workers have encoded.
        """
        self._checkpoint = checkpoint
        self._store = store
        self._matrices: ByteLru[str, LabelMatrix] = ByteLru(capacity_bytes // 2)
        self._prompts: ByteLru[str, Floats] = ByteLru(capacity_bytes // 2)
        self._being_made: dict[str, Future[LabelMatrix]] = {}
        self._lock = threading.Lock()
        self._encoding = threading.Lock()

    def matrix(self, label_set: LabelSet, *, digest: str | None = None) -> LabelMatrix:
        """Find or make the matrix of *label_set*.

        Threads that ask for the same set at the same time wait for the first of
        them; if it fails, all hear the error, and the next call tries again.

        Args:
            label_set: Up to 10,000 labels.
            digest: Its digest, where the caller knows it: to compute that of a large
                set takes milliseconds.
        """
        digest = digest or label_set_digest(label_set)
        if (known := self._matrices.get(digest)) is not None:
            return known
        with self._lock:
            if (known := self._matrices.get(digest)) is not None:
                return known  # finished since we looked
            promise = self._being_made.get(digest)
            is_ours = promise is None
            if promise is None:
                promise = self._being_made[digest] = Future()
        if is_ours:
            self._keep_promise(promise, label_set, digest)
        return promise.result()

    def _keep_promise(
        self, promise: "Future[LabelMatrix]", label_set: LabelSet, digest: str
    ) -> None:
        try:
            made = self._make(label_set, digest)
        except BaseException as error:  # noqa: BLE001 - whoever waits must hear it
            with self._lock:
                del self._being_made[digest]
            promise.set_exception(error)
            return
        with self._lock:
            self._matrices.put(digest, made, size_bytes=made.text_embeds.nbytes)
            del self._being_made[digest]
        promise.set_result(made)

    def _make(self, label_set: LabelSet, digest: str) -> LabelMatrix:
        rows = np.empty(
            (len(label_set.labels) + len(label_set.abstain), self._checkpoint.dim), dtype=np.float32
        )
        ensembles = [prompts_of(label, label_set.templates) for label in label_set.labels]
        ensembles += [(prompt,) for prompt in label_set.abstain]
        first = 0
        for group in in_groups(ensembles, most_prompts=PROMPTS_LOOKED_UP_AT_ONCE):
            known = self._vectors([prompt for ensemble in group for prompt in ensemble])
            for row, ensemble in enumerate(group, start=first):
                rows[row] = mean_direction(np.stack([known[prompt] for prompt in ensemble]))
            first += len(group)
        return LabelMatrix.of(
            label_set, rows, digest=digest, trained_scoring=self._checkpoint.scoring
        )

    def _vectors(self, prompts: Sequence[str]) -> dict[str, Floats]:
        """Gather the vectors of *prompts*: from memory, from Redis, else from the model."""
        known: dict[str, Floats] = {}
        missing = self._look_up(list(dict.fromkeys(prompts)), known)
        if missing and self._store is not None:
            found = self._store.get_many(missing)
            self._remember(found, known)
            missing = [prompt for prompt in missing if prompt not in found]
        for start in range(0, len(missing), PROMPTS_AT_ONCE):
            self._encode(missing[start : start + PROMPTS_AT_ONCE], known)
        return known

    def _look_up(self, prompts: Sequence[str], known: dict[str, Floats]) -> list[str]:
        """Add what is in memory to *known*; return what is not."""
        missing = []
        for prompt in prompts:
            vector = self._prompts.get(prompt)
            if vector is None:
                missing.append(prompt)
            else:
                known[prompt] = vector
        return missing

    def _encode(self, prompts: Sequence[str], known: dict[str, Floats]) -> None:
        with self._encoding:
            prompts = self._look_up(prompts, known)  # another set may have encoded them
            if not prompts:
                return
            encoded = dict(zip(prompts, self._checkpoint.text_embeds(prompts), strict=True))
            self._remember(encoded, known)
        if self._store is not None:
            self._store.put_many(encoded)

    def _remember(self, vectors: dict[str, Floats], known: dict[str, Floats]) -> None:
        for prompt, vector in vectors.items():
            kept = vector.copy()  # a row of a batch would keep the whole batch alive
            known[prompt] = kept
            self._prompts.put(prompt, kept, size_bytes=kept.nbytes)


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


def in_groups(
    ensembles: Sequence[tuple[str, ...]], *, most_prompts: int
) -> Iterator[list[tuple[str, ...]]]:
    """Cut ensembles into runs of about *most_prompts* prompts, at least one ensemble each.

    10,000 labels under 100 templates are a million prompts: more than fit into memory
    as vectors.
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
