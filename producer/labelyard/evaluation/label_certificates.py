"""Certificates of a label set's labels: of one by itself if it has much evidence, else together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from labelyard.messages import Certified, CertifiedLabel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from labelyard.evaluation.certificates import Certificate
    from labelyard.evaluation.score_table import ScoreTable

#: A label is certified by itself if so many times the least evidence was answered with it. The
#: others are certified together. The number of answers decides, never their correctness.
EVIDENCE_OF_ITS_OWN: Final = 3


@dataclass(frozen=True, slots=True)
class LabelCalibration:
    """Evidence that a calibration found for one label.

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
            return f"certified {self._where}"
        if not self.answered:
            lacks = "no picture was answered with it"
        elif self.missing is None:
            lacks = "more pictures like these do not help"
        else:
            lacks = f"needs about {self.missing} more picture{'' if self.missing == 1 else 's'}"
        if self.is_certified_together:
            return f"not certified by itself, {lacks}; with the others certified {self._where}"
        return f"not certified, {lacks}"

    @property
    def _where(self) -> str:
        return f"from {self.threshold:.3f} on" if self.threshold else "at every score"

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


def certify_labels(
    scores: "NDArray[np.float64]", table: "ScoreTable", *, precision: float, confidence: float
) -> list[LabelCalibration]:
    """Certify labels with enough answers one by one, and the others together."""
    import numpy as np

    from labelyard.evaluation.certificates import certify_together, smallest_evidence

    if table.scoring == "sigmoid":
        return [
            _certify_one(
                name,
                scores[~table.abstained, place],
                table.truth[~table.abstained, place],
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
    from labelyard.evaluation.certificates import certify

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
        missing=0 if own else _missing(scores, is_right, **promise),
    )


def _missing(
    scores: "NDArray[np.float64]",
    is_right: "NDArray[np.bool_]",
    *,
    precision: float,
    confidence: float,
) -> int | None:
    """Estimate how many more answers like these a label needs that has no certificate of its own."""
    from labelyard.evaluation.certificates import count_missing, smallest_evidence

    missing = count_missing(scores, is_right, precision=precision, confidence=confidence)
    if missing != 0:
        return missing
    # Its answers would suffice, but so few are only certified together with those of other labels.
    own = EVIDENCE_OF_ITS_OWN * smallest_evidence(precision, confidence)
    return max(1, own - len(scores))


def promise_of(
    found: Sequence[LabelCalibration], *, precision: float, confidence: float
) -> Certified | None:
    """Return the promise that the certificates make, or ``None`` if there is none."""
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
