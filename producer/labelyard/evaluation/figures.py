"""Figures of an evaluation, as plain values: what ``report.json`` and the page are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from labelyard.evaluation.level_figures import LevelFigures
from labelyard.evaluation.scored_images import ScoredImage
from labelyard.messages import LabelSet, ModelInfo

ScoringName = Literal["softmax", "sigmoid"]


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """One bin of a reliability curve.

    Attributes:
        n: Pictures in the bin.
        confidence: Mean of their best scores.
        accuracy: Share of them whose best label is true.
        interval: Wilson interval of the accuracy, at 95 %.
    """

    n: int
    confidence: float
    accuracy: float
    interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class RiskPoint:
    """One point of a risk-coverage curve.

    Attributes:
        coverage: Share of the pictures whose best score is at least ``threshold``.
        risk: Share of those whose best label is wrong.
    """

    coverage: float
    risk: float
    threshold: float


@dataclass(frozen=True, slots=True)
class Detection:
    """Counts of one label's decisions.

    Attributes:
        n: Pictures for which the label is true.
        predicted: Pictures that were given the label.
        correct: Pictures of both kinds at once.
    """

    n: int
    predicted: int
    correct: int

    @property
    def precision(self) -> float | None:
        """Share of the predicted ones that are true; ``None`` if the label was never given."""
        return self.correct / self.predicted if self.predicted else None

    @property
    def recall(self) -> float | None:
        """Share of the true ones that were predicted; ``None`` if there are none."""
        return self.correct / self.n if self.n else None


@dataclass(frozen=True, slots=True)
class LabelFigures:
    """Figures of one label.

    Attributes:
        detection: Its decisions: a picture is given the label if the label is *matched*.
        average_precision: Of its scores over all pictures; ``None`` if no picture shows it.
        threshold: Its own threshold.
        certified: Promise that its threshold was calibrated for: ``precision``, ``confidence``, and
            the evidence; ``together`` if the evidence is of several labels.
    """

    name: str
    detection: Detection
    average_precision: float | None
    threshold: float | None
    certified: Mapping[str, Any] | None = None

    def fields(self) -> dict[str, Any]:
        """Describe the label for programs."""
        return {
            "n": self.detection.n,
            "precision": self.detection.precision,
            "recall": self.detection.recall,
            "average_precision": self.average_precision,
            "threshold": self.threshold,
            "certified": None if self.certified is None else dict(self.certified),
            "predicted": self.detection.predicted,
            "correct": self.detection.correct,
        }


@dataclass(frozen=True, slots=True)
class NoneOfThese:
    """Figures of the pictures that show none of the labels.

    Attributes:
        n: Their number.
        rejected: How many of them were given no label.
        auroc: Probability that a picture with a label has a higher best score than one without.
        auroc_fit: The same of their fits; ``None`` if results have none.
    """

    n: int
    rejected: int
    auroc: float | None
    auroc_fit: float | None = None

    def fields(self) -> dict[str, Any]:
        """Describe them for programs."""
        return {
            "n": self.n,
            "rejected": self.rejected,
            "auroc": self.auroc,
            "auroc_fit": self.auroc_fit,
        }


@dataclass(frozen=True, slots=True)
class ConfusedPair:
    """Number of pictures with one true label and one answer; ``None`` is none of these."""

    label: str | None
    predicted: str | None
    n: int


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A picture whose label of the manifest may be wrong.

    Attributes:
        given: Labels of the manifest; none for none of these.
        given_score: Score of the best of them.
        best: Label that the model prefers.
        best_score: Its score.
    """

    scored: ScoredImage
    given: tuple[str, ...]
    given_score: float
    best: str
    best_score: float

    def fields(self) -> dict[str, Any]:
        """Describe the picture for programs."""
        return {
            "line": self.scored.image.line,
            "image": self.scored.image.image,
            "labels": list(self.given),
            "score": self.given_score,
            "predicted": self.best,
            "predicted_score": self.best_score,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Cost of an evaluation.

    Attributes:
        images: Pictures that were scored, those that failed included.
        jobs: Jobs that they took.
        uploaded: Local files among them.
        labels: Labels of the set.
        prompts: Sentences that the text tower encodes once for the set.
        seconds: From the first submit to the last result.
        stage_s: Median seconds of the jobs' stages, each of the slowest picture of a job.
    """

    images: int
    jobs: int
    uploaded: int
    labels: int
    prompts: int
    seconds: float
    stage_s: Mapping[str, float]

    def fields(self) -> dict[str, Any]:
        """Describe the cost for programs."""
        return {
            "images": self.images,
            "jobs": self.jobs,
            "uploaded": self.uploaded,
            "labels": self.labels,
            "prompts": self.prompts,
            "seconds": round(self.seconds, 3),
            "images_per_s": round(self.images / max(self.seconds, 1e-3), 3),
            **{name: round(value, 6) for name, value in self.stage_s.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The set, the manifest and the model of an evaluation.

    Attributes:
        label_set: The set.
        reference: ``name@sha256:…`` if the set is registered.
        digest: Digest of the set.
        manifest: Name of the manifest.
        split: Split of it that was taken; ``None`` if all lines were.
        model: Model that scored; ``None`` if no picture was.
    """

    label_set: LabelSet
    reference: str | None
    digest: str | None
    manifest: str
    split: str | None
    model: ModelInfo | None

    def fields(self) -> dict[str, Any]:
        """Describe the subject for programs."""
        return {
            "reference": self.reference,
            "label_set": self.digest,
            "manifest": self.manifest,
            "split": self.split,
            "model": None if self.model is None else self.model.model_dump(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """All numbers of an evaluation; ``None`` stands for what no picture could show.

    Attributes:
        n: Pictures with scores; all figures are of these.
        correct: Pictures whose best label is true, or that show none of the labels and were
            given none.
        interval: Wilson interval of the accuracy, at 95 %.
        ece: Calibration error of the best score, in 15 bins of equal mass.
        nll: Mean negative log-likelihood of the true labels.
        coverage: Share of the pictures that were given a label.
        labels: Of each label, in the order of the set.
        confusion: Pairs of true label and answer, of pictures with at most one label.
        suspicions: Most suspicious labels of the manifest, the worst first.
        levels: Of a hierarchy, the top one first.
    """

    n: int
    failed: int
    correct: int
    interval: tuple[float, float]
    ece: float | None
    nll: float | None
    coverage: float | None
    scoring: ScoringName
    labels: Sequence[LabelFigures]
    confusion: Sequence[ConfusedPair]
    reliability: Sequence[ReliabilityBin]
    risk_coverage: Sequence[RiskPoint]
    area_under_risk: float | None
    none_of_these: NoneOfThese | None
    suspicions: Sequence[Suspicion]
    levels: Sequence[LevelFigures] = ()

    @property
    def accuracy(self) -> float | None:
        """Share of the pictures that are correct."""
        return self.correct / self.n if self.n else None
