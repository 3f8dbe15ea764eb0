"""Preparation of an evaluation: requirements, manifest and pictures are checked before any job."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from labelyard.errors import ServiceConfigError
from labelyard.evaluation.evaluation import Evaluation
from labelyard.evaluation.figures import Cost, Subject
from labelyard.evaluation.manifest import LabelledImage, Manifest, read_manifest
from labelyard.evaluation.requirements import Requirement, read_requirements
from labelyard.evaluation.scored_images import Scoring
from labelyard.label_sets import label_set_digest
from labelyard.messages import LabelSet, Timing


@dataclass(frozen=True, slots=True)
class PreparedEvaluation:
    """An evaluation that can be scored.

    Attributes:
        label_set: The set.
        reference: Its reference, if it is registered.
        manifest: Name of the manifest.
        images: Pictures of the chosen split.
        requirements: Requirements to check.
    """

    label_set: LabelSet
    reference: str | None
    manifest: str
    images: Sequence[LabelledImage]
    requirements: Sequence[Requirement]

    @property
    def files(self) -> list[Path]:
        """Local files to upload, each once."""
        return local_files(self.images)

    def scoring(self, addresses: Mapping[Path, str]) -> Scoring:
        """Return the scoring of the pictures.

        Args:
            addresses: Address of each uploaded file.
        """
        uris = uris_of(self.images, addresses)
        return Scoring(self.images, uris, self.reference or self.label_set, self.label_set)

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
    return PreparedEvaluation(label_set, reference, name, images, requirements)


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


def local_files(images: Sequence[LabelledImage]) -> list[Path]:
    """Return the local files among pictures, each once, in their order."""
    return list(dict.fromkeys(one.file for one in images if one.file is not None))


def uris_of(images: Sequence[LabelledImage], addresses: Mapping[Path, str]) -> list[str]:
    """Return the address of each picture.

    Args:
        addresses: Address of each uploaded file.
    """
    return [one.image if one.file is None else addresses[one.file] for one in images]


class Stopwatch:
    """Seconds since it was made, and how many of a time limit are left."""

    def __init__(self, timeout_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start = clock()
        self._timeout_s = timeout_s

    @property
    def seconds(self) -> float:
        """Seconds since it was made."""
        return self._clock() - self._start

    @property
    def left_s(self) -> float:
        """Seconds until the limit, at least 0."""
        return max(0.0, self._timeout_s - self.seconds)


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
