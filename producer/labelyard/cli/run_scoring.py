"""A command's wait for the run that scores its manifest: progress, a time limit, Ctrl-C."""

from dataclasses import dataclass

import typer

from labelyard.cli.interrupts import lasting_interrupts
from labelyard.cli.job_wait import WaitOptions
from labelyard.cli.progress import ProgressLine
from labelyard.cli.run_view import RunBar
from labelyard.command_group import EXIT_INTERRUPTED
from labelyard.errors import LabelyardError
from labelyard.evaluation.scoring_calls import how_to_come_back, run_goes_on
from labelyard.runs.client import RunHandle, Runs
from labelyard.runs.record import RunRecord


@dataclass(frozen=True)
class RunWait:
    """Waits for a run with a bar.

    Attributes:
        runs: Those of the client.
        progress: Prints lines on standard error.
        options: How to wait.
    """

    runs: Runs
    progress: ProgressLine
    options: WaitOptions

    def wait(self, handle: RunHandle) -> RunRecord:
        """Wait until the run has ended.

        Raises:
            RunTimeoutError: It has not ended in time; it goes on.
        """
        if not self.options.is_quiet:
            self.progress.print(_begin_of(handle, self.runs.get(handle.id)))
        try:
            with lasting_interrupts(), run_goes_on(handle.id):
                self._follow(handle.id)
        except KeyboardInterrupt:
            self.progress.print(f"interrupted: {self._outcome_of_interrupt(handle.id)}")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        return self.runs.get(handle.id)

    def _follow(self, run_id: str) -> None:
        bar = RunBar(timeout_s=self.options.timeout_s)
        try:
            for progress in self.runs.watch(run_id):
                if self.runs.get(run_id).is_final:
                    return
                if not self.options.is_quiet:
                    bar.show(progress)
                bar.check(progress)
        finally:
            bar.close()

    def _outcome_of_interrupt(self, run_id: str) -> str:
        """Cancel the run if that is wanted, and return the line about it."""
        if not self.options.cancels:
            return how_to_come_back(run_id)
        try:
            self.runs.cancel(run_id)
        except LabelyardError as error:
            return f"the run {run_id} is not cancelled: {error}"
        return f"the run {run_id} is cancelled; labelyard run resume {run_id} goes on with it"


def _begin_of(handle: RunHandle, run: RunRecord) -> str:
    """Say which run the command waits for."""
    if handle.is_new:
        return f"run {handle.id} scores the pictures, files below {handle.out}"
    if run.is_final:
        return (
            f"run {handle.id} scored the same pictures before: its results are read again; "
            "another --out prefix scores them anew"
        )
    return f"the command goes on with run {handle.id}, files below {handle.out}"
