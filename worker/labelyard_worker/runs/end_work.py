"""End of a run as the executor runs it: what no shard could write, then the summary."""

import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Final

from labelyard.errors import JobCancelledError, RunFilesError
from labelyard.ledger import Ledger, Pending
from labelyard.messages import Failure, Result
from labelyard.runs.ledger import RunLedger
from labelyard.runs.parts import EndPart, number_of
from labelyard.runs.record import RunRecord
from labelyard.runs.run_end import RunEnd
from labelyard.runs.summaries import RunSummary, ShardSummary
from labelyard_worker.jobs.cancellation import Token
from labelyard_worker.jobs.delivery.plan import Delivery, deliveries_of
from labelyard_worker.jobs.work import ReceivedMessage
from labelyard_worker.runs.files.run_counts import RunCounts
from labelyard_worker.runs.part_work import PartWork
from labelyard_worker.runs.shard_storage import OpenFiles, lines_of, store_files, write_failed
from labelyard_worker.runs.storage import PLAN_FOLDER, RunStorage
from labelyard_worker.settings import WorkerSettings

log = logging.getLogger(__name__)

READS_AT_ONCE: Final = 8
#: Labels and error codes of a summary that the ledger keeps.
KEPT_COUNTS: Final = 50


@dataclass(frozen=True)
class EndParts:
    """Parts of a worker that the ends of runs use."""

    runs: RunLedger
    storage: RunStorage
    open_files: OpenFiles
    settings: WorkerSettings


@dataclass(frozen=True)
class EndResult:
    """State in which a run ends, with its summary or the reason why there is none."""

    state: str
    summary: RunSummary | None = None
    failure: Failure | None = None

    def to_end(self, part: EndPart) -> RunEnd:
        """Describe the end for the webhook of the run."""
        end = RunEnd(
            run_id=part.run_id,
            state=self.state,
            tenant=part.tenant,
            out=part.out or "",
            error=self.failure,
        )
        if self.summary is None:
            return end
        names = ("images", "bad_lines", "errors", "seconds")
        counts = {name: getattr(self.summary, name) for name in names}
        counts["errors"] = first_entries(counts["errors"])
        return end.model_copy(update=counts)


