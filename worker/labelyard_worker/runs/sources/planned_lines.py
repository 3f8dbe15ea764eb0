"""Source of a run's lines: entries of any manifest, checked, and cut into parts of a plan."""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import itemgetter, methodcaller
from typing import Any, Final, cast

from labelyard.fields import MAX_KEY_BYTES
from labelyard.runs.line_faults import MAX_CUSTOM_ID_CHARS, LineFault
from labelyard_worker.runs.sources.duplicate_ids import DuplicateIds
from labelyard_worker.runs.sources.entries import (
    Entry,
    EntryBlock,
    LineProblem,
    without_empty_end,
)
from labelyard_worker.runs.sources.line_checks import (
    CUSTOM_ID,
    HTTPS,
    LABEL_SET,
    LABELS,
    S3,
    TEXT,
    URI,
    CarriedColumns,
    LineRefusedError,
    columns_of,
    planned_text,
    refused_text,
    text_of,
)
from labelyard_worker.runs.sources.plan_parts import MAX_PART_BYTES, Checkpoint, PlanPart

DUPLICATE: Final = LineProblem(
    LineFault.DUPLICATE_CUSTOM_ID, "custom_id: an earlier line has the same one"
)
LINE: Final = "line"
MAX_PART_CHARS: Final = MAX_PART_BYTES // 4  # a character has up to 4 bytes
# Lines that are checked by the same calls; a group with an odd line is cut into small ones.
GROUP, SMALL_GROUP = 512, 32
# Buckets whose lines are checked many at once.
MAX_KNOWN_BUCKETS: Final = 16
_ID_OF: Final = itemgetter(CUSTOM_ID)
_URI_OF: Final = itemgetter(URI)


@dataclass(slots=True)
class PlannedBlock:
    """Lines of the plan, as JSON with line breaks.

    Attributes:
        numbers: Number of each line.
        texts: As many.
        is_refused: 1 for each line that names no image.
    """

    numbers: Sequence[int] = ()
    texts: list[str] = field(default_factory=list)
    is_refused: bytearray = field(default_factory=bytearray)

    def count_within(self, max_chars: int) -> int:
        """Return the number of the first lines that have at most *max_chars* together."""
        if sum(map(len, self.texts)) <= max_chars:
            return len(self.texts)
        return bisect_right(list(accumulate(map(len, self.texts))), max_chars)

    def split(self, count: int) -> "tuple[PlannedBlock, PlannedBlock]":
        """Return the first *count* lines, and the others."""
        return (
            PlannedBlock(self.numbers[:count], self.texts[:count], self.is_refused[:count]),
            PlannedBlock(self.numbers[count:], self.texts[count:], self.is_refused[count:]),
        )


