"""Step: what all cores can fetch and decode while no model runs."""

import argparse
import io
import multiprocessing
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from obstore.store import S3Store
from PIL import Image

from benchmarks.gpu.form import MEGAPIXELS, Form, form_of
from benchmarks.gpu.step_result import StepResult
from benchmarks.pictures import ensure_pictures
from benchmarks.stack import isolate, running_stack
from benchmarks.systems.decoding import decode_image, open_bucket
from labelyard_worker.cpu_budget import usable_cores
from labelyard_worker.pixels import PixelSpec

SPECS = {
    224: PixelSpec(resize="shortest_edge", shortest_edge=224, crop=(224, 224)),
    384: PixelSpec(resize="exact", height=384, width=384),
}
READY_WITHIN_S = 60.0


def main() -> int:
    """Measure every size of picture for every size of pixels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True)
    form = form_of(parser.parse_args().device)
    isolate(os.environ)
    result = StepResult()
    with running_stack() as stack:
        keys = {}
        for megapixels in MEGAPIXELS:
            pictures = ensure_pictures(megapixels, shipped=True)
            stack.upload(pictures)
            keys[megapixels] = [picture.key for picture in pictures]
        limits = measure(keys, form, stack.variables)
    result.add(cores=usable_cores(), limits=limits)
    return 0


def measure(
    keys: Mapping[float, Sequence[str]], form: Form, variables: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Have a process on each core do the same work at the same time; add their rates."""
    context = multiprocessing.get_context("spawn")
    cores = usable_cores()
    barrier, answers = context.Barrier(cores + 1), context.Queue()
    os.environ.update(variables)
    processes = [
        context.Process(target=work, args=(keys, form.seconds, barrier, answers), daemon=True)
        for _ in range(cores)
    ]
    for process in processes:
        process.start()
    found = []
    for edge in SPECS:
        for megapixels in keys:
            barrier.wait(READY_WITHIN_S)
            rate = sum(answers.get(timeout=READY_WITHIN_S) for _ in processes)
            found.append(
                {"edge_px": edge, "megapixels": megapixels, "images_per_s": round(rate, 1)}
            )
            print(f"  {found[-1]}", flush=True)
    for process in processes:
        process.join(READY_WITHIN_S)
    return found


def work(keys: Mapping[float, Sequence[str]], seconds: float, barrier: Any, answers: Any) -> None:
    """Fetch and decode until the time is over, for each spec and size; send the rates."""
    store = open_bucket()
    for spec in SPECS.values():
        for names in keys.values():
            fetch_and_decode(store, names[0], spec)
            barrier.wait(READY_WITHIN_S)
            started_at, images = time.monotonic(), 0
            while time.monotonic() - started_at < seconds:
                fetch_and_decode(store, names[images % len(names)], spec)
                images += 1
            answers.put(images / (time.monotonic() - started_at))


def fetch_and_decode(store: S3Store, key: str, spec: PixelSpec) -> bytes:
    """Fetch and decode one picture: the least work of an intake child."""
    body = bytes(store.get(key).bytes())
    with Image.open(io.BytesIO(body)) as image:
        return decode_image(image, spec)


if __name__ == "__main__":
    sys.exit(main())
