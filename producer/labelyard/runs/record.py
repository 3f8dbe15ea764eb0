"""Records of runs, and their progress, as values that programs can read."""

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, cast

from labelyard.messages import Failure
from labelyard.runs.request import RunRequest
from labelyard.runs.summaries import RunSummary

RunState = Literal[
    "planning",
    "running",
    "paused",
    "finishing",
    "succeeded",
    "partial",
    "cancelling",
    "cancelled",
    "failed",
    "expired",
]
FINAL_RUN_STATES: Final[frozenset[str]] = frozenset(
    {"succeeded", "partial", "failed", "cancelled", "expired"}
)
_CODE: Final = "code:"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run's record in the ledger. Times are seconds since the epoch, Redis' clock.

    Attributes:
        state: State as people see it: ``paused`` stands before ``planning`` and ``running``.
        step: State without the pause.
        request: The run as it was started.
        is_planned: Whether all lines of the source are known.
        lines: Lines that are planned so far, those without an image included.
        images: Images that are planned so far.
        bad_lines: Planned lines that name no image.
        done: Lines that are finished.
        succeeded: Images with a result.
        failed: Images without one.
        shards: Shards that are planned so far, parts of split ones counted singly.
        shards_done: Shards that are finished.
        computed_again: Images that were scored once more, after a worker died.
        errors: Number of errors by code, those of lines without an image included.
        epoch: How often it was resumed after a cancellation.
        ends_as: State that it ends in, if it was cancelled or has failed.
        failure: Why it failed.
        summary: Summary of a final run.
        checkpoint: Place at which a planner goes on, as JSON.
        shards_planned: Shards that the planner has cut.
        shard_images_per_s: Speed of one shard; 0 if none is finished.
        next_open_at: When the run's rate permits the next shard.
    """

    run_id: str
    state: RunState
    step: str
    tenant: str
    request: RunRequest
    submitted_at: float
    started_at: float | None = None
    finished_at: float | None = None
    changed_at: float = 0.0
    is_planned: bool = False
    lines: int = 0
    images: int = 0
    bad_lines: int = 0
    done: int = 0
    succeeded: int = 0
    failed: int = 0
    shards: int = 0
    shards_done: int = 0
    computed_again: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    epoch: int = 0
    ends_as: str = ""
    failure: Failure | None = None
    summary: RunSummary | None = None
    expires_at: float | None = None
    checkpoint: str = ""
    shards_planned: int = 0
    shard_images_per_s: float = 0.0
    next_open_at: float = 0.0

    @property
    def is_final(self) -> bool:
        """Return whether the run has ended."""
        return self.step in FINAL_RUN_STATES


@dataclass(frozen=True, slots=True)
class RunProgress:
    """Progress of a run at one moment.

    Attributes:
        done: Lines that are done, those of running shards included.
        total: Lines of the source; those that are planned so far while it is read.
        is_total_known: Whether the source was read to its end.
        images_per_s: Speed over the last minute or so; ``None`` if it is not known.
        seconds_left: Time left at this speed; ``None`` if it is not known.
    """

    run_id: str
    state: RunState
    done: int
    succeeded: int
    failed: int
    bad_lines: int
    total: int
    is_total_known: bool
    images_per_s: float | None
    seconds_left: float | None
    seconds: float
    shards: int
    shards_done: int
    computed_again: int
    errors: Mapping[str, int]

    def _repr_html_(self) -> str:
        """Return a bar, which notebooks show."""
        return progress_html(self)


def progress_html(progress: RunProgress) -> str:
    """Write a bar with its figures, as notebooks show them."""
    total = f"{progress.total:,}" + ("" if progress.is_total_known else "+")
    figures = [f"{progress.done:,} of {total}"]
    if progress.images_per_s is not None:
        figures.append(f"{progress.images_per_s:,.1f} images/s")
    if progress.seconds_left is not None:
        figures.append(f"{progress.seconds_left:,.0f} s left")
    figures += [f"{code}: {count:,}" for code, count in progress.errors.items()]
    bar = f'<progress value="{progress.done}" max="{max(progress.total, 1)}"></progress>'
    text = html.escape(", ".join(figures))
    return f"<div>{html.escape(progress.state)} {bar} {text}</div>"


def read_run(run_id: str, fields: Mapping[str, str]) -> RunRecord | None:
    """Read a run's hash; ``None`` if there is none."""
    step = fields.get("state")
    if step is None:
        return None

    def number(name: str) -> int:
        return int(fields.get(name) or 0)

    def instant(name: str) -> float | None:
        return float(fields[name]) if fields.get(name) else None

    is_paused = fields.get("is_paused") == "1" and step in {"planning", "running"}
    counts = ("lines", "images", "bad_lines", "done", "succeeded", "failed", "shards")
    more = ("shards_done", "computed_again", "epoch", "shards_planned")
    return RunRecord(
        run_id=run_id,
        state=cast("RunState", "paused" if is_paused else step),
        step=step,
        tenant=fields["tenant"],
        request=RunRequest.model_validate_json(fields["request"]),
        submitted_at=float(fields["submitted_at"]),
        started_at=instant("started_at"),
        finished_at=instant("finished_at"),
        changed_at=instant("changed_at") or 0.0,
        is_planned=fields.get("is_planned") == "1",
        errors=_errors(fields),
        ends_as=fields.get("ends_as", ""),
        failure=Failure.model_validate_json(fields["error"]) if fields.get("error") else None,
        summary=RunSummary.model_validate_json(fields["summary"])
        if fields.get("summary")
        else None,
        expires_at=instant("expires_at"),
        checkpoint=fields.get("checkpoint", ""),
        shard_images_per_s=instant("shard_images_per_s") or 0.0,
        next_open_at=instant("next_open_at") or 0.0,
        **{name: number(name) for name in counts + more},
    )


