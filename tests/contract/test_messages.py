"""The contract: what was ever written can be read, and what is wrong is refused by name."""

import json
from datetime import UTC
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelyard.errors import InvalidMessageError
from labelyard.messages import (
    MAX_IMAGES,
    MAX_INLINE_LABELS,
    Deliver,
    ImageRef,
    Job,
    Label,
    LabelSet,
    Result,
    job_id_for,
    new_job_id,
    parse_job,
)
from labelyard.schemas import MessageName, schema, schema_text

GOLDEN = Path(__file__).parent / "v1"
DOCS = Path(__file__).parents[2] / "docs"
GOLDEN_JOBS = sorted(GOLDEN.glob("job-*.json"))
GOLDEN_RESULTS = sorted(GOLDEN.glob("result-*.json"))
FUTURE = GOLDEN / "result-from-the-future.json"


# All of Unicode but C0 without tab and line breaks, DEL and C1.
ALLOWED = st.characters(codec="utf-8", exclude_categories=["Cc"]) | st.sampled_from("\t\n\r")
PRINTABLE_ASCII = st.characters(min_codepoint=0x20, max_codepoint=0x7E)


def texts(max_size: int) -> st.SearchStrategy[str]:
    return st.text(ALLOWED, min_size=1, max_size=max_size)


templates = st.builds(
    "{}{{}}{}".format,
    *[st.text(ALLOWED.filter(lambda character: character not in "{}"), max_size=30)] * 2,
)
labels = st.builds(
    Label,
    name=texts(50),
    prompts=st.lists(texts(100), max_size=3).map(tuple),
    threshold=st.none() | st.floats(0, 1),
)
label_sets = st.builds(
    LabelSet,
    labels=st.lists(labels, min_size=1, max_size=5, unique_by=lambda label: label.name).map(tuple),
    templates=st.lists(templates, min_size=1, max_size=3).map(tuple),
    scoring=st.sampled_from(["auto", "softmax", "sigmoid"]),
    temperature=st.floats(1e-6, 1000),
    abstain=st.lists(texts(100), max_size=2).map(tuple),
)
images = st.builds(
    ImageRef,
    id=texts(50),
    uri=st.text(st.characters(codec="utf-8"), min_size=1, max_size=100),
    version_id=st.none() | st.text(PRINTABLE_ASCII, min_size=1, max_size=20),
    etag=st.none() | st.text(PRINTABLE_ASCII, min_size=1, max_size=20),
)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
jobs = st.builds(
    Job,
    job_id=names,
    tenant=names,
    tag=st.none() | names,
    images=st.lists(images, min_size=1, max_size=4, unique_by=lambda image: image.id).map(tuple),
    label_set=label_sets
    | st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}@sha256:[0-9a-f]{64}", fullmatch=True),
    top_k=st.integers(1, 10_000),
    expires_at=st.none() | st.datetimes(timezones=st.just(UTC)),
    deliver=st.builds(
        Deliver,
        object_uri=st.none() | st.just("s3://results/1.json"),
        webhook=st.none() | st.just("https://example.com/hook"),
        stream=st.none() | names,
    ),
    trace=st.dictionaries(texts(20), texts(20), max_size=3),
)


def golden_job(**changes: Any) -> dict[str, Any]:
    job: dict[str, Any] = json.loads((GOLDEN / "job-full.json").read_text(encoding="utf-8"))
    return {**job, **changes}


@given(job=jobs)
def test_any_valid_job_survives_json_both_ways(job: Job) -> None:
    """Through the model's own JSON, and through the standard library's."""
    assert Job.model_validate_json(job.model_dump_json()) == job
    assert parse_job(json.loads(json.dumps(job.model_dump(mode="json")))) == job


def faults(message: Any, name: MessageName) -> list[str]:
    """Return the breaches of the published schema."""
    return [
        error.message
        for error in jsonschema.Draft202012Validator(schema(name)).iter_errors(message)
    ]


@settings(deadline=None)
@given(job=jobs)
def test_any_valid_job_fits_the_published_schema(job: Job) -> None:
    assert faults(job.model_dump(mode="json"), "job") == []


@pytest.mark.parametrize("path", GOLDEN_JOBS, ids=lambda path: path.stem)
def test_jobs_that_were_ever_written_are_read_whole(path: Path) -> None:
    """Every golden field keeps its value; dates may be written another way."""
    written = json.loads(path.read_text(encoding="utf-8"))

    read = parse_job(written)

    assert read.model_dump(mode="json", exclude_unset=True) == written
    jsonschema.validate(written, schema("job"))


