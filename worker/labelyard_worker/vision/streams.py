"""CUDA streams, lent to one forward pass at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue

import torch


class StreamPool:
    """Lend *count* CUDA streams in turn; lend nothing on a CPU.

    torch's allocator keeps freed memory for the stream that used it. A stream for each
    thread that ever ran a pass would keep activations up to 32 times, once for every job
    thread that met new labels and once for the thread of the warm-up. So the number of
    streams is that of the passes that run at once.
    """

    def __init__(self, device: torch.device, *, count: int) -> None:
        self._is_cuda = device.type == "cuda"
        self._free: SimpleQueue[torch.cuda.Stream] = SimpleQueue()
        if self._is_cuda:
            for _ in range(count):
                self._free.put(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Queue the block's work on a stream of its own, waiting for a free one.

        The streams take turns, so that as many passes as there are streams, one after the
        other, have used every one of them.
        """
        if not self._is_cuda:
            yield
            return
        stream = self._free.get()
        try:
            with torch.cuda.stream(stream):
                yield
        finally:
            self._free.put(stream)
