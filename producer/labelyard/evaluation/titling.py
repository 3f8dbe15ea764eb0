"""Label sets that read the text beside a picture: weights from labelled pictures with texts."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from labelyard.errors import InvalidMessageError
from labelyard.evaluation.manifest import Manifest, read_manifest
from labelyard.evaluation.preparation import check_extra
from labelyard.evaluation.prepared_pictures import PreparedPictures
from labelyard.evaluation.sample_checks import check_disjoint, check_scored
from labelyard.evaluation.scored_images import Scoring
from labelyard.evaluation.versions import with_learned, without_promise
from labelyard.messages import MAX_INLINE_LABELS, LabelSet, Learned, TitleWeights

if TYPE_CHECKING:
    from labelyard.evaluation.title_weights import FittedWeights

#: Split whose pictures are taken, if none is chosen.
TITLE_SPLIT: Final = "train"


@dataclass(frozen=True, slots=True)
class TitledSet:
    """Label set that reads texts.

    Attributes:
        label_set: The new version.
        n: Pictures that it was fitted to.
        fitted: Weights, and what they are worth.
        reference: Its reference, once it is registered.
    """

    label_set: LabelSet
    n: int
    fitted: "FittedWeights"
    reference: str | None = None

    @property
    def helps(self) -> bool:
        """Whether texts make scores better; if not they are not used."""
        return self.fitted.title > 0

    @property
    def note(self) -> str:
        """Note of the new version."""
        return f"reads titles, {self.n} pictures" if self.helps else "titles did not help"

    def report(self) -> dict[str, Any]:
        """Describe the weights for programs."""
        picture, title, both = self.fitted.accuracies
        return {
            "reference": self.reference,
            "n": self.n,
            "helps": self.helps,
            "weights": {"picture": self.fitted.picture, "title": self.fitted.title},
            "accuracy": {"picture": picture, "title": title, "both": both},
            "nll": {"before": self.fitted.nll[0], "after": self.fitted.nll[1]},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedTitling(PreparedPictures):
    """Pictures with texts that can be scored: first without the texts, then by these alone.

    Attributes:
        examples: Digests of the pictures that taught the set.
    """

    examples: frozenset[str] = frozenset()

    def by_titles(self, scoring: Scoring) -> "PreparedTitling":
        """Return the same pictures, to be scored by their texts alone.

        Raises:
            InvalidMessageError: A picture has no scores, or is an example of the set.
        """
        scored = scoring.scored()
        check_scored(scored)
        check_disjoint(scored, self.examples)
        by_title = TitleWeights(picture=0, title=1)
        label_set = LabelSet(
            labels=tuple(
                label.model_copy(update={"threshold": None}) for label in self.label_set.labels
            ),
            templates=self.label_set.templates,
            scoring="softmax",  # its logarithm is a logit, but for a number that is of no account
            learned=Learned(checkpoint=scoring.fingerprint, titles=by_title),
        )
        images = [
            replace(one, image=uri, file=None)
            for one, uri in zip(self.images, scoring.uris, strict=True)
        ]
        return PreparedTitling(label_set=label_set, images=images)

    def fit(self, by_picture: Scoring, by_title: Scoring) -> TitledSet:
        """Fit the weights, and make the new version of the set.

        Raises:
            InvalidMessageError: A picture has no scores.
        """
        from labelyard.evaluation.logits import logits_of
        from labelyard.evaluation.score_table import ScoreTable
        from labelyard.evaluation.title_weights import TitledSample, fit_title_weights

        check_scored(by_title.scored())
        table = ScoreTable(by_picture.scored(), self.label_set)
        titles = logits_of([one.scores for one in by_title.scored()])
        titles -= titles.mean(axis=1, keepdims=True)
        pictures = logits_of(table.scores)
        is_sigmoid = table.scoring == "sigmoid"
        if is_sigmoid:
            pictures -= logits_of(1.0 - table.scores)
        sample = TitledSample(
            pictures, titles / self.label_set.temperature, table.truth, is_sigmoid
        )
        fitted = fit_title_weights(sample)
        weights = TitleWeights(picture=round(fitted.picture, 6), title=round(fitted.title, 6))
        plain = without_promise(self.label_set)
        label_set = with_learned(plain, by_picture.fingerprint, titles=weights)
        return TitledSet(label_set, len(table.rows), fitted)


def prepare_titling(
    label_set: LabelSet,
    manifest: Manifest,
    *,
    reference: str | None = None,
    split: str | None = None,
    examples: frozenset[str] = frozenset(),
) -> PreparedTitling:
    """Check everything that can be wrong before a picture is uploaded.

    Args:
        reference: Of the set, if it is registered.
        split: Lines to take; ``train`` if not given.
        examples: Digests of the pictures that taught the set.

    Raises:
        InvalidMessageError: A line is wrong, or none has a text and one label; or the set is too
            large.
        ServiceConfigError: numpy is missing.
    """
    check_extra()
    names = {label.name for label in label_set.labels}
    if not 2 <= len(names) <= MAX_INLINE_LABELS:
        raise InvalidMessageError(
            f"a set that reads titles has 2 to {MAX_INLINE_LABELS} labels, and this one {len(names)}"
        )
    images = read_manifest(manifest, split=split or TITLE_SPLIT, labels=names)
    usable = [one for one in images if one.text and len(one.labels) == 1]
    if not usable:
        raise InvalidMessageError("no line of the split has a text and exactly one label")
    learned = label_set.learned
    if learned is not None and learned.titles is not None:
        label_set = label_set.model_copy(
            update={"learned": learned.model_copy(update={"titles": None})}
        )
        reference = None
    return PreparedTitling(
        label_set=label_set, images=usable, reference=reference, examples=examples
    )
