"""The last step of an image processor: rescale and normalise, on the device."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers.image_processing_backends import PilBackend

from labelyard.errors import ModelLoadError
from labelyard_worker.pixels import Pixels, PixelSpec, Resize

# Image processors that do something of their own between resize and normalise, and
# that are reproduced here all the same.
PATCHES = "Siglip2ImageProcessorPil"
TWICE_NORMALISED = "EfficientNetImageProcessorPil"

_STEPS = ("_preprocess", "resize", "center_crop", "rescale", "normalize")
_BYTE_VALUES = np.arange(256, dtype=np.uint8)


def pixel_spec(image_processor: Any) -> PixelSpec:
    """Read from *image_processor* what happens to a picture before normalisation.

    Raises:
        ModelLoadError: It does something that cannot be reproduced; the text says what.
    """
    _check_steps(image_processor)
    resample = image_processor.resample
    resample = 2 if resample is None else int(resample)
    composes_colour_key = bool(getattr(image_processor, "do_convert_rgb", None))
    if type(image_processor).__name__ == PATCHES:
        return PixelSpec(
            resize="patches",
            resample=resample,
            patch_size=image_processor.patch_size,
            max_num_patches=image_processor.max_num_patches,
            composes_colour_key=composes_colour_key,
        )
    crop = image_processor.crop_size if getattr(image_processor, "do_center_crop", None) else None
    spec = PixelSpec(
        **_resize(image_processor),
        resample=resample,
        crop=None if crop is None else (int(crop.height), int(crop.width)),
        composes_colour_key=composes_colour_key,
    )
    if spec.output_size is None:
        raise ModelLoadError(
            _name(image_processor),
            f"'{spec.resize}' without a centre crop gives pictures of different shapes, which "
            "cannot share a batch: set size to a height and a width, or do_center_crop",
        )
    return spec


def _check_steps(image_processor: Any) -> None:
    name = _name(image_processor)
    if not isinstance(image_processor, PilBackend):
        raise ModelLoadError(name, "not a PIL image processor: load it with backend='pil'")
    if getattr(image_processor, "do_pad", None):
        raise ModelLoadError(name, "do_pad cannot be reproduced")
    if name == PATCHES and not image_processor.do_resize:
        raise ModelLoadError(name, "do_resize=False cannot be reproduced")
    if name in (PATCHES, TWICE_NORMALISED):
        return
    for step in _STEPS:
        if getattr(type(image_processor), step) is not getattr(PilBackend, step):
            raise ModelLoadError(name, f"its own step '{step}' cannot be reproduced")


def _resize(image_processor: Any) -> dict[str, Any]:
    size = image_processor.size
    resize: Resize
    if not image_processor.do_resize:
        return {"resize": "none"}
    if size.shortest_edge:
        resize = "both_edges" if size.longest_edge else "shortest_edge"
        return {
            "resize": resize,
            "shortest_edge": int(size.shortest_edge),
            "longest_edge": int(size.longest_edge or 0),
        }
    if size.max_height and size.max_width:
        return {"resize": "fit", "height": int(size.max_height), "width": int(size.max_width)}
    if size.height and size.width:
        return {"resize": "exact", "height": int(size.height), "width": int(size.width)}
    raise ModelLoadError(_name(image_processor), f"size {size} cannot be reproduced")


def _name(image_processor: Any) -> str:
    return type(image_processor).__name__


class Normalizer:
    """Turns pixels into the image inputs of one model, on its device.

    The arithmetic is that of transformers' PIL processors, step by step in float32, so
    that the outcome is theirs bit for bit.
    """

    def __init__(self, image_processor: Any, *, device: torch.device, dtype: torch.dtype) -> None:
        self._spec = pixel_spec(image_processor)
        self._device = device
        self._dtype = dtype
        self._scale = _Scale.of(image_processor, device)
        channels = self._spec.patch_size**2 if self._spec.resize == "patches" else 1
        self._means_and_stds = [
            (_per_channel(mean, channels, device), _per_channel(std, channels, device))
            for mean, std in _normalisations(image_processor)
        ]

    def __call__(self, pixels: Sequence[Pixels]) -> dict[str, torch.Tensor]:
        """Normalise one batch.

        Returns:
            The model's image inputs by name. ``pixel_values`` is (batch, 3, height,
            width) in channels-last memory; for NaFlex models (batch, max_num_patches,
            3 * patch_size ** 2), with ``pixel_attention_mask`` and ``spatial_shapes``.
        """
        if self._spec.resize == "patches":
            return self._patches(pixels)
        raw = self._to_device(pixels).view(len(pixels), pixels[0].height, pixels[0].width, 3)
        values = self._normalise(raw)  # (batch, height, width, 3)
        return {"pixel_values": values.permute(0, 3, 1, 2).to(self._dtype)}

    def _to_device(self, pixels: Sequence[Pixels]) -> torch.Tensor:
        """Join the pictures' bytes and move them in one copy."""
        if self._device.type != "cuda":
            joined = bytearray().join([picture.data for picture in pixels])
            return torch.frombuffer(joined, dtype=torch.uint8).to(self._device)
        total = sum(3 * picture.height * picture.width for picture in pixels)
        staging = self._staging(total)
        filled = staging.numpy()
        offset = 0
        for picture in pixels:
            data = picture.data  # once: a variant of a picture is made as it is read
            end = offset + len(data)
            filled[offset:end] = np.frombuffer(data, dtype=np.uint8)
            offset = end
        return staging.to(self._device, non_blocking=True)

    def _staging(self, *shape: int, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
        """Make a host tensor that is to be filled and copied, pinned for a GPU.

        The caching host allocator hands a pinned block out again only after the copies that
        read it are done, so a fresh one each time is both safe and cheap.
        """
        return torch.empty(shape, dtype=dtype, pin_memory=self._device.type == "cuda")

    def _normalise(self, raw: torch.Tensor) -> torch.Tensor:
        """Rescale and normalise uint8 values whose last dimension holds the channels."""
        values = self._scale(raw.float())
        for mean, std in self._means_and_stds:
            values.sub_(mean).div_(std)
        return values

    def _patches(self, pixels: Sequence[Pixels]) -> dict[str, torch.Tensor]:
        size, most = self._spec.patch_size, self._spec.max_num_patches
        raw = self._staging(len(pixels), most, size * size * 3)
        mask = self._staging(len(pixels), most, dtype=torch.int32).zero_()
        shapes = torch.empty(len(pixels), 2, dtype=torch.int64)
        for row, picture in enumerate(pixels):
            rows, columns = picture.height // size, picture.width // size
            source = np.frombuffer(picture.data, dtype=np.uint8).reshape(
                rows, size, columns, size, 3
            )
            target = raw[row, : rows * columns].view(rows, columns, size, size, 3)
            np.copyto(target.numpy(), source.transpose(0, 2, 1, 3, 4))
            mask[row, : rows * columns] = 1
            shapes[row, 0], shapes[row, 1] = rows, columns
        mask_there = mask.to(self._device, non_blocking=True)
        # (batch, patches, size * size * 3)
        values = self._normalise(raw.to(self._device, non_blocking=True))
        values.masked_fill_(mask_there.unsqueeze(-1) == 0, 0.0)  # padding is 0 once normalised
        return {
            "pixel_values": values.to(self._dtype),
            "pixel_attention_mask": mask_there,
            # On the host: the model reads each row as two numbers, and uses it for nothing
            # else. On a GPU every one of them would wait for all that is queued there.
            "spatial_shapes": shapes,
        }


class _Scale:
    """Rescaling as the processor does it: in float64, rounded to float32 once.

    Division by 255 in float32 gives the same 256 values as that; where a factor has no
    such divisor, multiplication is within one unit in the last place.
    """

    def __init__(self, *, factor: float | None, offset: float, device: torch.device) -> None:
        self._offset = offset
        self._divisor: torch.Tensor | None = None
        self._factor: torch.Tensor | None = None
        if factor is None:
            return
        exact = (_BYTE_VALUES.astype(np.float64) * factor).astype(np.float32)
        divisor = np.float32(1.0 / factor)
        # As tensors: CUDA turns division by a number into multiplication by its inverse.
        if np.array_equal(_BYTE_VALUES.astype(np.float32) / divisor, exact):
            self._divisor = torch.tensor(divisor, device=device).reshape(1)
        else:
            self._factor = torch.tensor(np.float32(factor), device=device).reshape(1)

    @classmethod
    def of(cls, image_processor: Any, device: torch.device) -> "_Scale":
        offset = -1.0 if getattr(image_processor, "rescale_offset", None) else 0.0
        if not image_processor.do_rescale:
            return cls(factor=None, offset=0.0, device=device)
        return cls(factor=float(image_processor.rescale_factor), offset=offset, device=device)

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        if self._divisor is not None:
            values = values.div_(self._divisor)
        elif self._factor is not None:
            values = values.mul_(self._factor)
        return values.add_(self._offset) if self._offset else values


def _normalisations(image_processor: Any) -> list[tuple[Any, Any]]:
    """List the means and standard deviations to apply, in order."""
    steps = []
    if image_processor.do_normalize:
        steps.append((image_processor.image_mean, image_processor.image_std))
    if getattr(image_processor, "include_top", None):
        steps.append((0.0, image_processor.image_std))
    return steps


def _per_channel(value: Any, repeats: int, device: torch.device) -> torch.Tensor:
    """Lay a number, or one per channel, out along the last dimension."""
    numbers = np.array([value] * 3 if np.isscalar(value) else value, dtype=np.float32)
    return torch.from_numpy(np.tile(numbers, repeats)).to(device)