@pytest.mark.parametrize(
    "path", [path for path in GOLDEN_RESULTS if path != FUTURE], ids=lambda path: path.stem
)
def test_results_are_written_as_they_ever_were(path: Path) -> None:
    written = json.loads(path.read_text(encoding="utf-8"))

    read = Result.model_validate(written)

    assert json.loads(read.model_dump_json()) == written
    jsonschema.validate(written, schema("result"))


def test_results_of_a_later_version_are_read() -> None:
    read = Result.model_validate_json(FUTURE.read_text(encoding="utf-8"))

    assert read.images[0].labels[0].name == "cat"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"lable_set": {}},
            "lable_set: is not a field of the contract: remove it, or correct its name",
        ),
        ({"version": 2}, "version: write 1"),
        ({"job_id": "../etc"}, "job_id: write up to 128 letters, digits"),
        ({"images": []}, "images: name at least 1 item"),
        ({"images": [{"id": "a", "uri": "s3://a/b"}] * 2}, "two images have the same id"),
        ({"label_set": {"labels": []}}, "at least 1 item"),
        ({"label_set": {"labels": [{"name": "cat"}] * 2}}, "two labels have the same name"),
        ({"label_set": {"labels": [{"name": "a"}], "templates": ["no slot"]}}, "templates.0"),
        ({"label_set": "moderation"}, "label_set"),
        ({"top_k": 0}, "top_k: write a number of at least 1"),
        (
            {"expires_at": "2030-01-01T12:00:00"},
            "expires_at: has no time zone: write a date and time with an offset",
        ),
        (
            {"deliver": {"object_uri": "https://x/y"}},
            "deliver.object_uri: write an address of the form s3://bucket/key",
        ),
    ],
)
def test_a_message_that_is_wrong_is_refused_by_the_name_of_its_field(
    changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InvalidMessageError) as refusal:
        parse_job(golden_job(**changes))

    assert complaint in str(refusal.value)


@pytest.mark.parametrize("message", [None, [], "job", 1, {}, b"\xff"])
def test_what_is_no_job_at_all_is_refused(message: object) -> None:
    with pytest.raises(InvalidMessageError):
        parse_job(message)


def test_a_job_has_up_to_64_images() -> None:
    refs = [{"id": str(n), "uri": "s3://a/b"} for n in range(MAX_IMAGES + 1)]

    assert len(parse_job(golden_job(images=refs[:-1])).images) == MAX_IMAGES
    with pytest.raises(InvalidMessageError, match="at most 64 items"):
        parse_job(golden_job(images=refs))


def test_more_labels_than_a_message_should_carry_must_be_registered() -> None:
    many = [{"name": str(n)} for n in range(MAX_INLINE_LABELS + 1)]

    assert len(LabelSet.model_validate({"labels": many}).labels) == MAX_INLINE_LABELS + 1
    with pytest.raises(InvalidMessageError, match="register the set and refer to it"):
        parse_job(golden_job(label_set={"labels": many}))


@pytest.mark.parametrize("message", ["job", "result"])
def test_the_schemas_in_the_docs_are_those_of_the_models(message: MessageName) -> None:
    """If this fails, run ``labelyard schema job > docs/job.schema.json`` and review the diff."""
    path = DOCS / f"{message}.schema.json"

    assert path.read_text(encoding="utf-8") == schema_text(message)
    jsonschema.Draft202012Validator.check_schema(schema(message))


@pytest.mark.parametrize("message", ["job", "result"])
def test_the_examples_in_the_docs_follow_the_contract(message: MessageName) -> None:
    text = (DOCS / "message-contract.md").read_text(encoding="utf-8")
    _, _, section = text.partition(f"## {message.title()}\n")
    example = json.loads(section.partition("```json\n")[2].partition("```")[0])

    assert faults(example, message) == []
    read = (Job if message == "job" else Result).model_validate(example)
    assert read.job_id == example["job_id"]


def test_made_job_ids_are_distinct_and_in_the_order_of_time() -> None:
    made = [new_job_id() for _ in range(500)]

    assert len(set(made)) == len(made)
    assert [job_id[:13] for job_id in made] == sorted(job_id[:13] for job_id in made)
    assert {job_id[14] for job_id in made} == {"7"}


def test_an_idempotency_key_names_one_job_of_one_tenant() -> None:
    assert job_id_for("a", "order-1") == job_id_for("a", "order-1")
    assert len({job_id_for("a", "1"), job_id_for("b", "1"), job_id_for("a", "2")}) == 3
