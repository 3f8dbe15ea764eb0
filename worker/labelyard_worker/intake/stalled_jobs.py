"""Keep a slow source from holding all job slots: its newest jobs are retried later."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from labelyard_worker.intake.fetch_stage import SLOW_S
from labelyard_worker.intake.queue import IntakeRequest, Shares

CHECK_EVERY_S = 0.25
# Part of the job slots beyond which jobs that wait for slow sources are retried later.
CROWDED_SHARE = 0.75
# Part of the job slots that jobs waiting for one source may hold while slots are scarce.
SOURCE_SHARE = 0.25


class StalledJobs:
    """Finds the jobs that wait for slow sources while few slots are left.

    Args:
        job_slots: Jobs that the worker runs at once.
        shares: Shares of the fetches.

    Attributes:
        sources: Sources that no further job may wait for right now.
        check_at: Time of the next check.
    """

    def __init__(self, job_slots: int, shares: Shares) -> None:
        self._most = max(1, int(job_slots * CROWDED_SHARE))
        self._share = max(1, int(job_slots * SOURCE_SHARE))
        self._slow_count = max(1, min(self._share, shares.source // 2))
        self.sources: set[str] = set()
        self.check_at = 0.0

    def is_crowded(self, jobs: int) -> bool:
        """Return whether so many jobs have images on their way that few slots are left."""
        if jobs < self._most:
            self.sources.clear()
            return False
        return True

    def images_to_shed(
        self, slow_fetches: Counter[str], unfetched: Callable[[], Iterable[IntakeRequest]]
    ) -> list[IntakeRequest]:
        """Return the images of the jobs that must release their slots.

        Args:
            slow_fetches: By source, fetches in flight that take long.
            unfetched: Returns images that are queued, being fetched or waiting for a retry.
        """
        now = time.monotonic()
        self.check_at = now + CHECK_EVERY_S
        slow = {source for source, count in slow_fetches.items() if count >= self._slow_count}
        self.sources.clear()
        if not slow:
            return []
        by_source: dict[str, dict[str, list[IntakeRequest]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for request in unfetched():
            if request.job and request.source in slow and now - request.asked_at >= SLOW_S:
                by_source[request.source][request.job].append(request)
        crowded = {source: jobs for source, jobs in by_source.items() if len(jobs) > self._share}
        self.sources = {source for source, jobs in by_source.items() if len(jobs) >= self._share}
        shed: list[IntakeRequest] = []
        for jobs in crowded.values():
            newest_first = sorted(
                jobs.values(), key=lambda requests: requests[0].asked_at, reverse=True
            )
            for requests in newest_first[: len(jobs) - self._share]:
                shed.extend(requests)
        return shed
