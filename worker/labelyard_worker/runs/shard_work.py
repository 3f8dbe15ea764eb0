"""Shard of a run as the executor runs it: lines in, files out, one count in the run's record."""

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from labelyard.errors import ImageKilledWorkerError, JobCancelledError
from labelyard.ledger import Ledger, Pending
from labelyard.messages import Failure, Result
from labelyard.queues import Queue
from labelyard.runs.parts import ShardPart, name_parts
from labelyard.runs.record import FINAL_RUN_STATES, counts_of
from labelyard.runs.request import RunRequest
from labelyard.tags import EVALUATION_TAG
from labelyard_worker.jobs.cancellation import RunPausedError, Token
from labelyard_worker.jobs.work import ReceivedMessage
from labelyard_worker.runs.files.shard_files import ShardFiles
from labelyard_worker.runs.line_labels import LabelMatrices
from labelyard_worker.runs.part_work import PartWork
from labelyard_worker.runs.rescoring import Rescorer
from labelyard_worker.runs.shard_answers import ShardAnswers
from labelyard_worker.runs.shard_images import PlanLines, ShardImages
from labelyard_worker.runs.shard_parts import ShardParts
from labelyard_worker.runs.shard_rescoring import EmbeddedShard
from labelyard_worker.runs.shard_result import ShardResult, bad_lines_of, failed_counts
from labelyard_worker.runs.shard_scoring import ShardScoring
from labelyard_worker.runs.shard_storage import lines_of, store_files
from labelyard_worker.runs.shard_trail import CAREFUL_PARTS, Trail, split_range
from labelyard_worker.spans import Attributes

log = logging.getLogger(__name__)

#: Seconds between two notes of a shard of old embeddings, which may have thousands of lines a second.
RESCORING_NOTE_EVERY_S: Final = 1.0


