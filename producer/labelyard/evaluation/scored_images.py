"""Scored pictures of a manifest, and the jobs or the run that score them against a whole set."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from labelyard.errors import LabelyardError, ResultUnreadableError
from labelyard.evaluation.manifest import LabelledImage
from labelyard.fields import MAX_TITLE
from labelyard.hierarchy import parents_of
from labelyard.ledger import Record
from labelyard.messages import (
    MAX_IMAGES,
    MAX_SCORED_LABELS,
    AbstainedBecause,
    Failure,
    ImageResult,
    Job,
    LabelSet,
    ModelInfo,
    ScoredNode,
    Timing,
    TitleFinding,
)
from labelyard.runs.lines import ErrorLine, LineError, ResultLine
from labelyard.tags import EVALUATION_TAG

#: Jobs that are open at once: 4,096 pictures keep several workers busy.
JOBS_AT_ONCE: Final = 64
#: Of a result, so that it stays below the 8 MiB that the ledger takes.
RESULT_BYTES: Final = 6 * 1024 * 1024
SCORE_BYTES: Final = 45


class Prepare(Protocol):
    """Method of a client that makes a job."""

    def __call__(self, images: Any, labels: Any, *, top_k: int, tag: str) -> Job:
        """Make a job without submitting it."""


@dataclass(frozen=True, slots=True)
class ScoredImage:
    """One picture with the score of every label, or with the reason why it has none.

    Attributes:
        image: The picture, and the labels that are true.
        uri: Where the worker read it.
        scores: Score of each label, in the order of the set; empty if there is an error.
        matched: Names of the labels that reached their threshold, best first.
        abstained: Whether an *abstain* prompt fitted better than every label.
        sha256: Digest of the bytes as read.
        title: Comparison with the text beside it, if the set reads texts.
        error: Why there are no scores.
        fit: As in the result.
        because: Why nothing is matched.
        node: The deepest node that passes its threshold.
    """

    image: LabelledImage
    uri: str
    scores: Sequence[float] = ()
    matched: tuple[str, ...] = ()
    abstained: bool = False
    sha256: str | None = None
    title: TitleFinding | None = None
    error: Failure | None = None
    fit: float | None = None
    because: AbstainedBecause | None = None
    node: ScoredNode | None = None

    @property
    def fault(self) -> str:
        """Why there are no scores, with the picture's name of the manifest; empty if there are."""
        return "" if self.error is None else self.error.message.replace(self.uri, self.image.image)


