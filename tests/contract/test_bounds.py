"""Every field has a range; what lies outside is refused, and nothing is converted."""

import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from labelyard.buckets import is_bucket_name
from labelyard.errors import InvalidMessageError
from labelyard.fields import MAX_TEMPERATURE, MIN_TEMPERATURE
from labelyard.messages import (
    Deliver,
    ImageRef,
    Job,
    Label,
    LabelSet,
    ScoredLabel,
    parse_job,
)
from labelyard.schemas import schema
from labelyard_worker.vision.scorer import Scorer
from labelyard_worker.vision.scoring import LabelMatrix, Scaling

GOLDEN = Path(__file__).parent / "v1"

# Names that must never reach an S3 client: most would change the server that it asks.
HOSTILE_BUCKETS = [
    "evil:8080?",
    "evil:8080",
    "user@evil",
    "evil#",
    "evil?",
    "evil\\",
    "evil%2f",
    "Evil",
    "evil..com",
    ".evil",
    "evil.",
    "-evil",
    "evil-",
    "127.0.0.1",
    "ev il",
    "evil\n",
    "evil\x00",
    "évil",
    "",
    "a" * 64,
    "arn:aws:s3:eu-west-1:123456789012:accesspoint",
]


def job_with(path: str, value: Any) -> dict[str, Any]:
    """Put *value* into a full job, at a path such as ``images.0.etag``."""
    job: dict[str, Any] = json.loads((GOLDEN / "job-full.json").read_text(encoding="utf-8"))
    at: Any = job
    *parents, last = path.split(".")
    for name in parents:
        at = at[int(name) if isinstance(at, list) else name]
    at[int(last) if isinstance(at, list) else last] = value
    return job


NUMBERS = ["label_set.temperature", "label_set.labels.0.threshold", "top_k"]
NO_NUMBERS = [True, False, "1", "nan", [], {}, float("nan"), float("inf"), -float("inf"), -1, 1e999]
OUTSIDE: list[tuple[str, Any]] = [
    *((path, value) for path in NUMBERS for value in NO_NUMBERS),
    ("label_set.temperature", None),
    ("label_set.temperature", 0),
    ("label_set.temperature", 5e-324),
    ("label_set.temperature", 1e-308),
    ("label_set.temperature", 1e-7),
    ("label_set.temperature", 1000.001),
    ("label_set.labels.0.threshold", 1.0000001),
    ("top_k", 0),
    ("top_k", 10_001),
    ("top_k", 1.5),
    ("top_k", 10**400),
    ("version", 2),
    ("version", "1"),
    ("rescore", 1),
    ("rescore", "yes"),
    ("rescore", None),
    ("expires_at", 1_900_000_000),
    ("expires_at", "1900000000"),
    ("expires_at", 1e300),
    ("expires_at", True),
    ("expires_at", "2030-01-01"),
    ("expires_at", "0001-01-01T00:00:00+23:59"),
    ("expires_at", "9999-12-31T23:59:59-23:59"),
    ("expires_at", "10000-01-01T00:00:00Z"),
    *((f"images.0.{name}", value) for name in ("etag", "version_id") for value in ("", "a\nb")),
    *((f"images.0.{name}", value) for name in ("etag", "version_id") for value in ("\x7f", "é")),
    ("images.0.etag", "a" * 257),
    ("images.0.version_id", "a" * 1025),
    *(
        (path, value)
        for path in (
            "images.0.id",
            "label_set.labels.0.name",
            "label_set.labels.0.prompts.0",
            "label_set.abstain.0",
            "trace.traceparent",
        )
        for value in ("\x00", "a\x1b[2J", "\x85", 1, None, "a" * 2049)
    ),
    ("label_set.templates.0", "\x1b {}"),
    ("trace", {str(number): "" for number in range(21)}),
    ("trace", {"": ""}),
    ("trace", {"a" * 129: ""}),
    ("trace", {"\x1b": ""}),
    ("trace", {"depth": {}}),
    *(("deliver.object_uri", f"s3://{bucket}/key.json") for bucket in HOSTILE_BUCKETS),
    ("deliver.object_uri", "s3://results/../other/key.json"),
    ("deliver.object_uri", "s3://results/./key.json"),
    ("deliver.object_uri", "s3://results/" + "k" * 1025),
    ("deliver.object_uri", "s3://results/é" + "é" * 512),
    ("deliver.object_uri", "s3://results/a\nb"),
    ("deliver.object_uri", "s3://results/"),
    ("deliver.stream", "../other"),
    ("deliver.stream", "a b"),
    ("job_id", "a" * 129),
    ("job_id", "a\n"),
    ("tenant", "shop:eu"),
]


@pytest.mark.parametrize(("path", "value"), OUTSIDE)
def test_what_lies_outside_a_field_s_range_is_refused(path: str, value: Any) -> None:
    """As an object and as JSON text, by the name of the field and without its value."""
    message = job_with(path, value)

    with pytest.raises(InvalidMessageError) as refusal:
        parse_job(message)
    with pytest.raises(ValidationError):
        Job.model_validate_json(json.dumps(message))

    assert path.split(".", maxsplit=1)[0] in str(refusal.value)
    assert len(str(refusal.value)) < 1500


