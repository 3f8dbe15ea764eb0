"""Scores against large label sets where the model is: only what is named comes back.

On a GPU, 10,000 labels cost a job thread a millisecond of CPU for each image, which is more than
the image tower costs the GPU. Here the product, the scores and the ranking stay on the device,
and a few numbers for each image cross over. The answers are those of ``scoring.py``.
"""

import logging
from typing import Final

import numpy as np
import torch

from labelyard.messages import ScoredLabel
from labelyard_worker.vision import devices
from labelyard_worker.vision.lru import ByteLru
from labelyard_worker.vision.scoring import (
    SIGMOID_THRESHOLD,
    Floats,
    ImageScores,
    LabelMatrix,
    score_images,
)

log = logging.getLogger(__name__)

# Below this the way to the device and back costs more than the product.
MANY_LABELS: Final = 1_000


class DeviceScorer:
    """Scores on one device, and keeps the label sets there that it has met.

    Safe to call from several threads.
    """

    def __init__(self, device: torch.device, *, capacity_bytes: int) -> None:
        """Start empty.

        Args:
            capacity_bytes: Most bytes of label sets kept on the device.
        """
        self._device = device
        self._text_embeds: ByteLru[str, torch.Tensor] = ByteLru(capacity_bytes)

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
        """
        options = {"logit_scale": logit_scale, "logit_bias": logit_bias, "top_k": top_k}
        if matrix.n_labels < MANY_LABELS:
            return score_images(image_embeds, matrix, **options)  # type: ignore[arg-type]
        try:
            with torch.inference_mode():
                logits = self._logits(image_embeds, matrix, logit_scale, logit_bias)
                return _ranked(logits, matrix, top_k=top_k)
        except Exception as error:
            if not devices.is_out_of_memory(error):
                raise
            log.warning("scored_on_the_host", extra={"fields": {"labels": matrix.n_labels}})
        return score_images(image_embeds, matrix, **options)  # type: ignore[arg-type]

    def _logits(
        self, image_embeds: Floats, matrix: LabelMatrix, logit_scale: float, logit_bias: float
    ) -> torch.Tensor:
        """Scale the cosines, shape (images, labels + abstain), float64."""
        images = torch.from_numpy(image_embeds).to(self._device)
        cosines = images @ self._on_device(matrix).T
        return (cosines.double() * logit_scale + logit_bias) / matrix.temperature

    def _on_device(self, matrix: LabelMatrix) -> torch.Tensor:
        known = self._text_embeds.get(matrix.digest)
        if known is None:
            known = torch.from_numpy(matrix.text_embeds).to(self._device)
            self._text_embeds.put(matrix.digest, known, size_bytes=matrix.text_embeds.nbytes)
        return known


def _ranked(logits: torch.Tensor, matrix: LabelMatrix, *, top_k: int) -> list[ImageScores]:
    """Rank each image's labels on the device, and bring over what is named."""
    is_sigmoid = matrix.scoring == "sigmoid"
    scores = (0.5 * (1.0 + torch.tanh(0.5 * logits))) if is_sigmoid else logits.softmax(dim=1)
    labels, abstain = logits[:, : matrix.n_labels], logits[:, matrix.n_labels :]
    # Stable: equal labels keep the order of the set.
    order = labels.sort(dim=1, descending=True, stable=True).indices  # (images, labels)
    ranked = scores.gather(1, order)  # (images, labels), best first
    hits = ranked >= _thresholds(matrix, is_sigmoid=is_sigmoid).to(logits.device)[order]
    if not is_sigmoid:
        hits[:, 0] |= torch.from_numpy(np.isnan(matrix.thresholds)).to(logits.device)[order[:, 0]]
    if abstain.shape[1]:
        abstained = abstain.amax(dim=1) > labels.amax(dim=1)
        hits &= ~abstained[:, None]
        has_abstained: list[bool] = abstained.tolist()
    else:
        has_abstained = [False] * len(logits)
    best, best_scores = order[:, :top_k].tolist(), ranked[:, :top_k].tolist()
    matched: list[list[str]] = [[] for _ in best]
    rows, places = hits.nonzero(as_tuple=True)  # by image, then best first
    for row, index in zip(rows.tolist(), order[rows, places].tolist(), strict=True):
        matched[row].append(matrix.names[index])
    return [
        ImageScores(
            labels=tuple(
                ScoredLabel(name=matrix.names[index], score=score)
                for index, score in zip(best[row], best_scores[row], strict=True)
            ),
            matched=tuple(matched[row]),
            abstained=has_abstained[row],
        )
        for row in range(len(best))
    ]


def _thresholds(matrix: LabelMatrix, *, is_sigmoid: bool) -> torch.Tensor:
    """Give the score from which each label is matched; none is reached where it is NaN."""
    instead = SIGMOID_THRESHOLD if is_sigmoid else np.nan
    return torch.from_numpy(np.where(np.isnan(matrix.thresholds), instead, matrix.thresholds))
