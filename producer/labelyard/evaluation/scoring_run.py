"""Bulk run that scores the pictures of a large manifest, in place of jobs."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from labelyard.errors import ResultUnreadableError, RunStateError
from labelyard.evaluation.scored_images import Scoring
from labelyard.ledger import Record
from labelyard.messages import LabelSet
from labelyard.runs.options import make_run, run_id_for
from labelyard.runs.record import RunRecord
from labelyard.runs.request import RunRequest
from labelyard.settings import ClientSettings
from labelyard.tags import EVALUATION_TAG

#: Shards whose records are read for the model. The last ones: records of shards that ended long
#: before the run may be gone. More than one: the record of a shard that failed names no model.
SHARDS_ASKED: Final = 8
#: Digits of the request's digest that name the folder of the run's files.
FOLDER_DIGITS: Final = 16
UNKNOWN_SOURCE: Final = "s3://bucket/manifest.jsonl"


def check_run(labels: LabelSet | str, out: str, settings: ClientSettings) -> None:
    """Check that a run can score a set, before a picture is uploaded.

    Args:
        labels: The set, or its reference.

    Raises:
        InvalidMessageError: *out* is not a prefix in object storage, or the set is too large to
            stand in a run.
    """
    make_run(settings, UNKNOWN_SOURCE, labels, out, {})


@dataclass(frozen=True, slots=True)
class ScoringRun:
    """Run over the pictures of a scoring; an equal one has the same id.

    Attributes:
        scoring: Gets the results.
        out: Prefix that the run's folder is below.
        settings: Those of the client.
    """

    scoring: Scoring
    out: str
    settings: ClientSettings

    @contextmanager
    def manifest_file(self) -> Iterator[Path]:
        """Write the run's manifest into a file that is removed behind the block."""
        with TemporaryDirectory(prefix="labelyard-") as folder:
            path = Path(folder) / "manifest.jsonl"
            with path.open("w", encoding="utf-8") as file:
                for place, uri in enumerate(self.scoring.uris):
                    row = {"custom_id": str(place), "uri": uri}
                    text = self.scoring.text_of(place)
                    file.write(json.dumps(row if text is None else {**row, "text": text}) + "\n")
            yield path

    def request(self, source: str) -> RunRequest:
        """Make the run.

        Args:
            source: Address of the manifest, which holds the digest of its content.

        Raises:
            InvalidMessageError: *out* is not a prefix in object storage.
        """
        top_k = len(self.scoring.label_set.labels)
        made = make_run(
            self.settings, source, self.scoring.labels, self.out, {"top_k": top_k}
        ).model_copy(update={"tag": EVALUATION_TAG})
        digest = made.digest()
        return made.model_copy(
            update={
                "run_id": run_id_for(made.tenant, f"{EVALUATION_TAG} {digest}"),
                "out": f"{made.out}{EVALUATION_TAG}-{digest[:FOLDER_DIGITS]}/",
            }
        )

    def read(self, run: RunRecord, shards: Iterable[Record | None]) -> Scoring:
        """Read the results of the run from its files.

        Args:
            shards: Records of its shards, see :func:`shard_ids`.

        Raises:
            RunStateError: The run was cancelled, has expired or has failed as a whole.
            ServiceConfigError: S3 refused, or boto3 is missing; the text names the remedy.
            StorageUnavailableError: S3 gave no usable answer.
        """
        from labelyard.runs.outputs import read_errors, read_results

        check_end(run)
        scoring, out = self.scoring, run.request.out
        for error in read_errors(out, self.settings):
            scoring.add_line(error)
        for line in read_results(out, self.settings):
            scoring.add_line(line)
        scoring.fail_missing(ResultUnreadableError(f"{out}: no file has a line for the picture"))
        results = (shard.result for shard in shards if shard is not None)
        scoring.model = next((one.model for one in results if one and one.model), None)
        scoring.jobs = run.shards
        scoring.seconds = (run.finished_at or run.changed_at) - run.submitted_at
        return scoring


def shard_ids(run: RunRecord) -> list[str]:
    """Return ids under which the ledger may have records of the run's last shards."""
    first = max(0, run.shards_planned - SHARDS_ASKED)
    names = [f"{run.run_id}.{number:05}" for number in range(first, run.shards_planned)]
    suffixes = ["", *(f".e{epoch}" for epoch in range(1, run.epoch + 1))]
    return [name + suffix for name in names for suffix in suffixes]


def check_end(run: RunRecord) -> None:
    """Check that a run has ended with results; pictures may have failed.

    Raises:
        RunStateError: It has not.
    """
    if run.state in {"succeeded", "partial"} or (run.state == "failed" and run.failure is None):
        return
    reason = "" if run.failure is None else f": {run.failure.message}"
    remedy = (
        f"labelyard run resume {run.run_id}, and evaluate again"
        if run.state == "cancelled"
        else "evaluate with another prefix (out) to score the pictures anew"
    )
    raise RunStateError(f"{run.run_id} is {run.state}{reason}; {remedy}")
