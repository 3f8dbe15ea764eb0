"""Children's uint8 pixels, normalised on the device, equal the image processor's output."""

import io
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from transformers import (
    CLIPImageProcessorPil,
    SiglipImageProcessorPil,
    ViTImageProcessorPil,
)
from transformers.image_transforms import (
    get_resize_output_image_size,
    get_size_with_aspect_ratio,
)
from transformers.image_utils import ChannelDimension, get_image_size_for_max_height_width
from transformers.models.chinese_clip.image_processing_pil_chinese_clip import (
    ChineseCLIPImageProcessorPil,
)
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.efficientnet.image_processing_pil_efficientnet import (
    EfficientNetImageProcessorPil,
)
from transformers.models.siglip2.image_processing_pil_siglip2 import (
    Siglip2ImageProcessorPil,
    get_image_size_for_max_num_patches,
)

from labelyard.errors import ModelLoadError
from labelyard_worker.intake.decode import ImageLimits, PixelSpec, decode
from labelyard_worker.resized_sizes import resized_size
from labelyard_worker.vision.normalizer import Normalizer, pixel_spec
from tests.support import odd_pictures, pictures

CPU = torch.device("cpu")
LIKE_PIPELINE = ImageLimits(decode="exact", transparency="drop")

PROCESSORS = {
    "clip": CLIPImageProcessorPil(),
    "clip, small": CLIPImageProcessorPil(
        size={"shortest_edge": 37}, crop_size={"height": 31, "width": 24}, resample=2
    ),
    "clip, crop larger than the picture": CLIPImageProcessorPil(
        size={"shortest_edge": 20}, crop_size={"height": 33, "width": 50}
    ),
    "clip, both edges": CLIPImageProcessorPil(
        size={"shortest_edge": 30, "longest_edge": 6000}, crop_size={"height": 30, "width": 40}
    ),
    "clip, one number": CLIPImageProcessorPil(size=30, crop_size=24),
    "clip, not resized": CLIPImageProcessorPil(do_resize=False, crop_size=30),
    "clip, not normalised": CLIPImageProcessorPil(do_normalize=False),
    "clip, not rescaled": CLIPImageProcessorPil(do_rescale=False),
    "clip, inside a box": CLIPImageProcessorPil(
        size={"max_height": 3000, "max_width": 4000}, crop_size=40
    ),
    "siglip": SiglipImageProcessorPil(),
    "siglip, small": SiglipImageProcessorPil(
        size={"height": 30, "width": 20}, image_mean=[0.1, 0.2, 0.3], image_std=[0.9, 0.8, 0.7]
    ),
    "siglip2": Siglip2ImageProcessorPil(),
    "siglip2, small": Siglip2ImageProcessorPil(patch_size=4, max_num_patches=25, resample=3),
    "align": EfficientNetImageProcessorPil(),
    "align, as published": EfficientNetImageProcessorPil(
        size={"height": 289, "width": 289},
        do_center_crop=True,
        rescale_factor=0.00784313725490196,
        rescale_offset=True,
        do_normalize=False,
        include_top=False,
    ),
    "chinese_clip": ChineseCLIPImageProcessorPil(),
    "vit": ViTImageProcessorPil(),
    "vit, odd factor": ViTImageProcessorPil(rescale_factor=0.0123),
}
PICTURES = {
    "jpeg": pictures.jpeg((320, 240)),
    "alpha": pictures.transparent_png(),
    "greyscale": pictures.greyscale_jpeg(),
    "rotated": pictures.rotated_jpeg(),
    "1 x 300": pictures.png((1, 300)),
    "500 x 3": pictures.png((500, 3)),
    "one pixel": pictures.png((1, 1)),
    "portrait": pictures.png((211, 377)),
}


def as_pipeline_loads(raw: bytes) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(io.BytesIO(raw))).convert("RGB")


@pytest.mark.parametrize("name", PROCESSORS)
def test_normalised_pixels_are_the_processors(name: str) -> None:
    """Bit for bit, in one mixed batch; a rescaling factor without a divisor to within 1e-6."""
    processor = PROCESSORS[name]
    spec = pixel_spec(processor)
    expected = processor(
        images=[as_pipeline_loads(raw) for raw in PICTURES.values()], return_tensors="pt"
    )
    pixels = [
        decode(raw, uri=which, spec=spec, limits=LIKE_PIPELINE) for which, raw in PICTURES.items()
    ]

    inputs = Normalizer(processor, device=CPU, dtype=torch.float32)(pixels)

    tolerance = 1e-6 if name == "vit, odd factor" else 0.0
    assert inputs.keys() == expected.keys()
    for key, value in inputs.items():
        wanted = expected[key].to(value.dtype)
        torch.testing.assert_close(value, wanted, rtol=0, atol=tolerance, msg=key)
    assert inputs["pixel_values"].dtype == torch.float32


