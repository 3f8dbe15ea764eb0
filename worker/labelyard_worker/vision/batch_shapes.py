"""The batch sizes that a model meets: smaller batches are padded to the next of them."""

from typing import Final

import torch

# torch.compile falls back to eager execution, in silence, at the ninth shape of one function:
# torch._dynamo.config.recompile_limit.
MOST_COMPILED_SHAPES: Final = 8
# Between 8 and 16 images, 16 and 32, and so on.
SHAPES_IN_AN_OCTAVE: Final = 4
FEWEST_PADDED: Final = 8


def batch_shapes(most: int, *, device: torch.device, is_compiled: bool) -> list[int]:
    """List the batch sizes to pad to, ascending; none when batches stay as they are.

    Kernels are chosen, memory is cached and graphs are compiled for each shape, so shapes are
    kept few. A padded row costs as much as an image: to powers of two alone, batches of 1 to
    64 are padded by 34 % on average, with four shapes in an octave by 8 %. A compiled shape
    takes up to a minute to warm up, so there powers of two must do.

    Args:
        most: Largest batch.
    """
    if is_compiled:
        return powers_of_two(most)[-MOST_COMPILED_SHAPES:]
    if device.type != "cuda":
        return []
    shapes = set(powers_of_two(most))
    for power in powers_of_two(most):
        if power >= FEWEST_PADDED:
            steps = range(power, 2 * power, power // SHAPES_IN_AN_OCTAVE)
            shapes |= {shape for shape in steps if shape < most}
    return sorted(shapes)


def powers_of_two(most: int) -> list[int]:
    """List the powers of two below *most*, and *most* itself."""
    powers = [2**power for power in range(most.bit_length())]
    return sorted({*powers, most})