@dataclass(frozen=True)
class EndWork(PartWork[EndResult]):
    """The end of one run."""

    part: EndPart
    parts: EndParts

    @classmethod
    def read(cls, message: ReceivedMessage, parts: EndParts) -> "EndWork":
        """Parse the end in *message*.

        Raises:
            InvalidMessageError: It is not one.
        """
        return cls(EndPart.parse(message.body), parts)

    @property
    def timeout_s(self) -> float:
        """Seconds that one attempt may take."""
        return self.parts.settings.plan_timeout_s

    def run(self, token: Token, *, queued_s: float) -> EndResult:  # noqa: ARG002 - not shown
        """Write the lines of failed shards, merge the summaries of all shards."""
        run = self.parts.runs.find(self.part.run_id)
        if run.step != "finishing":
            self.parts.runs.ledger.cancel(self.job_id)
            raise JobCancelledError(self.job_id)
        self._write_failed_shards(run, token)
        self._remove_replaced(run, token)
        now = self.parts.runs.ledger.now()
        counts = RunCounts()
        for shard in self._summaries(run, token):
            counts.add(shard)
        summary = counts.summary(
            run_id=run.run_id,
            state=run.ends_as,
            seconds=max(0.0, now - run.submitted_at),
            computed_again=run.computed_again,
        )
        if not run.ends_as:
            summary = summary.model_copy(update={"state": state_of(summary)})
        body = summary.model_dump_json(indent=1).encode()
        if run.shards_planned:
            self.parts.storage.put(
                run.request, "summary.json", body, content_type="application/json"
            )
        return EndResult(summary.state, summary, run.failure)

    def _write_failed_shards(self, run: RunRecord, token: Token) -> None:
        """Write each line of a shard that failed as a whole, so that none is missing."""
        for name, (lines, failure) in self.parts.runs.failed_shards(run.run_id).items():
            token.check()
            files = self.parts.open_files(run.request, name)
            try:
                write_failed(files, lines_of(self.parts.storage, run.request, lines), failure)
                store_files(self.parts.storage, run.request, files, name=name, seconds=0.0)
            finally:
                files.close()

    def _remove_replaced(self, run: RunRecord, token: Token) -> None:
        """Remove the files of shards in whose place smaller ones stand.

        A worker may die after it has written a shard's files and before the ledger knows of it.
        If the shard is then split, its lines would be there twice.
        """
        done = set(self.parts.runs.done_shards(run.run_id))
        split = {number_of(name) for name in done if name != number_of(name)}
        if not split:
            return
        for kind in ("results", "errors", "embeddings"):
            for name in self.parts.storage.list_names(run.request.out, f"{kind}-"):
                token.check()
                shard = name.removeprefix(f"{kind}-").rpartition(".")[0]
                if number_of(shard) in split and shard not in done:
                    self._remove(run, name, shard)

    def _remove(self, run: RunRecord, name: str, shard: str) -> None:
        """Delete a file, or write it again without lines if the worker may not delete."""
        log.info("run_file_replaced", extra={"fields": {"run_id": run.run_id, "file": name}})
        try:
            self.parts.storage.delete(run.request, name)
        except RunFilesError:
            files = self.parts.open_files(run.request, shard)
            try:
                for output in files.finish():
                    with output.body as body:
                        self.parts.storage.put(
                            run.request, output.name, body.read(), content_type=output.content_type
                        )
            finally:
                files.close()

    def _summaries(self, run: RunRecord, token: Token) -> Iterator[ShardSummary]:
        """Read the summaries of the shards that are done, a bounded number at once."""
        names = self.parts.runs.done_shards(run.run_id)

        def read(name: str) -> ShardSummary:
            token.check()
            body = self.parts.storage.get(run.request, f"{PLAN_FOLDER}summary-{name}.json")
            return ShardSummary.model_validate_json(body)

        with ThreadPoolExecutor(READS_AT_ONCE, thread_name_prefix="labelyard-run-end") as pool:
            for first in range(0, len(names), READS_AT_ONCE * 4):
                yield from pool.map(read, names[first : first + READS_AT_ONCE * 4])

    def failed(self, failure: Failure) -> EndResult:
        """Make the result of an end that cannot be written: the run fails."""
        return EndResult("failed", failure=failure)

    def delivery(self, result: EndResult) -> Delivery | None:
        """Return the delivery to the webhook that the run names."""
        names = deliveries_of(self.part)
        return Delivery(self.part, result.to_end(self.part), names) if names else None

    def finish(self, ledger: Ledger, result: EndResult, *, pending: Pending, is_dead: bool) -> bool:  # noqa: ARG002
        """Make the run final, and have its end sent to its webhook."""
        is_failed = result.summary is None
        record = Result(
            job_id=self.job_id,
            status="failed" if is_failed else "succeeded",
            tenant=self.tenant,
            error=result.failure if is_failed else None,
        )
        return self.parts.runs.finish_run(
            self.part,
            state=result.state,
            summary=short_summary(result.summary) if result.summary is not None else "",
            failure=result.failure if is_failed else None,
            result=record.model_dump_json(),
            notice=result.to_end(self.part),
            pending=pending,
        )

    def failure_code(self, result: EndResult) -> str:
        """Return the code for which the summary could not be written."""
        return result.failure.code if result.failure and result.summary is None else ""

    def describe(self, result: EndResult) -> Mapping[str, object]:
        """Return run, state and numbers."""
        images = result.summary.images.model_dump() if result.summary is not None else {}
        return {"run_id": self.part.run_id, "status": result.state, **images}


def state_of(summary: RunSummary) -> str:
    """Return the state of a run whose shards are all done."""
    failed = summary.images.failed + summary.bad_lines
    if not failed:
        return "succeeded"
    return "partial" if summary.images.succeeded else "failed"


def short_summary(summary: RunSummary) -> str:
    """Write a summary for the ledger: without histograms, and with few labels."""
    short = {
        "score_histograms": {},
        "labels": first_entries(summary.labels),
        "matched": first_entries(summary.matched),
        "errors": first_entries(summary.errors),
    }
    return summary.model_copy(update=short).model_dump_json()


def first_entries(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the first counts, which are the largest, as many as the ledger keeps."""
    return dict(islice(counts.items(), KEPT_COUNTS))
