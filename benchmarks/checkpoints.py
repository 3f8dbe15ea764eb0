"""The checkpoints that are measured: CLIP ViT-B/32 in full size with random weights, and lite."""

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.folders import cache_dir
from benchmarks.label_names import labels
from benchmarks.pictures import ensure_pictures

VERSION = 2
CLIP = "clip-vit-base-patch32"
LITE = "lite"
TEMPLATE = "This is a photo of {}."
VOCABULARY = 12_000


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder that transformers loads."""

    name: str
    folder: Path


def ensure_checkpoint(name: str) -> Checkpoint:
    """Make the checkpoint, unless it is there.

    Args:
        name: ``CLIP`` or ``LITE``.
    """
    if name == LITE:
        from labelyard_worker.vision.lite import ensure_lite

        return Checkpoint(name, ensure_lite())
    folder = cache_dir() / f"checkpoints-{VERSION}" / name
    if not folder.exists():
        unfinished = folder.with_suffix(".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        _save_clip(unfinished)
        unfinished.rename(folder)
    return Checkpoint(name, folder)


def _save_clip(folder: Path) -> None:
    """Save a model built like ``openai/clip-vit-base-patch32``, with random values.

    Speed does not depend on the values. The scale of CLIP's own (100) is kept, so that scores
    of different labels differ.
    """
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    processor = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224}
    )
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id")}
    model = transformers.CLIPModel(transformers.CLIPConfig(text_config=ids)).eval()
    model.logit_scale.data.fill_(math.log(100.0))
    _centre(model, processor, tokenizer)
    for part in (model, tokenizer, processor):
        part.save_pretrained(folder)


def _centre(model: Any, processor: Any, tokenizer: Any) -> None:
    """Shift both towers so that their vectors point everywhere.

    With random weights all pictures get nearly the same vector and thus the same best
    label, and a comparison of two systems' answers would show nothing.
    """
    import torch
    from PIL import Image

    photographs = []
    for picture in ensure_pictures(0.3):
        with Image.open(picture.path) as opened:
            photographs.append(opened.convert("RGB"))
    prompts = [TEMPLATE.format(name) for name in labels(100)]
    with torch.inference_mode():
        seen = model.vision_model(**processor(photographs, return_tensors="pt")).pooler_output
        read = model.text_model(
            **tokenizer(prompts, padding=True, return_tensors="pt")
        ).pooler_output
    model.vision_model.post_layernorm.bias.data -= seen.mean(0)
    model.text_model.final_layer_norm.bias.data -= read.mean(0)


def clip_tokenizer() -> Any:
    """Train CLIP's kind of tokenizer on the labels, so that a prompt has as many tokens as there."""
    import transformers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        show_progress=False,
    )
    learner.train_from_iterator([TEMPLATE.format(name) for name in labels(2000)] * 4, trainer)
    learnt = json.loads(learner.to_str())["model"]
    vocab = _with_word_ends(learnt["vocab"])
    merges = [tuple(pair) for pair in learnt["merges"]]
    return transformers.CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)


def _with_word_ends(vocab: dict[str, int]) -> dict[str, int]:
    """Add the characters that training saw nowhere at a word's end."""
    from tokenizers import pre_tokenizers

    for letter in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocab.setdefault(letter + "</w>", len(vocab))
    return vocab
