"""Scoring of images against a label set, on the host or on the model's GPU."""

import base64
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from labelyard.errors import BatcherFullError
from labelyard.messages import ImageVector, ModelInfo
from labelyard_worker.vision.gpu_scoring import GpuSelector
from labelyard_worker.vision.ranking import ImageScores, Ranking, rank_arrays
from labelyard_worker.vision.scoring import MAX_LOGIT, Floats, LabelMatrix, Scaling, to_scores
from labelyard_worker.vision.selection import (
    Selection,
    logits_of_taught,
    logits_of_texts,
    select_on_host,
    select_taught,
)
from labelyard_worker.vision.title_scores import TitledImages
from labelyard_worker.vision.vector_layout import VectorLayout

log = logging.getLogger(__name__)

# Below this the way to the GPU and back costs more than the product.
MANY_LABELS: Final = 1_000


class ScoringCheckpoint(Protocol):
    """The part of a checkpoint that decides how its embeddings are scored."""

    @property
    def info(self) -> ModelInfo:
        """Model that results name."""

    @property
    def device(self) -> torch.device:
        """Device that the model runs on."""

    @property
    def logit_scale(self) -> float:
        """Inverse temperature, no unit."""

    @property
    def logit_bias(self) -> float:
        """Bias of the logits; 0 if the checkpoint has none."""

    @property
    def layout(self) -> VectorLayout:
        """Parts of an image's vector."""


class Scorer:
    """Scores the images of a job in one matrix product. Safe to call from several threads."""

    def __init__(
        self,
        scaling: Scaling,
        *,
        gpu: GpuSelector | None = None,
        layout: VectorLayout | None = None,
    ) -> None:
        """Score with the scale and bias of one checkpoint.

        Args:
            gpu: Selects the labels of large label sets.
            layout: Parts of the images' vectors; without one the whole is the embedding.
        """
        self._scaling = scaling
        self._gpu = gpu
        self._layout = layout

    @classmethod
    def of(cls, checkpoint: ScoringCheckpoint, *, capacity_bytes: int) -> Self:
        """Score where the checkpoint runs.

        Args:
            capacity_bytes: Most bytes of label sets kept on a GPU.
        """
        is_on_gpu = checkpoint.info.device != "cpu"
        return cls(
            Scaling(checkpoint.logit_scale, checkpoint.logit_bias),
            gpu=GpuSelector(checkpoint.device, capacity_bytes=capacity_bytes)
            if is_on_gpu
            else None,
            layout=checkpoint.layout,
        )

    def score(
        self,
        image_embeds: Sequence[Floats],
        labels: LabelMatrix,
        *,
        top_k: int,
        titles: Sequence[Floats | None] = (),
    ) -> list[ImageScores]:
        """Score images against a label set.

        Args:
            image_embeds: Vectors of images as the checkpoint makes them, each of shape (length,).
            labels: Label set to score against.
            top_k: Number of labels to name.
            titles: Vector of the text beside each image, or ``None``; none of them if empty.

        Returns:
            One entry for each image, in their order. Labels with equal logits keep the order
            of the set.

        Raises:
            DeviceFailedError: The device is lost.
            FloatingPointError: An embedding is not finite.
            ValueError: The dims differ.
        """
        if not len(image_embeds):
            return []
        vectors, titled = np.stack(image_embeds), TitledImages.of(titles, labels.titles)
        selection = self._select(vectors, labels, top_k=top_k, titles=titled)
        scores = rank_arrays(selection, labels, top_k=top_k).to_image_scores(labels.names)
        if titled is not None:
            pictures, _ = self.logits_and_scores(vectors[titled.rows], labels)
            found = titled.findings(pictures, labels.names, temperature=labels.temperature)
            for row, finding in found.items():
                scores[row] = replace(scores[row], title=finding)
        return scores

    def rank(self, image_embeds: Floats, labels: LabelMatrix, *, top_k: int) -> Ranking:
        """Score images against a label set, without an object for each image.

        Args:
            image_embeds: Vectors of images, shape (images, length); the embeddings alone,
                shape (images, dim), unless labels were taught.
            labels: As for :meth:`score`, which raises the same errors.
            top_k: As for :meth:`score`.
        """
        selection = self._select(image_embeds, labels, top_k=top_k)
        return rank_arrays(selection, labels, top_k=top_k)

    def logits_and_scores(
        self, vectors: Floats, labels: LabelMatrix
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Compute the logits and the scores of all labels, on the host.

        Returns:
            Two arrays of shape (images, labels + abstain).
        """
        image_embeds, features = self._split(vectors)
        scaling = self._scaling.over(labels.tree_temperature)
        if (taught := labels.taught) is None:
            logits, _ = logits_of_texts(image_embeds, labels, scaling)
        else:
            logits, _ = logits_of_taught(image_embeds, features, labels, taught, scaling)
        return logits, to_scores(logits, labels.scoring)

    def embedding_of(self, vector: Floats) -> Floats:
        """Return the embedding in an image's vector, shape (dim,)."""
        return vector if self._layout is None else self._layout.joint(vector)

    def vector_of(self, vector: Floats) -> ImageVector:
        """Return the vector that examples are compared by, as results carry it."""
        layout = self._layout or VectorLayout(len(vector))
        numbers = layout.features(vector).astype("<f2").tobytes()
        return ImageVector(features=layout.space, float16=base64.b64encode(numbers).decode())

    def has_features(self, image_embeds: Floats) -> bool:
        """Return whether vectors hold what labels with examples are scored by."""
        return self._layout is None or image_embeds.shape[-1] == self._layout.length

    def _split(self, vectors: Floats) -> tuple[Floats, Floats]:
        """Return the embeddings, contiguous, and the vectors that examples are compared by."""
        layout = self._layout
        if layout is None or not layout.features_dim or vectors.shape[1] != layout.length:
            return vectors, vectors
        return np.ascontiguousarray(layout.joint(vectors)), layout.features(vectors)

    def _select(
        self,
        vectors: Floats,
        labels: LabelMatrix,
        *,
        top_k: int,
        titles: TitledImages | None = None,
    ) -> Selection:
        """Select on the GPU; on the host if the set is small, or the GPU has no memory left."""
        image_embeds, features = self._split(vectors)
        scaling = self._scaling.over(labels.tree_temperature)
        if (taught := labels.taught) is not None:
            return select_taught(
                image_embeds, features, labels, taught, scaling, top_k=top_k, titles=titles
            )
        if self._gpu is not None and titles is None and self._suits_gpu(labels):
            try:
                return self._gpu.select(image_embeds, labels, scaling, top_k=top_k)
            except BatcherFullError:
                log.warning("scored_on_the_host", extra={"fields": {"labels": labels.n_labels}})
        return select_on_host(image_embeds, labels, scaling, top_k=top_k, titles=titles)

    def _suits_gpu(self, labels: LabelMatrix) -> bool:
        """Return whether the set is large, has no bias, and gives finite logits as it is."""
        if labels.bias is not None:
            return False
        largest = 2 * abs(self._scaling.scale) + abs(self._scaling.bias)  # cosines are about 1
        return labels.n_labels >= MANY_LABELS and largest <= MAX_LOGIT * labels.temperature
