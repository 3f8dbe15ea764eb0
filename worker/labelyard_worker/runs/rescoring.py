"""Score the embeddings of an old run against other labels: no fetch, no decoding, no model."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np

from labelyard_worker.runs.files.shard_files import ShardFiles
from labelyard_worker.runs.sources.plan_parts import RunSourceError
from labelyard_worker.vision.scorer import Scorer
from labelyard_worker.vision.scoring import LabelMatrix

if TYPE_CHECKING:
    import pyarrow as pa

#: Images that are scored in one matrix product: their vectors fit into a core's cache.
IMAGES_AT_ONCE: Final = 2_048


@dataclass(frozen=True)
class Rescorer:
    """Scores files of embeddings; called from many threads.

    Attributes:
        scorer: Scorer of the checkpoint that made the embeddings.
        labels: Label set to score against.
        top_k: Number of labels that each result names.
    """

    scorer: Scorer
    labels: LabelMatrix
    top_k: int

    def rescore(
        self,
        file: BinaryIO,
        output: ShardFiles,
        *,
        rows: range | None = None,
        check: Callable[[int], None] = lambda _: None,
    ) -> int:
        """Score the images of one file, and add their results to a shard's files.

        Args:
            file: Embeddings in Parquet, seekable.
            rows: Rows to score; all if not given.
            check: Called with the number of scored images between batches; raises if nobody
                wants the results any more.

        Returns:
            Number of images.

        Raises:
            RunSourceError: The file is not one of embeddings, or those of another checkpoint.
        """
        from labelyard_worker.runs.files.scored_batches import ScoredBatch

        images = 0
        for facts, image_embeds in read_embeddings(file, rows=rows):
            check(images)
            if image_embeds.shape[1] != self.labels.text_embeds.shape[1]:
                raise RunSourceError("the embeddings are those of another checkpoint")
            if self.labels.taught is not None and not self.scorer.has_features(image_embeds):
                raise RunSourceError(
                    "a file of embeddings has no features to compare with the examples of this "
                    "label set: start a run over the pictures"
                )
            ranking = self.scorer.rank(image_embeds, self.labels, top_k=self.top_k)
            output.add_scored(ScoredBatch(facts, ranking, self.labels))
            images += facts.num_rows
        return images


def read_embeddings(
    file: BinaryIO, *, rows: range | None = None
) -> "Iterator[tuple[pa.RecordBatch, Any]]":
    """Read a file of embeddings, some thousand images at a time.

    Args:
        file: Seekable.
        rows: Rows to read; all if not given.

    Yields:
        Facts of the images, the columns ``FACTS``, and their vectors as float32, shape
        (images, dim).

    Raises:
        RunSourceError: The file is not one of embeddings, or is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from labelyard_worker.runs.files.parquet_tables import EMBEDDING, FACTS, is_embeddings

    try:
        with pq.ParquetFile(file) as table:
            if not is_embeddings(table.schema_arrow):
                raise RunSourceError("the file is not one of embeddings of a run")
            dim = table.schema_arrow.field(EMBEDDING).type.list_size
            place = 0
            for whole in table.iter_batches(IMAGES_AT_ONCE, use_threads=False):
                batch = whole if rows is None else cut_batch(whole, place, rows)
                place += whole.num_rows
                if not batch.num_rows:
                    continue
                numbers = batch.column(EMBEDDING).flatten().to_numpy(zero_copy_only=True)
                image_embeds = numbers.astype(np.float32).reshape(-1, dim)
                if not np.isfinite(image_embeds).all():
                    raise RunSourceError("the file of embeddings is damaged: not finite")
                yield batch.select(list(FACTS)), image_embeds
    except (pa.ArrowException, OSError) as error:
        raise RunSourceError(f"embeddings cannot be read: {type(error).__name__}") from error


def cut_batch(batch: "pa.RecordBatch", place: int, rows: range) -> "pa.RecordBatch":
    """Return the part of a batch that lies in *rows*.

    Args:
        place: Number of the batch's first row in the file.
    """
    start = min(max(rows.start - place, 0), batch.num_rows)
    end = min(max(rows.stop - place, start), batch.num_rows)
    return batch.slice(start, end - start)
