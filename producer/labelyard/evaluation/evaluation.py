"""An evaluation: its figures with what they are of, as an object, as JSON and as files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from labelyard.evaluation.figures import Cost, Figures, LabelFigures, Subject
from labelyard.evaluation.files import prediction, write_report
from labelyard.evaluation.requirements import CheckedRequirement
from labelyard.evaluation.scored_images import ScoredImage

#: Points of a curve in ``report.json``; ``predictions.jsonl`` has what all of them are made of.
MAX_POINTS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Result of an evaluation.

    Attributes:
        subject: What was evaluated: label set, manifest, model.
        figures: All numbers.
        cost: Pictures, jobs and seconds that it took.
        requirements: Requirements with their figures.
        scored: The pictures with their scores, in the order of the manifest.
    """

    subject: Subject
    figures: Figures
    cost: Cost
    requirements: Sequence[CheckedRequirement] = ()
    scored: Sequence[ScoredImage] = field(default=(), repr=False)

    @property
    def n(self) -> int:
        """Number of pictures with scores."""
        return self.figures.n

    @property
    def accuracy(self) -> float | None:
        """Share of the pictures that are correct; ``None`` if none has scores."""
        return self.figures.accuracy

    @property
    def passed(self) -> bool:
        """Whether every requirement holds."""
        return all(one.passed for one in self.requirements)

    def per_label(self) -> dict[str, LabelFigures]:
        """Return the figures of each label, by its name."""
        return {label.name: label for label in self.figures.labels}

    def report(self) -> dict[str, Any]:
        """Describe the evaluation for programs: the content of ``report.json``."""
        figures = self.figures
        return {
            "n": figures.n,
            "accuracy": figures.accuracy,
            "accuracy_interval": list(figures.interval),
            "ece": figures.ece,
            "nll": figures.nll,
            "per_label": {label.name: label.fields() for label in figures.labels},
            "cost": self.cost.fields(),
            **self.subject.fields(),
            "scoring": figures.scoring,
            "failed": figures.failed,
            "coverage": figures.coverage,
            "area_under_risk": figures.area_under_risk,
            "none_of_these": figures.none_of_these and figures.none_of_these.fields(),
            "levels": [one.fields() for one in figures.levels],
            "requirements": [one.fields() for one in self.requirements],
            "confusion": [
                {"label": pair.label, "predicted": pair.predicted, "n": pair.n}
                for pair in figures.confusion
            ],
            "reliability": [
                {
                    "n": one.n,
                    "confidence": one.confidence,
                    "accuracy": one.accuracy,
                    "interval": list(one.interval),
                }
                for one in figures.reliability
            ],
            "risk_coverage": [
                {"coverage": one.coverage, "risk": one.risk, "threshold": one.threshold}
                for one in thinned(figures.risk_coverage)
            ],
            "suspicious": [one.fields() for one in figures.suspicions],
            **self._titles(),
        }

    def _titles(self) -> dict[str, Any]:
        """Count the texts that were compared with pictures, if there are some."""
        found = [one.title for one in self.scored if one.title is not None]
        if not found:
            return {}
        return {"titles": {"n": len(found), "disagree": sum(not one.agrees for one in found)}}

    def summary(self) -> dict[str, Any]:
        """Return the figures of all pictures, to be attached to the version of the set."""
        report, subject = self.report(), self.subject
        names = ("n", "accuracy", "accuracy_interval", "ece", "nll", "coverage", "failed")
        return {
            **{name: report[name] for name in names},
            "manifest": subject.manifest,
            "split": subject.split,
            "checkpoint": subject.model and subject.model.checkpoint,
        }

    def predictions(self) -> Iterator[dict[str, Any]]:
        """Yield the prediction for each picture: the lines of ``predictions.jsonl``."""
        names = [label.name for label in self.subject.label_set.labels]
        for one in self.scored:
            yield prediction(one, names)

    def write(self, folder: str | Path, *, has_thumbnails: bool = True) -> Path:
        """Write ``predictions.jsonl``, ``report.json`` and ``report.html`` into a folder.

        Args:
            folder: Is made if there is none; files of an earlier evaluation are replaced.
            has_thumbnails: Whether the page shows the suspicious pictures.

        Returns:
            The folder.

        Raises:
            InvalidMessageError: The files cannot be written.
            ServiceConfigError: S3 refused the credentials, or a library is missing.
        """
        from labelyard.evaluation.report.page import evaluation_page

        page = evaluation_page(self, has_thumbnails=has_thumbnails)
        lines = ("predictions.jsonl", self.predictions())
        return write_report(folder, report=self.report(), page=page, lines=lines)


def thinned(points: Sequence[Any], most: int = MAX_POINTS) -> Sequence[Any]:
    """Return at most *most* of the points, the last one included, at equal distances."""
    if len(points) <= most:
        return points
    last = len(points) - 1
    return [points[round(place * last / (most - 1))] for place in range(most)]
