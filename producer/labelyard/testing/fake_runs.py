"""Runs of a client without servers: they end when the test ends them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from labelyard.errors import IdempotencyConflictError, RunNotFoundError
from labelyard.label_sets.aliases import AliasRegistry
from labelyard.runs.client import Runs, run_id_of
from labelyard.runs.ledger import RunLedger
from labelyard.runs.lines import ErrorLine
from labelyard.runs.parts import RunPart
from labelyard.runs.record import FINAL_RUN_STATES, RunProgress, RunRecord, RunState, progress_of
from labelyard.runs.request import RunRequest
from labelyard.settings import ClientSettings

# State after each step, for the states that permit it.
_OPEN = ("planning", "running", "paused")
_STEPS: dict[str, tuple[tuple[str, ...], RunState]] = {
    "pause": (_OPEN, "paused"),
    "resume": ((*_OPEN, "cancelled"), "running"),
    "cancel": ((*_OPEN, "cancelled"), "cancelled"),
}


class FakeRunLedger(RunLedger):
    """Records of runs, in memory."""

    def __init__(self) -> None:
        self.records: dict[str, RunRecord] = {}

    def open(self, request: RunRequest) -> bool:
        """Keep the record of a run; ``False`` if the same run has one."""
        known = self.records.get(request.run_id)
        if known is not None:
            if known.request.digest() != request.digest():
                raise IdempotencyConflictError(f"{request.run_id}: another run has this id")
            return False
        self.records[request.run_id] = RunRecord(
            run_id=request.run_id,
            state="running",
            step="running",
            tenant=request.tenant,
            request=request,
            submitted_at=float(len(self.records)),
        )
        return True

    def read(self, run_id: str) -> RunRecord | None:
        """Read the record of a run; ``None`` if there is none."""
        return self.records.get(run_id)

    def newest(self, *, limit: int) -> list[RunRecord]:
        """Read the records of the newest runs, the newest first."""
        return [*self.records.values()][::-1][:limit]

    def progress(self, run_id: str) -> RunProgress:
        """Read the progress of a run."""
        run = self.find(run_id)
        return progress_of(run, trails={}, samples=[], now=run.submitted_at)

    def steer(self, run_id: str, step: str, **_: object) -> bool:
        """Pause, resume or cancel a run; ``False`` if its state does not permit it."""
        run = self.find(run_id)
        permitted, state = _STEPS[step]
        if run.state not in permitted:
            return False
        self.records[run_id] = replace(run, state=state, step=state)
        return True

    def cancel_parts(self, run: RunRecord) -> None:
        """Do nothing: a run without servers has no jobs."""


class FakeRuns(Runs):
    """Runs, in memory.

    Attributes:
        error_lines: Lines that :meth:`errors` yields, by the id of the run.
        labelled: Addresses that :meth:`pictures` returns, by the id of the run.
    """

    def __init__(self, settings: ClientSettings, label_sets: AliasRegistry) -> None:
        self._settings = settings
        self._label_sets = label_sets
        self._records = FakeRunLedger()
        self._ledger = self._records
        self.error_lines: dict[str, list[ErrorLine]] = {}
        self.labelled: dict[str, list[str]] = {}

    def _open(self, part: RunPart) -> None:
        """Do nothing: there is no worker."""

    def finish(
        self, run_id: str, state: RunState = "succeeded", *, succeeded: int = 0, failed: int = 0
    ) -> None:
        """End a run.

        Args:
            state: State in which it ends.
            succeeded: Images with a result.
            failed: Images without one.
        """
        if state not in FINAL_RUN_STATES:
            raise ValueError(f"{state} is not a state in which a run ends")
        run = self.get(run_id)
        lines = succeeded + failed
        self._records.records[run_id] = replace(
            run,
            state=state,
            step=state,
            lines=lines,
            images=lines,
            done=lines,
            succeeded=succeeded,
            failed=failed,
            is_planned=True,
            finished_at=run.submitted_at + 1,
        )

    def errors(self, run_id: str, *, codes: Sequence[str] = ()) -> Iterator[ErrorLine]:
        """Yield the error lines that the test has set."""
        self.get(run_id)
        for line in self.error_lines.get(run_id_of(run_id), []):
            if not codes or line.code in codes:
                yield line

    def pictures(self, old_run: str, *, most: int = 1_000) -> Sequence[str]:
        """Return the addresses that the test has set."""
        if old_run not in self.labelled:
            self.get(old_run)
        return self.labelled.get(old_run, [])[:most]

    def download(self, run_id: str, folder: str | Path) -> Sequence[Path]:  # noqa: ARG002
        """Return no files: there is no storage.

        Raises:
            RunNotFoundError: There is no such run.
        """
        if self._records.read(run_id) is None:
            raise RunNotFoundError(run_id)
        return []
