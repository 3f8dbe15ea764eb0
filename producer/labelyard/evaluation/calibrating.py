"""Calibration of a label set: temperature and thresholds from the pictures of a manifest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from labelyard.errors import InvalidMessageError
from labelyard.evaluation.manifest import LabelledImage, Manifest, read_manifest
from labelyard.evaluation.preparation import check_extra, local_files
from labelyard.evaluation.scored_images import ScoredImage, Scoring
from labelyard.messages import Certified, CertifiedLabel, LabelSet, Learned

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from labelyard.evaluation.certificates import Certificate
    from labelyard.evaluation.measuring import ScoreTable

#: Split that calibrates, if none is chosen.
CALIBRATION_SPLIT: Final = "calibration"
#: A label is certified by itself if so many times the least evidence was answered with it. The
#: others are certified together. The number of answers decides, never their correctness.
EVIDENCE_OF_ITS_OWN: Final = 3
TINY: Final = 1e-300


@dataclass(frozen=True, slots=True)
class LabelCalibration:
    """What a calibration found for one label.

    Attributes:
        name: Of the label.
        answered: Pictures whose best label it is; under sigmoid all pictures.
        threshold: Score from which on the promise holds; ``None`` if it is not certified.
        is_certified: Whether the label keeps the promise by itself.
        is_certified_together: Whether it is certified with the other labels of few answers.
        accepted: Pictures from the threshold on.
        errors: Wrong ones among them.
        missing: About how many more answers like these a certificate of its own needs; 0 if it
            has one, ``None`` if no number of such answers suffices.
    """

    name: str
    answered: int
    threshold: float | None
    is_certified: bool
    is_certified_together: bool
    accepted: int
    errors: int
    missing: int | None

    @property
    def verdict(self) -> str:
        """The finding as a sentence."""
        if self.is_certified:
            return f"certified from {self.threshold:.3f} on"
        lacks = (
            "more pictures like these do not help"
            if self.missing is None
            else f"needs about {self.missing} more pictures"
        )
        if self.is_certified_together:
            return f"certified with the others from {self.threshold:.3f} on; by itself {lacks}"
        return f"not certified, {lacks}"

    def fields(self) -> dict[str, Any]:
        """Describe it for programs."""
        return {
            "certified": self.is_certified,
            "certified_together": self.is_certified_together,
            "threshold": self.threshold,
            "answered": self.answered,
            "accepted": self.accepted,
            "errors": self.errors,
            "missing": self.missing,
            "verdict": self.verdict,
        }


@dataclass(frozen=True, slots=True)
class Calibration:
    """A calibrated label set.

    Attributes:
        label_set: The new version.
        n: Pictures that it was calibrated on.
        certified: The promise; ``None`` if nothing is certified.
        labels: What was found for each label.
        ece: Calibration error before and after.
        nll: Mean negative log-likelihood before, and after in cross-validation; ``None`` if the
            temperature was not fitted.
        reference: Its reference, once it is registered.
    """

    label_set: LabelSet
    n: int
    certified: Certified | None
    labels: Sequence[LabelCalibration]
    ece: tuple[float, float]
    nll: tuple[float, float] | None
    reference: str | None = None

    def report(self) -> dict[str, Any]:
        """Describe the calibration for programs."""
        return {
            "reference": self.reference,
            "n": self.n,
            "temperature": self.label_set.temperature,
            "ece": {"before": self.ece[0], "after": self.ece[1]},
            "nll": self.nll and {"before": self.nll[0], "after": self.nll[1]},
            "certified": None
            if self.certified is None
            else self.certified.model_dump(mode="json", exclude={"labels"}),
            "per_label": {one.name: one.fields() for one in self.labels},
        }


@dataclass(frozen=True, slots=True)
class PreparedCalibration:
    """Calibration that can be scored.

    Attributes:
        label_set: The set that is calibrated.
        reference: Its reference, if it is registered.
        images: Pictures of the chosen split.
        precision: Promised share of right answers.
        confidence: Probability with which the promise holds.
    """

    label_set: LabelSet
    reference: str | None
    images: Sequence[LabelledImage]
    precision: float
    confidence: float
    examples: frozenset[str] = field(default=frozenset(), repr=False)

    @property
    def files(self) -> list[Path]:
        """Local files to upload, each once."""
        return local_files(self.images)

    def scoring(self, addresses: Mapping[Path, str]) -> Scoring:
        """Return the scoring of the pictures.

        Args:
            addresses: Address of each uploaded file.
        """
        uris = [one.image if one.file is None else addresses[one.file] for one in self.images]
        return Scoring(self.images, uris, self.reference or self.label_set, self.label_set)

    def calibrate(self, scoring: Scoring) -> Calibration:
        """Fit temperature and thresholds, and make the new version of the set.

        Raises:
            InvalidMessageError: A picture has no scores, or is an example of the set.
        """
        from labelyard.evaluation.measuring import ScoreTable
        from labelyard.evaluation.metrics import expected_calibration_error

        scored = scoring.scored()
        check_scored(scored)
        check_disjoint(scored, self.examples)
        table = ScoreTable(scored, self.label_set)
        temperature, nll, scores = _temper(table, self.label_set)
        best = scores.argmax(axis=1)
        is_right = table.truth[range(len(best)), best]
        found = _certify_all(scores, table, precision=self.precision, confidence=self.confidence)
        certified = _promise(found, precision=self.precision, confidence=self.confidence)
        fingerprint = scoring.model.fingerprint if scoring.model is not None else ""
        before = self.label_set.learned
        learned = Learned(
            checkpoint=fingerprint,
            examples=None if before is None else before.examples,
            certified=certified,
        )
        label_set = with_thresholds(self.label_set, found).model_copy(
            update={"temperature": temperature, "learned": learned}
        )
        return Calibration(
            label_set=LabelSet.model_validate(label_set.model_dump()),
            n=len(scored),
            certified=certified,
            labels=found,
            ece=(
                expected_calibration_error(table.confidences, table.is_best_true),
                expected_calibration_error(scores.max(axis=1), is_right),
            ),
            nll=nll,
        )


def prepare_calibration(
    label_set: LabelSet,
    manifest: Manifest,
    *,
    reference: str | None = None,
    split: str | None = None,
    precision: float = 0.95,
    confidence: float = 0.9,
    examples: frozenset[str] = frozenset(),
) -> PreparedCalibration:
    """Check everything that can be wrong before a picture is uploaded.

    Args:
        reference: Of the set, if it is registered.
        split: Lines to take; ``calibration`` if not given.
        precision: Promised share of right answers among matched ones, 0.5 to 0.999.
        confidence: Probability with which the promise holds, 0.5 to 0.999.
        examples: Digests of the pictures that taught the set.

    Raises:
        InvalidMessageError: A share or a line of the manifest is wrong.
        ServiceConfigError: numpy is missing.
    """
    check_extra()
    for name, share in (("precision", precision), ("confidence", confidence)):
        if not 0.5 <= share <= 0.999:
            raise InvalidMessageError(f"{name}: {share} is not a share from 0.5 to 0.999")
    names = {label.name for label in label_set.labels}
    images = read_manifest(manifest, split=split or CALIBRATION_SPLIT, labels=names)
    return PreparedCalibration(label_set, reference, images, precision, confidence, examples)


def check_scored(scored: Sequence[ScoredImage]) -> None:
    """Refuse a sample in which a picture has no scores: it would not be the whole sample.

    Raises:
        InvalidMessageError: Names the first such line.
    """
    for one in scored:
        if one.error is not None:
            raise InvalidMessageError(f"line {one.image.line}: {one.error.message}")


def check_disjoint(scored: Sequence[ScoredImage], examples: frozenset[str]) -> None:
    """Refuse pictures that taught the set: its scores for them are better than for others.

    Raises:
        InvalidMessageError: Names the first lines.
    """
    seen = [one.image.line for one in scored if one.sha256 in examples]
    if seen:
        named = ", ".join(map(str, seen[:5]))
        raise InvalidMessageError(
            f"{len(seen)} pictures are examples of the label set (lines {named}): calibrate on "
            "pictures that taught nothing"
        )


def with_thresholds(label_set: LabelSet, found: Sequence[LabelCalibration]) -> LabelSet:
    """Return the set with certified thresholds; where none is certified, none is invented.

    Thresholds of an earlier calibration go, too; those that the owner set stay.
    """
    was_certified = label_set.learned is not None and label_set.learned.certified is not None
    labels = tuple(
        label.model_copy(update={"threshold": one.threshold})
        if one.threshold is not None or was_certified
        else label
        for label, one in zip(label_set.labels, found, strict=True)
    )
    return label_set.model_copy(update={"labels": labels})


def _temper(
    table: "ScoreTable", label_set: LabelSet
) -> "tuple[float, tuple[float, float] | None, NDArray[np.float64]]":
    """Fit the temperature, and return it, its likelihoods and the scores with it.

    With *abstain* prompts, and under sigmoid, the temperature stays: results have no score for
    such prompts, and a sigmoid score does not depend on other labels.
    """
    import numpy as np

    from labelyard.evaluation.calibration import fit_temperature
    from labelyard.evaluation.example_scores import log_sum_exp

    is_single = table.truth.sum(axis=1) == 1
    if table.scoring == "sigmoid" or label_set.abstain or not is_single.any():
        return label_set.temperature, None, table.scores
    logits = np.log(np.maximum(table.scores, TINY))  # in units of the present temperature
    fitted = fit_temperature(logits[is_single], table.truth[is_single].argmax(axis=1))
    if fitted.value == 1.0:
        return label_set.temperature, (fitted.nll_before, fitted.nll_after), table.scores
    tempered = logits / fitted.value
    scores: NDArray[np.float64] = np.exp(tempered - log_sum_exp(tempered))
    temperature = float(np.clip(label_set.temperature * fitted.value, 1e-6, 1000.0))
    return temperature, (fitted.nll_before, fitted.nll_after), scores


def _certify_all(
    scores: "NDArray[np.float64]", table: "ScoreTable", *, precision: float, confidence: float
) -> list[LabelCalibration]:
    """Certify labels with enough answers one by one, and the others together."""
    import numpy as np

    from labelyard.evaluation.certificates import certify_together, smallest_evidence

    if table.scoring == "sigmoid":
        return [
            _certify_one(
                name,
                scores[:, place],
                table.truth[:, place],
                precision=precision,
                confidence=confidence,
            )
            for place, name in enumerate(table.names)
        ]
    best, confidences = scores.argmax(axis=1), scores.max(axis=1)
    is_right = table.truth[np.arange(len(best)), best]
    is_answer = ~table.abstained
    answers = np.bincount(best[is_answer], minlength=len(table.names))
    has_own = answers >= EVIDENCE_OF_ITS_OWN * smallest_evidence(precision, confidence)
    rest = is_answer & ~has_own[best]
    together = certify_together(
        confidences[rest], is_right[rest], precision=precision, confidence=confidence
    )
    found = []
    for place, name in enumerate(table.names):
        own = is_answer & (best == place)
        found.append(
            _certify_one(
                name,
                confidences[own],
                is_right[own],
                precision=precision,
                confidence=confidence,
                together=None if has_own[place] else together,
                is_by_itself=bool(has_own[place]),
            )
        )
    return found


def _certify_one(
    name: str,
    scores: "NDArray[np.float64]",
    is_right: "NDArray[np.bool_]",
    *,
    precision: float,
    confidence: float,
    together: "Certificate | None" = None,
    is_by_itself: bool = True,
) -> LabelCalibration:
    """Certify one label by itself, or report it with the certificate of the others."""
    from labelyard.evaluation.certificates import certify, count_missing

    promise = {"precision": precision, "confidence": confidence}
    own = certify(scores, is_right, **promise) if is_by_itself else None
    threshold = own.threshold if own else together.threshold if together else None
    is_accepted = scores >= (2.0 if threshold is None else threshold)
    return LabelCalibration(
        name=name,
        answered=len(scores),
        threshold=threshold,
        is_certified=own is not None,
        is_certified_together=own is None and together is not None,
        accepted=int(is_accepted.sum()),
        errors=int((is_accepted & ~is_right).sum()),
        missing=0 if own else count_missing(scores, is_right, **promise),
    )


def _promise(
    found: Sequence[LabelCalibration], *, precision: float, confidence: float
) -> Certified | None:
    """Return what is certified of the set, or ``None`` if nothing is."""
    if all(one.threshold is None for one in found):
        return None
    together = [one.threshold for one in found if one.is_certified_together]
    return Certified(
        precision=precision,
        confidence=confidence,
        accepted=sum(one.accepted for one in found),
        errors=sum(one.errors for one in found),
        labels={
            one.name: CertifiedLabel(
                threshold=one.threshold, accepted=one.accepted, errors=one.errors
            )
            for one in found
            if one.is_certified and one.threshold is not None
        },
        threshold=together[0] if together else None,
    )
