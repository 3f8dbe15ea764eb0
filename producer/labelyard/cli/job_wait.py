"""A command's wait for its jobs: progress, no worker, a time limit, Ctrl-C, and a summary."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Annotated, Final, Self

import typer

from labelyard.cli.interrupts import lasting_interrupts
from labelyard.cli.progress import ProgressLine
from labelyard.cli.result_output import ResultWriter
from labelyard.client import Client, JobHandle
from labelyard.command_group import EXIT_FAILED, EXIT_INTERRUPTED, CommandError
from labelyard.diagnosis.phrases import count_of
from labelyard.errors import JobNotFoundError, LabelyardError
from labelyard.ledger import Record
from labelyard.messages import Job
from labelyard.queues import SubmitQueueName
from labelyard.service_urls import without_password

#: Seconds without a worker after which the command says so.
NO_WORKER_AFTER_S: Final = 3.0
#: Longest that an end of the wait is held up by the look for workers.
LOOK_WITHIN_S: Final = 2.0


def with_group_s(ctx: typer.Context, quiet: bool) -> bool:
    """Return whether ``--quiet`` stands after the command, or before it."""
    return quiet or bool(ctx.parent is not None and ctx.parent.params.get("quiet"))


CancelOnInterrupt = Annotated[
    bool, typer.Option("--cancel-on-interrupt", help="Cancel the jobs at Ctrl-C")
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", callback=with_group_s, help="No progress, no summary, no hints"),
]


@dataclass(frozen=True, kw_only=True)
class WaitOptions:
    """How a command waits.

    Attributes:
        timeout_s: Seconds until it gives up.
        is_quiet: Whether only results and errors are printed.
        cancels: Whether Ctrl-C cancels the jobs.
    """

    timeout_s: float
    is_quiet: bool
    cancels: bool


@dataclass(frozen=True, kw_only=True)
class WaitingOptions:
    """Options of every command that waits for jobs.

    Attributes:
        cancel_on_interrupt: Whether Ctrl-C cancels the jobs.
        quiet: Whether only results and errors are printed.
    """

    cancel_on_interrupt: CancelOnInterrupt = False
    quiet: Quiet = False

    def within(self, timeout_s: float) -> WaitOptions:
        """Return how to wait, given the command's time limit."""
        return WaitOptions(
            timeout_s=timeout_s, is_quiet=self.quiet, cancels=self.cancel_on_interrupt
        )


@dataclass
class Summary:
    """Images of the jobs that became final, and the seconds that they took.

    Attributes:
        failed: Images without labels.
    """

    started_at: float
    images: int = 0
    failed: int = 0

    def add(self, record: Record) -> None:
        """Count the images of a final job."""
        self.images += record.images
        result = record.result if record.state != "cancelled" else None
        if result is None or not result.images:
            self.failed += record.images
        else:
            self.failed += sum(image.error is not None for image in result.images)

    def line(self, *, of_images: int) -> str:
        """Write the summary; *of_images* counts those that were not final as well."""
        seconds = max(time.monotonic() - self.started_at, 1e-3)
        done = str(self.images) if of_images == self.images else f"{self.images} of {of_images}"
        noun = "image" if of_images == 1 else "images"
        rate = self.images / seconds
        return f"{done} {noun}, {self.failed} failed, {seconds:.2f} s, {rate:.3g} images/s"


