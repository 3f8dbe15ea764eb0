"""Objects below a prefix as the lines of a run, in the order of their keys."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from labelyard_worker.runs.sources.entries import EntryBlock
from labelyard_worker.runs.sources.key_pattern import KeyPattern
from labelyard_worker.runs.sources.line_checks import CUSTOM_ID, S3, URI
from labelyard_worker.runs.sources.plan_parts import Checkpoint, PlanPart
from labelyard_worker.runs.sources.planned_lines import LINE, PlannedLines
from labelyard_worker.runs.sources.storage_requests import request

if TYPE_CHECKING:
    from obstore.store import S3Store

KEY: Final = "key"
KEYS_AT_ONCE: Final = 1_000


@dataclass(frozen=True)
class KeyListing:
    """Pages of the keys that match a pattern.

    obstore lists ten times as fast as boto3, but fails on keys that it refuses, such as
    ``a//b``; boto3 then reads that page.

    Attributes:
        store: obstore's client of the bucket.
        open_client: Returns boto3's client, which takes a fifth of a second to open.
        bucket: Bucket to list.
        pattern: Keys to return.
    """

    store: "S3Store"
    open_client: Callable[[], Any]
    bucket: str
    pattern: KeyPattern

    def pages(self, after: str = "") -> Iterator[list[str]]:
        """Yield the keys behind *after*, up to a thousand at a time.

        Raises:
            RunSourceError: Storage refuses to list the bucket.
            StorageAwayError: Storage gave no usable answer.
        """
        while True:
            for page in self._fast_pages(after):
                after = page[-1]
                yield self._matching(page)
            keys, is_last = self._page(after)
            if keys:
                after = keys[-1]
                yield self._matching(keys)
            if is_last:
                return

    def _matching(self, keys: Sequence[str]) -> list[str]:
        prefix, regex = self.pattern.prefix, self.pattern.regex
        if regex is None:
            return [key for key in keys if key.startswith(prefix) and not key.endswith("/")]
        matches = regex.fullmatch
        return [key for key in keys if matches(key) and not key.endswith("/")]

    def _fast_pages(self, after: str) -> Iterator[list[str]]:
        """Yield pages as long as obstore can read them.

        It lists folders only, and hides the slash at the end of a key: a page with an empty
        object, which may be a folder's mark, is left to boto3.
        """
        folder = self.pattern.prefix
        if folder and not folder.endswith("/"):
            return
        try:
            for page in self.store.list(
                folder or None, offset=after or None, chunk_size=KEYS_AT_ONCE
            ):
                keys = [entry["path"] for entry in page]
                if not all(entry["size"] for entry in page) or min(keys, default="") <= after:
                    return
                yield keys
        except Exception:  # noqa: BLE001 - boto3 repeats the request, and gives the reason
            return

    def _page(self, after: str) -> tuple[list[str], bool]:
        """Read one page with boto3; return its keys, and whether it is the last one."""
        options = {"StartAfter": after} if after else {}
        answer = request(
            lambda: self.open_client().list_objects_v2(
                Bucket=self.bucket, Prefix=self.pattern.prefix, MaxKeys=KEYS_AT_ONCE, **options
            ),
            uri=f"{S3}{self.bucket}/{self.pattern.prefix}",
        )
        return [entry["Key"] for entry in answer.get("Contents", [])], not answer["IsTruncated"]


class ListedLines:
    """The objects of a listing, cut into parts; a restart goes on behind the last key."""

    def __init__(self, listing: KeyListing, *, checkpoint: Checkpoint | None = None) -> None:
        """List behind the key of *checkpoint*."""
        before = checkpoint or {LINE: 0, KEY: ""}
        self._first, self._after = int(before[LINE]) + 1, str(before[KEY])
        self._listing = listing
        self._pages: deque[tuple[int, list[str]]] = deque()
        # Keys are distinct.
        self._lines = PlannedLines(self._blocks(), has_distinct_ids=True)

    def take(self, max_lines: int) -> PlanPart | None:
        """Return the next lines; see ``LineSource.take``."""
        part = self._lines.take(max_lines)
        if part is None:
            return None
        last = part.checkpoint[LINE]
        while (page := self._pages[0])[0] + len(page[1]) <= last:
            self._pages.popleft()
        first, keys = self._pages[0]
        return replace(part, checkpoint={LINE: last, KEY: keys[last - first]})

    def read_ahead(self, max_lines: int) -> None:
        """Read so many keys that the next part can be taken without a wait."""
        self._lines.read_ahead(max_lines)

    def _blocks(self) -> Iterator[EntryBlock]:
        first, head = self._first, f"{S3}{self._listing.bucket}/"
        for keys in self._listing.pages(self._after):
            if keys:
                self._pages.append((first, keys))
                lines = [{CUSTOM_ID: key, URI: head + key} for key in keys]
                yield EntryBlock(range(first, first + len(keys)), lines)
                first += len(keys)
