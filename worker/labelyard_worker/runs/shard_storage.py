"""Shard in object storage: its lines are read from the plan, its files are written whole."""

from collections.abc import Callable

from labelyard.messages import Failure
from labelyard.runs.lines import PlannedLine, ResultLine, parse_plan
from labelyard.runs.parts import ShardRange
from labelyard.runs.request import RunRequest
from labelyard_worker.runs.files.shard_files import ShardFiles
from labelyard_worker.runs.shard_images import PlanLines, to_image
from labelyard_worker.runs.shard_rescoring import EmbeddedShard
from labelyard_worker.runs.shard_scoring import failed_image
from labelyard_worker.runs.storage import PLAN_FOLDER, RunStorage

#: Opens the files of a shard by its name.
OpenFiles = Callable[[RunRequest, str], ShardFiles]


def lines_of(storage: RunStorage, request: RunRequest, lines: ShardRange) -> PlanLines:
    """Read the lines of a shard from the plan, or from the old run whose embeddings it names."""
    if request.source_format == "embeddings":
        return EmbeddedShard(storage, request, lines).planned_lines()
    planned = parse_plan(storage.get_plan(request, lines.plan))
    return planned[lines.first : lines.first + lines.lines]


def store_files(
    storage: RunStorage, request: RunRequest, files: ShardFiles, *, name: str, seconds: float
) -> None:
    """Write the files of a shard, each whole, and its summary last."""
    for output in files.finish():
        with output.body as body:
            storage.put(request, output.name, body.read(), content_type=output.content_type)
    summary = files.summary(seconds=seconds).model_dump_json().encode()
    place = f"{PLAN_FOLDER}summary-{name}.json"
    storage.put(request, place, summary, content_type="application/json")


def write_failed(files: ShardFiles, lines: PlanLines, failure: Failure) -> None:
    """Write each image of a shard that failed as a whole as failed."""
    for line in lines:
        if isinstance(line, PlannedLine):
            image = failed_image(to_image(line), failure)
            files.add(ResultLine.of(line, image))
        else:
            files.add_error(line)
