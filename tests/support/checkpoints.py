"""Tiny checkpoints with random weights, one of each type that is served, made offline."""

import io
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import transformers
from tokenizers import pre_tokenizers

from labelyard_worker.vision import lite

IMAGE_PX = 32
PATCH_PX = 8
DIM = 16
LETTERS = string.ascii_letters + string.digits + ".,-_"

VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": IMAGE_PX,
    "patch_size": PATCH_PX,
}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
}
MEAN_AND_STD = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}


def make_clip(folder: Path) -> None:
    """Make a CLIP with a byte-level tokenizer."""
    tokenizer = _clip_tokenizer()
    config = transformers.CLIPConfig(
        text_config={**TEXT, **_ids(tokenizer)},
        vision_config=VISION,
        projection_dim=DIM,
    )
    _save(folder, transformers.CLIPModel(config), _clip_images(), tokenizer)


def make_clipseg(folder: Path) -> None:
    """Make a CLIPSeg, whose images are resized to a square."""
    tokenizer = _clip_tokenizer()
    config = transformers.CLIPSegConfig(
        text_config={**TEXT, **_ids(tokenizer)},
        vision_config=VISION,
        projection_dim=DIM,
        extract_layers=[1],
        reduce_dim=8,
    )
    images = transformers.ViTImageProcessorPil(size={"height": IMAGE_PX, "width": IMAGE_PX})
    _save(folder, transformers.CLIPSegModel(config), images, tokenizer)


def make_metaclip_2(folder: Path) -> None:
    """Make a MetaCLIP 2: CLIP with a multilingual tokenizer."""
    tokenizer = _xlm_roberta_tokenizer()
    config = transformers.MetaClip2Config(
        text_config={
            **TEXT,
            **_ids(tokenizer),
        },
        vision_config=VISION,
        projection_dim=DIM,
    )
    _save(folder, transformers.MetaClip2Model(config), _clip_images(), tokenizer)


def make_altclip(folder: Path) -> None:
    """Make an AltCLIP: CLIP with RoBERTa as its text tower."""
    tokenizer = _xlm_roberta_tokenizer()
    config = transformers.AltCLIPConfig(
        text_config={
            **TEXT,
            **_ids(tokenizer),
            "project_dim": DIM,
        },
        vision_config=VISION,
        projection_dim=DIM,
    )
    _save(folder, transformers.AltCLIPModel(config), _clip_images(), tokenizer)


def make_chinese_clip(folder: Path) -> None:
    """Make a Chinese CLIP: CLIP with BERT as its text tower."""
    tokenizer = _bert_tokenizer()
    config = transformers.ChineseCLIPConfig(
        text_config={**TEXT, **_ids(tokenizer)}, vision_config=VISION, projection_dim=DIM
    )
    size = {"height": IMAGE_PX, "width": IMAGE_PX}
    images = transformers.ChineseCLIPImageProcessorPil(size=size, do_center_crop=False)
    _save(folder, transformers.ChineseCLIPModel(config), images, tokenizer)


def make_align(folder: Path) -> None:
    """Make an ALIGN: EfficientNet and BERT."""
    tokenizer = _bert_tokenizer()
    vision = {
        "image_size": IMAGE_PX,
        "hidden_dim": DIM,
        "kernel_sizes": [3, 5],
        "in_channels": [32, 16],
        "out_channels": [16, 16],
        "strides": [1, 2],
        "depthwise_padding": [],
        "num_block_repeats": [1, 1],
        "expand_ratios": [1, 2],
        "width_coefficient": 1.0,
        "depth_coefficient": 1.0,
    }
    config = transformers.AlignConfig(
        text_config={**TEXT, **_ids(tokenizer)}, vision_config=vision, projection_dim=DIM
    )
    model = transformers.AlignModel(config)
    model.temperature.data.fill_(0.05)  # 1 as initialised: no test could see it
    images = transformers.EfficientNetImageProcessorPil(
        size={"height": 36, "width": 36},
        crop_size={"height": IMAGE_PX, "width": IMAGE_PX},
        do_center_crop=True,
        rescale_offset=True,
        include_top=False,
    )
    _save(folder, model, images, tokenizer)


def make_siglip(folder: Path) -> None:
    """Make a SigLIP with a sentencepiece tokenizer, its logit bias as trained ones have it."""
    tokenizer = _siglip_tokenizer(folder)
    config = transformers.SiglipConfig(
        text_config={
            **TEXT,
            **_ids(tokenizer),
            "max_position_embeddings": 64,
            "projection_size": 32,
        },
        vision_config=VISION,
    )
    model = transformers.SiglipModel(config)
    model.logit_scale.data.fill_(2.0)
    model.logit_bias.data.fill_(-3.0)
    size = {"height": IMAGE_PX, "width": IMAGE_PX}
    _save(folder, model, transformers.SiglipImageProcessorPil(size=size), tokenizer)


