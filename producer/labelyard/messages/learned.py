"""The learned part of a label set: what pictures taught, and what was certified."""

from typing import Annotated, Final, Literal

from pydantic import Field

from labelyard.fields import AS_NUMBER, MAX_LABELS, Name, ObjectUri, Threshold
from labelyard.messages.models import Message

FeatureSpace = Literal["joint", "penultimate"]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0), AS_NUMBER]
Logit = Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False), AS_NUMBER]
Share = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False), AS_NUMBER]

Fit = Annotated[float, Field(ge=-1.01, le=1.01, allow_inf_nan=False), AS_NUMBER]

#: Labels of one set that may have examples: a job that embeds examples carries them.
MAX_TAUGHT_LABELS: Final = 1_000
#: Largest object of examples that a worker reads.
MAX_EXAMPLES_BYTES: Final = 64 * 1024 * 1024


class Examples(Message):
    """Vectors of example pictures, with the scorer that was fitted to them.

    Attributes:
        object_uri: Object that holds them; its name carries their digest.
        sha256: Digest of the object, lower-case hex.
        features: Vector that pictures are compared by: the embedding that is compared with
            texts (``joint``), or the features before the last layer (``penultimate``).
        counts: Number of examples of each label that has some.
    """

    object_uri: ObjectUri
    sha256: Digest
    features: FeatureSpace
    counts: dict[Name, Annotated[int, Field(ge=1), AS_NUMBER]] = Field(
        min_length=1, max_length=MAX_TAUGHT_LABELS
    )


class CertifiedLabel(Message):
    """Evidence for a label that was certified by itself.

    Attributes:
        threshold: Score from which on the promise holds.
        accepted: Pictures of the sample that were accepted.
        errors: Wrong ones among them.
    """

    threshold: Threshold
    accepted: Count
    errors: Count


class Certified(Message):
    """A promise: the share of right answers among matched ones, and the evidence for it.

    Attributes:
        precision: Promised share.
        confidence: Probability with which the promise holds.
        accepted: Pictures of the calibration sample that were accepted.
        errors: Wrong ones among them.
        labels: Labels with a certificate of their own. The others are certified together, if
            ``threshold`` is given.
        threshold: Score from which on the labels without one of their own are certified
            together; ``None`` if they are not.
    """

    precision: Share
    confidence: Share
    accepted: Count
    errors: Count
    labels: dict[Name, CertifiedLabel] = Field(default_factory=dict)
    threshold: Threshold | None = None


class FitLimit(Message):
    """Limit below which a picture shows none of the labels, and the pictures that fixed it.

    Attributes:
        limit: Least ``fit`` of a picture that is given a label.
        method: ``labelled``: pictures of both kinds fixed it; ``known``: pictures with a label
            alone, of which a share was to stay.
        known: Pictures with a label.
        kept: Those of them with that fit or a higher one.
        unknown: Pictures that show none of the labels.
        rejected: Those of them with a lower fit.
    """

    limit: Fit
    method: Literal["labelled", "known"]
    known: Count
    kept: Count
    unknown: Count
    rejected: Count


Weight = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False), AS_NUMBER]


class TitleWeights(Message):
    """Weights of a picture and of the text beside it.

    Attributes:
        picture: Factor of the picture's logits; it holds for pictures with a text alone.
        title: Factor of the text's logits.
    """

    picture: Weight
    title: Weight


class Learned(Message):
    """Examples, promise and limit of a label set that learned from pictures with one checkpoint.

    Attributes:
        checkpoint: Fingerprint of the checkpoint, as results name it. A worker with another one
            refuses the set with ``label_set_of_another_checkpoint``.
        examples: Pictures that taught labels, or ``None``.
        certified: The promise that thresholds keep, or ``None``.
        bias: Number that is added to the logit of a label, before the temperature; left out if
            there is none.
        none_of_these: Limit of pictures that show none of the labels; left out if there is none.
        titles: Weights of the text beside a picture; left out if the set does not read texts.
    """

    checkpoint: Name
    examples: Examples | None = None
    certified: Certified | None = None
    bias: dict[Name, Logit] | None = Field(
        default=None, max_length=MAX_LABELS, exclude_if=lambda bias: bias is None
    )
    none_of_these: FitLimit | None = Field(default=None, exclude_if=lambda limit: limit is None)
    titles: TitleWeights | None = Field(default=None, exclude_if=lambda titles: titles is None)
