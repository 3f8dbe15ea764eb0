"""Shard of a run over old embeddings: its files are read, scored, and written as results."""

import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from labelyard.errors import RequestError, RunFilesError
from labelyard.messages import ModelInfo
from labelyard.runs.lines import ErrorLine, PlannedLine
from labelyard.runs.parts import ShardRange
from labelyard.runs.request import RunRequest
from labelyard_worker.runs.embedded_images import EmbeddedFile, parse_files
from labelyard_worker.runs.files.shard_files import ShardFiles
from labelyard_worker.runs.rescoring import Rescorer, read_embeddings
from labelyard_worker.runs.sources.plan_parts import RunSourceError
from labelyard_worker.runs.storage import RunStorage

#: Files that are read ahead of the one that is scored.
READ_AHEAD: Final = 2


@dataclass(frozen=True)
class EmbeddedShard:
    """Images of one shard, in files of embeddings.

    Attributes:
        request: The run.
        lines: Range of the shard in the plan, counted in images.
    """

    storage: RunStorage
    request: RunRequest
    lines: ShardRange

    def score(
        self, rescorer: Rescorer, files: ShardFiles, *, note: Callable[[int], None]
    ) -> Counter[str]:
        """Score the images, and return their number as the outcomes of a shard.

        Args:
            note: Called with the number of scored images; raises to stop.

        Raises:
            RunFilesError: A file is not there any more, or has other images than planned.
            RunSourceError: A file is damaged, or of another checkpoint.
            StorageAwayError: Storage gives no usable answer.
        """
        done = 0
        for file, rows, body in self._bodies():
            before = done
            done += rescorer.rescore(
                io.BytesIO(body),
                files,
                rows=rows,
                check=lambda images, before=before: note(before + images),  # type: ignore[misc]
            )
            if done - before != len(rows):
                raise RunFilesError(f"{self._address(file)}: it was changed after the plan")
        return Counter(succeeded=done)

    def planned_lines(self) -> list[PlannedLine | ErrorLine]:
        """Read the lines of the shard's images; a file that cannot be read is one error line."""
        lines: list[PlannedLine | ErrorLine] = []
        for file, rows in self._pieces():
            try:
                body = self.storage.get_from(self.request.source, file.file)
                batches = read_embeddings(io.BytesIO(body), rows=rows)
                lines += [to_planned(row) for facts, _ in batches for row in facts.to_pylist()]
            except RequestError as error:
                uri, code = self._address(file), error.code
                lines.append(ErrorLine(line=file.line, uri=uri, code=code, message=str(error)))
        return lines

    def _pieces(self) -> Iterator[tuple[EmbeddedFile, range]]:
        """Yield the files that the shard needs, each with its rows."""
        first, end = self.lines.first, self.lines.first + self.lines.lines
        place = 0
        for file in parse_files(self.storage.get_plan(self.request, self.lines.plan)):
            rows = range(max(first - place, 0), min(end - place, file.images))
            place += file.images
            if rows:
                yield file, rows

    def _bodies(self) -> Iterator[tuple[EmbeddedFile, range, bytes]]:
        """Yield the files with their bytes; the next ones are read meanwhile."""
        pieces = list(self._pieces())
        with ThreadPoolExecutor(READ_AHEAD, thread_name_prefix="labelyard-run-files") as pool:
            reads = [
                pool.submit(self.storage.get_from, self.request.source, file.file)
                for file, _ in pieces[:READ_AHEAD]
            ]
            try:
                for number, (file, rows) in enumerate(pieces):
                    body = reads.pop(0).result()
                    for later, _ in pieces[number + READ_AHEAD : number + READ_AHEAD + 1]:
                        reads.append(
                            pool.submit(self.storage.get_from, self.request.source, later.file)
                        )
                    yield file, rows, body
            finally:
                for read in reads:
                    read.cancel()

    def _address(self, file: EmbeddedFile) -> str:
        return self.request.source + file.file


def to_planned(row: dict[str, Any]) -> PlannedLine:
    """Return the planned line of an image in a file of embeddings."""
    return PlannedLine(
        line=row["line"],
        custom_id=row["custom_id"],
        uri=row["uri"],
        columns=json.loads(row["columns"] or "{}"),
    )


def check_model(storage: RunStorage, request: RunRequest, model: ModelInfo) -> None:
    """Refuse embeddings that another checkpoint made.

    Raises:
        RunSourceError: ``manifest.json`` of the old run names another one, or is not one.
        RunFilesError: There is no such run.
        StorageAwayError: Storage gives no usable answer.
    """
    body = storage.get_from(request.source, "manifest.json")
    try:
        old = ModelInfo.model_validate(json.loads(body)["model"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunSourceError(f"{request.source}manifest.json is not that of a run") from error
    if old.fingerprint != model.fingerprint:
        raise RunSourceError(
            f"the embeddings are those of {old.checkpoint} ({old.fingerprint}), and this worker "
            f"has {model.checkpoint} ({model.fingerprint})"
        )
