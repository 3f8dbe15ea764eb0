"""Pixels to best labels with nothing around it: what the limit is made of."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from benchmarks.checkpoints import TEMPLATE
from labelyard_worker.pixels import PixelSpec
from labelyard_worker.vision import lite
from labelyard_worker.vision.normalizer import pixel_spec
from labelyard_worker.vision.towers import prepare_model

PROMPTS_IN_A_PASS = 64


def read_spec(folder: Path) -> PixelSpec:
    """Read how the checkpoint resizes pictures."""
    lite.register()
    return pixel_spec(transformers.AutoImageProcessor.from_pretrained(folder, backend="pil"))


class BareModel:
    """An image tower, and the labels' embeddings, computed once."""

    def __init__(
        self,
        folder: Path,
        labels: Sequence[str],
        *,
        dtype: str,
        device: str = "cpu",
        is_compiled: bool = False,
    ) -> None:
        lite.register()
        transformers.utils.logging.disable_progress_bar()
        processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        model = transformers.AutoModelForZeroShotImageClassification.from_pretrained(
            folder, dtype=torch.float32
        )
        self._device = torch.device(device)
        self._dtype = getattr(torch, dtype)
        self._model: Any = prepare_model(model, self._device, self._dtype, is_compiled=is_compiled)
        self.spec = pixel_spec(processor)
        self._texts = self._encode(tokenizer, labels)  # (labels, dim)
        self._features = self._model.get_image_features
        if is_compiled:
            self._features = torch.compile(self._features, dynamic=False)
        mean, std = (np.float32(values) for values in (processor.image_mean, processor.image_std))
        self._factor = torch.from_numpy(1 / (255 * std)).to(self._device)
        self._offset = torch.from_numpy(-mean / std).to(self._device)

    @torch.inference_mode()
    def best(self, pixels: Sequence[bytes]) -> list[int]:
        """Return the index of each picture's best label."""
        height, width = self.spec.output_size or (0, 0)
        raw = torch.frombuffer(bytearray().join(pixels), dtype=torch.uint8)
        if self._device.type == "cuda":
            raw = raw.pin_memory().to(self._device, non_blocking=True)
        values = raw.view(len(pixels), height, width, 3).float().mul_(self._factor)
        values = values.add_(self._offset).permute(0, 3, 1, 2)  # (batch, 3, height, width)
        images = self._features(pixel_values=values.to(self._dtype)).pooler_output.float()
        images = images / images.norm(dim=-1, keepdim=True)  # (batch, dim)
        best: list[int] = (images @ self._texts.T).softmax(-1).argmax(-1).tolist()
        return best

    @torch.inference_mode()
    def _encode(self, tokenizer: Any, labels: Sequence[str]) -> torch.Tensor:
        """Embed the labels; unit length, shape (labels, dim)."""
        parts = []
        for start in range(0, len(labels), PROMPTS_IN_A_PASS):
            prompts = [TEMPLATE.format(name) for name in labels[start : start + PROMPTS_IN_A_PASS]]
            tokens = tokenizer(prompts, padding=True, truncation=True, return_tensors="pt")
            tokens = {name: values.to(self._device) for name, values in tokens.items()}
            parts.append(self._model.get_text_features(**tokens).pooler_output)
        texts = torch.cat(parts)
        texts /= texts.norm(dim=-1, keepdim=True)
        return texts
