"""Teaching of a label set: pictures of a manifest become its examples."""

import base64
import binascii
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from labelyard.errors import InvalidMessageError, LabelyardError, ResultUnreadableError
from labelyard.evaluation.example_store import EXAMPLES_PREFIX
from labelyard.evaluation.manifest import Manifest, read_manifest
from labelyard.evaluation.preparation import check_extra
from labelyard.evaluation.prepared_pictures import PreparedPictures
from labelyard.evaluation.sample_checks import check_scored, distinct_places
from labelyard.evaluation.scored_images import Prepare, Scoring
from labelyard.evaluation.versions import without_promise
from labelyard.ledger import Record
from labelyard.messages import Examples, Job, Label, LabelSet, Learned, ModelInfo
from labelyard.messages.learned import MAX_TAUGHT_LABELS, FeatureSpace
from labelyard.settings import ClientSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Split that teaches, if none is chosen.
TRAIN_SPLIT: Final = "train"


@dataclass(slots=True)
class VectorScoring(Scoring):
    """Scoring whose jobs want the vectors of the pictures, too."""

    models: dict[str, ModelInfo] = field(default_factory=dict)
    features: set[FeatureSpace] = field(default_factory=set)
    _vectors: dict[int, bytes] = field(default_factory=dict, init=False, repr=False)

    def windows(self, prepare: Prepare) -> Iterator[list[Job]]:
        """Yield the jobs, as many as may be open at once."""

        def with_vectors(images: Any, labels: Any, *, top_k: int, tag: str) -> Job:
            job = prepare(images, labels, top_k=top_k, tag=tag)
            return job.model_copy(update={"vectors": True})

        yield from Scoring.windows(self, with_vectors)

    def add(self, record: Record) -> None:
        """Take scores and vectors of a final job."""
        Scoring.add(self, record)
        try:
            result = record.outcome()
        except LabelyardError:
            return  # noted already
        if result.model is not None:
            self.models[result.model.fingerprint] = result.model
        for image in result.images:
            if image.vector is not None:
                self.features.add(image.vector.features)
                self._vectors[int(image.id)] = _decode(image.vector.float16, image.uri)

    def vectors(self, places: Sequence[int]) -> "NDArray[np.float32]":
        """Return the vectors of pictures, unit length, shape (pictures, dim).

        Raises:
            ResultUnreadableError: A result has no vector: the worker is older than the client.
        """
        import numpy as np

        if missing := [place for place in places if place not in self._vectors]:
            raise ResultUnreadableError(
                f"{self.uris[missing[0]]}: the result has no vector: upgrade the workers"
            )
        rows = [np.frombuffer(self._vectors[place], dtype="<f2") for place in places]
        if len({len(row) for row in rows}) > 1:
            raise ResultUnreadableError("the results have vectors of different lengths")
        stacked = np.stack(rows).astype(np.float32)
        lengths = np.linalg.norm(stacked, axis=1, keepdims=True)
        unit: NDArray[np.float32] = stacked / np.maximum(lengths, 1e-9)
        return unit