def _errors(fields: Mapping[str, str]) -> dict[str, int]:
    found = {
        name.removeprefix(_CODE): int(count)
        for name, count in fields.items()
        if name.startswith(_CODE)
    }
    return dict(sorted(found.items(), key=lambda each: (-each[1], each[0])))


def counts_of(
    *, lines: int, succeeded: int, failed: int, errors: Mapping[str, int]
) -> dict[str, int]:
    """Return the numbers that a finished shard adds to its run, by field."""
    return {
        "done": lines,
        "succeeded": succeeded,
        "failed": failed,
        **{f"{_CODE}{code}": count for code, count in errors.items()},
    }


def progress_of(
    run: RunRecord, *, trails: Mapping[str, str], samples: list[str], now: float
) -> RunProgress:
    """Put a run's record, the trails of its running shards and its samples together."""
    running = sum(int(json.loads(trail).get("done", 0)) for trail in trails.values())
    done = min(run.done + (0 if run.is_final else running), run.lines)
    end = run.finished_at or now
    begin = run.started_at or run.submitted_at
    rate = _rate(samples, done=done, now=end) if not run.is_final else None
    if rate is None and run.started_at and end - begin >= 1:
        rate = done / (end - begin)
    left = None
    if rate and run.is_planned and run.state == "running":
        left = (run.lines - done) / rate
    return RunProgress(
        run_id=run.run_id,
        state=run.state,
        done=done,
        succeeded=run.succeeded,
        failed=run.failed,
        bad_lines=run.bad_lines,
        total=run.lines,
        is_total_known=run.is_planned,
        images_per_s=round(rate, 2) if rate is not None else None,
        seconds_left=round(left, 1) if left is not None else None,
        seconds=round(end - run.submitted_at, 3),
        shards=run.shards,
        shards_done=run.shards_done,
        computed_again=run.computed_again,
        errors=run.errors,
    )


def _rate(samples: list[str], *, done: int, now: float) -> float | None:
    """Return the speed since the oldest sample of the last minute, or the newest older one."""
    for sample in reversed(samples[:30]):
        at, count = sample.split(":")
        since = now - float(at)
        if since >= 2 and (since <= 60 or sample is samples[0]):
            return max(0, done - int(count)) / since
    return None
