"""Measurement of scored pictures: every figure of an evaluation."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from labelyard.evaluation.figures import (
    ConfusedPair,
    Figures,
    LabelFigures,
    NoneOfThese,
    Suspicion,
)
from labelyard.evaluation.levels import measure_levels
from labelyard.evaluation.metrics import (
    Floats64,
    area_under_risk,
    auroc,
    average_precision,
    detections,
    expected_calibration_error,
    reliability_curve,
    risk_coverage_curve,
    sigmoid_nll,
    softmax_nll,
    wilson_interval,
)
from labelyard.evaluation.score_table import ScoreTable
from labelyard.evaluation.scored_images import ScoredImage
from labelyard.messages import LabelSet

#: Most suspicious labels that a report shows.
MAX_SUSPICIONS: Final = 50


def measure(scored: Sequence[ScoredImage], label_set: LabelSet) -> Figures:
    """Measure scored pictures against their labels."""
    table = ScoreTable(scored, label_set)
    n, correct = len(table.rows), int(table.is_correct.sum()) if table.rows else 0
    if not n:
        return _nothing(table, label_set, failed=len(scored))
    confidences, hits = table.confidences, table.is_best_true
    risks = risk_coverage_curve(confidences, hits)
    return Figures(
        n=n,
        failed=len(scored) - n,
        correct=correct,
        interval=wilson_interval(correct, n),
        ece=expected_calibration_error(confidences, hits),
        nll=_nll(table, label_set),
        coverage=float((~table.is_rejected).mean()),
        scoring=table.scoring,
        labels=_label_figures(table, label_set),
        confusion=_confusion(table),
        reliability=reliability_curve(confidences, hits),
        risk_coverage=risks,
        area_under_risk=area_under_risk(risks),
        none_of_these=_none_of_these(table),
        suspicions=_suspicions(table),
        levels=measure_levels(table, label_set),
    )


def _nothing(table: ScoreTable, label_set: LabelSet, *, failed: int) -> Figures:
    """Return the figures of an evaluation in which every picture failed."""
    return Figures(
        n=0,
        failed=failed,
        correct=0,
        interval=(0.0, 1.0),
        ece=None,
        nll=None,
        coverage=None,
        scoring=table.scoring,
        labels=_label_figures(table, label_set),
        confusion=(),
        reliability=(),
        risk_coverage=(),
        area_under_risk=None,
        none_of_these=None,
        suspicions=(),
    )


def _nll(table: ScoreTable, label_set: LabelSet) -> float | None:
    """Return the mean negative log-likelihood.

    Under softmax without *abstain* prompts a picture of something else has no likelihood, and is
    left out; with them it has the share that the labels leave.
    """
    if table.scoring == "sigmoid":
        return sigmoid_nll(table.scores, table.truth)
    known = table.has_label
    if not label_set.abstain:
        return softmax_nll(table.scores[known], table.truth[known]) if known.any() else None
    rest = np.clip(1.0 - table.scores.sum(axis=1), 0.0, 1.0)
    shares = np.column_stack([table.scores, rest])
    return softmax_nll(shares, np.column_stack([table.truth, ~known]))


def _label_figures(table: ScoreTable, label_set: LabelSet) -> list[LabelFigures]:
    counted = detections(table.truth, table.matched)
    return [
        LabelFigures(
            name=label.name,
            detection=detection,
            average_precision=average_precision(table.scores[:, place], table.truth[:, place]),
            threshold=label.threshold,
            certified=_certificate(label_set, label.name),
        )
        for place, (label, detection) in enumerate(zip(label_set.labels, counted, strict=True))
    ]


def _certificate(label_set: LabelSet, name: str) -> Mapping[str, Any] | None:
    """Return the promise that a label's threshold was calibrated for, by itself or with others."""
    certified = label_set.learned.certified if label_set.learned is not None else None
    if certified is None:
        return None
    own = certified.labels.get(name)
    if own is None and certified.threshold is None:
        return None
    evidence = own or certified
    return {
        "precision": certified.precision,
        "confidence": certified.confidence,
        "accepted": evidence.accepted,
        "errors": evidence.errors,
        "together": own is None,
    }


def _confusion(table: ScoreTable) -> list[ConfusedPair]:
    """Count pairs of true label and answer, the most frequent first."""
    counts: Counter[tuple[str | None, str | None]] = Counter()
    for one, answer in zip(table.rows, table.answers(), strict=True):
        if len(one.image.labels) <= 1:
            counts[(*one.image.labels, None)[0], answer] += 1
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0][0] or "", item[0][1] or ""))
    return [ConfusedPair(label, answer, n) for (label, answer), n in ranked]


def _none_of_these(table: ScoreTable) -> NoneOfThese | None:
    nothing = ~table.has_label
    if not nothing.any():
        return None
    return NoneOfThese(
        n=int(nothing.sum()),
        rejected=int((nothing & table.is_rejected).sum()),
        auroc=auroc(table.confidences[~nothing], table.confidences[nothing]),
        auroc_fit=None
        if np.isnan(table.fits).any()
        else auroc(table.fits[~nothing], table.fits[nothing]),
    )


def _suspicions(table: ScoreTable) -> list[Suspicion]:
    """Rank the pictures whose label of the manifest the model contradicts most clearly.

    Source:
        Normalized margin of Northcutt, Jiang and Chuang 2021, doi 10.1613/jair.1.12125: the score
        of the given label minus that of the best other one.
    """
    if not table.rows:
        return []
    others = np.where(table.truth, -np.inf, table.scores)
    best = others.argmax(axis=1)
    other = others[np.arange(len(best)), best]  # -inf where every label is true
    own = np.where(table.truth, table.scores, -np.inf).max(axis=1)
    own = np.where(table.has_label, own, _share_of_none(table))
    margins = own - other
    order = np.argsort(margins, kind="stable")
    return [
        Suspicion(
            scored=table.rows[row],
            given=table.rows[row].image.labels,
            given_score=float(own[row]),
            best=table.names[best[row]],
            best_score=float(other[row]),
        )
        for row in order[:MAX_SUSPICIONS]
        if margins[row] < 0 and not table.is_correct[row]
    ]


def _share_of_none(table: ScoreTable) -> Floats64:
    """Return a score for "none of these": the share that the labels leave, or their least doubt."""
    rest = 1.0 - (table.confidences if table.scoring == "sigmoid" else table.scores.sum(axis=1))
    return np.clip(rest, 0.0, 1.0)
