"""Inputs of the command line, parsed: pictures, labels, files."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from labelyard.errors import InvalidMessageError
from labelyard.label_sets import as_label_set
from labelyard.messages import LabelSet
from labelyard.refusals import sentences_of
from labelyard.settings import ClientSettings
from labelyard.submission import Labels
from labelyard.uploads import upload_files

PROGRESS_FROM: Final = 10

Images = Annotated[
    list[str], typer.Argument(metavar="PATH_OR_URI...", help="Files, s3://… or https://…")
]
LabelText = Annotated[
    str, typer.Option("--labels", help="Labels parted by commas, or name@sha256:…")
]
LabelsFile = Annotated[
    Path | None,
    typer.Option("--labels-file", help="A label a line, or a label set as JSON (.json)"),
]
Templates = Annotated[
    list[str] | None,
    typer.Option("--template", help="Sentence with {} for the label; several are averaged"),
]
Uris = Annotated[
    list[str] | None, typer.Argument(metavar="URI...", help="s3://… or https://…, as classified")
]
UrisFile = Annotated[
    Path | None, typer.Option("--uris-file", help="A URI a line; as many as you like")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object a line")]
TimeoutS = Annotated[float, typer.Option("--timeout-s", min=0, help="Seconds to wait")]


def read_labels(text: str, file: Path | None, templates: Sequence[str] | None) -> Labels:
    """Read the labels from the one place that was named.

    Raises:
        InvalidMessageError: Both places, or neither, were named, or they hold no labels.
    """
    if bool(text) == bool(file):
        raise InvalidMessageError("name the labels with --labels or with --labels-file")
    options: dict[str, Any] = {"templates": tuple(templates)} if templates else {}
    if "@sha256:" in text:
        if options:
            raise InvalidMessageError("a registered label set has its own templates")
        return text
    if file is None:
        return as_label_set([part.strip() for part in text.split(",") if part.strip()], **options)
    return _label_set_in(file, **options)


def read_label_set(file: Path) -> LabelSet:
    """Read a label set from a file: one name a line, or JSON.

    Raises:
        InvalidMessageError: It cannot be read, or holds no label set.
    """
    return _label_set_in(file)


def _label_set_in(file: Path, **options: Any) -> LabelSet:
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".json":
            return as_label_set(LabelSet.model_validate_json(text), **options)
    except ValidationError as error:
        refusal = sentences_of(error, whole="the label set")
        raise InvalidMessageError(f"{_shown(file)}: {refusal}") from error
    except (OSError, UnicodeError, RecursionError) as error:
        raise InvalidMessageError(f"{_shown(file)}: {error}") from error
    return as_label_set([line.strip() for line in text.splitlines() if line.strip()], **options)


def _shown(file: Path) -> str:
    """Write a path that may hold bytes which are not text."""
    return str(file).encode(errors="backslashreplace").decode()


def read_uris(uris: Sequence[str], file: Path | None) -> Iterator[str]:
    """Read addresses from the command line and from a file, a line at a time.

    Raises:
        InvalidMessageError: Neither names any, or the file cannot be read.
    """
    if not uris and file is None:
        raise InvalidMessageError("name pictures, or a file of their addresses with --uris-file")
    yield from uris
    if file is not None:
        try:
            with file.open(encoding="utf-8") as lines:
                yield from filter(None, map(str.strip, lines))
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidMessageError(f"{file}: {error}") from error


def batched(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Cut *items* into parts of *size*; the last may be smaller."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def image_refs(images: Sequence[str], settings: ClientSettings) -> list[tuple[str, str]]:
    """Return an id and an address for each image; local files are uploaded.

    Raises:
        InvalidMessageError: A local file cannot be read.
    """
    paths = {image: _existing_file(image) for image in images if "://" not in image}
    uris: dict[str, str] = {}
    if paths:
        with _progress(len(paths)) as advance:
            uploaded = upload_files(list(paths.values()), settings, on_done=advance)
        uris = dict(zip(paths, uploaded, strict=True))
    return [(image, uris.get(image, image)) for image in dict.fromkeys(images)]


def _existing_file(image: str) -> Path:
    path = Path(image)
    if path.is_dir():
        raise InvalidMessageError(f"{image} is a folder: name its pictures, {image}/*.jpg")
    if not path.is_file():
        raise InvalidMessageError(f"{image}: there is no such file")
    return path


@contextmanager
def _progress(files: int) -> Iterator[Callable[[], None]]:
    """Show how far the uploads are, when there are many."""
    columns = (TextColumn("uploading"), BarColumn(), MofNCompleteColumn())
    is_shown = files >= PROGRESS_FROM
    with Progress(*columns, console=Console(stderr=True), disable=not is_shown) as progress:
        task = progress.add_task("uploading", total=files)
        yield lambda: progress.advance(task)
