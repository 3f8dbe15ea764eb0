"""Parts of a plan, which the planner cuts from a source of lines, one for each shard."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from labelyard.errors import RequestError

#: Place in a source, as JSON can write it; only the source itself reads it.
Checkpoint: TypeAlias = Mapping[str, Any]

#: Bytes after which a part ends, though more lines were asked for.
MAX_PART_BYTES: Final = 16 * 1024 * 1024


class RunSourceError(RequestError):
    """The run's source cannot be read as a manifest or a listing; its text gives the reason."""

    code = "run_source_unreadable"


@dataclass(frozen=True, slots=True)
class PlanPart:
    """Lines of one shard.

    Attributes:
        first_line: Number of the first line.
        lines: Number of lines, those without an image included.
        images: Number of lines that name an image.
        body: The lines, as ``labelyard.runs.lines.parse_plan`` reads them; not compressed.
        checkpoint: Place in the source behind the part.
    """

    first_line: int
    lines: int
    images: int
    body: bytes
    checkpoint: Checkpoint


class LineSource(Protocol):
    """The lines of a manifest or a listing, in order; used by one thread.

    A source that is opened with the checkpoint of a part goes on behind that part, and yields
    the same lines as a source that never stopped.
    """

    def take(self, max_lines: int) -> PlanPart | None:
        """Return the next lines, or ``None`` at the end of the source.

        Args:
            max_lines: Most lines of the part; fewer at the end of the source, and if they are
                larger than MAX_PART_BYTES.

        Raises:
            RunSourceError: The source as a whole cannot be read, or not any further.
            StorageAwayError: Storage gave no usable answer; the call may be repeated
                on a source that is opened again with the last checkpoint.
        """
