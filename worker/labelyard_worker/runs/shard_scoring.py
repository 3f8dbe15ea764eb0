"""Scores of a shard's images, and the lines of its files."""

from collections.abc import Iterator
from dataclasses import dataclass

from labelyard.messages import Failure, ImageRef, ImageResult
from labelyard.runs.lines import PlannedLine, ResultLine
from labelyard_worker.classify import to_image_result
from labelyard_worker.embedding import Embedded
from labelyard_worker.image_outcomes import ImageOutcome
from labelyard_worker.runs.files.shard_files import ShardFiles
from labelyard_worker.runs.line_labels import LabelFault, LabelMatrices
from labelyard_worker.runs.shard_answers import ShardAnswers
from labelyard_worker.runs.shard_images import PlanLines, to_image
from labelyard_worker.vision.ranking import ImageScores
from labelyard_worker.vision.scorer import Scorer
from labelyard_worker.vision.scoring import LabelMatrix


@dataclass(frozen=True)
class ShardScoring:
    """Scores the images of a shard against their label sets.

    Attributes:
        has_embeddings: Whether the embeddings are written, too.
        answers: Takes each answer, for the drift of label sets.
    """

    matrices: LabelMatrices
    scorer: Scorer
    top_k: int
    has_embeddings: bool
    answers: ShardAnswers

    def write(
        self, files: ShardFiles, lines: PlanLines, outcomes: dict[int, ImageOutcome]
    ) -> Iterator[str]:
        """Score the images of some lines in one matrix product for each label set, and write them.

        Returns:
            Yields ``succeeded`` or the error's code for each image.
        """
        labels = {
            index: self.matrices.of(line)
            for index, line in enumerate(lines)
            if isinstance(line, PlannedLine)
        }
        scores = self._score(lines, labels, outcomes)
        for index, line in enumerate(lines):
            if not isinstance(line, PlannedLine):
                files.add_error(line)
                continue
            result = self._result(line, labels[index], outcomes[index], scores.get(index))
            self.answers.add(line, result)
            embedded = outcomes[index] if self.has_embeddings and result.error is None else None
            files.add(
                result,
                self.scorer.embedding_of(embedded.image.image_embeds)
                if isinstance(embedded, Embedded)
                else None,
            )
            yield "succeeded" if result.error is None else result.error.code

    def _score(
        self,
        lines: PlanLines,
        labels: dict[int, LabelMatrix | LabelFault],
        outcomes: dict[int, ImageOutcome],
    ) -> dict[int, ImageScores]:
        by_set: dict[str, list[int]] = {}
        matrices: dict[str, LabelMatrix] = {}
        for index, matrix in labels.items():
            if isinstance(matrix, LabelMatrix) and isinstance(outcomes[index], Embedded):
                by_set.setdefault(matrix.digest, []).append(index)
                matrices[matrix.digest] = matrix
        found: dict[int, ImageScores] = {}
        for digest, indices in by_set.items():
            images = [outcomes[index] for index in indices]
            embeds = [each.image.image_embeds for each in images if isinstance(each, Embedded)]
            matrix = matrices[digest]
            titles = self.matrices.titles_of((lines[index] for index in indices), matrix)
            scores = self.scorer.score(embeds, matrix, top_k=self.top_k, titles=titles)
            found.update(zip(indices, scores, strict=True))
        return found

    def _result(
        self,
        line: PlannedLine,
        labels: LabelMatrix | LabelFault,
        outcome: ImageOutcome,
        scores: ImageScores | None,
    ) -> ResultLine:
        image = to_image(line)
        if not isinstance(labels, LabelMatrix):
            return ResultLine.of(line, failed_image(image, Failure.of(labels)))
        result = to_image_result(image, outcome, iter([scores] if scores is not None else []))
        return ResultLine.of(line, result, label_set=labels.digest)


def failed_image(image: ImageRef, failure: Failure) -> ImageResult:
    """Return the result of an image that was not scored."""
    return ImageResult(id=image.id, uri=image.uri, error=failure)
