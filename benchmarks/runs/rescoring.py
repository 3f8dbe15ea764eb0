"""Scoring of old embeddings against new labels, on one core: images a second.

``python -m benchmarks.runs.rescoring --images 2e5 --labels 20``
"""

import argparse
import io
import json
import time
from typing import Any, Final, get_args

import numpy as np
from threadpoolctl import threadpool_limits

from labelyard.messages import Label, LabelSet
from labelyard.runs.lines import ResultLine
from labelyard_worker.runs.files.parquet_tables import ParquetWriter, to_embeddings
from labelyard_worker.runs.files.shard_files import FileForm
from labelyard_worker.runs.files.shard_output import ShardOutput
from labelyard_worker.runs.rescoring import Rescorer
from labelyard_worker.vision.scorer import Scorer
from labelyard_worker.vision.scoring import Floats, LabelMatrix, Scaling

FILE_IMAGES: Final = 8_192
BILLION: Final = 1e9


def unit(shape: tuple[int, int], seed: int) -> Floats:
    """Return unit-length vectors, of the given shape."""
    vectors = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    found: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found


def write_embeddings(dim: int) -> bytes:
    """Write one file of embeddings, as a run does."""
    results = [
        ResultLine(
            line=number + 1,
            custom_id=f"product-{number:09d}",
            uri=f"s3://catalogue/images/{number:09d}/front.jpg",
            status="succeeded",
            sha256=f"{number:064x}",
            width=1_600,
            height=1_200,
            size_bytes=200_000 + number,
        )
        for number in range(FILE_IMAGES)
    ]
    batch = to_embeddings(results, unit((FILE_IMAGES, dim), 1).astype(np.float16))
    writer = ParquetWriter(batch.schema)
    writer.add(batch)
    body = writer.finish().read()
    writer.close()
    return body


def labels_of(count: int, dim: int) -> LabelMatrix:
    """Return a label set of *count* labels, whose vectors are alike as those of texts are."""
    label_set = LabelSet(labels=tuple(Label(name=f"a photo of thing {n}") for n in range(count)))
    embeds = 0.5 * unit((count, dim), 7) + 0.87 * unit((1, dim), 8)
    embeds /= np.linalg.norm(embeds, axis=1, keepdims=True)
    return LabelMatrix.of(label_set, embeds, digest=f"sha256:{'0' * 64}", trained_scoring="softmax")


def measure(body: bytes, labels: LabelMatrix, form: FileForm, images: int) -> dict[str, Any]:
    """Score a file again and again on one thread, and write the results each time."""
    rescorer = Rescorer(Scorer(Scaling(100.0)), labels, top_k=5)
    done = written = 0
    started_at, cpu_at = time.perf_counter(), time.process_time()
    while done < images:
        output = ShardOutput("00000", form=form)
        done += rescorer.rescore(io.BytesIO(body), output)
        written += sum(file.size_bytes for file in output.finish())
        output.summary(seconds=1)
        output.close()
    seconds, cpu_s = time.perf_counter() - started_at, time.process_time() - cpu_at
    per_core = done / cpu_s
    return {
        "form": form,
        "labels": labels.n_labels,
        "images_per_s": round(done / seconds),
        "images_per_cpu_s": round(per_core),
        "read_mb_per_cpu_s": round(per_core * len(body) / FILE_IMAGES / 1e6),
        "written_bytes_per_image": round(written / done),
        "core_hours_for_a_billion": round(BILLION / per_core / 3600, 2),
    }


def main() -> None:
    """Measure each form of results, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=float, default=2e5)
    parser.add_argument("--labels", type=int, default=20)
    parser.add_argument("--dim", type=int, default=512)
    asked = parser.parse_args()
    body, labels = write_embeddings(asked.dim), labels_of(asked.labels, asked.dim)
    with threadpool_limits(1):
        for form in get_args(FileForm):
            measure(body, labels, form, 1)  # imports, and first pages
            print(json.dumps(measure(body, labels, form, int(asked.images))))


if __name__ == "__main__":
    main()
