"""Linear layers of both towers on a CPU, laid out once for oneDNN.

Convolutions whose windows tile the picture are such layers, too: patch embeddings, and
the pointwise ones that most of an EfficientNet consists of.

torch's own bfloat16 linear lays its weight out anew in every forward pass, and in every
format the activation behind a linear is passes of its own over memory. Here the weight is
laid out when the model is loaded, and oneDNN applies the activation while it writes the
product. The numbers are the same but for one rounding less.

Source:
    What ``torch.compile`` puts in the place of linears when it freezes a model for CPUs
    (torch/_inductor/fx_passes/mkldnn_fusion.py), without its compiler. The operators are
    private to torch: ``tests/contract/test_torch_private.py`` pins them, and where they are
    missing the tower stays as it is.
"""

import logging
import platform
from typing import Any, Final

import torch
from torch import nn
from transformers import activations

log = logging.getLogger(__name__)

OPERATORS: Final = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
PROCESSORS: Final = ("x86_64", "AMD64")
# Rows that the layout is chosen for: the tokens of a full batch. Others are only slower.
ROWS: Final = 16 * 50
# x * sigmoid(1.702 x) is swish(1.702 x) / 1.702: the linears around it take the factors.
QUICK_GELU_FACTOR: Final = 1.702

# What oneDNN calls the activation, its variant, and the factor of its argument.
FUSED: Final[dict[type, tuple[str, str, float]]] = {
    activations.QuickGELUActivation: ("swish", "", QUICK_GELU_FACTOR),
    activations.GELUActivation: ("gelu", "none", 1.0),
    activations.GELUTanh: ("gelu", "tanh", 1.0),
}


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether this torch, on this machine, can pack linear layers of *dtype* on *device*."""
    if device.type != "cpu" or platform.machine() not in PROCESSORS:
        return False
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    missing = [name for name in OPERATORS if not hasattr(torch.ops.mkldnn, name)]
    if missing:
        log.warning("linears_not_packed", extra={"fields": {"missing_operators": missing}})
        return False
    if dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 - pinned
    return dtype is torch.float32


def packed(module: nn.Module) -> nn.Module:
    """Replace the linears inside *module*, and *module* itself if it is one.

    A convolution whose windows tile the picture is a linear, too.
    """
    if type(module) is nn.Linear:  # the kinds of it are there because their weight is read
        return PackedLinear(module)
    if isinstance(module, nn.Conv2d) and _tiles_the_picture(module):
        return PackedPatches(module)
    _fuse_feed_forward(module)
    for name, child in list(module.named_children()):
        setattr(module, name, packed(child))
    return module


def _tiles_the_picture(convolution: nn.Conv2d) -> bool:
    is_pointwise = convolution.kernel_size == (1, 1)
    unpadded = ("valid", (0, 0), "same") if is_pointwise else ("valid", (0, 0))
    return (
        convolution.kernel_size == convolution.stride
        and convolution.padding in unpadded
        and convolution.dilation == (1, 1)
        and convolution.groups == 1
    )


def _fuse_feed_forward(module: nn.Module) -> None:
    """Fuse the activation of a feed-forward block into its first linear."""
    first, second = getattr(module, "fc1", None), getattr(module, "fc2", None)
    fused = FUSED.get(type(getattr(module, "activation_fn", None)))
    if type(first) is not nn.Linear or type(second) is not nn.Linear or fused is None:
        return
    activation, variant, factor = fused
    module.fc1 = PackedLinear(
        first, activation=activation, variant=variant, weight_factor=factor, bias_factor=factor
    )
    module.fc2 = PackedLinear(second, weight_factor=1 / factor)
    module.activation_fn = nn.Identity()


class PackedLinear(nn.Module):
    """A linear layer, with the activation behind it.

    Args:
        linear: What it replaces.
        activation: oneDNN's name of it; ``none`` for none.
        variant: Which form of the activation; empty where there is one alone.
        weight_factor: What the weight is multiplied by.
        bias_factor: What the bias is multiplied by.

    Attributes:
        weight: Empty; models ask its dtype for what to cast their input to.
    """

    def __init__(
        self,
        linear: nn.Linear,
        *,
        activation: str = "none",
        variant: str = "",
        weight_factor: float = 1.0,
        bias_factor: float = 1.0,
    ) -> None:
        super().__init__()
        weight = _scaled(linear.weight.data, weight_factor)
        self.weight = torch.empty(0, dtype=weight.dtype)
        lay_out = torch.ops.mkldnn._reorder_linear_weight  # noqa: SLF001 - pinned
        self._packed = lay_out(weight.contiguous(), ROWS)
        self._bias = None if linear.bias is None else _scaled(linear.bias.data, bias_factor)
        self._fusion: tuple[str, list[Any], str] = (activation, [], variant)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Map the last dimension of *values*, shape (…, in), to (…, out)."""
        multiply = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001 - pinned
        product: torch.Tensor = multiply(values, self._packed, self._bias, *self._fusion)
        return product


class PackedPatches(nn.Module):
    """A convolution whose windows tile the picture, as the linear layer that it is."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        outputs, inputs, self._height, self._width = convolution.weight.shape
        has_bias = convolution.bias is not None
        flat = nn.Linear(inputs * self._height * self._width, outputs, bias=has_bias)
        flat.weight.data = convolution.weight.data.flatten(1)
        if convolution.bias is not None:
            flat.bias.data = convolution.bias.data
        self._linear = PackedLinear(flat)
        self.weight = self._linear.weight

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed the patches of *pixels*, shape (batch, channels, height, width).

        Returns:
            Shape (batch, dim, rows, columns), as the convolution gives them.
        """
        batch, channels = pixels.shape[:2]
        rows, columns = pixels.shape[2] // self._height, pixels.shape[3] // self._width
        whole = pixels[:, :, : rows * self._height, : columns * self._width]
        tiles = whole.reshape(batch, channels, rows, self._height, columns, self._width)
        tiles = tiles.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, -1)
        embedded: torch.Tensor = self._linear(tiles)
        return embedded.transpose(1, 2).reshape(batch, -1, rows, columns)


def _scaled(values: torch.Tensor, factor: float) -> torch.Tensor:
    """Multiply in float32, so that a factor costs one rounding."""
    return values if factor == 1.0 else (values.float() * factor).to(values.dtype)
