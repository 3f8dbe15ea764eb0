"""Order of queued images: interactive first, tenants in turn, sources within their shares."""

import itertools
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

from labelyard.errors import LabelyardError
from labelyard.messages import ImageRef
from labelyard.queues import Priority
from labelyard_worker.intake.frames import close_fd
from labelyard_worker.intake.image_uri import bucket_or_host
from labelyard_worker.pixels import Pixels, Unchanged
from labelyard_worker.spans import NO_SPAN, Span

# Of images taken while both kinds wait, at least every eighth is a bulk one.
INTERACTIVE_IN_A_ROW = 7
INTERACTIVE_FIRST = (Priority.INTERACTIVE, Priority.BULK)
BULK_FIRST = (Priority.BULK, Priority.INTERACTIVE)

_numbers = itertools.count(1)


@dataclass(slots=True, eq=False)
class IntakeRequest:
    """One image on its way through the intake, and the future of its caller.

    Attributes:
        image: Image to fetch.
        known_etag: ETag whose pixels are not needed again.
        known_stamp: Stamp that the file must have with it.
        priority: Interactive requests go first.
        tenant: Tenant whose share it counts against.
        job: Job that it belongs to; empty if there is none.
        source: Bucket or host that it is fetched from.
        answer: Gets the pixels or the error, once; cancelling it withdraws the request.
        attempt: Transient errors so far.
        deaths: Decoders that died over it.
        fetcher_deaths: Fetchers that died while they fetched it.
        fd: Fetched file; the request closes it.
        size_bytes: Size of that file.
        etag: ETag of that file.
        stamp: Further names of its version, see ``FileVersion``.
        is_md5: Whether that ETag is known to be an MD5, or known not to be.
        cut_md5: Digest of bytes that differed from their ETag, if that happened before.
        last_error: Transient error of its last attempt.
        fetch_s: Seconds that its last fetch took.
        fetch_began_at: Start of the fetch in progress, or 0.
        has_place: Whether it holds a place of the pixel budget.
        span: Span below which its stages are reported.
    """

    image: ImageRef
    known_etag: str | None = None
    priority: Priority = Priority.BULK
    tenant: str = ""
    job: str = ""
    answer: Future[Pixels | Unchanged] = field(default_factory=Future)
    asked_at: float = 0.0
    number: int = field(default_factory=lambda: next(_numbers))
    source: str = ""
    attempt: int = 0
    deaths: int = 0
    fetcher_deaths: int = 0
    fd: int | None = None
    size_bytes: int = 0
    etag: str | None = None
    stamp: str = ""
    known_stamp: str = ""
    is_md5: bool | None = None
    cut_md5: str = ""
    last_error: LabelyardError | None = None
    fetch_s: float = 0.0
    fetch_began_at: float = 0.0
    has_place: bool = False
    span: Span = NO_SPAN

    def __post_init__(self) -> None:
        self.source = self.source or bucket_or_host(self.image.uri)

    def drop_file(self) -> None:
        """Close the fetched file."""
        if self.fd is not None:
            close_fd(self.fd)
        self.fd, self.size_bytes = None, 0