class JobWait:
    """Submits a command's jobs, writes their results as they come, and explains an early end.

    Use it as a context: at its end it prints the summary, and exits with a code for shells.
    """

    def __init__(
        self, client: Client, writer: ResultWriter, progress: ProgressLine, options: WaitOptions
    ) -> None:
        self._client = client
        self._writer = writer
        self._progress = progress
        self._options = options
        self._open: dict[str, int] = {}
        #: Whether the command has more pictures than those submitted so far.
        self.has_more = False
        self._is_submitting = False
        self._has_failed = False
        self._summary = Summary(time.monotonic())
        self._interrupts = ExitStack()
        self._ending = ExitStack()
        self._advance: Callable[[int], None] | None = None
        self._look = threading.Timer(NO_WORKER_AFTER_S, self._look_for_workers)
        self._look.daemon = True

    def __enter__(self) -> Self:
        self._interrupts.enter_context(lasting_interrupts())
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._interrupts.close()
        self._look.cancel()
        if self._look.is_alive():
            self._look.join(LOOK_WITHIN_S)
        self._ending.close()
        self._print_summary()
        if isinstance(error, KeyboardInterrupt):
            self._progress.print(f"interrupted: {self._outcome_of_interrupt()}")
            raise typer.Exit(EXIT_INTERRUPTED)
        if isinstance(error, CommandError) and self._open:  # the results cannot be written
            error.add_note(self._how_to_read())
        elif isinstance(error, LabelyardError):
            if self._open and not self._is_submitting and not isinstance(error, JobNotFoundError):
                error.add_note(self._how_to_go_on())
        elif error is None and self._has_failed:
            raise typer.Exit(EXIT_FAILED)

    def submit(self, jobs: Sequence[Job], queue: SubmitQueueName) -> list[JobHandle]:
        """Submit jobs; an interrupt from now on names them."""
        self._is_submitting = True
        self._open |= {job.job_id: job.count_images() for job in jobs}
        handles = submit_jobs(self._client, jobs, queue)
        self._is_submitting = False
        return handles

    def wait(self, jobs: Iterable[str | JobHandle]) -> None:
        """Write the results of *jobs* as they become final."""
        for job in jobs:
            job_id = job if isinstance(job, str) else job.id
            if job_id not in self._open:  # submitted by another command
                is_counted = self._progress.is_shown
                self._open[job_id] = self._client.status(job_id).images if is_counted else 0
        if self._advance is None:
            self._advance = self._ending.enter_context(self._progress.track("images"))
        self._progress.expect(sum(self._open.values()))
        if self._look.ident is None and not self._options.is_quiet:
            self._look.start()
        for record in self._client.as_completed(
            list(self._open), timeout_s=self._options.timeout_s
        ):
            with self._progress.paused():
                self._has_failed |= not self._writer.write(record)
            self._open.pop(record.job_id, None)
            self._summary.add(record)
            self._advance(record.images)

    def _look_for_workers(self) -> None:
        """Print once that no worker takes jobs, with what to do."""
        if not self._open:
            return
        try:
            workers = self._client.workers()
        except LabelyardError:
            return  # the wait itself reports a ledger that stays away
        if any(worker.state != "draining" for worker in workers):
            return
        settings = self._client.settings
        where = f"the namespace {settings.namespace} of {without_password(settings.ledger_url)}"
        self._progress.print(
            f"no worker is alive in {where}: start one there with `labelyard-worker start`, or "
            "set LABELYARD_LEDGER_URL, LABELYARD_BROKER_URL and LABELYARD_NAMESPACE as the "
            "workers have them; the jobs wait meanwhile"
        )

    def _outcome_of_interrupt(self) -> str:
        """Cancel the open jobs if that is wanted, and return the line about them."""
        if not self._open:
            return "no job is left open"
        return self._cancel() if self._options.cancels else self._how_to_go_on()

    def _cancel(self) -> str:
        cancelled: list[str] = []
        kept: list[str] = []
        for job_id in self._open:
            try:
                (cancelled if self._client.cancel(job_id) else kept).append(job_id)
            except LabelyardError as error:
                if error.is_retryable:
                    kept.append(job_id)
        text = f"{count_of(len(cancelled), 'job')} cancelled: {' '.join(cancelled)}"
        rest = f"; not cancelled: {' '.join(kept)}" if kept else ""
        return text + rest

    def _how_to_go_on(self) -> str:
        goes = "goes" if len(self._open) == 1 else "go"
        may = "may have been accepted, and then " if self._is_submitting else ""
        what = f"{count_of(len(self._open), 'job')} {may}{goes} on"
        rest = "; pictures after these were not submitted" if self.has_more else ""
        return f"{what}{rest}; {self._how_to_read()}"

    def _how_to_read(self) -> str:
        return f"get the results with: labelyard wait {' '.join(self._open)}"

    def _print_summary(self) -> None:
        of_images = self._summary.images + sum(self._open.values())
        if self._summary.images and not self._options.is_quiet:
            self._progress.print(self._summary.line(of_images=of_images))


def submit_jobs(client: Client, jobs: Sequence[Job], queue: SubmitQueueName) -> list[JobHandle]:
    """Submit jobs, and print a line if the broker does not have them yet."""
    handles = client.submit_many(jobs, queue=queue)
    if not all(handle.is_published for handle in handles):
        typer.echo(
            "broker_unavailable: the jobs are accepted, and sent when the broker is back", err=True
        )
    return handles
