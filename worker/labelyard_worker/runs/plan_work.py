"""Plan of a run as the executor runs it: the source is read once, and cut into shards."""

import json
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from labelyard.errors import JobCancelledError
from labelyard.label_sets import label_set_digest
from labelyard.ledger import Ledger, Pending
from labelyard.messages import Failure, LabelSet, ModelInfo, Result
from labelyard.runs.ledger import RunLedger
from labelyard.runs.parts import RunPart, ShardRange
from labelyard.runs.record import RunRecord
from labelyard.runs.request import RunRequest
from labelyard.tenants import read_policies
from labelyard.version import __version__
from labelyard_worker.classify import Classifier
from labelyard_worker.jobs.cancellation import Token
from labelyard_worker.jobs.work import ReceivedMessage
from labelyard_worker.runs.embedded_images import most_lines
from labelyard_worker.runs.part_work import PartWork
from labelyard_worker.runs.result_files import label_set_of, title_weights
from labelyard_worker.runs.shard_rescoring import check_model
from labelyard_worker.runs.shard_sizes import lines_of_shard
from labelyard_worker.runs.sources.plan_parts import LineSource, RunSourceError
from labelyard_worker.runs.storage import RunStorage
from labelyard_worker.settings import WorkerSettings

log = logging.getLogger(__name__)

#: Opens the source of a run at a checkpoint; ``None`` is its begin.
OpenSource = Callable[
    [RunRequest, Mapping[str, Any] | None, Callable[[], None]],
    AbstractContextManager[LineSource],
]
NO_LINES: Final = "it has no lines, or no object matches: check the prefix and the pattern"
NO_TEXTS: Final = (
    "old embeddings have no texts, which this label set reads beside pictures: start a run over the "
    "manifest, or name the version from before it learned to read texts"
)
#: Longest that the planner reads on without a look at the state of its run.
LOOK_EVERY: Final = 16


@dataclass(frozen=True)
class PlanParts:
    """Parts of a worker that plans use.

    Attributes:
        wake_feeder: Has the feeder begin its next round now, if this worker leads.
    """

    runs: RunLedger
    storage: RunStorage
    classifier: Classifier
    open_source: OpenSource
    settings: WorkerSettings
    wake_feeder: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class PlanResult:
    """Outcome of a plan.

    Attributes:
        lines: Lines that this attempt planned.
        shards: Shards of the whole plan.
        failure: Why the run cannot be planned.
    """

    lines: int = 0
    shards: int = 0
    failure: Failure | None = None


@dataclass
class PlanCut:
    """How far the source is cut into shards.

    Attributes:
        shards: Shards of the plan so far, those of earlier attempts included.
        checkpoint: Place in the source behind the last one.
        lines: Lines of this attempt.
        speed: Speed of one shard; 0 if none is finished.
        most: Most lines of a shard; 0 if it is not known yet.
    """

    shards: int
    checkpoint: Mapping[str, Any]
    lines: int = 0
    speed: float = 0.0
    most: int = 0


