"""Adapting of a label set to where it is used: a bias for each label, from shares or a sample."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from labelyard.errors import InvalidMessageError, LabelSetWorseError
from labelyard.evaluation.manifest import Manifest, read_sample
from labelyard.evaluation.preparation import check_extra
from labelyard.evaluation.prepared_pictures import PreparedPictures
from labelyard.evaluation.sample_checks import check_scored
from labelyard.evaluation.scored_images import ScoredImage, Scoring
from labelyard.evaluation.versions import with_learned, without_promise
from labelyard.local_paths import printable, read_text
from labelyard.messages import LabelSet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Parts of a manifest that a sample is taken from, if none is chosen; else it is every line.
SAMPLE_SPLIT: Final = "calibration"
#: Shares that are to add up to 1 may miss it by so much.
ROUNDING: Final = 0.02
MAX_BIAS: Final = 100.0


@dataclass(frozen=True, slots=True)
class AdaptedSet:
    """Label set with a bias for each label.

    Attributes:
        label_set: The new version.
        n: Pictures of the sample.
        shares: Expected share of each label; ``None`` if none were given.
        mean_scores: Mean score of each label before and after; empty without a sample.
        labelled: Pictures of the sample whose label is known.
        accuracy: Share of them that is right before and after; ``None`` if there are none.
        reference: Its reference, once it is registered.
    """

    label_set: LabelSet
    n: int
    shares: Mapping[str, float] | None
    mean_scores: Mapping[str, tuple[float, float]]
    labelled: int = 0
    accuracy: tuple[float, float] | None = None
    reference: str | None = None

    @property
    def note(self) -> str:
        """Note of the new version."""
        shares = "mean logits on a level" if self.shares is None else "expected shares"
        return f"bias for {shares}, {self.n} pictures"

    @property
    def bias(self) -> Mapping[str, float]:
        """Bias of each label, in units of the logits before the temperature."""
        learned = self.label_set.learned
        return (learned.bias if learned is not None else None) or {}

    def report(self) -> dict[str, Any]:
        """Describe the adapting for programs."""
        return {
            "reference": self.reference,
            "n": self.n,
            "labelled": self.labelled,
            "accuracy": self.accuracy and {"before": self.accuracy[0], "after": self.accuracy[1]},
            "per_label": {
                name: {
                    "bias": bias,
                    "expected": None if self.shares is None else self.shares[name],
                    "before": self.mean_scores[name][0] if self.mean_scores else None,
                    "after": self.mean_scores[name][1] if self.mean_scores else None,
                }
                for name, bias in self.bias.items()
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedAdapting(PreparedPictures):
    """Adapting whose sample can be scored; without pictures the shares alone decide.

    Attributes:
        shares: Expected share of each label, in the order of the set; they add up to 1.
    """

    shares: Sequence[float] | None

    def adapt_blindly(self, fingerprint: str) -> AdaptedSet:
        """Make the new version by the shares alone.

        Args:
            fingerprint: Of the checkpoint that the set is for.
        """
        import numpy as np

        from labelyard.evaluation.prior import bayes_bias

        bias = bayes_bias(np.array(self.shares)) * self.label_set.temperature
        label_set = with_bias(self.label_set, bias, fingerprint, is_added=False)
        return AdaptedSet(label_set, 0, self._named_shares(), {})

    def adapt(self, scoring: Scoring) -> AdaptedSet:
        """Fit the biases to the sample, and make the new version of the set.

        Raises:
            InvalidMessageError: A picture has no scores, or the set scores labels by themselves.
            LabelSetWorseError: Fewer of the sample's labelled pictures would be right.
        """
        import numpy as np

        from labelyard.evaluation.logits import logits_of
        from labelyard.evaluation.prior import fit_bias, level_bias, to_shares
        from labelyard.evaluation.score_table import ScoreTable

        scored = scoring.scored()
        check_scored(scored)
        table = ScoreTable(scored, self.label_set)
        if table.scoring == "sigmoid":
            raise InvalidMessageError(
                "each label of the set is scored by itself (sigmoid): set thresholds instead"
            )
        logits = logits_of(table.scores)
        bias = (
            level_bias(logits) if self.shares is None else fit_bias(logits, np.array(self.shares))
        )
        accuracy, labelled = _check_labelled(scored, table.truth, logits, bias)
        means = to_shares(logits).mean(axis=0), to_shares(logits + bias).mean(axis=0)
        return AdaptedSet(
            with_bias(self.label_set, bias * self.label_set.temperature, scoring.fingerprint),
            n=len(scored),
            shares=self._named_shares(),
            mean_scores=dict(
                zip(table.names, zip(*(each.tolist() for each in means), strict=True), strict=True)
            ),
            labelled=labelled,
            accuracy=accuracy,
        )

    def _named_shares(self) -> dict[str, float] | None:
        if self.shares is None:
            return None
        names = (label.name for label in self.label_set.labels)
        return dict(zip(names, self.shares, strict=True))


def prepare_adapting(
    label_set: LabelSet,
    *,
    shares: Mapping[str, float] | str | Path | None = None,
    sample: "Manifest | None" = None,
    reference: str | None = None,
    split: str | None = None,
) -> PreparedAdapting:
    """Check everything that can be wrong before a picture is uploaded.

    Args:
        shares: Expected share of each label, or a JSON file with them.
        sample: Pictures as they come in use; labels of them are looked at to judge by alone.
        reference: Of the set, if it is registered.
        split: Lines of the sample to take.

    Raises:
        InvalidMessageError: There is neither, or a share or a line is wrong.
        ServiceConfigError: numpy is missing.
    """
    check_extra()
    if shares is None and sample is None:
        raise InvalidMessageError("give the expected shares, a sample of pictures, or both")
    names = [label.name for label in label_set.labels]
    if len(names) < 2:
        raise InvalidMessageError("a set with one label has nothing to be adapted")
    images = (
        []
        if sample is None
        else read_sample(sample, split=split, preferred=SAMPLE_SPLIT, labels=set(names))
    )
    expected = None if shares is None else read_shares(shares, names)
    return PreparedAdapting(
        label_set=label_set, images=images, reference=reference, shares=expected
    )


def read_shares(shares: Mapping[str, float] | str | Path, names: Sequence[str]) -> list[float]:
    """Read the expected share of each label, in the order of *names*; the sum becomes 1.

    Raises:
        InvalidMessageError: The file is not JSON, a share is not a number above 0, or a label has
            none; or the shares are far from adding up to 1.
    """
    given: Any = shares
    if isinstance(shares, str | Path):
        try:
            given = json.loads(read_text(shares))
        except (OSError, ValueError, RecursionError) as error:
            reason = getattr(error, "strerror", None) or "not JSON"
            raise InvalidMessageError(f"shares: {printable(shares)}: {reason}") from error
    if not isinstance(given, Mapping):
        raise InvalidMessageError('shares: write an object such as {"cat": 0.7, "dog": 0.3}')
    if unknown := [name for name in given if name not in names]:
        raise InvalidMessageError(f"shares: the label set has no label {unknown[0]!r}")
    found = []
    for name in names:
        share = given.get(name)
        if isinstance(share, bool) or not isinstance(share, Real) or not 0 < float(share) <= 1:
            raise InvalidMessageError(
                f"shares: {name!r} has no share above 0 and up to 1: estimate one for each label, "
                "a small one if it is never seen"
            )
        found.append(float(share))
    if abs(sum(found) - 1.0) > ROUNDING:
        raise InvalidMessageError(f"shares: they add up to {sum(found):.3f}, not to 1")
    return [share / sum(found) for share in found]


def with_bias(
    label_set: LabelSet,
    bias: "NDArray[np.float64]",
    fingerprint: str,
    *,
    is_added: bool = True,
) -> LabelSet:
    """Return the set with biases, and without a promise that was made for other scores.

    Args:
        bias: Of each label, before the temperature.
        fingerprint: Of the checkpoint that the set is for.
        is_added: Whether scores with the present bias led to it.
    """
    plain = without_promise(label_set)
    learned = plain.learned
    present = (learned.bias or {}) if learned is not None and is_added else {}
    values = {
        label.name: round(min(MAX_BIAS, max(-MAX_BIAS, present.get(label.name, 0.0) + value)), 6)
        for label, value in zip(label_set.labels, bias.tolist(), strict=True)
    }
    return with_learned(plain, fingerprint, bias=values)


def _check_labelled(
    scored: Sequence[ScoredImage],
    truth: "NDArray[np.bool_]",
    logits: "NDArray[np.float64]",
    bias: "NDArray[np.float64]",
) -> tuple[tuple[float, float] | None, int]:
    """Return the accuracy before and after on pictures with a label, and their number.

    Raises:
        LabelSetWorseError: It falls.
    """
    import numpy as np

    rows = np.flatnonzero([bool(one.image.labels) for one in scored])
    if not len(rows):
        return None, 0
    before, after = (
        float(truth[rows, each[rows].argmax(axis=1)].mean()) for each in (logits, logits + bias)
    )
    if after < before:
        raise LabelSetWorseError(
            f"of {len(rows)} labelled pictures of the sample {before:.1%} are right, and "
            f"{after:.1%} would be: nothing was registered; are the shares those of the sample?"
        )
    return (before, after), len(rows)
