"""Draw the maps of explained labels for one photograph of the demo, as docs/explain.md shows them.

python -m benchmarks.labels.explain_picture FOLDER [--photograph astronaut.png] [LABEL ...]
"""

import argparse
from pathlib import Path

import numpy as np

from labelyard.label_sets import as_label_set
from labelyard_worker.intake.decode import decode
from labelyard_worker.local.photographs import EVERYDAY_LABELS, read_all
from labelyard_worker.pixels import ImageLimits
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision.checkpoint import load_checkpoint
from labelyard_worker.vision.explanation import explain_label, is_low_score
from labelyard_worker.vision.label_index import LabelIndex
from labelyard_worker.vision.map_picture import draw_map
from labelyard_worker.vision.occlusion import Occlusion
from labelyard_worker.vision.scorer import Scorer


def main() -> None:
    """Explain the labels that the command line names, and write a map of each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("labels", nargs="*", default=["an astronaut", "a rocket", "a pizza"])
    parser.add_argument("--photograph", default="astronaut.png")
    options = parser.parse_args()
    checkpoint = load_checkpoint(WorkerSettings(device="cpu"))
    index = LabelIndex(checkpoint, capacity_bytes=1 << 26)
    try:
        labels = index.matrix(as_label_set(EVERYDAY_LABELS))
    finally:
        index.close()
    pixels = decode(
        read_all()[options.photograph],
        uri=options.photograph,
        spec=checkpoint.pixel_spec,
        limits=ImageLimits(decode=checkpoint.decode),
    )
    occlusion = Occlusion(pixels, grid=4)
    vectors = np.concatenate(
        [checkpoint.image_vectors([one]) for one in (pixels, *occlusion.variants)]
    )
    scorer = Scorer.of(checkpoint, capacity_bytes=1 << 20)
    logits, scores = scorer.logits_and_scores(vectors, labels)
    for name in options.labels:
        label = labels.names.index(name)
        is_low = is_low_score(labels, scores[0], label)
        found = explain_label(logits, label, grid=4, is_low=is_low)
        png = draw_map(occlusion, found)
        file = options.folder / f"{Path(options.photograph).stem}-{name.split()[-1]}.png"
        file.write_bytes(png)
        rival = "" if found.competitor is None else labels.names[found.competitor]
        print(
            f"{name} {scores[0, label]:.3f}, competitor {rival}, {found.warning}: {len(png)} bytes"
        )
        print(found.drops)


if __name__ == "__main__":
    main()
