"""Calibration of a label set: temperature and thresholds from the pictures of a manifest."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import TYPE_CHECKING, Any, Final

from labelyard.drift.counts import AnswerCounts, answer_counts
from labelyard.errors import InvalidMessageError, ResultUnreadableError
from labelyard.evaluation.label_certificates import (
    LabelCalibration,
    certify_labels,
    promise_of,
)
from labelyard.evaluation.manifest import Manifest, read_manifest
from labelyard.evaluation.preparation import check_extra
from labelyard.evaluation.prepared_pictures import PreparedPictures
from labelyard.evaluation.sample_checks import check_disjoint, check_scored, distinct_places
from labelyard.evaluation.scored_images import ScoredImage, Scoring
from labelyard.evaluation.versions import with_learned
from labelyard.messages import Certified, FitLimit, LabelSet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from labelyard.evaluation.none_of_these import LimitChoice
    from labelyard.evaluation.score_table import ScoreTable

#: Split that calibrates, if none is chosen.
CALIBRATION_SPLIT: Final = "calibration"


@dataclass(frozen=True, slots=True)
class Calibration:
    """A calibrated label set.

    Attributes:
        label_set: The new version.
        n: Pictures that it was calibrated on.
        repeated: Lines whose picture an earlier line has; each picture counts once.
        certified: The promise; ``None`` if nothing is certified.
        labels: What was found for each label.
        ece: Calibration error before and after.
        nll: Mean negative log-likelihood before, and after in cross-validation; ``None`` if the
            temperature was not fitted.
        none_of_these: Limit of the fit; ``None`` if the set has none.
        answers: Answers of the new version to the pictures, from which drift is measured.
        reference: Its reference, once it is registered.
    """

    label_set: LabelSet
    n: int
    certified: Certified | None
    labels: Sequence[LabelCalibration]
    ece: tuple[float, float]
    nll: tuple[float, float] | None
    answers: AnswerCounts = field(repr=False)
    none_of_these: FitLimit | None = None
    repeated: int = 0
    reference: str | None = None

    @property
    def note(self) -> str:
        """Note of the new version."""
        promised = "nothing certified"
        if self.certified is not None:
            promised = f"certified for {self.certified.precision:g}"
        return f"calibrated on {self.n} pictures, {promised}"

    def report(self) -> dict[str, Any]:
        """Describe the calibration for programs."""
        return {
            "reference": self.reference,
            "n": self.n,
            "repeated": self.repeated,
            "temperature": self.label_set.temperature,
            "ece": {"before": self.ece[0], "after": self.ece[1]},
            "nll": self.nll and {"before": self.nll[0], "after": self.nll[1]},
            "certified": None
            if self.certified is None
            else self.certified.model_dump(mode="json", exclude={"labels"}),
            "none_of_these": None
            if self.none_of_these is None
            else self.none_of_these.model_dump(mode="json"),
            "per_label": {one.name: one.fields() for one in self.labels},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedCalibration(PreparedPictures):
    """Calibration that can be scored.

    Attributes:
        precision: Promised share of right answers.
        confidence: Probability with which the promise holds.
        limit_by: How the limit of the fit is fixed; ``None`` leaves the set's own.
        examples: Digests of the pictures that taught the set.
    """

    precision: float
    confidence: float
    limit_by: "LimitChoice | None" = None
    examples: frozenset[str] = field(default=frozenset(), repr=False)

    def calibrate(self, scoring: Scoring) -> Calibration:
        """Fit temperature and thresholds, and make the new version of the set.

        Raises:
            InvalidMessageError: A picture has no scores, is an example of the set, or has two
                labels in the manifest.
        """
        from labelyard.evaluation.metrics import expected_calibration_error
        from labelyard.evaluation.score_table import ScoreTable

        scored = scoring.scored()
        check_scored(scored)
        check_disjoint(scored, self.examples)
        scored = [scored[place] for place in distinct_places(scored)]
        before = self.label_set.learned
        limit = None if before is None else before.none_of_these
        if self.limit_by is not None:
            limit = limit_of(scored, self.limit_by)
            scored = with_limit(scored, limit.limit)
        table = ScoreTable(scored, self.label_set)
        temperature, nll, scores = _temper(table, self.label_set)
        best = scores.argmax(axis=1)
        is_right = table.truth[range(len(best)), best]
        found = certify_labels(scores, table, precision=self.precision, confidence=self.confidence)
        certified = promise_of(found, precision=self.precision, confidence=self.confidence)
        label_set = with_thresholds(self.label_set, found)
        return Calibration(
            label_set=with_learned(
                label_set.model_copy(update={"temperature": temperature}),
                scoring.fingerprint,
                checkpoint=scoring.fingerprint,
                certified=certified,
                none_of_these=limit,
            ),
            n=len(scored),
            certified=certified,
            labels=found,
            ece=(
                expected_calibration_error(table.confidences, table.is_best_true),
                expected_calibration_error(scores.max(axis=1), is_right),
            ),
            nll=nll,
            none_of_these=limit,
            repeated=len(self.images) - len(scored),
            answers=_answers(table, scores),
        )


def prepare_calibration(
    label_set: LabelSet,
    manifest: Manifest,
    *,
    reference: str | None = None,
    split: str | None = None,
    precision: float = 0.95,
    confidence: float = 0.9,
    none_of_these: "LimitChoice | None" = None,
    examples: frozenset[str] = frozenset(),
) -> PreparedCalibration:
    """Check everything that can be wrong before a picture is uploaded.

    Args:
        reference: Of the set, if it is registered.
        split: Lines to take; ``calibration`` if not given.
        precision: Promised share of right answers among matched ones, 0.5 to 0.999.
        confidence: Probability with which the promise holds, 0.5 to 0.999.
        none_of_these: Fixes the limit of the fit: ``labelled`` by pictures of both kinds, or a
            share, 0.5 to 0.999, of the pictures with a label that stays.
        examples: Digests of the pictures that taught the set.

    Raises:
        InvalidMessageError: A share or a line of the manifest is wrong.
        ServiceConfigError: numpy is missing.
    """
    check_extra()
    for name, share in (("precision", precision), ("confidence", confidence)):
        is_number = isinstance(share, Real) and not isinstance(share, bool)
        if not (is_number and 0.5 <= share <= 0.999):
            raise InvalidMessageError(f"{name}: {share!r} is not a share from 0.5 to 0.999")
    from labelyard.evaluation.none_of_these import read_choice

    limit_by = read_choice(none_of_these)
    names = {label.name for label in label_set.labels}
    images = read_manifest(manifest, split=split or CALIBRATION_SPLIT, labels=names)
    return PreparedCalibration(
        label_set=label_set,
        images=images,
        reference=reference,
        precision=precision,
        confidence=confidence,
        limit_by=limit_by,
        examples=examples,
    )


def limit_of(scored: Sequence[ScoredImage], choice: "LimitChoice") -> FitLimit:
    """Fix the limit of the fit by scored pictures.

    Raises:
        InvalidMessageError: The pictures do not suffice.
        ResultUnreadableError: A result has no fit: the worker is older than the client.
    """
    import numpy as np

    from labelyard.evaluation.none_of_these import fit_limit

    fits = [one.fit for one in scored if one.fit is not None]
    if len(fits) < len(scored):
        raise ResultUnreadableError("a result has no fit: upgrade the workers")
    is_known = np.array([bool(one.image.labels) for one in scored], dtype=bool)
    return fit_limit(np.array(fits), is_known, choice)


def with_limit(scored: Sequence[ScoredImage], limit: float) -> list[ScoredImage]:
    """Return the pictures as a set with the limit answers them, in place of one of its own."""
    found = []
    for one in scored:
        if one.fit is not None and one.fit < limit:
            found.append(replace(one, abstained=True, matched=(), because="none_of_these"))
        else:
            is_prompt = one.abstained and one.because != "none_of_these"
            found.append(replace(one, abstained=is_prompt))
    return found


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


def _answers(table: "ScoreTable", scores: "NDArray[np.float64]") -> AnswerCounts:
    """Count the answers to the sample, with the scores of the new version."""
    best = scores.argmax(axis=1)
    return answer_counts(
        (table.names[label], float(scores[row, label]), True, bool(table.abstained[row]))
        for row, label in enumerate(best)
    )


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
    from labelyard.evaluation.logits import logits_of

    is_single = table.truth.sum(axis=1) == 1
    if table.scoring == "sigmoid" or label_set.abstain or not is_single.any():
        return label_set.temperature, None, table.scores
    logits = logits_of(table.scores)
    learned = label_set.learned
    fitted = fit_temperature(
        logits[is_single],
        table.truth[is_single].argmax(axis=1),
        is_taught=learned is not None and learned.examples is not None,
    )
    if fitted.value == 1.0:
        return label_set.temperature, (fitted.nll_before, fitted.nll_after), table.scores
    tempered = logits / fitted.value
    scores: NDArray[np.float64] = np.exp(tempered - log_sum_exp(tempered))
    temperature = float(np.clip(label_set.temperature * fitted.value, 1e-6, 1000.0))
    return temperature, (fitted.nll_before, fitted.nll_after), scores
