"""Thumbnails of an evaluation's pictures, read from local files first, then from S3."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from labelyard.errors import ServiceConfigError
from labelyard.evaluation.scored_images import ScoredImage
from labelyard.runs.report.picture_sources import (
    MAX_PICTURE_BYTES,
    BucketPictures,
    NoPictures,
    PictureSource,
    PictureUnreadableError,
)
from labelyard.runs.report.thumbnails import Thumbnails, make_thumbnails
from labelyard.settings import ClientSettings
from labelyard.uploads import open_client

#: Most characters of all thumbnails.
THUMBNAIL_BYTES: Final = 1_500_000


@dataclass(frozen=True, slots=True)
class FilePictures:
    """Local files that were uploaded, by their address, and a place for the other pictures."""

    files: Mapping[str, Path]
    others: PictureSource

    def read(self, uri: str) -> bytes:
        """Read the file, or the picture from the other place."""
        path = self.files.get(uri)
        if path is None:
            return self.others.read(uri)
        try:
            if path.stat().st_size > MAX_PICTURE_BYTES:
                raise PictureUnreadableError("file above 32 MiB")
            return path.read_bytes()
        except OSError as error:
            raise PictureUnreadableError(f"not readable: {error.strerror}") from error


def thumbnails_of(pictures: Sequence[ScoredImage]) -> Thumbnails:
    """Make thumbnails of pictures; S3 is opened only if one of them is not a local file."""
    uris = list(dict.fromkeys(one.uri for one in pictures))
    files = {one.uri: one.image.file for one in pictures if one.image.file is not None}
    if not uris:
        return Thumbnails()
    with _others(is_needed=len(files) < len(uris)) as others:
        return make_thumbnails(
            uris, FilePictures(files, others), max_bytes=THUMBNAIL_BYTES // len(uris)
        )


@contextmanager
def _others(*, is_needed: bool) -> Iterator[PictureSource]:
    if not is_needed:
        yield NoPictures("not a local file")
        return
    try:
        client = open_client(ClientSettings.read())
    except (ImportError, ValueError, ServiceConfigError) as error:
        yield NoPictures(str(error))  # the figures are worth a page without pictures
        return
    try:
        yield BucketPictures(client)
    finally:
        client.close()
