"""Failed lines of another run as the lines of a run, in bounded memory."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from labelyard.runs.lines import ErrorLine, PlannedLine, parse_plan
from labelyard.runs.request import RunRequest
from labelyard_worker.runs.sources.plan_parts import Checkpoint, PlanPart
from labelyard_worker.runs.storage import PLAN_FOLDER, RunStorage

OBJECT: Final = "object"
LINE: Final = "line"
PLAN_PREFIX: Final = f"{PLAN_FOLDER}shard-"
PLAN_SUFFIX: Final = ".jsonl.gz"
ERRORS_PREFIX: Final = "errors-"


@dataclass(frozen=True)
class FailedRun:
    """The run whose failed lines are done again.

    Attributes:
        out: Prefix of its files.
        codes: Errors whose lines are done again; empty means all that may succeed later.
    """

    storage: RunStorage
    out: str
    codes: frozenset[str]

    def failed_lines(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Read the numbers of the lines to do again from the error files, sorted."""
        numbers = array("q")
        for name in self.storage.list_names(self.out, ERRORS_PREFIX):
            for text in self.storage.get_from(self.out, name).splitlines():
                error = ErrorLine.model_validate_json(text)
                if error.code in self.codes or (not self.codes and error.is_retryable):
                    numbers.append(error.line)
        return np.unique(np.frombuffer(numbers, dtype=np.int64))

    def planned_lines(self, begin: str) -> Iterator[tuple[str, list[PlannedLine]]]:
        """Yield the images of each object of the plan from *begin* on, and the object's name."""
        for name in self.storage.list_names(self.out, PLAN_PREFIX):
            if name >= begin:
                body = self.storage.get_plan_from(self.out, name)
                yield name, [line for line in parse_plan(body) if isinstance(line, PlannedLine)]


class FailedLines:
    """The failed lines of a run; see ``LineSource``. A line keeps its number."""

    def __init__(self, run: FailedRun, *, checkpoint: Checkpoint | None = None) -> None:
        """Read the numbers of the failed lines; go on behind *checkpoint*."""
        begin = str(checkpoint[OBJECT]) if checkpoint else ""
        self._last_line = int(checkpoint[LINE]) if checkpoint else 0
        self._wanted = run.failed_lines()
        self._objects = run.planned_lines(begin)
        self._ready: list[tuple[str, PlannedLine]] = []

    def take(self, max_lines: int) -> PlanPart | None:
        """Return the next lines; see ``LineSource.take``."""
        while len(self._ready) < max_lines and self._read_object():
            pass
        some, self._ready = self._ready[:max_lines], self._ready[max_lines:]
        if not some:
            return None
        name, last = some[-1]
        body = "".join(f"{line.model_dump_json(exclude_defaults=True)}\n" for _, line in some)
        return PlanPart(
            first_line=some[0][1].line,
            lines=len(some),
            images=len(some),
            body=body.encode(),
            checkpoint={OBJECT: name, LINE: last.line},
        )

    def _read_object(self) -> bool:
        found = next(self._objects, None)
        if found is None:
            return False
        name, lines = found
        if lines:
            first, end = np.searchsorted(self._wanted, [lines[0].line, lines[-1].line + 1])
            wanted = set(self._wanted[first:end].tolist())
            for line in lines:
                # An object of an attempt that was overtaken may hold lines for a second time.
                if line.line in wanted and line.line > self._last_line:
                    self._ready.append((name, line))
                    self._last_line = line.line
        return True


def failed_run_of(storage: RunStorage, request: RunRequest) -> FailedRun:
    """Return the run whose lines a request does again."""
    return FailedRun(storage, request.source, frozenset(request.retry_codes))
