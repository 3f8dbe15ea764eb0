"""Preparation of an evaluation: requirements, manifest and pictures are checked before any job."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from labelyard.errors import ServiceConfigError
from labelyard.evaluation.evaluation import Evaluation
from labelyard.evaluation.figures import Cost, Subject
from labelyard.evaluation.manifest import LabelledImage, Manifest, read_manifest
from labelyard.evaluation.prepared_pictures import PreparedPictures
from labelyard.evaluation.requirements import Requirement, read_requirements
from labelyard.evaluation.scored_images import Scoring
from labelyard.label_sets import label_set_digest
from labelyard.messages import LabelSet, Timing


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedEvaluation(PreparedPictures):
    """An evaluation that can be scored.

    Attributes:
        manifest: Name of the manifest.
        requirements: Requirements to check.
    """

    manifest: str
    requirements: Sequence[Requirement]

    def measure(self, scoring: Scoring) -> Evaluation:
        """Measure the scores."""
        from labelyard.evaluation.measuring import measure

        scored = scoring.scored()
        figures = measure(scored, self.label_set)
        return Evaluation(
            subject=Subject(
                label_set=self.label_set,
                reference=self.reference,
                digest=scoring.digest or label_set_digest(self.label_set),
                manifest=self.manifest,
                split=_split_of(self.images),
                model=scoring.model,
            ),
            figures=figures,
            cost=Cost(
                images=len(scored),
                jobs=scoring.jobs,
                uploaded=len(self.files),
                labels=len(self.label_set.labels),
                prompts=self.label_set.count_prompts(),
                seconds=scoring.seconds,
                stage_s=_medians(scoring.timings),
            ),
            requirements=[one.check(figures) for one in self.requirements],
            scored=scored,
        )


def prepare_evaluation(
    label_set: LabelSet,
    manifest: Manifest,
    *,
    reference: str | None = None,
    split: str | None = None,
    require: Sequence[str] = (),
) -> PreparedEvaluation:
    """Check everything that can be wrong before a picture is uploaded.

    Args:
        reference: Of the set, if it is registered.
        split: See :func:`labelyard.evaluation.manifest.read_manifest`.
        require: Requirements, as ``accuracy>=0.9``.

    Raises:
        InvalidMessageError: A requirement or a line of the manifest is wrong.
        ServiceConfigError: numpy is missing.
    """
    check_extra()
    names = {label.name for label in label_set.labels}
    requirements = read_requirements(require, labels=names)
    images = read_manifest(manifest, split=split, labels=names)
    name = str(manifest) if isinstance(manifest, str | Path) else "manifest"
    return PreparedEvaluation(
        label_set=label_set,
        images=images,
        reference=reference,
        manifest=name,
        requirements=requirements,
    )


def check_extra() -> None:
    """Check that the libraries of the extra ``evaluation`` are installed.

    Raises:
        ServiceConfigError: They are not.
    """
    try:
        import numpy  # noqa: F401 - only looked for
    except ImportError as error:
        raise ServiceConfigError(
            "evaluations need numpy: pip install 'labelyard[evaluation]'"
        ) from error


def _split_of(images: Sequence[LabelledImage]) -> str | None:
    splits = {one.split for one in images}
    return splits.pop() if len(splits) == 1 else None


def _medians(timings: Sequence[Timing]) -> Mapping[str, float]:
    if not timings:
        return MappingProxyType({})
    return {
        name: statistics.median(getattr(one, name) for one in timings)
        for name in Timing.model_fields
    }
