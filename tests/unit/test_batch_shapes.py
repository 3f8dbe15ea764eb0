"""Batch sizes that a GPU or a compiled model meets: few, and none much larger than the batch."""

import pytest
import torch

from labelyard_worker.vision.batch_shapes import MOST_COMPILED_SHAPES, batch_shapes

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
LARGEST = [1, 2, 7, 8, 33, 64, 100, 512]


def test_batches_stay_as_they_are_on_a_cpu() -> None:
    assert batch_shapes(64, device=CPU, is_compiled=False) == []


@pytest.mark.parametrize("is_compiled", [False, True])
@pytest.mark.parametrize("most", LARGEST)
def test_every_batch_has_a_shape_and_the_largest_is_not_exceeded(
    most: int, is_compiled: bool
) -> None:
    shapes = batch_shapes(most, device=CUDA, is_compiled=is_compiled)

    assert shapes == sorted(set(shapes))
    assert shapes[-1] == most


@pytest.mark.parametrize("most", LARGEST)
def test_a_gpu_computes_at_most_a_quarter_more_rows_than_there_are_images(most: int) -> None:
    shapes = batch_shapes(most, device=CUDA, is_compiled=False)

    for count in range(8, most + 1):
        assert min(shape for shape in shapes if shape >= count) <= 1.25 * count


@pytest.mark.parametrize("device", [CPU, CUDA])
@pytest.mark.parametrize("most", LARGEST)
def test_no_more_shapes_are_compiled_than_torch_compiles(most: int, device: torch.device) -> None:
    shapes = batch_shapes(most, device=device, is_compiled=True)

    assert len(shapes) <= MOST_COMPILED_SHAPES <= torch._dynamo.config.recompile_limit
