"""Inputs of the command line, parsed: pictures and their addresses."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from labelyard.cli.progress import ProgressLine
from labelyard.errors import InvalidMessageError
from labelyard.local_paths import is_file, is_folder, printable
from labelyard.settings import ClientSettings
from labelyard.uploads import upload_files

Images = Annotated[
    list[str], typer.Argument(metavar="PATH_OR_URI...", help="Files, s3://… or https://…")
]
Uris = Annotated[
    list[str] | None, typer.Argument(metavar="URI...", help="s3://… or https://…, as classified")
]
UrisFile = Annotated[
    Path | None, typer.Option("--uris-file", help="A URI a line; as many as you like")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object a line")]
TimeoutS = Annotated[float, typer.Option("--timeout-s", min=0, help="Seconds to wait")]


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
            with file.open(encoding="utf-8-sig") as lines:
                yield from filter(None, map(str.strip, lines))
        except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a path with a zero byte
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise InvalidMessageError(f"{printable(file)}: {reason}") from error


def batched(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Cut *items* into parts of *size*; the last may be smaller."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def is_local(image: str) -> bool:
    """Return whether an image is named by a path, and must be uploaded."""
    return "://" not in image


def image_refs(
    images: Sequence[str], settings: ClientSettings, *, progress: ProgressLine
) -> list[tuple[str, str]]:
    """Return an id and an address for each image; local files are uploaded.

    Raises:
        InvalidMessageError: A local file cannot be read.
    """
    paths = {image: _existing_file(image) for image in images if is_local(image)}
    uris: dict[str, str] = {}
    if paths:
        with progress.track("uploading", total=len(paths)) as advance:
            uploaded = upload_files(list(paths.values()), settings, on_done=lambda: advance(1))
        uris = dict(zip(paths, uploaded, strict=True))
    return [(image, uris.get(image, image)) for image in dict.fromkeys(images)]


def _existing_file(image: str) -> Path:
    path = Path(image)
    if is_folder(path):
        raise InvalidMessageError(f"{image} is a folder: name its pictures, {image}/*.jpg")
    if not is_file(path):
        raise InvalidMessageError(f"{image}: there is no such file")
    return path