@dataclass(frozen=True, slots=True)
class Shares:
    """Most requests in work at once; 0 means without a limit.

    Attributes:
        total: Over all.
        bulk: Of bulk requests, so that interactive ones always find a slot.
        tenant: Of one tenant.
        source: Of one bucket or host.
    """

    total: int = 0
    bulk: int = 0
    tenant: int = 0
    source: int = 0

    @classmethod
    def of(cls, total: int) -> "Shares":
        """Divide *total* slots: three quarters for bulk, a half a tenant, a quarter a source."""
        return cls(total, max(1, total * 3 // 4), max(1, total // 2), max(1, total // 4))


Lines = OrderedDict[str, OrderedDict[str, deque[IntakeRequest]]]  # tenant, source, requests


class FairQueue:
    """Queued requests, and counts of those in work; not thread-safe."""

    def __init__(self, shares: Shares = Shares()) -> None:
        self.shares = shares
        self._lines: dict[Priority, Lines] = {priority: OrderedDict() for priority in Priority}
        self._in_a_row = 0
        self._length = 0
        self.in_work = 0
        self._by_tenant: Counter[str] = Counter()
        self._by_source: Counter[str] = Counter()
        self._bulk_in_work = 0

    def __len__(self) -> int:
        """Count the queued requests."""
        return self._length

    def __iter__(self) -> Iterator[IntakeRequest]:
        """Iterate over the queued requests; change nothing meanwhile."""
        for lines in self._lines.values():
            for sources in lines.values():
                for line in sources.values():
                    yield from line

    @property
    def has_interactive(self) -> bool:
        """Return whether an interactive request is queued."""
        return bool(self._lines[Priority.INTERACTIVE])

    def put(self, request: IntakeRequest, *, is_first: bool = False) -> None:
        """Queue *request* behind, or before, the others of its tenant and source."""
        sources = self._lines[request.priority].setdefault(request.tenant, OrderedDict())
        line = sources.setdefault(request.source, deque())
        if is_first:
            line.appendleft(request)
        else:
            line.append(request)
        self._length += 1

    def take(self, *, may_take_bulk: bool = True) -> IntakeRequest | None:
        """Take the next request whose shares allow it, and count it as in work."""
        if not self._length or self._is_full(self.in_work, self.shares.total):
            return None
        for priority in self._order():
            if priority == Priority.BULK and not (may_take_bulk and self._has_bulk_slot()):
                continue
            request = self._take_from(priority)
            if request is not None:
                self._count(request, +1)
                self._note_turn(priority)
                return request
        return None

    def finish(self, request: IntakeRequest) -> None:
        """Release the slot of a request that was taken."""
        self._count(request, -1)

    def remove(self, request: IntakeRequest) -> bool:
        """Withdraw a queued request; ``False`` if it is not queued."""
        lines = self._lines[request.priority]
        line = lines.get(request.tenant, OrderedDict()).get(request.source)
        if line is None or request not in line:
            return False
        line.remove(request)
        self._length -= 1
        self._tidy(lines, request.tenant, request.source)
        return True

    def _order(self) -> tuple[Priority, Priority]:
        if self._in_a_row >= INTERACTIVE_IN_A_ROW:
            return BULK_FIRST
        return INTERACTIVE_FIRST

    def _note_turn(self, priority: Priority) -> None:
        is_counted = priority == Priority.INTERACTIVE and bool(self._lines[Priority.BULK])
        self._in_a_row = self._in_a_row + 1 if is_counted else 0

    def _has_bulk_slot(self) -> bool:
        return not self._is_full(self._bulk_in_work, self.shares.bulk)

    def _take_from(self, priority: Priority) -> IntakeRequest | None:
        lines = self._lines[priority]
        for tenant in list(lines):
            if self._is_full(self._by_tenant[tenant], self.shares.tenant):
                continue
            sources = lines[tenant]
            for source, line in sources.items():
                if self._is_full(self._by_source[source], self.shares.source):
                    continue
                request = line.popleft()
                self._length -= 1
                sources.move_to_end(source)
                lines.move_to_end(tenant)
                self._tidy(lines, tenant, source)
                return request
        return None

    def _count(self, request: IntakeRequest, by: int) -> None:
        self.in_work += by
        self._bulk_in_work += by * (request.priority == Priority.BULK)
        for counter, name in (
            (self._by_tenant, request.tenant),
            (self._by_source, request.source),
        ):
            counter[name] += by
            if not counter[name]:
                del counter[name]

    @staticmethod
    def _tidy(lines: Lines, tenant: str, source: str) -> None:
        if not lines[tenant][source]:
            del lines[tenant][source]
        if not lines[tenant]:
            del lines[tenant]

    @staticmethod
    def _is_full(count: int, most: int) -> bool:
        return 0 < most <= count
