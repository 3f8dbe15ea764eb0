"""Evaluate the lite checkpoint without examples on sets of labelled photographs.

    python -m benchmarks.labels.zero_shot --photos PHOTOS [--out FOLDER] [SET ...]

PHOTOS is a folder with a folder for each set, each with a ``manifest.jsonl``; names of sets choose
some. Servers of its own on 127.0.0.1 and a real worker; every picture goes the way of any job.
Prints a table, and with ``--out`` writes each set's report.
"""

import argparse
import faulthandler
import json
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from unittest import mock

from labelyard import Client, ClientSettings
from labelyard.evaluation.evaluation import Evaluation
from labelyard_worker.local.stack import Stack

#: Pictures with this label of the manifest show none of the others.
OTHER: Final = "something else"
HEADS: Final = ("set", "labels", "n", "accuracy", "interval", "ECE", "NLL", "images/s")


@contextmanager
def service(folder: Path) -> Iterator[Client]:
    """Run the servers and a worker while the block runs, and connect a producer."""
    stack = Stack(folder)
    try:
        stack.start()
        with mock.patch.dict("os.environ", stack.variables):
            settings = ClientSettings(
                broker_url=stack.variables["LABELYARD_BROKER_URL"],
                ledger_url=stack.variables["LABELYARD_LEDGER_URL"],
            )
            with Client(settings) as client:
                yield client
    finally:
        stack.stop()


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


def labels_of(lines: Sequence[dict[str, Any]]) -> list[str]:
    """Return the labels of a set, in the order of their first line."""
    return list(dict.fromkeys(line["label"] for line in lines if line["label"] is not None))


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
    with tempfile.TemporaryDirectory() as folder, service(Path(folder)) as client:
        for one in wanted:
            lines = read_lines(one)
            evaluation = client.evaluate(labels_of(lines), lines, split="test")
            print(f"| {' | '.join(row(one.name, evaluation))} |", flush=True)
            if options.out is not None:
                evaluation.write(options.out / one.name)


if __name__ == "__main__":
    main()