@dataclass(frozen=True)
class PlanWork(PartWork[PlanResult]):
    """The plan of one run."""

    part: RunPart
    parts: PlanParts

    @classmethod
    def read(cls, message: ReceivedMessage, parts: PlanParts) -> "PlanWork":
        """Parse the plan in *message*.

        Raises:
            InvalidMessageError: It is not a plan.
        """
        return cls(RunPart.parse(message.body), parts)

    @property
    def timeout_s(self) -> float:
        """Seconds that one attempt may take."""
        return self.parts.settings.plan_timeout_s

    def run(self, token: Token, *, queued_s: float) -> PlanResult:  # noqa: ARG002 - not shown
        """Cut the rest of the source into shards."""
        run = self.parts.runs.find(self.part.run_id)
        if run.is_planned:
            return PlanResult(shards=run.shards_planned)
        if run.step not in {"planning", "running"}:
            self.parts.runs.ledger.cancel(self.job_id)
            raise JobCancelledError(self.job_id)
        self.parts.storage.check(run.request)
        if not run.checkpoint:
            self._check_labels(run.request)
            if run.request.source_format == "embeddings":
                check_model(self.parts.storage, run.request, self.parts.classifier.model)
            self._write_manifest(run)
        return self._plan(run, token)

    def _check_labels(self, request: RunRequest) -> None:
        """Refuse a label set that is not registered, before a picture is read.

        Raises:
            UnknownLabelSetError: It is not.
            RunSourceError: It reads texts, and old embeddings have none.
        """
        label_set = label_set_of(request, self.parts.classifier.label_sets)
        weights = title_weights(label_set)
        if request.source_format == "embeddings" and weights is not None and weights.title > 0:
            raise RunSourceError(NO_TEXTS)

    def _write_manifest(self, run: RunRecord) -> None:
        manifest = manifest_of(run, model=self.parts.classifier.model)
        body = json.dumps(manifest, ensure_ascii=False, indent=1).encode()
        self.parts.storage.put(run.request, "manifest.json", body, content_type="application/json")

    def _plan(self, run: RunRecord, token: Token) -> PlanResult:
        checkpoint = json.loads(run.checkpoint) if run.checkpoint else None
        cut = PlanCut(run.shards_planned, checkpoint or {})
        with self.parts.open_source(run.request, checkpoint, token.check) as source:
            while self._plan_shard(run, source, cut, token):
                pass
        if not cut.shards:
            raise RunSourceError(f"{run.request.source}: {NO_LINES}")
        self._follow(self._complete(run, cut))
        self.parts.wake_feeder()
        return PlanResult(cut.lines, cut.shards)

    def _plan_shard(self, run: RunRecord, source: LineSource, cut: "PlanCut", token: Token) -> bool:
        """Cut the next shard; ``False`` at the end of the source."""
        token.check()
        if cut.shards % LOOK_EVERY == 0 or not cut.most:
            cut.speed = self.parts.runs.find(run.run_id).shard_images_per_s
            cut.most = self._most_lines(run.request)
        part = source.take(lines_of_shard(cut.shards, images_per_s=cut.speed, most=cut.most))
        if part is None:
            return False
        is_first = not run.epoch and (token.start or 0) <= 1
        attempt = "" if is_first else f".{run.epoch}.{token.start or 0}"
        name = f"shard-{cut.shards:05d}{attempt}"
        self.parts.storage.put_plan(run.request, name, part.body)
        bad_lines = part.lines - part.images
        verdict = self.parts.runs.plan(
            run.run_id,
            expected=cut.shards,
            name=f"{cut.shards:05d}",
            lines=ShardRange(plan=name, first=0, lines=part.lines),
            checkpoint=part.checkpoint,
            counts={"lines": part.lines, "images": part.images, "bad_lines": bad_lines},
            is_complete=False,
        )
        self._follow(verdict)
        if cut.shards < LOOK_EVERY:  # the workers wait for the first ones
            self.parts.wake_feeder()
        cut.shards, cut.lines, cut.checkpoint = (
            cut.shards + 1,
            cut.lines + part.lines,
            part.checkpoint,
        )
        return True

    def _complete(self, run: RunRecord, cut: "PlanCut") -> str:
        return self.parts.runs.plan(
            run.run_id,
            expected=cut.shards,
            name="",
            lines=None,
            checkpoint={**cut.checkpoint, "is_complete": True},
            counts={},
            is_complete=True,
        )

    def _follow(self, verdict: str) -> None:
        """Stop if the run has ended, or another attempt has come further."""
        if verdict == "over":
            self.parts.runs.ledger.cancel(self.job_id)
        if verdict != "planned":
            raise JobCancelledError(self.job_id)

    def _most_lines(self, request: RunRequest) -> int:
        """Return the most lines of a shard: no shard uses up a quota alone."""
        settings = self.parts.settings
        limits = [most_lines(request, settings)]
        if settings.max_queued_images:
            limits.append(settings.max_queued_images // 2)
        policies = read_policies(self.parts.runs.ledger)
        policy = policies.get(request.tenant) or policies.get("*")
        if policy is not None and policy.max_open_images:
            limits.append(policy.max_open_images // 2)
        return max(1, min(limits))

    def failed(self, failure: Failure) -> PlanResult:
        """Make the result of a plan that failed."""
        return PlanResult(failure=failure)

    def finish(
        self, ledger: Ledger, result: PlanResult, *, pending: Pending, is_dead: bool
    ) -> bool:
        """Make the job of the plan final; a plan that failed ends its run."""
        if result.failure is not None:
            self.parts.runs.steer(self.part.run_id, "fail", failure=result.failure)
        record = Result(
            job_id=self.job_id,
            status="failed" if result.failure is not None else "succeeded",
            tenant=self.tenant,
            error=result.failure,
        )
        return ledger.finish(self.job_id, record, pending=pending, is_dead=is_dead)

    def failure_code(self, result: PlanResult) -> str:
        """Return the code for which the plan failed."""
        return result.failure.code if result.failure is not None else ""

    def describe(self, result: PlanResult) -> Mapping[str, object]:
        """Return run and size of the plan."""
        return {"run_id": self.part.run_id, "lines": result.lines, "shards": result.shards}


def manifest_of(run: RunRecord, *, model: ModelInfo) -> dict[str, object]:
    """Describe a run for those who read its files: what was asked, and what does it."""
    return {
        "run_id": run.run_id,
        "started_at": datetime.fromtimestamp(run.submitted_at, UTC).isoformat(),
        # The path of a webhook may hold a secret.
        "request": run.request.model_dump(mode="json", exclude_none=True, exclude={"webhook"}),
        "label_set": digest_of(run.request),
        "model": model.model_dump(mode="json"),
        "labelyard": __version__,
    }


def digest_of(request: RunRequest) -> str:
    """Return the digest of a run's label set."""
    labels = request.label_set
    return label_set_digest(labels) if isinstance(labels, LabelSet) else labels.rpartition("@")[2]
