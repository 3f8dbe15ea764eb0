"""Evaluate the lite checkpoint without examples on sets of labelled photographs.

    python -m benchmarks.labels.zero_shot --photos PHOTOS [--out FOLDER] [SET ...]

PHOTOS is a folder with a folder for each set, each with a ``manifest.jsonl``; names of sets choose
some. Servers of its own on 127.0.0.1 and a real worker; every picture goes the way of any job.
Prints a table, and with ``--out`` writes each set's report.
"""

import argparse
import faulthandler
import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.stack import isolate, running_stack
from labelyard import Client, LabelSet
from labelyard.evaluation.evaluation import Evaluation
from labelyard.label_sets import as_label_set
from labelyard_worker.local.worker_process import WorkerProcess

#: Pictures with this label of the manifest show none of the others.
OTHER: Final = "something else"
READY_WITHIN_S: Final = 900.0
HEADS: Final = ("set", "labels", "n", "accuracy", "interval", "ECE", "NLL", "images/s")


@contextmanager
def service() -> Iterator[Client]:
    """Run the servers and a worker while the block runs, and connect a producer."""
    isolate(os.environ)
    with running_stack() as stack:
        os.environ.update(stack.variables)
        worker = WorkerProcess(stack.folder / "worker", variables=stack.variables)
        with worker.start(within_s=READY_WITHIN_S), Client() as client:
            yield client


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """Read the manifest of a set; its pictures get paths that hold from here."""
    lines = map(json.loads, (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines())
    return [
        {
            "image": str(folder / line["file"]),
            "label": None if line["label"] == OTHER else line["label"],
            "split": line["split"],
        }
        for line in lines
    ]


def labels_of(lines: Sequence[dict[str, Any]]) -> LabelSet:
    """Return the labels of a set, in the order of their first line.

    If pictures show none of them, a sentence stands for those.
    """
    labels = dict.fromkeys(line["label"] for line in lines)
    abstain = [f"This is a photo of {OTHER}."] if None in labels else []
    return as_label_set([name for name in labels if name is not None], abstain=abstain)


def row(name: str, evaluation: Evaluation) -> tuple[str, ...]:
    """Write the figures of a set."""
    report = evaluation.report()
    low, high = report["accuracy_interval"]
    return (
        name,
        str(len(report["per_label"])),
        str(report["n"]),
        f"{100 * report['accuracy']:.1f} %",
        f"{100 * low:.1f} to {100 * high:.1f}",
        f"{100 * report['ece']:.1f} %",
        f"{report['nll']:.3f}",
        f"{report['cost']['images_per_s']:.1f}",
    )


def main() -> None:
    """Evaluate each set, and print the table."""
    faulthandler.register(signal.SIGUSR1)
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="folder for the reports")
    parser.add_argument("sets", nargs="*", help="names of sets; all without one")
    options = parser.parse_args()
    folders = sorted(path.parent for path in options.photos.glob("*/manifest.jsonl"))
    wanted = [one for one in folders if not options.sets or one.name in options.sets]
    print(f"| {' | '.join(HEADS)} |\n|{'---|' * len(HEADS)}")
    with service() as client:
        for one in wanted:
            lines = read_lines(one)
            evaluation = client.evaluate(labels_of(lines), lines, split="test")
            print(f"| {' | '.join(row(one.name, evaluation))} |", flush=True)
            if options.out is not None:
                evaluation.write(options.out / one.name)


if __name__ == "__main__":
    main()
