"""Stand-in for torch in a worker whose model has no weights: importing torch takes seconds of CPU.

It knows a device, the number of threads and the classes of errors; anything else that a worker
asks of it is an AttributeError.
"""

import types
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Device:
    """A device by its name."""

    type: str
    index: int | None = None


class OutOfMemoryError(RuntimeError):
    """As torch.OutOfMemoryError."""


class AcceleratorError(RuntimeError):
    """As torch.AcceleratorError."""


def make() -> types.ModuleType:
    """Make the module; annotations may name any class of torch."""
    torch: Any = types.ModuleType("torch", __doc__)
    cuda: Any = types.ModuleType("torch.cuda")
    cuda.is_available = lambda: False
    torch.cuda = cuda
    torch.device = Device
    torch.Tensor = type("Tensor", (), {})
    torch.OutOfMemoryError = OutOfMemoryError
    torch.AcceleratorError = AcceleratorError
    torch.get_num_threads = lambda: 1
    torch.set_num_threads = lambda _: None
    module: types.ModuleType = torch
    return module
