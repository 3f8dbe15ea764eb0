"""Text of ``labelyard status``: the state of the service for people."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from rich.text import Text

from labelyard.cli.fleet import device_of
from labelyard.cli.service_advice import advise
from labelyard.cli.service_state import SOUND, ServiceFigures, ServiceState
from labelyard.cli.tables import Column, pair_lines, table_lines
from labelyard.cli.words import count, lasted
from labelyard.diagnosis.phrases import count_of
from labelyard.ledger import FINAL_STATES, Backlog
from labelyard.queues import Queue

WORKER_COLUMNS: Final = (
    Column("workers", is_right=True),
    Column("state"),
    Column("checkpoint", is_sentence=True),
    Column("dtype", rank=2),
    Column("device", rank=1),
    Column("version", rank=3),
)
QUEUE_COLUMNS: Final = (
    Column("queue"),
    Column("messages", is_right=True, rank=2),
    Column("open jobs", is_right=True),
    Column("open images", is_right=True),
    Column("oldest", is_right=True, rank=1),
)
NOTHING_OPEN: Final = Backlog(images=0, jobs=0)


def page_lines(state: ServiceState, *, width: int | None) -> list[Text]:
    """Write the page that ``labelyard status`` prints."""
    lines = pair_lines({"ledger": state.ledger, "broker": state.broker})
    figures = state.figures
    if figures is not None:
        lines += [Text(), *worker_lines(figures, width=width)]
    if figures is not None or state.broker == SOUND:
        lines += [Text(), *queue_lines(state, width=width)]
    if figures is not None:
        lines += [Text(), *pair_lines(dict(_counts(figures)))]
    return [*lines, Text(), *advice_lines(advise(state))]


def worker_lines(figures: ServiceFigures, *, width: int | None) -> list[Text]:
    """Draw the workers, those that are alike in one row."""
    alike = Counter(
        (worker.state, worker.checkpoint, worker.dtype, device_of(worker), worker.version)
        for worker in figures.workers
    )
    if not alike:
        return [Text("no workers", style="bold")]
    rows = [(number, *facts) for facts, number in alike.most_common()]
    return table_lines(WORKER_COLUMNS, rows, width=width)


def queue_lines(state: ServiceState, *, width: int | None) -> list[Text]:
    """Draw each queue with its messages and its open jobs."""
    backlog = state.figures.by_queue() if state.figures is not None else {}
    oldest = state.figures.oldest_open if state.figures is not None else {}
    rows = []
    for queue in Queue:
        messages = state.queues.get(queue)
        jobs = backlog.get(queue, NOTHING_OPEN)
        if not queue.rules.holds_jobs and not messages:
            continue
        age = lasted(oldest[queue]) if queue in oldest else "-"
        known = "?" if messages is None else count(messages)
        rows.append((queue.value, known, count(jobs.jobs), count(jobs.images), age))
    return table_lines(QUEUE_COLUMNS, rows, width=width)


def advice_lines(sentences: Sequence[str]) -> list[Text]:
    """Write the advice, or that there is none."""
    if not sentences:
        return [Text("All is well.", style="green")]
    return [Text("What to do", style="bold"), *(Text(f"- {one}") for one in sentences)]


def _counts(figures: ServiceFigures) -> Iterator[tuple[str, str]]:
    yield "open", f"{_jobs(figures.open_jobs)}, {count_of(figures.open_images, 'image')}"
    ended = {state: number for state, number in figures.totals.items() if state in FINAL_STATES}
    yield "ended", _listed(ended) or "no job yet"
    yield "dead letters", count(figures.dead_letters)
    dropped = figures.set_aside_dropped
    more = f", {count(dropped)} more dropped" if dropped else ""
    yield "set aside", f"{count_of(figures.set_aside, 'message')}{more}"
    yield "deliveries", _listed(figures.deliveries) or "none"
    yield "failing", ", ".join(figures.breakers) or "no bucket, no host"


def _jobs(number: int) -> str:
    return f"{count(number)} job{'' if number == 1 else 's'}"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(
        f"{count(number)} {name.replace('_', ' ')}" for name, number in counts.items() if number
    )