@dataclass(frozen=True, slots=True)
class TaughtSet:
    """Label set with examples.

    Attributes:
        label_set: The new version.
        reference: Its reference, once it is registered.
        body: The object with the examples.
        weights: Of text, prototypes and regression in a taught label's logit.
        catch_all: Labels whose examples have nothing in common, such as "something else": a
            picture is theirs if it is near the examples of no other label.
        skipped: Lines of the split that teach nothing: none or several labels, or a picture
            that an earlier line has.
    """

    label_set: LabelSet
    body: bytes = field(repr=False)
    weights: tuple[float, float, float]
    catch_all: tuple[str, ...]
    skipped: int
    reference: str | None = None

    @property
    def note(self) -> str:
        """Note of the new version."""
        counts = self.examples.counts
        return f"{sum(counts.values())} examples of {len(counts)} labels"

    @property
    def examples(self) -> Examples:
        """The examples as the set names them."""
        learned = self.label_set.learned
        assert learned is not None  # noqa: S101 - made by ``PreparedTeaching.teach`` alone
        assert learned.examples is not None  # noqa: S101
        return learned.examples

    def report(self) -> dict[str, Any]:
        """Describe the teaching for programs."""
        examples, learned = self.examples, self.label_set.learned
        return {
            "reference": self.reference,
            "labels": len(self.label_set.labels),
            "taught": len(examples.counts),
            "examples": sum(examples.counts.values()),
            "counts": examples.counts,
            "skipped": self.skipped,
            "weights": dict(zip(("text", "prototypes", "regression"), self.weights, strict=True)),
            "catch_all": list(self.catch_all),
            "features": examples.features,
            "checkpoint": learned.checkpoint if learned else None,
            "object_uri": examples.object_uri,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedTeaching(PreparedPictures):
    """Teaching that can be scored; each picture has one label.

    Attributes:
        skipped: Lines of the split without a label, or with several.
    """

    skipped: int

    def scoring(self, addresses: Mapping[Path, str]) -> VectorScoring:
        """Return the scoring of the examples by text, against the taught labels alone.

        Args:
            addresses: Address of each uploaded file.
        """
        named = {one.labels[0] for one in self.images}
        texts = LabelSet(
            labels=tuple(
                Label(name=label.name, prompts=label.prompts)
                for label in self.label_set.labels
                if label.name in named
            ),
            templates=self.label_set.templates,
            scoring="softmax",  # its logarithm is a logit, but for a number that is of no account
        )
        return VectorScoring(self.images, self.uris(addresses), texts, texts)

    def teach(self, scoring: VectorScoring, settings: ClientSettings) -> TaughtSet:
        """Fit the scorer, and make the new version of the set.

        Raises:
            InvalidMessageError: A picture has no scores, or has two labels in the manifest; or
                workers with several checkpoints answered.
            ResultUnreadableError: A result has no vector.
        """
        import numpy as np

        from labelyard.evaluation.example_file import ExampleFile, digest_of
        from labelyard.evaluation.few_shot import fit_examples
        from labelyard.evaluation.logits import logits_of

        model = _one_model(scoring)
        scored = scoring.scored()
        places = distinct_places(scored)
        names = [label.name for label in scoring.label_set.labels]
        classes = np.array([names.index(scored[place].image.labels[0]) for place in places])
        texts = logits_of([scored[place].scores for place in places])
        vectors = scoring.vectors(places)
        taught = fit_examples(texts, vectors, classes, np.arange(len(names)))
        digests = tuple(scored[place].sha256 or "" for place in places)
        body = ExampleFile(tuple(names), taught, digests).to_bytes()
        (features,) = scoring.features
        counts = Counter(names[label] for label in classes.tolist())
        examples = Examples(
            object_uri=f"s3://{settings.upload_bucket}/{EXAMPLES_PREFIX}{digest_of(body)}.npz",
            sha256=digest_of(body),
            features=features,
            counts={name: counts[name] for name in names},
        )
        return TaughtSet(
            label_set=with_examples(
                self.label_set, Learned(checkpoint=model.fingerprint, examples=examples)
            ),
            body=body,
            weights=taught.weights,
            catch_all=tuple(names[label] for label in np.flatnonzero(taught.levels).tolist()),
            skipped=self.skipped + len(scored) - len(places),
        )


def prepare_teaching(
    label_set: LabelSet, manifest: Manifest, *, split: str | None = None
) -> PreparedTeaching:
    """Check everything that can be wrong before a picture is uploaded.

    Args:
        split: Lines to take; ``train`` if not given.

    Raises:
        InvalidMessageError: A line is wrong, or no line has exactly one label.
        ServiceConfigError: numpy is missing.
    """
    check_extra()
    names = {label.name for label in label_set.labels}
    images = read_manifest(manifest, split=split or TRAIN_SPLIT, labels=names)
    single = [one for one in images if len(one.labels) == 1]
    if not single:
        raise InvalidMessageError("no line of the split names exactly one label: nothing to teach")
    if (taught := len({one.labels[0] for one in single})) > MAX_TAUGHT_LABELS:
        raise InvalidMessageError(
            f"examples of {taught} labels are too many (limit {MAX_TAUGHT_LABELS})"
        )
    return PreparedTeaching(label_set=label_set, images=single, skipped=len(images) - len(single))


def with_examples(label_set: LabelSet, learned: Learned) -> LabelSet:
    """Return the set with examples, without a temperature and thresholds of other scores."""
    changed = {"learned": learned, "temperature": 1.0}
    return without_promise(label_set).model_copy(update=changed)


def _one_model(scoring: VectorScoring) -> ModelInfo:
    check_scored(scoring.scored())
    if len(scoring.models) != 1:
        raise InvalidMessageError(
            f"workers with {len(scoring.models)} checkpoints answered: examples belong to one"
        )
    (model,) = scoring.models.values()
    return model


def _decode(float16: str, uri: str) -> bytes:
    try:
        numbers = base64.b64decode(float16, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ResultUnreadableError(f"{uri}: its vector is not base64") from error
    if not numbers or len(numbers) % 2:
        raise ResultUnreadableError(f"{uri}: its vector is not one of 16-bit numbers")
    return numbers