@pytest.mark.parametrize("processor", ["clip", "vit"])
@pytest.mark.parametrize("name", odd_pictures.ALL)
def test_odd_pictures_are_the_processors_too(name: str, processor: str) -> None:
    """Every mode, depth and kind of transparency, as the pipeline loads and converts it.

    ViT's processor converts nothing to RGB, so it leaves one transparent colour as it is.
    """
    raw, judge = odd_pictures.ALL[name](), PROCESSORS[processor]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about palettes of alphas
        expected = judge(images=as_pipeline_loads(raw), return_tensors="pt")["pixel_values"]

    pixels = decode(raw, uri=name, spec=pixel_spec(judge), limits=LIKE_PIPELINE)

    inputs = Normalizer(judge, device=CPU, dtype=torch.float32)([pixels])
    assert torch.equal(inputs["pixel_values"], expected)


def test_masks_and_shapes_keep_the_processors_types() -> None:
    """A model may index with them."""
    processor = Siglip2ImageProcessorPil()
    raw = pictures.png((200, 100))
    expected = processor(images=as_pipeline_loads(raw), return_tensors="pt")
    pixels = decode(raw, uri="x", spec=pixel_spec(processor), limits=LIKE_PIPELINE)

    inputs = Normalizer(processor, device=CPU, dtype=torch.bfloat16)([pixels])

    assert {name: value.dtype for name, value in inputs.items()} == {
        "pixel_values": torch.bfloat16,
        "pixel_attention_mask": expected["pixel_attention_mask"].dtype,
        "spatial_shapes": expected["spatial_shapes"].dtype,
    }


def test_arithmetic_is_float32_whatever_the_model_computes_in() -> None:
    """A half-precision batch is the float32 one, rounded once at the end."""
    processor = PROCESSORS["clip"]
    raw = PICTURES["jpeg"]
    pixels = [decode(raw, uri="x", spec=pixel_spec(processor), limits=LIKE_PIPELINE)]
    full = Normalizer(processor, device=CPU, dtype=torch.float32)(pixels)["pixel_values"]

    half = Normalizer(processor, device=CPU, dtype=torch.bfloat16)(pixels)["pixel_values"]

    assert torch.equal(half, full.to(torch.bfloat16))
    assert half.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("processor", "step"),
    [
        (ConvNextImageProcessorPil(), "_preprocess"),
        (CLIPImageProcessorPil(do_center_crop=False), "centre crop"),
        (CLIPImageProcessorPil(do_pad=True, pad_size={"height": 9, "width": 9}), "do_pad"),
        (Siglip2ImageProcessorPil(do_resize=False), "do_resize"),
        (object(), "backend='pil'"),
    ],
    ids=["own steps", "shapes differ", "padding", "patches not resized", "not a PIL one"],
)
def test_what_cannot_be_reproduced_is_named(processor: Any, step: str) -> None:
    """Rather than scores that are slightly wrong for ever."""
    with pytest.raises(ModelLoadError, match=step):
        pixel_spec(processor)


def test_specs_say_how_large_their_pixels_get() -> None:
    """The bound on pixels in flight is counted in these."""
    clip, naflex = pixel_spec(PROCESSORS["clip"]), pixel_spec(PROCESSORS["siglip2"])

    assert clip == PixelSpec("shortest_edge", shortest_edge=224, crop=(224, 224))
    assert (clip.max_bytes, clip.output_size) == (224 * 224 * 3, (224, 224))
    assert (naflex.max_bytes, naflex.output_size) == (256 * 16 * 16 * 3, None)


@settings(max_examples=300, deadline=None)
@given(height=st.integers(1, 6000), width=st.integers(1, 6000))
def test_sizes_are_truncated_and_rounded_as_transformers_does(height: int, width: int) -> None:
    """For any shape; one row more or less would move every pixel."""
    both = PixelSpec("both_edges", shortest_edge=224, longest_edge=500)
    fit = PixelSpec("fit", height=300, width=400)
    patches = PixelSpec("patches", patch_size=16, max_num_patches=256)
    shortest = PixelSpec("shortest_edge", shortest_edge=224)
    blank = np.broadcast_to(np.zeros(1, dtype=np.uint8), (3, height, width))

    sizes = [
        resized_size(spec, height=height, width=width) for spec in (both, fit, patches, shortest)
    ]

    assert sizes == [
        get_size_with_aspect_ratio((height, width), 224, 500),
        get_image_size_for_max_height_width((height, width), 300, 400),
        get_image_size_for_max_num_patches(height, width, 16, 256),
        get_resize_output_image_size(
            blank, 224, default_to_square=False, input_data_format=ChannelDimension.FIRST
        ),
    ]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_what_the_cpu_gives() -> None:
    """Bit for bit: CUDA's shortcut of multiplying by the inverse is not taken."""
    cuda = torch.device("cuda")

    for processor in PROCESSORS.values():
        spec = pixel_spec(processor)
        pixels = [
            decode(raw, uri="x", spec=spec, limits=LIKE_PIPELINE) for raw in PICTURES.values()
        ]
        expected = Normalizer(processor, device=CPU, dtype=torch.float32)(pixels)
        inputs = Normalizer(processor, device=cuda, dtype=torch.float32)(pixels)
        assert all(torch.equal(inputs[name].cpu(), expected[name]) for name in expected)
