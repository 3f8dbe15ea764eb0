"""Two ways to keep all cores busy with decoding and computing, without any server."""

import multiprocessing
import os
import select
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks.systems.bare_model import BareModel, read_spec
from benchmarks.systems.decoding import decode_file
from benchmarks.systems.limit_candidates import Candidate
from labelyard_worker.pixels import PixelSpec
from labelyard_worker.vision.devices import run_in_temporary_thread

FILES_IN_A_CALL = 4
BATCHES_AHEAD = 2
# Its children inherit what it has imported, and none of our threads.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["benchmarks.systems.limit_shapes"])


class Shape(ABC):
    """A way to classify files; its processes live until ``close``."""

    def __init__(
        self, candidate: Candidate, folder: Path, labels: Sequence[str], device: str
    ) -> None:
        self._candidate = candidate
        self._folder = folder
        self._labels = labels
        self._device = device

    @abstractmethod
    def run(self, paths: Sequence[Path]) -> list[int]:
        """Return the index of the best label of each file, in order."""

    @abstractmethod
    def close(self) -> None:
        """End all processes."""

    def _model(self) -> BareModel:
        candidate = self._candidate
        return BareModel(
            self._folder,
            self._labels,
            dtype=candidate.dtype,
            device=self._device,
            is_compiled=candidate.is_compiled,
        )


class Solo(Shape):
    """Independent processes: each decodes a batch, computes it, and takes the next."""

    def __init__(
        self, candidate: Candidate, folder: Path, labels: Sequence[str], device: str
    ) -> None:
        super().__init__(candidate, folder, labels, device)
        self._next = SERVER.Value("q", 0)
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(candidate.streams):
            ours, theirs = SERVER.Pipe()
            process = SERVER.Process(target=self._serve, args=(theirs,), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)
            theirs.close()
        for pipe in self._pipes:
            received(pipe)  # it has loaded its model

    def run(self, paths: Sequence[Path]) -> list[int]:
        self._next.value = 0
        for pipe in self._pipes:
            pipe.send(list(paths))
        best = [-1] * len(paths)
        for pipe in self._pipes:
            for start, part in received(pipe):
                best[start : start + len(part)] = part
        return best

    def close(self) -> None:
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.close()
            process.join()

    def __getstate__(self) -> dict[str, object]:
        """Leave out the pipes and processes, which belong to the parent alone."""
        return {**self.__dict__, "_pipes": [], "_processes": []}

    def _serve(self, pipe: Connection) -> None:
        torch.set_num_threads(self._candidate.threads)
        try:
            model = self._model()
            pipe.send("loaded")
            while True:
                paths = pipe.recv()
                pipe.send(list(self._parts(model, paths)))
        except EOFError:
            return
        except Exception as error:  # noqa: BLE001 - the parent raises it
            pipe.send(error)

    def _parts(self, model: BareModel, paths: Sequence[Path]) -> Iterator[tuple[int, list[int]]]:
        size, is_exact = self._candidate.batch_size, self._candidate.decode == "exact"
        while True:
            with self._next.get_lock():
                start = self._next.value
                self._next.value += size
            part = paths[start : start + size]
            if not part:
                return
            pixels = [decode_file(path, model.spec, is_exact=is_exact) for path in part]
            yield start, model.best(pixels)


class Overlapped(Shape):
    """Decoding processes, and model threads that always have batches ahead."""

    def __init__(
        self, candidate: Candidate, folder: Path, labels: Sequence[str], device: str
    ) -> None:
        super().__init__(candidate, folder, labels, device)
        self._decoders = ProcessPoolExecutor(
            candidate.decoders, mp_context=SERVER, initializer=end_with, initargs=(os.getpid(),)
        )
        self._spec = read_spec(folder)
        self._one_model = run_in_temporary_thread(self._model)

    def run(self, paths: Sequence[Path]) -> list[int]:
        best = [-1] * len(paths)
        starts = iter(range(0, len(paths), self._candidate.batch_size))
        lock = threading.Lock()

        def serve() -> None:
            torch.set_num_threads(self._candidate.threads)
            ahead: deque[tuple[int, list[Future[list[bytes]]]]] = deque()
            while True:
                while len(ahead) < BATCHES_AHEAD:
                    with lock:
                        start = next(starts, None)
                    if start is None:
                        break
                    ahead.append((start, self._decode(paths, start)))
                if not ahead:
                    return
                start, calls = ahead.popleft()
                part = self._one_model.best([one for call in calls for one in call.result()])
                best[start : start + len(part)] = part

        with ThreadPoolExecutor(self._candidate.streams) as pool:
            for served in [pool.submit(serve) for _ in range(self._candidate.streams)]:
                served.result()
        return best

    def close(self) -> None:
        self._decoders.shutdown(cancel_futures=True)

    def _decode(self, paths: Sequence[Path], start: int) -> "list[Future[list[bytes]]]":
        end = min(start + self._candidate.batch_size, len(paths))
        return [
            self._decoders.submit(
                decode_files,
                paths[first : min(first + FILES_IN_A_CALL, end)],
                self._spec,
                self._candidate.decode,
            )
            for first in range(start, end, FILES_IN_A_CALL)
        ]


def end_with(pid: int) -> None:
    """End this process when process *pid* ends, however that happens."""
    ended = os.pidfd_open(pid)

    def watch() -> None:
        select.select([ended], [], [])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def decode_files(paths: Sequence[Path], spec: PixelSpec, decode: str) -> list[bytes]:
    """Decode several files in one call."""
    return [decode_file(path, spec, is_exact=decode == "exact") for path in paths]


def received(pipe: Connection) -> Any:
    """Receive the answer of a process, and raise it if it is an error."""
    answer = pipe.recv()
    if isinstance(answer, Exception):
        raise answer
    return answer
