"""Limit of a label set's ``fit``, below which a picture shows none of the labels."""

import math
from numbers import Real
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from labelyard.errors import InvalidMessageError
from labelyard.evaluation.metrics import auroc
from labelyard.messages import FitLimit

#: ``labelled``: by pictures of both kinds; a share: so much of the pictures with a label stays.
LimitChoice: TypeAlias = Literal["labelled"] | float

LABELLED: Final = "labelled"
#: Pictures of either kind that a limit by both needs.
FEWEST: Final = 10
#: Standard errors by which the fits of both kinds must differ from chance: 95 % of chances less.
LEAST_DIFFERENCE: Final = 1.645


def read_choice(choice: Any) -> LimitChoice | None:
    """Return how a limit is to be fixed; ``None`` if none is.

    Raises:
        InvalidMessageError: It is neither ``labelled`` nor a share.
    """
    if choice is None or choice == LABELLED:
        return choice  # type: ignore[no-any-return]
    is_number = isinstance(choice, Real) and not isinstance(choice, bool)
    if is_number and 0.5 <= choice <= 0.999:
        return float(choice)
    raise InvalidMessageError(
        f"none_of_these: {choice!r} is neither {LABELLED!r} nor a share from 0.5 to 0.999"
    )


def fit_limit(
    fits: NDArray[np.float64], is_known: NDArray[np.bool_], choice: LimitChoice
) -> FitLimit:
    """Fix the limit.

    Args:
        fits: Of each picture, shape (pictures,).
        is_known: Whether the picture shows a label, shape (pictures,).
        choice: See :data:`LimitChoice`.

    Raises:
        InvalidMessageError: There are too few pictures, or their fits do not differ.
    """
    known, unknown = fits[is_known], fits[~is_known]
    limit = _separate(known, unknown) if choice == LABELLED else _keep(known, float(choice))
    return FitLimit(
        limit=limit,
        method="labelled" if choice == LABELLED else "known",
        known=len(known),
        kept=int((known >= limit).sum()),
        unknown=len(unknown),
        rejected=int((unknown < limit).sum()),
    )


def _keep(known: NDArray[np.float64], share: float) -> float:
    """Return the limit below which a new picture with a label falls with probability 1 - share.

    Source:
        Vovk, Gammerman and Shafer 2005, section 2.2 (conformal prediction): the fit of a new
        picture has each rank among the others with the same probability.
    """
    rank = math.floor((1.0 - share) * (len(known) + 1) + 1e-9)
    if rank < 1:
        needed = math.ceil(1.0 / (1.0 - share) - 1e-9) - 1
        raise InvalidMessageError(
            f"none_of_these: {len(known)} pictures with a label are too few to keep {share:g} of "
            f"them: {needed} are needed"
        )
    return float(np.sort(known)[rank - 1])


def _separate(known: NDArray[np.float64], unknown: NDArray[np.float64]) -> float:
    """Return the limit with the largest sum of kept and rejected shares.

    Of limits that are equally good the middle of the longest gap is taken.

    Source:
        Youden 1950, index of a diagnostic test.
    """
    if min(len(known), len(unknown)) < FEWEST:
        raise InvalidMessageError(
            f"none_of_these: {len(known)} pictures with a label and {len(unknown)} with label: "
            f"null are too few (least {FEWEST} each): add some, or name a share of pictures with a "
            "label to keep, such as 0.95"
        )
    deviation = math.sqrt((len(known) + len(unknown) + 1) / (12 * len(known) * len(unknown)))
    difference = (auroc(known, unknown) or 0.0) - 0.5
    if difference < LEAST_DIFFERENCE * deviation:
        raise InvalidMessageError(
            "none_of_these: pictures with a label fit no better than those with label: null "
            f"(AUROC {difference + 0.5:.2f}): no limit tells them apart"
        )
    values = np.unique(np.concatenate([known, unknown]))
    middles = (values[:-1] + values[1:]) / 2
    kept = 1.0 - np.searchsorted(np.sort(known), middles) / len(known)
    rejected = np.searchsorted(np.sort(unknown), middles) / len(unknown)
    is_best = np.isclose(kept + rejected, (kept + rejected).max(), rtol=0.0, atol=1e-12)
    return float(middles[np.where(is_best, np.diff(values), -1.0).argmax()])
