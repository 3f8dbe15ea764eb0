"""Counters of the ingest service, and their text for Prometheus."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

PREFIX: Final = "labelyard_ingest_"
#: Upper bounds of the histogram of request times, in seconds.
BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class IngestCounters:
    """Counts requests, events and jobs; used by one event loop, so without a lock.

    Attributes:
        running: Requests that are being answered.
        connections: Open connections.
        waiting: Events that wait for their job.
    """

    def __init__(self) -> None:
        self._requests: Counter[int] = Counter()
        self._events: Counter[tuple[str, str]] = Counter()
        self._jobs: Counter[str] = Counter()
        self._reloads: Counter[str] = Counter()
        self._request_s: list[int] = [0] * (len(BUCKETS_S) + 1)
        self._request_sum_s = 0.0
        self.running: int = 0
        self.connections: int = 0
        self.waiting: int = 0

    def note_request(self, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests[status] += 1
        self._request_sum_s += seconds
        above = sum(1 for bound in BUCKETS_S if seconds > bound)
        self._request_s[above] += 1

    def note_event(self, outcome: str, *, rule: str = "", number: int = 1) -> None:
        """Count events of one outcome, and the rule that took them."""
        self._events[rule, outcome] += number

    def note_jobs(self, rule: str, number: int) -> None:
        """Count submitted jobs of a rule."""
        self._jobs[rule] += number

    def note_reload(self, outcome: str) -> None:
        """Count a reload of the rules: ``done`` or ``refused``."""
        self._reloads[outcome] += 1

    def events(self, outcome: str) -> int:
        """Return the number of events of one outcome."""
        return sum(count for (_, one), count in self._events.items() if one == outcome)

    def text(self) -> str:
        """Write all counters in Prometheus' text format."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield from _head("requests_total", "counter", "Answered requests, by HTTP status.")
        for status, count in sorted(self._requests.items()):
            yield f'{PREFIX}requests_total{{status="{status}"}} {count}'
        yield from _head("events_total", "counter", "Events, by rule and outcome.")
        for (rule, outcome), count in sorted(self._events.items()):
            yield f'{PREFIX}events_total{{rule="{rule}",outcome="{outcome}"}} {count}'
        yield from _head("jobs_total", "counter", "Submitted jobs, by rule.")
        for rule, count in sorted(self._jobs.items()):
            yield f'{PREFIX}jobs_total{{rule="{rule}"}} {count}'
        yield from _head("reloads_total", "counter", "Reloads of the rules, by outcome.")
        for outcome, count in sorted(self._reloads.items()):
            yield f'{PREFIX}reloads_total{{outcome="{outcome}"}} {count}'
        gauges = {
            "running_requests": (self.running, "Requests that are being answered."),
            "connections": (self.connections, "Open connections."),
            "waiting_events": (self.waiting, "Events that wait for the record of their job."),
        }
        for name, (value, meaning) in gauges.items():
            yield from _head(name, "gauge", meaning)
            yield f"{PREFIX}{name} {value}"
        yield from _head("request_seconds", "histogram", "Time from a request to its answer.")
        total = 0
        for bound, count in zip(BUCKETS_S, self._request_s, strict=False):
            total += count
            yield f'{PREFIX}request_seconds_bucket{{le="{bound:g}"}} {total}'
        total += self._request_s[-1]
        yield f'{PREFIX}request_seconds_bucket{{le="+Inf"}} {total}'
        yield f"{PREFIX}request_seconds_sum {self._request_sum_s:.6f}"
        yield f"{PREFIX}request_seconds_count {total}"


def _head(name: str, kind: str, meaning: str) -> tuple[str, str]:
    return f"# HELP {PREFIX}{name} {meaning}", f"# TYPE {PREFIX}{name} {kind}"
