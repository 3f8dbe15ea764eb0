"""Scores against large label sets where the model is: only what is named comes back.

On a GPU, 10,000 labels cost a job thread a millisecond of CPU for each image, which is more than
the image tower costs the GPU. Here the product, the scores and the ranking stay on the device,
and a few numbers for each image cross over. The answers are those of ``scoring.py``.
"""

import logging
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from labelyard.errors import BatcherFullError
from labelyard.messages import ScoredLabel
from labelyard_worker.vision import devices
from labelyard_worker.vision.lru import ByteLru
from labelyard_worker.vision.scoring import (
    MAX_LOGIT,
    SIGMOID_THRESHOLD,
    Floats,
    ImageScores,
    LabelMatrix,
    score_images,
)

log = logging.getLogger(__name__)

# Below this the way to the device and back costs more than the product.
MANY_LABELS: Final = 1_000
# Of a stream: lower numbers go first, 0 is that of the forward passes.
FIRST: Final = -1


@dataclass(frozen=True, eq=False)
class GpuLabels:
    """A label set on the device.

    Attributes:
        text_embeds: Shape (labels + abstain, dim).
        thresholds: Score from which a label is matched, NaN if nothing reaches it, float64,
            shape (labels,).
        is_best_enough: Whether being the best label is a match, shape (labels,).
    """

    text_embeds: torch.Tensor
    thresholds: torch.Tensor
    is_best_enough: torch.Tensor

    @classmethod
    def of(cls, matrix: LabelMatrix, device: torch.device) -> "GpuLabels":
        """Copy the parts of *matrix* that scoring needs to *device*."""
        is_sigmoid = matrix.scoring == "sigmoid"
        is_unset = np.isnan(matrix.thresholds)
        default = SIGMOID_THRESHOLD if is_sigmoid else np.nan
        return cls(
            torch.from_numpy(matrix.text_embeds).to(device),
            torch.from_numpy(np.where(is_unset, default, matrix.thresholds)).to(device),
            torch.from_numpy(is_unset & (not is_sigmoid)).to(device),
        )


class GpuScorer:
    """Scores on one device, and keeps the label sets there that it has met.

    Safe to call from several threads. On a GPU, all of them share one stream, whose small
    kernels go before those of the forward passes: a job waits for a handful of them in turn.
    """

    def __init__(self, device: torch.device, *, capacity_bytes: int) -> None:
        """Start empty.

        Args:
            capacity_bytes: Most bytes of label sets kept on the device.
        """
        self._device = device
        self._labels: ByteLru[str, GpuLabels] = ByteLru(capacity_bytes)
        self._stream = (
            torch.cuda.Stream(device, priority=FIRST)  # type: ignore[no-untyped-call]
            if device.type == "cuda"
            else None
        )

    def score_images(
        self,
        image_embeds: Floats,
        matrix: LabelMatrix,
        *,
        logit_scale: float,
        logit_bias: float,
        top_k: int,
    ) -> list[ImageScores]:
        """Score each image; what :func:`labelyard_worker.vision.scoring.score_images` gives.

        On the host where the label set is small, or the device has no memory left.

        Raises:
            DeviceFailedError: The device is lost.
            FloatingPointError: An embedding is not finite.
        """
        options = {"logit_scale": logit_scale, "logit_bias": logit_bias, "top_k": top_k}
        largest = 2 * abs(logit_scale) + abs(logit_bias)  # a cosine is at most 1, and rounding
        if matrix.n_labels < MANY_LABELS or largest > MAX_LOGIT * matrix.temperature:
            return score_images(image_embeds, matrix, **options)  # type: ignore[arg-type]
        try:
            with (
                devices.device_errors_as_ours(),
                torch.inference_mode(),
                torch.cuda.stream(self._stream),
            ):
                labels = self._on_device(matrix)
                logits = self._logits(image_embeds, labels, matrix, logit_scale, logit_bias)
                return _ranked(logits, labels, matrix, top_k=top_k)
        except BatcherFullError:
            log.warning("scored_on_the_host", extra={"fields": {"labels": matrix.n_labels}})
        return score_images(image_embeds, matrix, **options)  # type: ignore[arg-type]

    def _logits(
        self,
        image_embeds: Floats,
        labels: GpuLabels,
        matrix: LabelMatrix,
        logit_scale: float,
        logit_bias: float,
    ) -> torch.Tensor:
        """Scale the cosines, shape (images, labels + abstain), float64."""
        images = torch.from_numpy(image_embeds).to(self._device)
        cosines = images @ labels.text_embeds.T
        return (cosines.double() * logit_scale + logit_bias) / matrix.temperature

    def _on_device(self, matrix: LabelMatrix) -> GpuLabels:
        known = self._labels.get(matrix.digest)
        if known is None:
            known = GpuLabels.of(matrix, self._device)
            self._labels.put(matrix.digest, known, size_bytes=matrix.text_embeds.nbytes)
        return known


def _ranked(
    logits: torch.Tensor, on_device: GpuLabels, matrix: LabelMatrix, *, top_k: int
) -> list[ImageScores]:
    """Rank each image's labels on the device, and bring over what is named, in three copies."""
    is_sigmoid = matrix.scoring == "sigmoid"
    scores = (0.5 * (1.0 + torch.tanh(0.5 * logits))) if is_sigmoid else logits.softmax(dim=1)
    labels, abstain = logits[:, : matrix.n_labels], logits[:, matrix.n_labels :]
    # Stable: equal labels keep the order of the set.
    order = labels.sort(dim=1, descending=True, stable=True).indices  # (images, labels)
    ranked = scores.gather(1, order)  # (images, labels), best first
    hits = ranked >= on_device.thresholds[order]
    hits[:, 0] |= on_device.is_best_enough[order[:, 0]]
    abstained = torch.zeros_like(hits[:, :1])
    if abstain.shape[1]:
        abstained = (abstain.amax(dim=1) > labels.amax(dim=1))[:, None]
        hits &= ~abstained
    # As float64, which holds every index: each copy to the host waits for the device.
    named = torch.cat([abstained.double(), order[:, :top_k].double(), ranked[:, :top_k]], dim=1)
    rows = named.tolist()  # (images, 1 + 2 * top_k)
    matched: list[list[str]] = [[] for _ in rows]
    images, places = hits.nonzero(as_tuple=True)  # by image, then best first
    for image, index in torch.stack([images, order[images, places]], dim=1).tolist():
        matched[image].append(matrix.names[index])
    count = (len(rows[0]) - 1) // 2 if rows else 0
    if not all(math.isfinite(row[1 + count]) for row in rows):  # NaN comes first of all
        raise FloatingPointError("a score is not finite: an embedding holds NaN or infinity")
    return [
        ImageScores(
            labels=tuple(
                ScoredLabel(name=matrix.names[int(index)], score=score)
                for index, score in zip(row[1 : 1 + count], row[1 + count :], strict=True)
            ),
            matched=tuple(names),
            abstained=bool(row[0]),
        )
        for row, names in zip(rows, matched, strict=True)
    ]
