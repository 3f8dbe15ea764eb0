"""A dual encoder whose two towers meet in ImageNet's classes, as an ordinary transformers model.

The image tower says how much of each class ("concept") is in a picture: a distribution p. The text
tower says how much of each concept a phrase would excite: a distribution q, found by comparing the
phrase with a memory of phrases whose distribution is known. sqrt(p) and sqrt(q) have unit length,
and their dot product is the Bhattacharyya coefficient of the two.
"""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForZeroShotImageClassification,
    AutoProcessor,
    AutoTokenizer,
    BertConfig,
    BertModel,
    BertTokenizer,
    CLIPImageProcessorPil,
    CLIPProcessor,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES,
)
from transformers.models.clip.modeling_clip import CLIPOutput

from labelyard_worker.vision.lite.efficientnet import EfficientNetLite0

MODEL_TYPE = "lite_zeroshot"


class LiteVisionConfig(PreTrainedConfig):  # type: ignore[misc]
    """The size of the image tower."""

    model_type = f"{MODEL_TYPE}_vision_model"
    base_config_key = "vision_config"

    image_size: int = 224
    num_channels: int = 3
    hidden_size: int = 1280
    num_concepts: int = 1000


class LiteZeroShotConfig(PreTrainedConfig):  # type: ignore[misc]
    """The two towers, and how they are compared.

    Attributes:
        vision_config: The image tower's, as a LiteVisionConfig or a dict of its fields.
        text_config: The text tower's, as a BertConfig or a dict of its fields.
        memory_size: Phrases in the memory.
        memory_temperature: Width of the kernel: how unlike a phrase of the memory may be and still
            have a say. Smaller is stricter.
        logit_scale_init_value: Natural logarithm of what the cosine is multiplied by.
    """

    model_type = MODEL_TYPE
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "vision_config": LiteVisionConfig,
        "text_config": BertConfig,
    }

    vision_config: Any = None
    text_config: Any = None
    memory_size: int = 1000
    memory_temperature: float = 0.05
    logit_scale_init_value: float = math.log(20)


class PhraseMemory(nn.Module):
    """Phrases with known concepts, and the kernel regression over them.

    Source: Nadaraya 1964 and Watson 1964, with the exponential kernel of the cosine.
    """

    def __init__(self, size: int, dim: int, num_concepts: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.phrase_embeds = nn.Parameter(torch.zeros(size, dim))
        self.concepts = nn.Parameter(torch.zeros(size, num_concepts))

    def forward(self, text_embeds: Tensor) -> Tensor:
        """Return the concepts that each text excites, (texts, concepts); each row sums to 1."""
        cosine = text_embeds @ self.phrase_embeds.float().T  # (texts, memory)
        weights = (cosine / self.temperature).softmax(dim=-1)
        shares = weights @ self.concepts.float()
        return shares / shares.sum(dim=-1, keepdim=True)  # 1/118 is not 1/118 in bfloat16


class LiteZeroShotModel(PreTrainedModel):  # type: ignore[misc]
    """Compare images with texts through the concepts that both excite.

    Whatever the dtype of the weights, distributions, embeddings and logits are float32: in
    bfloat16 the small shares that tell two pictures apart would be rounded away.
    """

    config_class = LiteZeroShotConfig
    base_model_prefix = MODEL_TYPE
    main_input_name = "pixel_values"
    input_modalities = ("image", "text")
    _no_split_modules: ClassVar[list[str]] = ["InvertedResidual", "BertLayer"]
    _supports_sdpa = True

    def __init__(self, config: LiteZeroShotConfig) -> None:
        super().__init__(config)
        vision, text = config.vision_config, config.text_config
        self.vision_model = EfficientNetLite0(
            num_channels=vision.num_channels,
            hidden_size=vision.hidden_size,
            num_concepts=vision.num_concepts,
        )
        self.text_model = BertModel(text, add_pooling_layer=False)
        self.memory = PhraseMemory(
            config.memory_size, text.hidden_size, vision.num_concepts, config.memory_temperature
        )
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))
        self.post_init()

    def get_image_features(self, pixel_values: Tensor, **_: Any) -> BaseModelOutputWithPooling:
        """Embed images.

        Args:
            pixel_values: Normalised pixels, shape (batch, channels, height, width).

        Returns:
            ``pooler_output`` holds the unit vectors, shape (batch, concepts).
        """
        features, logits = self.vision_model(pixel_values.to(self.dtype))
        concepts = logits.float().softmax(dim=-1)  # (batch, concepts)
        return BaseModelOutputWithPooling(last_hidden_state=features, pooler_output=concepts.sqrt())

    def get_text_features(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **_: Any,
    ) -> BaseModelOutputWithPooling:
        """Embed texts.

        Args:
            input_ids: Tokens, shape (texts, tokens).
            attention_mask: 1 for a token and 0 for padding, the same shape.
            token_type_ids: Zeros, the same shape.

        Returns:
            ``pooler_output`` holds the unit vectors, shape (texts, concepts).
        """
        hidden = self.text_model(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state  # (texts, tokens, dim)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        concepts = self.memory(mean_of_tokens(hidden.float(), attention_mask))
        return BaseModelOutputWithPooling(last_hidden_state=hidden, pooler_output=concepts.sqrt())

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **_: Any,
    ) -> CLIPOutput:
        """Score each image against each text: ``logits_per_image``, shape (images, texts)."""
        images = self.get_image_features(pixel_values)
        texts = self.get_text_features(input_ids, attention_mask, token_type_ids)
        scale = self.logit_scale.float().exp()
        logits_per_image = scale * images.pooler_output @ texts.pooler_output.T
        return CLIPOutput(
            logits_per_image=logits_per_image,
            logits_per_text=logits_per_image.T,
            text_embeds=texts.pooler_output,
            image_embeds=images.pooler_output,
            text_model_output=texts,
            vision_model_output=images,
        )


def mean_of_tokens(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Average the tokens that are no padding, and scale to unit length: (texts, dim).

    Source: Reimers and Gurevych 2019, arXiv:1908.10084, section 3 (MEAN pooling), as MiniLM was
    trained.
    """
    mask = attention_mask.unsqueeze(-1).to(hidden.dtype)  # (texts, tokens, 1)
    return functional.normalize((hidden * mask).sum(dim=1) / mask.sum(dim=1), dim=-1)


def register() -> None:
    """Make transformers' Auto classes and its pipeline know this model; repeating it is harmless."""
    AutoConfig.register(MODEL_TYPE, LiteZeroShotConfig, exist_ok=True)
    AutoModel.register(LiteZeroShotConfig, LiteZeroShotModel, exist_ok=True)
    AutoModelForZeroShotImageClassification.register(
        LiteZeroShotConfig, LiteZeroShotModel, exist_ok=True
    )
    AutoImageProcessor.register(
        LiteZeroShotConfig, image_processor_classes={"pil": CLIPImageProcessorPil}, exist_ok=True
    )
    AutoTokenizer.register(LiteZeroShotConfig, BertTokenizer, exist_ok=True)
    AutoProcessor.register(LiteZeroShotConfig, CLIPProcessor, exist_ok=True)
    # The pipeline checks this table of names, which register() does not fill; else it logs an error.
    MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES[MODEL_TYPE] = LiteZeroShotModel.__name__
