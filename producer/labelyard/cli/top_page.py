"""Page of ``labelyard top``: rates, workers, backlog and faults, cut to the size of the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from labelyard.cli.fleet import breakers_of, device_of
from labelyard.cli.service_page import queue_lines
from labelyard.cli.service_state import SOUND, ServiceFigures, ServiceState
from labelyard.cli.tables import Column, table_lines
from labelyard.cli.words import ago, count

TENANTS_SHOWN: Final = 10
#: States of jobs that workers brought to an end.
ANSWERED: Final = ("succeeded", "partial", "failed")
WORKER_COLUMNS: Final = (
    Column("worker"),
    Column("state", rank=2),
    Column("jobs", is_right=True),
    Column("last sign", rank=4),
    Column("checkpoint", rank=5, is_sentence=True),
    Column("device", rank=3),
    Column("failing", rank=1),
)
TENANT_COLUMNS: Final = (
    Column("tenant"),
    Column("open jobs", is_right=True),
    Column("open images", is_right=True),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """State of the service at one moment.

    Attributes:
        at: When it was read, by the monotonic clock.
    """

    state: ServiceState
    at: float


@dataclass(frozen=True, slots=True)
class Rates:
    """Jobs and images that workers finished in a second, between two samples."""

    jobs_per_s: float
    images_per_s: float

    @classmethod
    def between(cls, before: Sample | None, after: Sample) -> "Rates | None":
        """Compute the rates; ``None`` without two samples of the same ledger."""
        if before is None or before.state.figures is None or after.state.figures is None:
            return None
        earlier, later = before.state.figures, after.state.figures
        seconds = after.at - before.at
        jobs = _answered(later.totals) - _answered(earlier.totals)
        images = _answered(later.image_totals) - _answered(earlier.image_totals)
        if seconds <= 0 or jobs < 0 or images < 0:  # the ledger was emptied meanwhile
            return None
        return cls(jobs / seconds, images / seconds)


def _answered(totals: Mapping[str, int]) -> int:
    return sum(totals.get(state, 0) for state in ANSWERED)


def top_lines(
    sample: Sample, rates: Rates | None, *, width: int | None, height: int | None
) -> list[Text]:
    """Write the page; the last lines are left out if the terminal has fewer.

    Args:
        width: Cells of the terminal; ``None`` prints everything in full.
        height: Lines of the terminal; ``None`` prints them all.
    """
    state = sample.state
    lines = [*_headlines(state.figures, rates, width=width), *_faults(state)]
    if state.figures is not None:
        lines += [Text(), *queue_lines(state, width=width)]
        lines += [Text(), *_worker_lines(state.figures, width=width)]
        if state.figures.backlog:
            lines += [Text(), *_tenant_lines(state.figures, width=width)]
    return [_fit_width(line, width) for line in fit_height(lines, height)]


def _headlines(
    figures: ServiceFigures | None, rates: Rates | None, *, width: int | None
) -> list[Text]:
    """Write the main figures, in as many lines as they need."""
    if figures is None:
        return [Text("labelyard: no figures", style="bold")]
    parts = (
        f"jobs/s {'-' if rates is None else format(rates.jobs_per_s, ',.1f')}",
        f"images/s {'-' if rates is None else format(rates.images_per_s, ',.1f')}",
        f"open images {count(figures.open_images)}",
        f"workers {len(figures.live)}",
        f"dead letters {count(figures.dead_letters)}",
        f"set aside {count(figures.set_aside)}",
    )
    lines = [parts[0]]
    for part in parts[1:]:
        longer = f"{lines[-1]}   {part}"
        if width is None or len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(part)
    return [Text(line, style="bold") for line in lines]


def _faults(state: ServiceState) -> list[Text]:
    lines = [
        Text(f"{name}: {answer}", style="red")
        for name, answer in (("ledger", state.ledger), ("broker", state.broker))
        if answer != SOUND
    ]
    if state.figures is not None and state.figures.breakers:
        lines.append(Text(f"failing: {', '.join(state.figures.breakers)}", style="yellow"))
    return lines


def _worker_lines(figures: ServiceFigures, *, width: int | None) -> list[Text]:
    if not figures.workers:
        return [Text("no workers", style="yellow")]
    busiest = sorted(figures.workers, key=lambda worker: (-len(worker.running), worker.name))
    rows = [
        (
            worker.name,
            worker.state,
            f"{len(worker.running)}{f'/{worker.concurrency}' if worker.concurrency else ''}",
            ago(worker.last_seen_s),
            worker.checkpoint,
            device_of(worker),
            breakers_of(worker),
        )
        for worker in busiest
    ]
    return table_lines(WORKER_COLUMNS, rows, width=width, has_note=False)


def _tenant_lines(figures: ServiceFigures, *, width: int | None) -> list[Text]:
    tenants = list(figures.by_tenant().items())
    rows = [(tenant, count(one.jobs), count(one.images)) for tenant, one in tenants[:TENANTS_SHOWN]]
    lines = table_lines(TENANT_COLUMNS, rows, width=width, has_note=False)
    if (more := len(tenants) - TENANTS_SHOWN) > 0:
        lines.append(Text(f"and {count(more)} more tenants", style="dim"))
    return lines


def _fit_width(line: Text, width: int | None) -> Text:
    """Cut a line that would be broken into two."""
    if width is not None and line.cell_len > width:
        line = line.copy()
        line.truncate(width, overflow="ellipsis")
    return line


def fit_height(lines: Sequence[Text], height: int | None) -> list[Text]:
    """Keep the first lines that fit, and note how many are left out."""
    if height is None or len(lines) <= height:
        return list(lines)
    kept = max(0, height - 1)
    return [*lines[:kept], Text(f"{len(lines) - kept} more lines", style="dim")][:height]
