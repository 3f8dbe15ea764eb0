"""Checks at the start that a checkpoint can work: tokenizer, weights, scale and both towers.

A damaged checkpoint often loads without a warning. transformers makes up a tokenizer of a
few tokens if its files are missing, and a label set then gets 1/n for each of its n labels.
"""

import math
import random
from dataclasses import replace
from typing import Any, Final, Protocol

import numpy as np
import torch

from labelyard.errors import ModelLoadError
from labelyard.messages import ModelInfo
from labelyard_worker.pixels import Pixels, PixelSpec
from labelyard_worker.vision.checkpoint_source import TOKENIZER_ADVICE
from labelyard_worker.vision.prompts import PromptTokenizer
from labelyard_worker.vision.scoring import Floats
from labelyard_worker.vision.towers import blank_pixels, logit_scale_and_bias

# Pairs of equal length, so that a tokenizer that knows no letter gives both the same tokens.
# One pair of these scripts must be told apart.
PROBE_PROMPTS: Final = (
    ("a photo of a cat", "a photo of a dog"),
    ("这是一张猫的照片", "这是一张狗的照片"),
    ("猫の写真です", "犬の写真です"),
    ("фото кота", "фото сома"),
    ("صورة قطة", "صورة كلب"),
)
# Trained CLIPs stop at 100, SigLIPs at about 120.
MAX_LOGIT_SCALE: Final = 1e6
# Components of unit vectors of different prompts or pictures differ by more than that.
LEAST_DIFFERENCE: Final = 1e-6


class Towers(Protocol):
    """The part of a checkpoint that is probed."""

    @property
    def info(self) -> ModelInfo:
        """Which model this is."""

    @property
    def pixel_spec(self) -> PixelSpec:
        """Format of the pixels that the intake makes of a picture."""

    def image_embeds(self, batch: list[Pixels], /) -> Floats:
        """Embed pictures, shape (batch, dim)."""

    def text_embeds(self, prompts: list[str], /) -> Floats:
        """Embed prompts, shape (prompts, dim)."""


def check_tokens(checkpoint: str, tokenizer: PromptTokenizer, config: Any) -> None:
    """Refuse a tokenizer that gives all prompts the same tokens, or that is another checkpoint's.

    Raises:
        ModelLoadError: Says what is wrong with the tokenizer.
    """
    tokens = tokenizer([prompt for pair in PROBE_PROMPTS for prompt in pair])["input_ids"]
    rows = tokens.tolist()
    if all(first == second for first, second in zip(rows[::2], rows[1::2], strict=True)):
        raise ModelLoadError(
            checkpoint, f"its tokenizer gives different prompts the same tokens: {TOKENIZER_ADVICE}"
        )
    vocab_size = int(config.text_config.vocab_size)
    if (largest := int(tokens.max())) >= vocab_size:
        raise ModelLoadError(
            checkpoint,
            f"its tokenizer gives token {largest}, but the text tower has {vocab_size} tokens: "
            "the tokenizer belongs to another checkpoint",
        )


def check_weights(checkpoint: str, model: Any) -> None:
    """Refuse weights that are not finite, and a scale that no trained model has.

    Raises:
        ModelLoadError: Names the first weight at fault.
    """
    for name, values in model.state_dict().items():
        if values.is_floating_point() and values.numel():
            least, largest = torch.aminmax(values)  # one pass; both are NaN if any value is
            if not (math.isfinite(least) and math.isfinite(largest)):
                raise ModelLoadError(
                    checkpoint, f"its weight {name} holds numbers that are not finite"
                )
    try:
        scale, bias = logit_scale_and_bias(model)
    except (ZeroDivisionError, OverflowError):
        scale, bias = math.inf, 0.0
    if not (0 < scale <= MAX_LOGIT_SCALE and math.isfinite(bias)):
        raise ModelLoadError(
            checkpoint,
            f"its logit scale comes to {scale:g} and its bias to {bias:g}: trained "
            f"checkpoints have a scale of about 100, above 0 and at most {MAX_LOGIT_SCALE:g}",
        )


def check_towers(towers: Towers) -> None:
    """Refuse towers whose vectors are not finite, do not differ, or cannot be compared.

    Raises:
        ModelLoadError: Says which tower is at fault.
    """
    checkpoint = towers.info.checkpoint
    texts = towers.text_embeds([prompt for pair in PROBE_PROMPTS for prompt in pair])
    if not np.isfinite(texts).all():
        raise ModelLoadError(checkpoint, "its text tower gives vectors that are not finite")
    if np.abs(texts[::2] - texts[1::2]).max() <= LEAST_DIFFERENCE:
        raise ModelLoadError(
            checkpoint, "its text tower gives different prompts the same vector: it is damaged"
        )
    images = _image_probes(towers)
    if np.abs(images[0] - images[1]).max() <= LEAST_DIFFERENCE:
        raise ModelLoadError(
            checkpoint,
            "its image tower gives different pictures the same vector: the tower, or the "
            "image processor's image_mean and image_std, are damaged",
        )
    if images.shape[1] != texts.shape[1]:
        raise ModelLoadError(
            checkpoint,
            f"its image vectors have {images.shape[1]} numbers and its text vectors "
            f"{texts.shape[1]}: they cannot be compared",
        )


def _image_probes(towers: Towers) -> Floats:
    """Embed a black picture and noise, one by one: a batch of 1 is run by every worker."""
    black = blank_pixels(towers.pixel_spec)
    noise = replace(black, data=random.Random(0).randbytes(len(black.data)))
    try:
        return np.concatenate([towers.image_embeds([pixels]) for pixels in (black, noise)])
    except FloatingPointError as error:
        hint = "" if towers.info.dtype == "float32" else ", or set LABELYARD_DTYPE=float32"
        raise ModelLoadError(
            towers.info.checkpoint,
            "its image tower gives vectors that are not finite: check its weights and the image "
            f"processor's image_mean and image_std{hint}",
        ) from error
