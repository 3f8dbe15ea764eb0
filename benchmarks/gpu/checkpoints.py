"""Checkpoints of full-size architectures with random weights, made on the spot; or tiny ones."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.checkpoints import TEMPLATE, Checkpoint, clip_tokenizer
from benchmarks.folders import cache_dir
from benchmarks.gpu.form import SO400M, VIT_B, VIT_L, Form
from benchmarks.label_names import labels

VERSION = 1
# Published configurations; what is not named is as transformers has it.
VISION: dict[str, dict[str, int]] = {
    VIT_B: {"patch_size": 32},
    VIT_L: {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "patch_size": 14,
    },
    SO400M: {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
    },
}
TEXT: dict[str, dict[str, int]] = {
    VIT_B: {},
    VIT_L: {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
    SO400M: {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "projection_size": 1152,
        "bos_token_id": 1,
        "eos_token_id": 1,
    },
}
PROJECTION = {VIT_B: 512, VIT_L: 768}
TINY_TOWER = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
TINY_PATCHES = 4  # along an edge
SIGLIP_VOCABULARY = 1_000


def ensure_checkpoint(name: str, form: Form) -> Checkpoint:
    """Save the checkpoint for the worker and the tutorial, unless it is there.

    The weights are saved in bfloat16: they are random, and half as many bytes are written.
    """
    folder = cache_dir() / f"gpu-{VERSION}{'-tiny' * form.is_tiny}" / name
    if folder.exists():
        return Checkpoint(name, folder)
    unfinished = folder.with_suffix(".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    import torch

    tokenizer = tokenizer_of(name, unfinished)
    model = random_model(name, form, vocabulary=len(tokenizer), ids=ids_of(tokenizer))
    model.to(torch.bfloat16).save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    image_processor(name, form).save_pretrained(unfinished)
    unfinished.rename(folder)
    return Checkpoint(name, folder)


def random_model(
    name: str, form: Form, *, vocabulary: int = 0, ids: dict[str, int] | None = None
) -> Any:
    """Make the model on the form's device, in float32."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    vision, text = VISION[name], {**TEXT[name], **(ids or {})}
    if vocabulary:
        text["vocab_size"] = vocabulary
    if form.is_tiny:
        vision = {**vision, **TINY_TOWER, "image_size": edge_of(name, form)}
        text = {**text, **TINY_TOWER}
    if name == SO400M:
        if form.is_tiny:
            text["projection_size"] = TINY_TOWER["hidden_size"]
        config: Any = transformers.SiglipConfig(text_config=text, vision_config=vision)
        kind: Any = transformers.SiglipModel
    else:
        config = transformers.CLIPConfig(
            text_config=text, vision_config=vision, projection_dim=PROJECTION[name]
        )
        kind = transformers.CLIPModel
    torch.manual_seed(0)
    with torch.device(form.device):
        return kind(config).eval()


def edge_of(name: str, form: Form) -> int:
    """Return the edge of a picture, in pixels."""
    if form.is_tiny:
        return TINY_PATCHES * VISION[name]["patch_size"]
    return VISION[name].get("image_size", 224)


def image_processor(name: str, form: Form) -> Any:
    """Make the published image processor, for the form's size of pictures."""
    import transformers

    edge = edge_of(name, form)
    if name == SO400M:
        return transformers.SiglipImageProcessorPil(size={"height": edge, "width": edge})
    return transformers.CLIPImageProcessorPil(
        size={"shortest_edge": edge}, crop_size={"height": edge, "width": edge}
    )


def tokenizer_of(name: str, folder: Path) -> Any:
    """Make a tokenizer of the published kind, with a vocabulary of the labels' words."""
    return siglip_tokenizer(folder) if name == SO400M else clip_tokenizer()


def siglip_tokenizer(folder: Path) -> Any:
    """Train a sentencepiece model on prompts."""
    import sentencepiece
    import transformers

    model_file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=prompts(),
        model_writer=model_file,
        vocab_size=SIGLIP_VOCABULARY,
        hard_vocab_limit=False,
        pad_id=2,
        eos_id=1,
        unk_id=0,
        bos_id=-1,
        minloglevel=2,
    )
    path = folder / "spiece.model"
    path.write_bytes(model_file.getvalue())
    return transformers.SiglipTokenizer(vocab_file=str(path), model_max_length=64)


def prompts() -> Iterator[str]:
    """Yield the sentences that the tokenizer is trained on."""
    for name in labels(1000):
        yield TEMPLATE.format(name).lower()


def ids_of(tokenizer: Any) -> dict[str, int]:
    """Read the special tokens that the text tower must know."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    known = {name: getattr(tokenizer, name) for name in names}
    return {name: number for name, number in known.items() if number is not None}
