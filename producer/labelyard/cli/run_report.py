"""The command ``labelyard run report``."""

from pathlib import Path
from typing import Annotated

import typer

from labelyard.cli.inputs import AsJson
from labelyard.cli.output import print_json

Source = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="Id of the run, or its output: s3://bucket/prefix/ or a folder"
    ),
]
Output = Annotated[Path, typer.Option("-o", "--output", help="File to write")]
Sample = Annotated[
    int, typer.Option("--sample", min=0, max=600, help="Most pictures to choose as examples")
]
Pictures = Annotated[
    Path | None,
    typer.Option("--pictures", metavar="FOLDER", help="Copies of the pictures, tried before S3"),
]
NoPictures = Annotated[
    bool, typer.Option("--no-pictures", help="Read no pictures; show their names alone")
]
Seed = Annotated[int, typer.Option("--seed", help="Choose other pictures with another number")]


def report(
    source: Source,
    output: Output = Path("report.html"),
    sample: Sample = 360,
    pictures: Pictures = None,
    no_pictures: NoPictures = False,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Write one page that shows whether a run's labels work: counts, scores, pictures, errors."""
    from labelyard.runs.report import write_report  # which the other commands need not load

    written = write_report(
        source,
        output,
        sample=sample,
        pictures=pictures,
        has_thumbnails=not no_pictures,
        seed=seed,
    )
    if as_json:
        print_json(
            {
                "path": str(written.path),
                "size_bytes": written.size_bytes,
                "lines": written.lines,
                "pictures": written.pictures,
                "pictures_missing": written.missing,
            }
        )
        return
    missing = f", {written.missing:,} not readable" if written.missing else ""
    typer.echo(
        f"{written.path}: {written.lines:,} lines, {written.pictures:,} pictures{missing}, "
        f"{written.size_bytes / 1e6:.1f} MB"
    )
