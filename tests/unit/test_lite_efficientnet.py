"""The image tower of the lite checkpoint: folded and padded as its weights were trained."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from labelyard_worker.vision.lite.efficientnet import BATCH_NORM_EPS, SameConv2d, fold


def published_pair(channels: int) -> dict[str, Tensor]:
    """Make a convolution and its batch norm, named as in the published weights."""
    return {
        "conv.weight": torch.randn(channels, 3, 3, 3),
        "norm.weight": torch.rand(channels) + 0.5,
        "norm.bias": torch.randn(channels),
        "norm.running_mean": torch.randn(channels),
        "norm.running_var": torch.rand(channels) + 0.1,
    }


def test_a_folded_batch_norm_changes_no_output() -> None:
    torch.manual_seed(0)
    published = published_pair(channels=8)
    images = torch.randn(2, 3, 9, 9)
    folded = nn.Conv2d(3, 8, 3)

    fold(folded, published, "conv", "norm")

    normed = functional.batch_norm(
        functional.conv2d(images, published["conv.weight"]),
        published["norm.running_mean"],
        published["norm.running_var"],
        published["norm.weight"],
        published["norm.bias"],
        eps=BATCH_NORM_EPS,
    )
    torch.testing.assert_close(folded(images), normed, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("size_px", "kernel", "stride", "before", "after"),
    [(224, 3, 2, 0, 1), (224, 5, 2, 1, 2), (225, 3, 2, 1, 1), (14, 5, 1, 2, 2), (7, 3, 1, 1, 1)],
)
def test_the_odd_pixel_of_padding_goes_right_and_down(
    size_px: int, kernel: int, stride: int, before: int, after: int
) -> None:
    """TensorFlow's SAME: as many outputs as strides fit, and the larger half of padding last."""
    torch.manual_seed(0)
    convolution = SameConv2d(2, 2, kernel, stride)
    images = torch.randn(1, 2, size_px, size_px)

    output = convolution(images)

    padded = functional.pad(images, (before, after, before, after))
    expected = functional.conv2d(padded, convolution.weight, convolution.bias, stride)
    assert output.shape[-1] == -(-size_px // stride)
    torch.testing.assert_close(output, expected)