@pytest.mark.parametrize("field", ["id", "uri", "etag"])
def test_lone_surrogates_are_refused(field: str) -> None:
    """Lone surrogates are not text: they cannot be encoded as UTF-8."""
    with pytest.raises(InvalidMessageError):
        parse_job(job_with(f"images.0.{field}", "a\ud800"))
    with pytest.raises(ValidationError):
        Job.model_validate_json(json.dumps(job_with(f"images.0.{field}", "a\ud800")))


INSIDE: list[tuple[str, Any]] = [
    ("label_set.temperature", 1),
    ("label_set.temperature", MIN_TEMPERATURE),
    ("label_set.temperature", MAX_TEMPERATURE),
    ("label_set.labels.0.threshold", 0),
    ("top_k", 10_000),
    ("images.0.etag", '"5d41402abc4b2a76b9719d911017c592-2"'),
    ("images.0.id", "line one\nline two\tof Käse 🧀"),
    ("images.0.uri", "s3://evil:8080?/k"),  # fails this image alone
    ("images.0.uri", "not an address at all\x00"),
    ("trace.tracestate", "x" * 2048),
    ("expires_at", "0001-01-01T00:00:00Z"),
    ("expires_at", "9999-12-31T23:59:59Z"),
    ("deliver.object_uri", "s3://my_bucket.of-results/a b/ö/..c.json"),
    ("deliver.stream", "labels:eu"),
]


@pytest.mark.parametrize(("path", "value"), INSIDE)
def test_the_ends_of_a_range_are_inside(path: str, value: Any) -> None:
    message = job_with(path, value)

    assert parse_job(message) == Job.model_validate_json(json.dumps(message))
    jsonschema.validate(message, schema("job"))


def test_numbers_of_numpy_are_numbers() -> None:
    """Thresholds and temperatures are computed with it; the bounds hold all the same."""
    assert Label(name="a", threshold=np.float32(0.5)).threshold == 0.5
    with pytest.raises(InvalidMessageError, match="threshold"):
        Label(name="a", threshold=np.float64("nan"))


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: LabelSet(labels=(Label(name="cat"),), temperature=1e-308), "temperature"),
        (lambda: Label(name="x" * 300), "name"),
        (lambda: ImageRef(id="a", uri=""), "uri"),
        (lambda: Deliver(object_uri="s3://evil:8080?/k"), "object_uri"),
    ],
)
def test_a_model_that_a_producer_makes_is_refused_with_our_error(make: Any, field: str) -> None:
    with pytest.raises(InvalidMessageError, match=field):
        make()


@given(
    temperature=st.floats(MIN_TEMPERATURE, MAX_TEMPERATURE),
    scoring=st.sampled_from(["softmax", "sigmoid"]),
    logit_scale=st.floats(1e-3, 1e4),
    logit_bias=st.floats(-100, 100),
    seed=st.integers(0, 2**32 - 1),
)
def test_scores_are_finite_at_every_temperature_that_is_allowed(
    temperature: float, scoring: Any, logit_scale: float, logit_bias: float, seed: int
) -> None:
    """Opposite, equal and random vectors."""
    label_set = LabelSet(
        labels=tuple(Label(name=str(number)) for number in range(4)),
        scoring=scoring,
        temperature=temperature,
    )
    random = np.random.default_rng(seed).normal(size=(2, 8))
    image = random[0] / np.linalg.norm(random[0])
    other = random[1] / np.linalg.norm(random[1])
    matrix = LabelMatrix.of(
        label_set,
        np.stack([image, -image, image, other]).astype(np.float32),
        digest="",
        trained_scoring="softmax",
    )

    scorer = Scorer(Scaling(logit_scale, logit_bias))

    (scores,) = scorer.score([image.astype(np.float32)], matrix, top_k=4)

    assert all(0 <= label.score <= 1 for label in scores.labels)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), None])
def test_a_score_that_json_cannot_write_is_never_made(score: Any) -> None:
    with pytest.raises(ValidationError):
        ScoredLabel(name="cat", score=score)


@pytest.mark.parametrize("name", HOSTILE_BUCKETS)
def test_a_hostile_name_is_not_a_bucket_s(name: str) -> None:
    assert not is_bucket_name(name)


@given(name=st.text(min_size=1, max_size=70))
def test_a_bucket_s_name_holds_nothing_that_an_address_is_made_of(name: str) -> None:
    assert not is_bucket_name(name) or set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-")


@pytest.mark.parametrize(
    "name", ["a", "abc", "a.b-c_d", "photos", "a" * 63, "1.2.3", "labelyard-uploads"]
)
def test_an_ordinary_name_is_a_bucket_s(name: str) -> None:
    assert is_bucket_name(name)
