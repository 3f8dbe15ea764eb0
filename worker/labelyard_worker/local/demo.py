"""The demo: six photographs from a bucket to stored results, with a report to look at."""

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from labelyard.client import Client
from labelyard.errors import LabelyardError
from labelyard.messages import Deliver, ImageRef, Result
from labelyard.settings import ClientSettings
from labelyard_worker.local.photographs import EVERYDAY_LABELS, credits_line, read_all
from labelyard_worker.local.report import write_report
from labelyard_worker.local.servers import ServerStartError
from labelyard_worker.local.stack import Stack, running_stack

REPORT = Path("demo-report")
BUCKET = "labelyard-uploads"
RESULTS_BUCKET = "labelyard-results"
TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class ClassifiedPhotograph:
    """A photograph, its stored result, and the seconds that the job took.

    Attributes:
        seconds: From submit until the producer has the result.
    """

    name: str
    picture: bytes
    result: Result
    seconds: float


@contextmanager
def client_of(stack: Stack) -> Iterator[Client]:
    """Connect a producer to the stack."""
    settings = ClientSettings(
        broker_url=stack.variables["LABELYARD_BROKER_URL"],
        ledger_url=stack.variables["LABELYARD_LEDGER_URL"],
        tenant="demo",
    )
    with Client(settings) as client:
        yield client


def upload(stack: Stack, pictures: Mapping[str, bytes]) -> None:
    """Put the photographs where a producer's pictures would be."""
    with closing(stack.seaweed.s3_client()) as s3:
        for name, picture in pictures.items():
            s3.put_object(Bucket=BUCKET, Key=f"demo/{name}", Body=picture)


def classify_each(client: Client, pictures: Mapping[str, bytes]) -> list[ClassifiedPhotograph]:
    """Submit a job for each photograph, one after the other, and wait for its result."""
    classified = []
    for name, picture in pictures.items():
        started_at = time.perf_counter()
        result = client.classify(
            [ImageRef(id=name, uri=f"s3://{BUCKET}/demo/{name}")],
            labels=list(EVERYDAY_LABELS),
            timeout_s=TIMEOUT_S,
            deliver=Deliver(object_uri=f"s3://{RESULTS_BUCKET}/demo/{name}.json"),
        )
        classified.append(
            ClassifiedPhotograph(name, picture, result, time.perf_counter() - started_at)
        )
    return classified


def print_table(console: Console, classified: list[ClassifiedPhotograph]) -> None:
    """Print the two best labels of each photograph."""
    table = Table(title="What is on the pictures", title_justify="left")
    for heading, justify in (("picture", "left"), ("label", "left"), ("score", "right")):
        table.add_column(heading, justify="right" if justify == "right" else "left")
    table.add_column("then", justify="left", style="dim")
    table.add_column("ms", justify="right")
    for entry in classified:
        best, second, *_ = entry.result.images[0].labels
        table.add_row(
            entry.name,
            f"[bold]{best.name}[/bold]",
            f"{best.score:.2f}",
            f"{second.name} {second.score:.2f}",
            f"{entry.seconds * 1000:.0f}",
        )
    console.print(table)


def print_next_steps(console: Console) -> None:
    """Print the commands for the next steps."""
    console.print(
        f"\nLook at [bold]{REPORT}/index.html[/bold]; the results as stored are beside it."
    )
    console.print("Go on:")
    for line in (
        "keep a stack up       .venv/bin/labelyard-worker up --detach",
        (
            "classify your own     "
            '.venv/bin/labelyard classify PHOTO.jpg --labels "cat,dog,a bowl of soup"'
        ),
        "read on               README.md, docs/architecture.md",
    ):
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


def run(console: Console) -> None:
    """Run the whole demo in a temporary folder."""
    pictures = read_all()
    with tempfile.TemporaryDirectory(prefix="labelyard-demo-") as folder:
        console.print("Starting Valkey, SeaweedFS and a worker …")
        with running_stack(Path(folder)) as stack, client_of(stack) as client:
            upload(stack, pictures)
            classified = classify_each(client, pictures)
    write_report(REPORT, classified, credits_line=credits_line())
    print_table(console, classified)
    print_next_steps(console)


def main() -> int:
    """Run the demo; return 1, after one clear line, if it fails."""
    console = Console()
    try:
        run(console)
    except (LabelyardError, ServerStartError) as error:
        Console(stderr=True).print(f"The demo failed: {error}", style="red", markup=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
