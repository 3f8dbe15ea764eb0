"""Sentences to the token ids that one checkpoint's text tower was trained on."""

import threading
from collections.abc import Sequence
from typing import Any

import torch

# big_vision trained SigLIP on texts padded to this length; the padding is part of the
# input, since its text tower sees no attention mask.
SIGLIP_TOKENS = 64
# RoBERTa counts positions from the padding id plus 1.
ROBERTA_TEXT_TOWERS = frozenset({"altclip"})


class PromptTokenizer:
    """Tokenizes as transformers' pipeline does, and truncates what is too long."""

    def __init__(self, tokenizer: Any, config: Any) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()  # a fast tokenizer keeps padding and truncation as state
        if "siglip" in config.model_type:
            self._options = {"padding": "max_length", "max_length": SIGLIP_TOKENS}
        else:
            self._options = {"padding": True, "max_length": longest_text(tokenizer, config)}

    def __call__(self, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Return the text tower's inputs by name, each of shape (prompts, tokens)."""
        with self._lock:
            tokens = self._tokenizer(
                list(prompts), truncation=True, return_tensors="pt", **self._options
            )
        return dict(tokens)


def longest_text(tokenizer: Any, config: Any) -> int:
    """Return the number of tokens that the text tower has positions for."""
    text_config = config.text_config
    positions = int(text_config.max_position_embeddings)
    if config.model_type in ROBERTA_TEXT_TOWERS:
        positions -= int(text_config.pad_token_id) + 1
    return min(positions, int(tokenizer.model_max_length))
