"""The instant worker of tests, which also notes each line of a shard that it has scored."""

from collections.abc import Iterator

from tests.support.apps.instant import app  # its stand-ins come before any other import
from tests.support.apps.notes import note

from labelyard_worker.image_outcomes import ImageOutcome
from labelyard_worker.runs import shard_work
from labelyard_worker.runs.files.shard_files import ShardFiles
from labelyard_worker.runs.files.shard_output import ShardOutput
from labelyard_worker.runs.shard_images import PlanLines
from labelyard_worker.runs.shard_scoring import ShardScoring

__all__ = ["app"]


class NotedScoring(ShardScoring):
    """Notes the shard and the lines that are scored, so that lines scored twice can be counted."""

    def write(
        self, files: ShardFiles, lines: PlanLines, outcomes: dict[int, ImageOutcome]
    ) -> Iterator[str]:
        """Score and write some lines, then note them as ``SHARD:NUMBER``."""
        yield from super().write(files, lines, outcomes)
        if not isinstance(files, ShardOutput):
            raise TypeError("shards are written elsewhere now: mend this worker")
        note("scored", f"{files._name}:{len(outcomes)}")  # noqa: SLF001 - the name of the shard


if "ShardScoring" not in vars(shard_work):
    raise AttributeError("shards are scored elsewhere now: mend this worker")
vars(shard_work)["ShardScoring"] = NotedScoring
