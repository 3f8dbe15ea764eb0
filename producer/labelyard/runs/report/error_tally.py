"""Errors of a run by code, with examples of each."""

from typing import Final

from labelyard.runs.lines import ErrorLine
from labelyard.runs.report.samples import LowestItems, priority

MAX_CODES: Final = 100
MAX_MESSAGE_CHARS: Final = 400
OTHER_CODES: Final = "other"


class ErrorTally:
    """Counts of error lines by code, and a sample of each code's lines.

    Attributes:
        total: Error lines.
        codes: Number of lines of each code; beyond ``MAX_CODES`` they are counted together.
    """

    def __init__(self, *, seed: int, examples: int) -> None:
        """Start without errors; keep up to *examples* of each code."""
        self.total: int = 0
        self.codes: dict[str, int] = {}
        self._seed = seed
        self._size = examples
        self._examples: dict[str, LowestItems[ErrorLine]] = {}

    def add(self, line: ErrorLine) -> None:
        """Count an error line."""
        self.total += 1
        is_known = line.code in self.codes or len(self.codes) < MAX_CODES
        code = line.code if is_known else OTHER_CODES
        self.codes[code] = self.codes.get(code, 0) + 1
        examples = self._examples.setdefault(code, LowestItems(self._size))
        rank = (priority(self._seed, f"{line.custom_id}\0{line.line}"), 0.0)
        if examples.accepts(rank):
            kept = line.model_copy(update={"message": line.message[:MAX_MESSAGE_CHARS]})
            examples.offer(rank, f"{line.line}\0{line.custom_id}", kept)

    def ranked(self) -> list[tuple[str, int]]:
        """Return the codes with their numbers of lines, the most frequent first."""
        return sorted(self.codes.items(), key=lambda item: (-item[1], item[0]))

    def examples(self, code: str) -> list[ErrorLine]:
        """Return the sampled lines of a code."""
        return self._examples[code].items()