@dataclass(slots=True)
class Scoring:
    """Scoring of a manifest's pictures: its jobs, and the results as they come.

    Attributes:
        images: The pictures.
        uris: Address of each, in their order.
        labels: What the jobs name: the set itself, or its reference.
        label_set: The set.
        model: Model that scored; ``None`` before the first result.
        digest: Digest of the set that the worker used; ``None`` before the first result.
        timings: Seconds of each job's stages.
        jobs: Number of jobs with a result.
        seconds: From the first submit to the last result.
    """

    images: Sequence[LabelledImage]
    uris: Sequence[str]
    labels: LabelSet | str
    label_set: LabelSet
    model: ModelInfo | None = None
    digest: str | None = None
    timings: list[Timing] = field(default_factory=list)
    jobs: int = 0
    seconds: float = 0.0
    _places: Mapping[str, int] = field(init=False, repr=False)
    _scored: dict[int, ScoredImage] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self._places = {label.name: place for place, label in enumerate(self.label_set.labels)}

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the checkpoint that scored; empty before the first result."""
        return "" if self.model is None else self.model.fingerprint

    def windows(self, prepare: Prepare) -> Iterator[list[Job]]:
        """Yield the jobs, as many as may be open at once; the last part may be smaller."""
        size = images_in_a_job(self.label_set)
        top_k = len(self.label_set.labels)
        ids = [self._image(place) for place in range(len(self.uris))]
        for start in range(0, len(ids), size * JOBS_AT_ONCE):
            window = ids[start : start + size * JOBS_AT_ONCE]
            yield [
                prepare(window[first : first + size], self.labels, top_k=top_k, tag=EVALUATION_TAG)
                for first in range(0, len(window), size)
            ]

    def _image(self, place: int) -> Any:
        """Return a picture as a job names it; its text only if the set reads texts."""
        text = self.text_of(place)
        if text is None:
            return str(place), self.uris[place]
        return {"id": str(place), "uri": self.uris[place], "text": text}

    def text_of(self, place: int) -> str | None:
        """Return the text beside a picture; ``None`` without one, or if the set reads no texts."""
        learned, text = self.label_set.learned, self.images[place].text
        if learned is None or learned.titles is None or not text:
            return None
        return text[:MAX_TITLE]

    def add(self, record: Record) -> None:
        """Take the scores, or the errors, of a final job."""
        self.jobs += 1
        ids = [int(image.id) for image in record.job().images]
        try:
            result = record.outcome()
        except LabelyardError as error:
            self._fail(ids, Failure.of(error))
            return
        if result.model is not None:
            self.model, self.digest = result.model, result.label_set
            self.timings.append(result.timing)
        if result.error is not None:
            self._fail(ids, result.error)
        for image in result.images:
            self._scored[int(image.id)] = self._read(int(image.id), image)

    def add_line(self, line: ResultLine | ErrorLine) -> None:
        """Take the scores, or the error, of a line of a run over the pictures."""
        place = line.line - 1
        if isinstance(line, ErrorLine):
            self._fail([place], _failure_of(line))
            return
        self.digest = line.label_set or self.digest
        self._scored[place] = self._read(place, line)

    def fail_missing(self, error: LabelyardError) -> None:
        """Give each picture without a result an error."""
        missing = [place for place in range(len(self.images)) if place not in self._scored]
        self._fail(missing, Failure.of(error))

    def scored(self) -> list[ScoredImage]:
        """Return the pictures with their scores, in the order of the manifest."""
        return [self._scored[place] for place in range(len(self.images))]

    def _fail(self, ids: Sequence[int], failure: Failure) -> None:
        for place in ids:
            self._scored[place] = ScoredImage(self.images[place], self.uris[place], error=failure)

    def _read(self, place: int, image: ImageResult | ResultLine) -> ScoredImage:
        labelled = self.images[place]
        scores = array("d", bytes(8 * len(self._places)))
        known = [label for label in image.labels if label.name in self._places]
        for label in known:
            scores[self._places[label.name]] = label.score
        error = _failure_of(image.error) if isinstance(image.error, LineError) else image.error
        if error is None and len(known) < len(self._places):
            missing = ResultUnreadableError(f"{image.uri}: the result does not score every label")
            error = Failure.of(missing)
        return ScoredImage(
            labelled,
            image.uri,
            scores=scores if error is None else (),
            matched=image.matched,
            abstained=image.abstained,
            sha256=image.sha256,
            title=image.title,
            error=error,
            fit=image.fit,
            because=image.abstained_because,
            node=image.node,
        )


def _failure_of(error: LineError | ErrorLine) -> Failure:
    return Failure(code=error.code, message=error.message, is_retryable=error.is_retryable)


def images_in_a_job(label_set: LabelSet) -> int:
    """Return how many pictures a job may have, so that all scores fit into its result."""
    names = (len(label.name.encode()) for label in label_set.labels)
    an_image = sum(2 * name + SCORE_BYTES for name in names)  # a label may be matched as well
    parents = parents_of(label.path for label in label_set.labels)
    an_image += sum(SCORE_BYTES + sum(len(name.encode()) + 3 for name in path) for path in parents)
    labels = len(label_set.labels)
    return max(1, min(MAX_IMAGES, RESULT_BYTES // an_image, MAX_SCORED_LABELS // labels))
