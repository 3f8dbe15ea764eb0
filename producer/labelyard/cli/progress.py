"""Progress on standard error: a bar while a command waits, on a terminal only."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text


class ProgressLine:
    """Bar that is erased in the end, and lines of text above it; standard output is left alone.

    Args:
        is_shown: Whether there is a bar at all; lines are printed either way.
    """

    def __init__(self, *, is_shown: bool) -> None:
        self._console = Console(stderr=True)
        #: Whether there is a bar: never in a file, a pipe, a log or a dumb terminal.
        self.is_shown: bool = is_shown and self._console.is_interactive
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            # Results go to standard output, which may be a file.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task: TaskID | None = None

    @contextmanager
    def track(self, description: str, *, total: int = 0) -> Iterator[Callable[[int], None]]:
        """Show a bar while the block runs; the function that it yields counts what is done."""
        if not self.is_shown:
            yield lambda _: None
            return
        self._task = task = self._progress.add_task(description, total=total)
        self._progress.start()
        try:
            yield lambda done: self._progress.advance(task, done)
        finally:
            self._progress.stop()
            self._progress.remove_task(task)
            self._task = None

    def expect(self, more: int) -> None:
        """Raise the total of the bar."""
        for task in self._progress.tasks:
            self._progress.update(task.id, total=(task.total or 0) + more)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Take the bar away while the block prints results."""
        is_running = self._task is not None
        if is_running:
            self._progress.stop()
        try:
            yield
        finally:
            if is_running:
                self._progress.start()

    def print(self, line: str) -> None:
        """Print a line on standard error, above the bar."""
        self._console.print(Text(line), soft_wrap=True)
