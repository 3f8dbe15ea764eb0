"""A transformers checkpoint in memory: pixels to image embeddings, prompts to text embeddings."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, Literal

import numpy as np
import torch
from transformers.utils import logging as transformers_logging

from labelyard.errors import ModelLoadError, WorkerError
from labelyard.messages import ModelInfo
from labelyard_worker.cpu_budget import usable_cores
from labelyard_worker.pixels import Pixels, PixelSpec
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision import devices, lite, precision, probes
from labelyard_worker.vision.batch_shapes import batch_shapes
from labelyard_worker.vision.checkpoint_source import CheckpointSource, loading_advice
from labelyard_worker.vision.devices import ThreadPlan, ThreadShare
from labelyard_worker.vision.fingerprint import fingerprint_of
from labelyard_worker.vision.normalizer import Normalizer, pixel_spec
from labelyard_worker.vision.prompts import PromptTokenizer
from labelyard_worker.vision.scoring import Floats
from labelyard_worker.vision.streams import StreamPool
from labelyard_worker.vision.towers import (
    CONVOLUTIONAL_TYPES,
    blank_pixels,
    features_dim,
    logit_scale_and_bias,
    pad_batch,
    prepare_model,
    take_features,
    take_sentences,
    take_vectors,
    to_unit_length,
)
from labelyard_worker.vision.vector_layout import VectorLayout

__all__ = ["SUPPORTED_TYPES", "Checkpoint", "blank_pixels", "load_checkpoint"]

log = logging.getLogger(__name__)

# Dual encoders whose image processor needs no torchvision.
SUPPORTED_TYPES: Final = (
    "align",
    "altclip",
    "chinese_clip",
    "clip",
    "clipseg",
    "lite_zeroshot",
    "metaclip_2",
    "siglip",
    "siglip2",
)
CROSS_ENCODERS: Final = ("blip", "blip-2")
PROMPTS_IN_A_PASS = 64


class Checkpoint:
    """Both towers of a dual encoder; safe to call from several threads.

    The image tower computes in the dtype that was chosen. The text tower stays in
    float32: a prompt is encoded once, so its speed matters little, and every worker
    of the same checkpoint gets the same vectors.

    Attributes:
        info: Which model this is, for results.
        device: What it computes on.
        pixel_spec: Format of the pixels that the intake makes of an image.
        scoring: What the checkpoint was trained for.
        logit_scale: Inverse temperature, no unit.
        logit_bias: 0 where the checkpoint has none.
        dim: Length of an embedding.
        layout: Parts of an image's vector: its embedding, then its features if there are any.
        threads: How forward passes share the cores.
        max_batch_size: Most images in one forward pass.
        decode: How JPEGs are decoded for it.
    """

    def __init__(
        self,
        model: Any,
        image_processor: Any,
        tokenizer: Any,
        *,
        info: ModelInfo,
        device: torch.device,
        dtype: torch.dtype,
        threads: ThreadPlan,
        max_batch_size: int,
        decode: Literal["draft", "exact"] = "exact",
        is_compiled: bool = False,
    ) -> None:
        """Move a loaded model to *device*, its image tower to *dtype*."""
        model_type = model.config.model_type
        self.info = info
        self.pixel_spec: PixelSpec = pixel_spec(image_processor)
        self.scoring: Literal["softmax", "sigmoid"] = (
            "sigmoid" if "siglip" in model_type else "softmax"
        )
        self.logit_scale, self.logit_bias = logit_scale_and_bias(model)
        self.threads = threads
        self.max_batch_size = max_batch_size
        self.decode = decode
        self.device = device
        self._model = prepare_model(model, device, dtype, is_compiled=is_compiled)
        self._normalizer = Normalizer(image_processor, device=device, dtype=dtype)
        self._tokenizer = PromptTokenizer(tokenizer, model.config)
        self._share = ThreadShare(threads)
        self._image_streams = StreamPool(device, count=threads.streams)
        self._text_streams = StreamPool(device, count=1)
        self._shapes = batch_shapes(max_batch_size, device=device, is_compiled=is_compiled)
        self._image_features: Callable[..., Any] = self._model.get_image_features
        if is_compiled:
            self._image_features = torch.compile(self._image_features, dynamic=False)
        self.dim = int(self.text_embeds(["a"]).shape[1])
        self.layout = VectorLayout(self.dim, features_dim(model.config))

    def image_embeds(self, batch: Sequence[Pixels], *, leaves_cores: bool = False) -> Floats:
        """Embed decoded images; see :meth:`image_vectors`.

        Returns:
            Unit-length vectors in the order of *batch*, shape (batch, dim).
        """
        return self.layout.joint(self.image_vectors(batch, leaves_cores=leaves_cores))

    def image_vectors(self, batch: Sequence[Pixels], *, leaves_cores: bool = False) -> Floats:
        """Embed decoded images, with the features that examples are compared by.

        Args:
            batch: Pictures of the shape that ``pixel_spec`` gives them.
            leaves_cores: Whether this pass leaves cores to others, as to the intake of more,
                even while it runs alone.

        Returns:
            Vectors in the order of *batch*, shape (batch, layout.length): the embedding, then
            the features if the checkpoint has them; each part has unit length.

        Raises:
            FloatingPointError: A vector is not finite, as float16 can overflow.
        """
        size = next((shape for shape in self._shapes if shape >= len(batch)), len(batch))
        with (
            torch.inference_mode(),
            self._share.taken(leaves_cores=leaves_cores),
            self._image_streams.lent(),
        ):
            inputs = {
                name: pad_batch(values, size) for name, values in self._normalizer(batch).items()
            }
            output = self._image_features(**inputs)
            embeds = to_unit_length(take_vectors(output)[: len(batch)])
            if self.layout.features_dim:
                features = to_unit_length(take_features(output)[: len(batch)])
                embeds = np.concatenate([embeds, features], axis=1)
        if not np.isfinite(embeds).all():
            raise FloatingPointError(
                f"an image embedding is not finite in {self.info.dtype}: set LABELYARD_DTYPE=float32"
            )
        return embeds

    def text_embeds(self, prompts: Sequence[str]) -> Floats:
        """Embed prompts, those of like length together.

        Returns:
            Unit-length vectors in the order of *prompts*, shape (prompts, dim).

        Raises:
            BatcherFullError: There is no memory left, even for one prompt.
            DeviceFailedError: The device is lost.
        """
        if self.device.type == "cpu":
            return devices.run_in_temporary_thread(lambda: self._encode_all(prompts))
        return self._encode_all(prompts)

    def title_embeds(self, texts: Sequence[str]) -> Floats:
        """Embed texts to be compared with one another: in the lite checkpoint's sentence space.

        Returns:
            Unit-length vectors in the order of *texts*, shape (texts, dim of titles).

        Raises:
            BatcherFullError: There is no memory left, even for one text.
            DeviceFailedError: The device is lost.
        """
        encode = partial(self._encode_all, texts, encode=self._encode_titles)
        if self.device.type == "cpu":
            return devices.run_in_temporary_thread(encode)
        return encode()

    def warm_up(self) -> None:
        """Run every shape once, so that no job pays for first calls.

        On a CPU all streams run at once, so that the memory of their passes is touched before
        the first job. On a GPU every stream gets its memory, for the largest shape first: what
        smaller ones need is cut out of it.

        Raises:
            ModelLoadError: The model does not run; with ``LABELYARD_COMPILE=1`` often
                because no C++ compiler is installed.
        """
        is_cuda = self.device.type == "cuda"
        sizes = sorted(self._shapes, reverse=is_cuda) or [1, self.max_batch_size]
        for size in sizes:
            if not self._fits(size) and not is_cuda:
                return  # larger ones fit even less; the batcher finds the size that does

    def close(self) -> None:
        """Free the model and its memory."""
        del self._model, self._image_features
        devices.free_cached_memory()

    def _fits(self, batch_size: int) -> bool:
        """Run blank pictures on every stream; False if there is no memory for them.

        Raises:
            ModelLoadError: The model does not run.
        """
        streams = self.threads.streams
        at_once = 1 if self._shapes else streams
        in_turn = streams if self.device.type == "cuda" else 1
        blank = [blank_pixels(self.pixel_spec)] * batch_size
        run = partial(self.image_embeds, leaves_cores=at_once > 1)
        try:
            for _ in range(in_turn):
                with ThreadPoolExecutor(at_once) as pool:
                    list(pool.map(run, [blank] * at_once))
        except Exception as error:
            if not devices.is_out_of_memory(error):
                raise ModelLoadError(self.info.checkpoint, f"does not run: {error!r}") from error
        else:
            return True
        log.warning("warm_up_out_of_memory", extra={"fields": {"batch_size": batch_size}})
        devices.free_cached_memory()  # outside the handler: its traceback holds on to tensors
        return False

    def _encode_all(
        self,
        prompts: Sequence[str],
        *,
        encode: Callable[[Sequence[str]], list[Floats]] | None = None,
    ) -> Floats:
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        rows: list[Floats] = []
        for start in range(0, len(order), PROMPTS_IN_A_PASS):
            part = [prompts[index] for index in order[start : start + PROMPTS_IN_A_PASS]]
            with devices.device_errors_as_ours():
                rows += devices.halve_when_out_of_memory(encode or self._encode, part)
        embeds = np.empty((len(prompts), rows[0].shape[0]), dtype=np.float32)
        embeds[order] = rows
        return embeds

    def _encode(self, prompts: Sequence[str]) -> list[Floats]:
        return self._run_text_tower(prompts, lambda output, _: take_vectors(output))

    def _encode_titles(self, texts: Sequence[str]) -> list[Floats]:
        return self._run_text_tower(texts, partial(take_sentences, self._model.config))

    def _run_text_tower(
        self, prompts: Sequence[str], take: Callable[[Any, Any], torch.Tensor]
    ) -> list[Floats]:
        tokens = self._tokenizer(prompts)
        with torch.inference_mode(), self._share.taken(is_passing=True), self._text_streams.lent():
            inputs = {name: values.to(self.device) for name, values in tokens.items()}
            output = self._model.get_text_features(**inputs)
            return list(to_unit_length(take(output, inputs)))


def load_checkpoint(settings: WorkerSettings) -> Checkpoint:
    """Load the checkpoint that ``LABELYARD_CHECKPOINT`` names, onto the device.

    Raises:
        ModelLoadError: It is not there, cannot be read, or is of a kind that cannot be
            served; the text says what to do.
    """
    lite.register()
    transformers_logging.disable_progress_bar()
    try:
        source = CheckpointSource.of(settings)
        checkpoint = _load(settings, source)
        probes.check_towers(checkpoint)
    except WorkerError:
        raise
    except Exception as error:  # transformers, safetensors and torch raise a dozen kinds
        advice = loading_advice(settings.checkpoint, error)
        raise ModelLoadError(settings.checkpoint, advice) from error
    return checkpoint


def _load(settings: WorkerSettings, source: CheckpointSource) -> Checkpoint:
    """Load configuration, tokenizer, weights and image processor, and check each."""
    config = source.load_config()
    check_type(settings.checkpoint, config.model_type)
    device = devices.choose_device(settings.device)
    devices.keep_float32_exact()
    dtype = precision.choose_dtype(settings.dtype, device, config.model_type)
    tokenizer = source.load_tokenizer()
    probes.check_tokens(settings.checkpoint, PromptTokenizer(tokenizer, config), config)
    image_processor = source.load_image_processor()
    model = source.load_model(config)
    probes.check_weights(settings.checkpoint, model)
    return Checkpoint(
        model,
        image_processor,
        tokenizer,
        info=ModelInfo(
            checkpoint=settings.checkpoint,
            fingerprint=fingerprint_of(source.folder),
            dtype=str(dtype).removeprefix("torch."),
            device=device.type,
        ),
        device=device,
        dtype=dtype,
        threads=devices.plan_threads(settings, device, usable_cores()),
        max_batch_size=devices.plan_batch_size(
            settings, device, is_convolutional=config.model_type in CONVOLUTIONAL_TYPES
        ),
        decode=precision.choose_decode(settings.decode, config.model_type),
        is_compiled=settings.compile,
    )


def check_type(checkpoint: str, model_type: str) -> None:
    """Refuse a model type without image and text embeddings to compare.

    Raises:
        ModelLoadError: Says which types work.
    """
    if model_type in SUPPORTED_TYPES:
        return
    kind = "a cross-encoder" if model_type in CROSS_ENCODERS else "not served"
    raise ModelLoadError(
        checkpoint,
        f"is of type {model_type!r}, which is {kind}: labelyard serves dual encoders of the "
        f"types {', '.join(SUPPORTED_TYPES)}",
    )
