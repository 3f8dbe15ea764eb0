"""Scoring of images against a label set, with the checkpoint's own scale and bias."""

from collections.abc import Callable, Sequence
from typing import Protocol, Self

import numpy as np
import torch

from labelyard.messages import ModelInfo
from labelyard_worker.vision.gpu_scoring import GpuScorer
from labelyard_worker.vision.scoring import Floats, ImageScores, LabelMatrix, score_images

ScoreImages = Callable[..., list[ImageScores]]


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


class Scorer:
    """Scores the images of a job in one matrix product. Safe to call from several threads."""

    def __init__(
        self, *, logit_scale: float, logit_bias: float, score_images: ScoreImages = score_images
    ) -> None:
        self._logit_scale = logit_scale
        self._logit_bias = logit_bias
        self._score_images = score_images

    @classmethod
    def of(cls, checkpoint: ScoringCheckpoint, *, capacity_bytes: int) -> Self:
        """Choose where images are scored: on a GPU against large label sets, else on the host.

        Args:
            capacity_bytes: Most bytes of label sets kept on the device.
        """
        scale, bias = checkpoint.logit_scale, checkpoint.logit_bias
        if checkpoint.info.device == "cpu":
            return cls(logit_scale=scale, logit_bias=bias)
        on_gpu = GpuScorer(checkpoint.device, capacity_bytes=capacity_bytes)
        return cls(logit_scale=scale, logit_bias=bias, score_images=on_gpu.score_images)

    def score(
        self, image_embeds: Sequence[Floats], labels: LabelMatrix, *, top_k: int
    ) -> list[ImageScores]:
        """Score each image against the label set; returns the scores in the images' order."""
        if not image_embeds:
            return []
        return self._score_images(
            np.stack(image_embeds),
            labels,
            logit_scale=self._logit_scale,
            logit_bias=self._logit_bias,
            top_k=top_k,
        )
