"""Embeddings of an old run as the lines of a run: files of vectors, each with many images."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Final

from pydantic import Field, TypeAdapter

from labelyard.messages import Report
from labelyard.runs.request import RunRequest
from labelyard_worker.intake.sources.s3_clients import open_signer
from labelyard_worker.runs.sources.key_pattern import KeyPattern
from labelyard_worker.runs.sources.listing import KeyListing
from labelyard_worker.runs.sources.plan_parts import Checkpoint, PlanPart, RunSourceError
from labelyard_worker.runs.storage import RunStorage
from labelyard_worker.settings.runs import RunSettings

FILE: Final = "file"
READS_AT_ONCE: Final = 8
# Of a Parquet file; nearly always with the whole footer.
TAIL_BYTES: Final = 64 * 1024
#: Most images of a shard: a few seconds of one core.
MAX_IMAGES: Final = 65_536


def most_lines(request: RunRequest, settings: RunSettings) -> int:
    """Return the most lines of a shard; old embeddings are scored a thousand times as fast."""
    return MAX_IMAGES if request.source_format == "embeddings" else settings.shard_lines


class EmbeddedFile(Report):
    """One file of embeddings, as a plan names it.

    Attributes:
        file: Name of the file below the old run's prefix.
        line: Least line number in the file.
        images: Number of its images.
    """

    file: str
    line: int = Field(ge=1)
    images: int = Field(ge=1)


_FILE: Final = TypeAdapter(EmbeddedFile)


def parse_files(body: bytes) -> list[EmbeddedFile]:
    """Read the files of a shard, as :class:`EmbeddedImages` wrote them."""
    return [_FILE.validate_json(line) for line in body.splitlines() if line]


@dataclass(frozen=True)
class OldRun:
    """Files of embeddings of a run, those of its retries included.

    Attributes:
        out: Prefix of its files.
    """

    storage: RunStorage
    out: str

    def files(self, after: str = "") -> Iterator[EmbeddedFile]:
        """Yield the files that have images, in the order of their names.

        Args:
            after: Name behind which to go on.

        Raises:
            RunSourceError: Storage refuses, or a file is not one of embeddings.
            StorageAwayError: Storage gives no usable answer.
        """
        bucket, _, prefix = self.out.removeprefix("s3://").partition("/")
        name = r"(?:retry-\d+/)*embeddings-[^/]*\.parquet"
        pattern = KeyPattern(prefix, re.compile(re.escape(prefix) + name))
        open_client = cache(partial(open_signer, self.storage.s3))
        listing = KeyListing(self.storage.store(bucket), open_client, bucket, pattern)
        with ThreadPoolExecutor(READS_AT_ONCE, thread_name_prefix="labelyard-run-files") as pool:
            for keys in listing.pages(prefix + after if after else ""):
                names = [key.removeprefix(prefix) for key in keys]
                for start in range(0, len(names), 4 * READS_AT_ONCE):
                    some = pool.map(self._read, names[start : start + 4 * READS_AT_ONCE])
                    yield from filter(None, some)

    def _read(self, name: str) -> EmbeddedFile | None:
        """Read the footer of a file; ``None`` if it has no images."""
        body = self.storage.get_end(self.out, name, TAIL_BYTES)
        try:
            meta = read_footer(body)
        except RunSourceError:
            meta = read_footer(self.storage.get_from(self.out, name))
        if not meta.num_rows:
            return None
        groups = [meta.row_group(number) for number in range(meta.num_row_groups)]
        lines = [group.column(0).statistics.min for group in groups if group.num_rows]
        return EmbeddedFile(file=name, line=min(lines), images=meta.num_rows)


def read_footer(body: bytes) -> Any:
    """Read the footer at the end of a Parquet file.

    Raises:
        RunSourceError: It is not one.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(pa.BufferReader(body))
    except (pa.ArrowException, OSError) as error:
        raise RunSourceError("a file of embeddings is damaged") from error


class EmbeddedImages:
    """The embedded images of an old run, cut into parts of whole files; see ``LineSource``."""

    def __init__(self, run: OldRun, *, checkpoint: Checkpoint | None = None) -> None:
        """List the files behind that of *checkpoint*."""
        self._files = run.files(str(checkpoint[FILE]) if checkpoint else "")
        self._next = next(self._files, None)

    def take(self, max_lines: int) -> PlanPart | None:
        """Return the next files, one at least; see ``LineSource.take``."""
        part: list[EmbeddedFile] = []
        images = 0
        while self._next is not None and (not part or images + self._next.images <= max_lines):
            part.append(self._next)
            images += self._next.images
            self._next = next(self._files, None)
        if not part:
            return None
        return PlanPart(
            first_line=part[0].line,
            lines=images,
            images=images,
            body="".join(f"{file.model_dump_json()}\n" for file in part).encode(),
            checkpoint={FILE: part[-1].file},
        )
