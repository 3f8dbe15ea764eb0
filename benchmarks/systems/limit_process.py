"""The limit's own process: takes commands from Valkey, classifies local files as fast as it can."""

import io
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import redis
import torch
from PIL import Image

from benchmarks.machine import usable_cores
from benchmarks.systems.bare_model import BareModel
from benchmarks.systems.decoding import decode_file, decode_image, open_bucket
from benchmarks.systems.limit_candidates import Candidate
from benchmarks.systems.limit_shapes import Overlapped, Shape, Solo


class Commands:
    """Commands that the driver can send."""

    def __init__(self, folder: Path, device: str) -> None:
        self._folder = folder
        self._device = device
        self._shape: Shape | None = None
        self._made_for: object = None

    def run(
        self,
        *,
        paths: Sequence[str],
        labels: Sequence[str],
        candidate: dict[str, Any],
    ) -> Any:
        """Classify the files in the way of *candidate*; models are loaded before the clock runs."""
        shape = self._shape_for(Candidate(**candidate), labels)
        started_at = time.monotonic()
        best = shape.run([Path(path) for path in paths])
        return {"seconds": time.monotonic() - started_at, "best": best}

    def run_exact(self, *, paths: Sequence[str], labels: Sequence[str]) -> list[int]:
        """Classify the files in float32 with full decoding."""
        torch.set_num_threads(usable_cores())
        model = BareModel(self._folder, labels, dtype="float32", device=self._device)
        return [
            best
            for path in paths
            for best in model.best([decode_file(Path(path), model.spec, is_exact=True)])
        ]

    def lone(
        self, *, keys: Sequence[str], labels: Sequence[str], dtype: str, decode: str
    ) -> list[float]:
        """Fetch, decode and compute pictures one by one; the seconds of each."""
        torch.set_num_threads(usable_cores())
        model = BareModel(self._folder, labels, dtype=dtype, device=self._device)
        store = open_bucket()
        seconds = []
        for key in keys:
            started_at = time.monotonic()
            with Image.open(io.BytesIO(bytes(store.get(key).bytes()))) as image:
                model.best([decode_image(image, model.spec, is_exact=decode == "exact")])
            seconds.append(time.monotonic() - started_at)
        return seconds

    def _shape_for(self, candidate: Candidate, labels: Sequence[str]) -> Shape:
        wanted = (candidate, tuple(labels))
        if self._shape is None or wanted != self._made_for:
            self._close()
            kind = Solo if candidate.shape == "solo" else Overlapped
            self._shape = kind(candidate, self._folder, labels, self._device)
            self._made_for = wanted
        return self._shape

    def _close(self) -> None:
        if self._shape is not None:
            self._shape.close()
        self._shape = None


def main() -> None:
    """Answer commands for ever; the guardian ends us."""
    commands = Commands(Path(os.environ["BENCH_CHECKPOINT"]), os.environ["BENCH_DEVICE"])
    known: dict[str, Callable[..., Any]] = {
        "run": commands.run,
        "run_exact": commands.run_exact,
        "lone": commands.lone,
    }
    title = os.environ["BENCH_TITLE"]
    with redis.Redis.from_url(os.environ["BENCH_CONTROL"], socket_timeout=None) as control:
        control.set(os.environ["BENCH_READY"], "1", ex=60)
        while True:
            entry: Any = control.blpop([f"{title}:commands"])
            command = json.loads(entry[1])
            try:
                answer = {"answer": known[command["name"]](**command["arguments"])}
            except Exception as error:  # noqa: BLE001 - the driver reports it
                answer = {"error": repr(error)}
            control.rpush(f"{title}:{command['id']}", json.dumps(answer))


if __name__ == "__main__":
    main()