class PlannedLines:
    """Checks the entries of a manifest, and cuts them into parts; used by one thread.

    After a restart the manifest is read again from its beginning, because the ids of all
    earlier lines must be known; their plan is not written again.
    """

    def __init__(
        self,
        blocks: Iterable[EntryBlock],
        *,
        columns: CarriedColumns = "none",
        checkpoint: Checkpoint | None = None,
        has_distinct_ids: bool = False,
    ) -> None:
        """Read lines from *blocks*, behind the line of *checkpoint*.

        Args:
            blocks: Entries of the manifest, from its first line.
            has_distinct_ids: Whether no id can be repeated, so that none has to be remembered.
        """
        self._ids = None if has_distinct_ids else DuplicateIds()
        self._columns = columns
        self._heads: tuple[str, ...] = ()  # s3://bucket/ of buckets that were checked
        self._planned_before = int(checkpoint[LINE]) if checkpoint else 0
        self._blocks = map(self._plan, without_empty_end(blocks))
        self._pending: deque[PlannedBlock] = deque()
        self._pending_lines = 0

    def take(self, max_lines: int) -> PlanPart | None:
        """Return the next lines; see ``LineSource.take``."""
        self.read_ahead(max_lines)
        part = self._first_lines(max_lines)
        if not part:
            return None
        lines = sum(len(block.texts) for block in part)
        self._pending_lines -= lines
        return PlanPart(
            first_line=part[0].numbers[0],
            lines=lines,
            images=sum(block.is_refused.count(0) for block in part),
            body="".join([text for block in part for text in block.texts]).encode(),
            checkpoint={LINE: part[-1].numbers[-1]},
        )

    def read_ahead(self, max_lines: int) -> None:
        """Read so many lines that the next part can be taken without a wait."""
        while self._pending_lines < max_lines:
            block = next(self._blocks, None)
            if block is None:
                break
            self._pending.append(block)
            self._pending_lines += len(block.texts)

    def _first_lines(self, max_lines: int) -> list[PlannedBlock]:
        part: list[PlannedBlock] = []
        max_chars = MAX_PART_CHARS
        while self._pending and max_lines > 0 and max_chars > 0:
            block = self._pending.popleft()
            count = min(max_lines, block.count_within(max_chars))
            if len(block.texts) > count:
                block, rest = block.split(max(1, count))
                self._pending.appendleft(rest)
                max_chars = 0
            if block.texts:
                part.append(block)
                max_lines -= len(block.texts)
                max_chars -= sum(map(len, block.texts))
        return part

    def _plan(self, block: EntryBlock) -> PlannedBlock:
        """Check a block of entries, and refuse repeated ids."""
        texts: list[str] = []
        is_refused = bytearray(len(block.entries))
        for start in range(0, len(block.entries), GROUP):
            texts += self._texts(block, start, GROUP, is_refused)
        if self._ids is not None:
            self._refuse_repeated(self._ids, block, texts, is_refused)
        planned = PlannedBlock(block.numbers, texts, is_refused)
        if block.numbers[0] > self._planned_before:
            return planned
        return planned.split(sum(line <= self._planned_before for line in block.numbers))[1]

    def _refuse_repeated(
        self, ids: DuplicateIds, block: EntryBlock, texts: list[str], is_refused: bytearray
    ) -> None:
        """Replace the lines whose id an earlier line has."""
        places: Sequence[int] = range(len(texts))
        lines = cast("Sequence[dict[str, Any]]", block.entries)
        if any(is_refused):
            places = [place for place in places if not is_refused[place]]
            lines = [lines[place] for place in places]
        if not places:
            return
        for repeated in ids.add(list(map(_ID_OF, lines))).nonzero()[0].tolist():
            place = places[repeated]
            texts[place] = refused_text(block.numbers[place], DUPLICATE, lines[repeated])
            is_refused[place] = 1

    def _texts(self, block: EntryBlock, start: int, count: int, is_refused: bytearray) -> list[str]:
        """Write *count* lines of the plan: all at once, or group by group, or one by one."""
        numbers = block.numbers[start : start + count]
        entries = block.entries[start : start + count]
        texts = self._plain_texts(numbers, entries)
        if texts is not None:
            return texts
        texts = []
        if count > SMALL_GROUP:
            for inner in range(start, start + len(entries), SMALL_GROUP):
                texts += self._texts(block, inner, SMALL_GROUP, is_refused)
            return texts
        for place, (line, entry) in enumerate(zip(numbers, entries, strict=True), start):
            text, is_refused[place] = self._text(line, entry)
            texts.append(text)
        return texts

    def _text(self, line: int, entry: Entry) -> tuple[str, bool]:
        """Write one line of the plan; return with it whether the line is refused."""
        if isinstance(entry, LineProblem):
            return refused_text(line, entry), True
        try:
            text = planned_text(line, entry, self._columns)
        except LineRefusedError as error:
            return refused_text(line, error.problem, entry), True
        uri = entry[URI]
        if len(self._heads) < MAX_KNOWN_BUCKETS and not uri.startswith((HTTPS, *self._heads)):
            self._heads += (uri[: uri.find("/", len(S3)) + 1],)
        return text, False

    def _plain_texts(self, numbers: Sequence[int], entries: Sequence[Entry]) -> list[str] | None:
        """Write lines that are all plain; return ``None`` if one of them needs a closer look.

        Plain lines name objects of known buckets, have no labels of their own, and need no
        escapes in JSON.
        """
        if set(map(type, entries)) != {dict}:
            return None
        lines = cast("Sequence[dict[str, Any]]", entries)
        names = set().union(*lines)
        if LABELS in names or LABEL_SET in names:
            return None
        if CUSTOM_ID not in names or URI not in names:
            return None
        try:
            ids, uris = list(map(_ID_OF, lines)), list(map(_URI_OF, lines))
        except KeyError:
            return None
        if set(map(type, ids)) != {str} or set(map(type, uris)) != {str}:
            return None
        if not (all(ids) and self._are_plain_uris(uris)):
            return None
        if max(map(len, ids)) > MAX_CUSTOM_ID_CHARS or not is_plain("".join([*ids, *uris])):
            return None
        if TEXT in names:
            return self._titled_texts(numbers, lines)
        if self._columns == "none" or len(names) == len((CUSTOM_ID, URI)):
            return [
                f'{{"line":{line},"custom_id":"{custom_id}","uri":"{uri}"}}\n'
                for line, custom_id, uri in zip(numbers, ids, uris, strict=True)
            ]
        try:
            carried = [columns_of(fields, self._columns) for fields in lines]
        except LineRefusedError:
            return None
        return [
            f'{{"line":{line},"custom_id":"{custom_id}","uri":"{uri}"{columns}}}\n'
            for line, custom_id, uri, columns in zip(numbers, ids, uris, carried, strict=True)
        ]

    def _titled_texts(
        self, numbers: Sequence[int], lines: Sequence[dict[str, Any]]
    ) -> list[str] | None:
        """Write plain lines with texts beside their pictures; ``None`` if one is refused."""
        try:
            return [
                f'{{"line":{line},"custom_id":"{fields[CUSTOM_ID]}","uri":"{fields[URI]}"'
                f"{text_of(fields)}{columns_of(fields, self._columns)}}}\n"
                for line, fields in zip(numbers, lines, strict=True)
            ]
        except LineRefusedError:
            return None

    def _are_plain_uris(self, uris: list[str]) -> bool:
        """Return whether each is ``s3://bucket/key`` with a bucket that was checked before."""
        longest = MAX_KEY_BYTES // 4  # a character has up to 4 bytes
        has_head = methodcaller("startswith", self._heads)
        return (
            all(map(has_head, uris))
            and max(map(len, uris)) <= longest
            and not any(map(uris.__contains__, self._heads))  # nothing but the head: no key
        )


def is_plain(text: str) -> bool:
    """Return whether *text* needs no escapes in JSON and has no control characters."""
    return text.isprintable() and '"' not in text and "\\" not in text