@dataclass(frozen=True)
class ShardWork(PartWork[ShardResult]):
    """One shard of a run.

    Attributes:
        part: The shard.
        queue: The queue that brought it.
    """

    part: ShardPart
    parts: ShardParts
    queue: Queue

    @classmethod
    def read(cls, message: ReceivedMessage, parts: ShardParts) -> "ShardWork":
        """Parse the shard in *message*.

        Raises:
            InvalidMessageError: It is not a shard.
        """
        return cls(ShardPart.parse(message.body), parts, message.queue)

    @property
    def timeout_s(self) -> float:
        """Seconds that one attempt may take."""
        return max(self.parts.settings.shard_timeout_s, self.parts.settings.job_timeout_s)

    def run(self, token: Token, *, queued_s: float) -> ShardResult:  # noqa: ARG002 - not shown
        """Score the images, and write the shard's files."""
        self._begin(token)
        request = self.parts.requests.get(self.part.run_id)
        self.parts.storage.check(request)
        is_rescored = request.source_format == "embeddings"
        lines = [] if is_rescored else self._read_lines(request)
        answers = ShardAnswers(request.label_set)
        files = self.parts.open_files(request, self.part.name)
        started_at = time.monotonic()
        try:
            if is_rescored:
                outcomes = self._rescore(request, files, token)
            else:
                outcomes = self._score(request, lines, files, answers, token)
            token.check()
            self._store(request, files, seconds=time.monotonic() - started_at)
        finally:
            files.close()
        return ShardResult(
            outcomes,
            bad_lines_of(lines),
            seconds=time.monotonic() - started_at,
            model=self.parts.classifier.model,
            answers={} if request.tag == EVALUATION_TAG else answers.by_reference,
        )

    def _begin(self, token: Token) -> None:
        """Count the lines of a lost attempt; stop if the run is paused or has ended.

        Raises:
            JobCancelledError: The run has ended or is being cancelled.
            RunPausedError: The run is paused.
        """
        begun = self.parts.runs.begin(self.part, start=token.start or 0)
        if not begun.state or begun.state in FINAL_RUN_STATES or begun.state == "cancelling":
            self.parts.runs.ledger.cancel(self.job_id)
            raise JobCancelledError(self.job_id)
        if begun.is_paused:
            raise RunPausedError(self.part.run_id)

    def _read_lines(self, request: RunRequest) -> PlanLines:
        return lines_of(self.parts.storage, request, self.part.range)

    def _rescore(self, request: RunRequest, files: ShardFiles, token: Token) -> Counter[str]:
        """Score embeddings of an old run; nothing is fetched or decoded."""
        classifier = self.parts.classifier
        labels = LabelMatrices(
            request.label_set, classifier.label_index, classifier.label_sets, token
        ).of_run()
        trail = Trail(self.parts.runs, self.part, start=token.start or 0, is_careful=False)

        def note(done: int) -> None:
            token.check()
            trail.note_done(done, every_s=RESCORING_NOTE_EVERY_S)

        shard = EmbeddedShard(self.parts.storage, request, self.part.range)
        return shard.score(Rescorer(classifier.scorer, labels, request.top_k), files, note=note)

    def _score(
        self,
        request: RunRequest,
        lines: PlanLines,
        files: ShardFiles,
        answers: ShardAnswers,
        token: Token,
    ) -> Counter[str]:
        classifier = self.parts.classifier
        matrices = LabelMatrices(
            request.label_set, classifier.label_index, classifier.label_sets, token
        )
        matrices.of_run()  # an unknown set fails the shard, not each of its lines
        scoring = ShardScoring(
            matrices,
            classifier.scorer,
            request.top_k,
            has_embeddings=request.embeddings,
            answers=answers,
        )
        is_careful = self.queue.rules.is_exclusive
        trail = Trail(self.parts.runs, self.part, start=token.start or 0, is_careful=is_careful)
        images = ShardImages(
            classifier.embedder,
            self.part,
            token,
            window=self._window(is_careful=is_careful),
            note_sent=trail.note_sent,
        )
        counts: Counter[str] = Counter()
        done = 0
        for some, outcomes in images.outcomes(lines):
            counts.update(scoring.write(files, some, outcomes))
            done += len(some)
            trail.note_done(done)
        return counts

    def _window(self, *, is_careful: bool) -> int:
        """Return the most images on their way: few in a shard that may have killed its worker."""
        window = self.parts.settings.shard_window
        return max(1, min(window, self.part.range.lines // CAREFUL_PARTS)) if is_careful else window

    def _store(self, request: RunRequest, files: ShardFiles, *, seconds: float) -> None:
        store_files(self.parts.storage, request, files, name=self.part.name, seconds=seconds)

    def failed(self, failure: Failure) -> ShardResult:
        """Make the result of a shard of which no line was scored."""
        return ShardResult(failure=failure)

    def split(self, ledger: Ledger, *, reason: str) -> ShardResult | None:  # noqa: ARG002
        """Put smaller shards in the place of one that keeps killing its workers.

        The last attempt ran alone, sent few images at a time, and noted them before: they get a
        shard of their own, and so do the lines before and behind them. Without such a note the
        shard is halved. An image that is alone already is the one at fault.
        """
        trail = self.parts.runs.read_trail(self.part)
        parts = split_range(self.part.range, trail)
        if not parts:
            return self._give_up(reason)
        named = name_parts(self.part.name, parts)
        self.parts.runs.split(self.part, named, computed_again=trail.get("done", 0))
        return ShardResult(is_split=True)

    def _give_up(self, reason: str) -> ShardResult:
        """Fail the only line of the shard; the end of the run writes it."""
        log.error("image_killed_worker", extra={"fields": {"job_id": self.job_id}})
        return ShardResult(failure=Failure.of(ImageKilledWorkerError("", reason)))

    def finish(
        self,
        ledger: Ledger,
        result: ShardResult,
        *,
        pending: Pending,  # noqa: ARG002 - it has none
        is_dead: bool,  # noqa: ARG002 - it is split
    ) -> bool:
        """Count the shard in its run."""
        record = Result(
            job_id=self.job_id,
            status=result.status,
            tenant=self.tenant,
            model=result.model,
            error=result.failure,
        )
        if result.is_split:
            is_finished = ledger.finish(self.job_id, record)
        else:
            is_finished = self._finish(result, record)
        self.parts.wake_feeder()
        return is_finished

    def _finish(self, result: ShardResult, record: Result) -> bool:
        return self.parts.runs.finish(
            self.part,
            state=result.status,
            result=record.model_dump_json(),
            counts=self._counts(result),
            failure=result.failure,
            images_per_s=result.images / result.seconds if result.seconds else 0.0,
        )

    def count(self, result: ShardResult) -> None:
        """Count the answers, for the drift of label sets; those to old embeddings are left out."""
        for reference, answers in result.answers.items():
            self.parts.count_answers(reference, answers)

    def _counts(self, result: ShardResult) -> dict[str, int]:
        """Return the numbers that the shard adds to its run."""
        if result.failure is not None:
            return failed_counts(self.part.range, result.failure)
        return counts_of(
            lines=self.part.range.lines,
            succeeded=result.succeeded,
            failed=result.images - result.succeeded,
            errors=result.errors(),
        )

    def failure_code(self, result: ShardResult) -> str:
        """Return the code for which the shard failed as a whole."""
        return result.failure.code if result.failure is not None else ""

    def attributes(self, result: ShardResult | None) -> Attributes:
        """Return queue, run and size of the shard; of a result, its status."""
        known: dict[str, str | int | float | bool] = {
            "messaging.destination.name": self.queue.value,
            "labelyard.run_id": self.part.run_id,
            "labelyard.images": self.part.range.lines,
        }
        return known if result is None else {**known, "labelyard.status": result.status}

    def image_outcomes(self, result: ShardResult) -> Sequence[str]:
        """Return ``succeeded`` or the error's code for each image."""
        return list(Counter(result.outcomes).elements())

    def describe(self, result: ShardResult) -> Mapping[str, object]:
        """Return run, status, size and time of the shard."""
        return {
            "run_id": self.part.run_id,
            "status": "split" if result.is_split else result.status,
            "images": result.images,
            "succeeded": result.succeeded,
            "seconds": round(result.seconds, 3),
        }
