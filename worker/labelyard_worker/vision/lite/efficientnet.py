"""EfficientNet-Lite0 without torchvision or timm, with its batch norms folded into the convolutions."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights

# Each row: blocks, kernel, stride of the first block, expansion, channels in, channels out.
# Source: Tan and Le 2019, arXiv:1905.11946, table 1; "Lite" leaves out squeeze-and-excitation and
# uses ReLU6 (tensorflow/tpu, efficientnet/lite).
STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)
STEM_CHANNELS = 32
BATCH_NORM_EPS = 1e-3  # of the TensorFlow original; PyTorch's default is 1e-5

# Where the published weights keep each convolution, and the batch norm that follows it.
STEM_SOURCE = ("_conv_stem", "_bn0")
HEAD_SOURCE = ("_conv_head", "_bn1")
BLOCK_SOURCES = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME: an odd pixel goes to the right and to the bottom."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
        height, width = input.shape[-2:]
        top, bottom = self._padding_for(height, axis=0)
        left, right = self._padding_for(width, axis=1)
        if (top, left) == (bottom, right):
            return functional.conv2d(
                input, self.weight, self.bias, self.stride, (top, left), 1, self.groups
            )
        padded = functional.pad(input, (left, right, top, bottom))
        return functional.conv2d(padded, self.weight, self.bias, self.stride, 0, 1, self.groups)

    def _padding_for(self, size_px: int, *, axis: int) -> tuple[int, int]:
        kernel, stride = self.kernel_size[axis], self.stride[axis]
        steps = -(-size_px // stride)
        total = max((steps - 1) * stride + kernel - size_px, 0)
        return total // 2, total - total // 2


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow; and add the input when the shape allows it."""

    def __init__(
        self, channels_in: int, channels_out: int, *, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        wide = channels_in * expansion
        self.has_residual = stride == 1 and channels_in == channels_out
        self.expand = nn.Conv2d(channels_in, wide, 1) if expansion != 1 else None
        self.depthwise = SameConv2d(wide, wide, kernel, stride, groups=wide)
        self.project = nn.Conv2d(wide, channels_out, 1)

    def forward(self, features: Tensor) -> Tensor:
        # In place: what a block writes once less stays in the cache for what reads it next.
        wide = features if self.expand is None else _relu6(self.expand(features))
        narrow: Tensor = self.project(_relu6(self.depthwise(wide)))
        return narrow.add_(features) if self.has_residual else narrow


class EfficientNetLite0(nn.Module):
    """Score an image against ImageNet's classes.

    Args:
        num_channels: Colours of the input.
        hidden_size: Channels before the classifier.
        num_concepts: Classes to score.
    """

    def __init__(
        self, *, num_channels: int = 3, hidden_size: int = 1280, num_concepts: int = 1000
    ) -> None:
        super().__init__()
        self.stem = SameConv2d(num_channels, STEM_CHANNELS, 3, 2)
        self.blocks = nn.ModuleList(
            InvertedResidual(
                channels_in if is_first else channels_out,
                channels_out,
                kernel=kernel,
                stride=stride if is_first else 1,
                expansion=expansion,
            )
            for blocks, kernel, stride, expansion, channels_in, channels_out in STAGES
            for is_first in [True] + [False] * (blocks - 1)
        )
        self.head = nn.Conv2d(STAGES[-1][-1], hidden_size, 1)
        self.classifier = nn.Linear(hidden_size, num_concepts)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features, (batch, hidden), and the classes' logits, (batch, concepts)."""
        # Channels last halves the time of depthwise convolutions on a CPU.
        pixel_values = pixel_values.contiguous(memory_format=torch.channels_last)
        features = _relu6(self.stem(pixel_values))
        for block in self.blocks:
            features = block(features)
        features = _relu6(self.head(features)).mean((2, 3))  # (batch, hidden)
        return features, self.classifier(features)


def _relu6(features: Tensor) -> Tensor:
    """Clip a convolution's output in place to between 0 and 6."""
    return functional.relu6(features, inplace=True)


def load_published_weights(model: EfficientNetLite0, published: Mapping[str, Tensor]) -> None:
    """Copy the published weights into *model*, and fold each batch norm into its convolution.

    Args:
        model: Model to fill.
        published: Tensors by the names of the EfficientNet-PyTorch checkpoint.

    Raises:
        KeyError: *published* lacks a tensor of the architecture.
    """
    published = {name.removeprefix("module."): tensor for name, tensor in published.items()}
    fold(model.stem, published, *STEM_SOURCE)
    fold(model.head, published, *HEAD_SOURCE)
    for index, block in enumerate(model.blocks):
        for attribute, (convolution, batch_norm) in BLOCK_SOURCES.items():
            if (target := getattr(block, attribute)) is not None:
                prefix = f"_blocks.{index}."
                fold(target, published, prefix + convolution, prefix + batch_norm)
    with torch.no_grad():
        model.classifier.weight.copy_(published["_fc.weight"])
        model.classifier.bias.copy_(published["_fc.bias"])


def fold(
    target: nn.Conv2d, published: Mapping[str, Tensor], convolution: str, batch_norm: str
) -> None:
    """Fill *target* with a convolution into which the batch norm after it is folded."""
    weight, bias = fuse_conv_bn_weights(
        published[f"{convolution}.weight"],
        None,
        published[f"{batch_norm}.running_mean"],
        published[f"{batch_norm}.running_var"],
        BATCH_NORM_EPS,
        published[f"{batch_norm}.weight"],
        published[f"{batch_norm}.bias"],
    )
    if target.bias is None:
        raise TypeError("a folded batch norm needs a convolution with a bias")
    with torch.no_grad():
        target.weight.copy_(weight)
        target.bias.copy_(bias)
