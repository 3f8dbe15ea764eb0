"""Runs as the command line shows them: rows, fields, and a bar while one goes on."""

import time
from dataclasses import asdict
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from labelyard.cli.output import instant
from labelyard.cli.tables import Column
from labelyard.errors import RunTimeoutError
from labelyard.runs.lines import ErrorLine
from labelyard.runs.record import RunProgress, RunRecord

COLUMNS: Final = (
    Column("run"),
    Column("state"),
    Column("done", is_right=True),
    Column("total", is_right=True),
    Column("failed", is_right=True, rank=1),
    Column("tenant", rank=3),
    Column("started", rank=4),
    Column("source", rank=2, is_sentence=True),
)
ERROR_COLUMNS: Final = (
    Column("line", is_right=True),
    Column("code"),
    Column("custom_id", rank=1),
    Column("message", is_sentence=True),
)
#: Seconds between two lines of progress where there is no terminal.
LINE_EVERY_S: Final = 10.0


def run_row(run: RunRecord) -> tuple[object, ...]:
    """Return the cells of a run, for :data:`COLUMNS`."""
    started = instant(run.submitted_at)
    done, total = run.done, at_least(run.lines, is_known=run.is_planned)
    return run.run_id, run.state, done, total, run.failed, run.tenant, started, run.request.source


def count_row(line: ErrorLine) -> tuple[object, ...]:
    """Return the cells of an error, for :data:`ERROR_COLUMNS`."""
    return line.line, line.code, line.custom_id or "", line.message


def run_fields(run: RunRecord) -> dict[str, Any]:
    """Describe a run, without its request and its summary."""
    return {
        "run_id": run.run_id,
        "state": run.state,
        "tenant": run.tenant,
        "source": run.request.source,
        "out": run.request.out,
        "started_at": instant(run.submitted_at),
        "finished_at": instant(run.finished_at),
        "done": run.done,
        "total": run.lines,
        "is_total_known": run.is_planned,
        "succeeded": run.succeeded,
        "failed": run.failed,
        "bad_lines": run.bad_lines,
        "errors": dict(run.errors),
        "failure": run.failure.message if run.failure is not None else None,
    }


def progress_fields(progress: RunProgress) -> dict[str, Any]:
    """Describe the progress of a run."""
    return {**asdict(progress), "errors": dict(progress.errors)}


def at_least(total: int, *, is_known: bool) -> str:
    """Write a total, or that there may be more."""
    return str(total) if is_known else f"{total}+"


def span(seconds: float | None) -> str:
    """Write a time for people."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def progress_line(progress: RunProgress) -> str:
    """Write the progress of a run in one line."""
    total = at_least(progress.total, is_known=progress.is_total_known)
    parts = [f"{progress.state} {progress.done}/{total}"]
    if progress.images_per_s is not None:
        parts.append(f"{progress.images_per_s:.1f} images/s")
    if progress.seconds_left is not None:
        parts.append(f"{span(progress.seconds_left)} left")
    parts += [f"{code} {count}" for code, count in list(progress.errors.items())[:4]]
    return "  ".join(parts)


class RunBar:
    """Bar on standard error while a run goes on; without a terminal a line now and then.

    Args:
        timeout_s: Seconds after which waiting ends; ``None`` waits for ever.
    """

    def __init__(self, *, timeout_s: float | None) -> None:
        self._until = None if timeout_s is None else time.monotonic() + timeout_s
        self._console = Console(stderr=True)
        self._progress = Progress(
            BarColumn(),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task: TaskID | None = None
        self._printed_at = float("-inf")

    def show(self, progress: RunProgress) -> None:
        """Show the progress."""
        line = progress_line(progress)
        if not self._console.is_interactive:
            if time.monotonic() - self._printed_at >= LINE_EVERY_S:
                self._printed_at = time.monotonic()
                self._console.print(line, soft_wrap=True, markup=False, highlight=False)
            return
        if self._task is None:
            self._task = self._progress.add_task("")
            self._progress.start()
        total = progress.total if progress.is_total_known else None
        self._progress.update(self._task, description=line, completed=progress.done, total=total)

    def check(self, progress: RunProgress) -> None:
        """End the waiting when its time is over.

        Raises:
            RunTimeoutError: It is.
        """
        if self._until is not None and time.monotonic() >= self._until:
            self.close()
            raise RunTimeoutError(f"{progress.run_id} is {progress.state}")

    def close(self) -> None:
        """Erase the bar."""
        if self._task is not None:
            self._progress.stop()
            self._task = None