def make_siglip2(folder: Path) -> None:
    """Make a SigLIP 2 NaFlex: as many patches as fit, aspect nearly kept."""
    tokenizer = _siglip2_tokenizer()
    vision = {key: value for key, value in VISION.items() if key != "image_size"}
    config = transformers.Siglip2Config(
        text_config={
            **TEXT,
            **_ids(tokenizer),
            "max_position_embeddings": 64,
            "projection_size": 32,
        },
        vision_config={**vision, "num_patches": 16},
    )
    model = transformers.Siglip2Model(config)
    model.logit_scale.data.fill_(2.0)
    model.logit_bias.data.fill_(-3.0)
    images = transformers.Siglip2ImageProcessorPil(patch_size=PATCH_PX, max_num_patches=16)
    _save(folder, model, images, tokenizer)


MAKERS: dict[str, Callable[[Path], None]] = {
    "align": make_align,
    "altclip": make_altclip,
    "chinese_clip": make_chinese_clip,
    "clip": make_clip,
    "clipseg": make_clipseg,
    "metaclip_2": make_metaclip_2,
    "siglip": make_siglip,
    "siglip2": make_siglip2,
}
MODEL_TYPES = (*MAKERS, "lite_zeroshot")


def tiny_checkpoint(model_type: str, folder: Path) -> Path:
    """Make a checkpoint of *model_type* below *folder*, unless it is there; the lite one is real.

    Args:
        model_type: One of ``MODEL_TYPES``.
        folder: Shared by the tests of a session.
    """
    if model_type == "lite_zeroshot":
        return lite.ensure_lite()
    made = folder / model_type
    if not (made / "config.json").exists():
        made.mkdir(parents=True, exist_ok=True)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            MAKERS[model_type](made)
    return made


def tiny_model(model_type: str, folder: Path) -> Any:
    """Load the model of a tiny checkpoint, in float32; *folder* is that of :func:`tiny_checkpoint`."""
    return transformers.AutoModelForZeroShotImageClassification.from_pretrained(
        tiny_checkpoint(model_type, folder), dtype=torch.float32
    ).eval()


def pipeline_for(folder: Path) -> Any:
    """Load transformers' pipeline on a checkpoint, in float32 on the CPU: the judge of parity."""
    auto = transformers.AutoModelForZeroShotImageClassification
    return transformers.pipeline(
        "zero-shot-image-classification",
        model=auto.from_pretrained(folder, dtype=torch.float32),
        tokenizer=transformers.AutoTokenizer.from_pretrained(folder),
        image_processor=transformers.AutoImageProcessor.from_pretrained(folder, backend="pil"),
        device="cpu",
    )


def _save(folder: Path, model: Any, images: Any, tokenizer: Any) -> None:
    model.eval()
    for parameter in model.parameters():
        # As initialised, tiny towers give all pictures nearly the same vector.
        if parameter.ndim > 1:
            parameter.data.mul_(4.0)
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    images.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _ids(tokenizer: Any) -> dict[str, Any]:
    """Make the text tower fit the tokenizer."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    ids = {name: getattr(tokenizer, name) for name in names}
    known = {name: number for name, number in ids.items() if number is not None}
    return {"vocab_size": len(tokenizer), **known}


def _clip_images() -> Any:
    return transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 36},
        crop_size={"height": IMAGE_PX, "width": IMAGE_PX},
        **MEAN_AND_STD,
    )


def _clip_tokenizer() -> Any:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    vocab |= {"<|startoftext|>": len(vocab), "<|endoftext|>": len(vocab) + 1}
    return transformers.CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)


def _bert_tokenizer() -> Any:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces += [*LETTERS, *("##" + letter for letter in LETTERS)]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    return transformers.BertTokenizer(vocab=vocab, model_max_length=77)


def _xlm_roberta_tokenizer() -> Any:
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", *LETTERS, "<mask>"]
    vocab = [(piece, -float(index)) for index, piece in enumerate(pieces)]
    return transformers.XLMRobertaTokenizer(vocab=vocab, model_max_length=74)


def _siglip_tokenizer(folder: Path) -> Any:
    model_file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_sentences(),
        model_writer=model_file,
        vocab_size=60,
        model_type="char",
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


def _siglip2_tokenizer() -> Any:
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *LETTERS]
    pieces += [f"<0x{byte:02X}>" for byte in range(256)]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    return transformers.Siglip2Tokenizer(vocab=vocab, merges=[], model_max_length=64)


def _sentences() -> Iterator[str]:
    for letter in LETTERS:
        yield f"this is a photo of {letter} the quick brown fox jumps over the lazy dog."
