"""Pydantic's errors become sentences, for every field and every kind of fault."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labelyard import ClientSettings
from labelyard.errors import InvalidMessageError, ServiceConfigError
from labelyard.messages import Job, parse_job
from labelyard.refusals import ONE_OR_OTHER, WORDS_BY_PATTERN
from labelyard.schemas import schema
from labelyard.settings import ConnectionSettings

JOB: dict[str, Any] = {
    "job_id": "a",
    "images": [{"id": "a", "uri": "s3://b/k"}],
    "label_set": {"labels": [{"name": "cat"}]},
}
# How pydantic speaks.
NOT_OURS = re.compile(
    r"Input should|String should|Value error|Tuple|Extra inputs|function-|constrained-|"
    r"\[type=|pydantic|validation error|should have|should match"
)
SECRET = "s3cret-value"


def refusal(message: Any) -> str:
    with pytest.raises(InvalidMessageError) as raised:
        parse_job(message)
    return str(raised.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"images": []}, "images: name at least 1 item"),
        ({"images": [7]}, "images.0: write an object with the fields of the contract"),
        ({"images": 5}, "images: write a list"),
        ({"images": [{"id": "a", "uri": "x" * 3000}]}, "images.0.uri: is too long: write at most"),
        ({"label_set": 5}, f"label_set: {ONE_OR_OTHER}"),
        ({"label_set": "pets"}, "label_set: write the reference of a registered label set"),
        ({"label_set": {"labels": [{"name": ""}]}}, "label_set.labels.0.name: write at least 1"),
        (
            {"label_set": {"labels": [{"name": "a"}, {"name": "a"}]}},
            "label_set.labels: two labels have the same name",
        ),
        ({"label_set": {"labels": [{"name": "a"}], "templates": ["a"]}}, "with {} exactly once"),
        ({"label_set": {"labels": [{"name": "a"}], "scoring": "x"}}, "label_set.scoring: write "),
        ({"top_k": 1.5}, "top_k: write a whole number"),
        ({"top_k": 10**400}, "top_k: write a number of at most 10000"),
        ({"top_k": "5"}, "top_k: write a number"),
        ({"rescore": 1}, "rescore: write true or false"),
        ({"expires_at": datetime(2030, 1, 1)}, "expires_at: has no time zone"),  # noqa: DTZ001
        ({"expires_at": "2030-13-01T00:00:00Z"}, "expires_at: write a date and time"),
        ({"deliver": {"webhook": "x"}}, "deliver.webhook: write an address that begins with"),
        ({"trace": {1: 2}}, "trace.1: write text"),
        ({"tenant": "\ud800"}, "tenant: holds half of a surrogate pair"),
        ({"version": 2}, "version: write 1"),
        ({"lable_set": 1}, "lable_set: is not a field of the contract"),
    ],
)
def test_each_fault_is_named_with_what_to_write(changes: dict[str, Any], sentence: str) -> None:
    text = refusal({**JOB, **changes})

    assert sentence in text
    assert not NOT_OURS.search(text)
    assert ";" not in text  # one fault is one sentence


def test_many_faults_are_counted() -> None:
    labels = [{"name": ""} for _ in range(9)]

    assert refusal({**JOB, "label_set": {"labels": labels}}).endswith("and 4 more")


def patterns(node: Any) -> Iterator[str]:
    """Find every pattern of a JSON Schema."""
    if isinstance(node, dict):
        if isinstance(node.get("pattern"), str):
            yield node["pattern"]
        for one in node.values():
            yield from patterns(one)
    if isinstance(node, list):
        for one in node:
            yield from patterns(one)


def test_every_pattern_of_the_contract_has_words() -> None:
    used = set(patterns(schema("job"))) | {"^[A-Za-z0-9._-]{1,64}$"}
    general = ("^s3://", r"\{\}", "^[^")

    assert {p for p in used if p not in WORDS_BY_PATTERN and not any(g in p for g in general)} == (
        set()
    )


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=8)
    | st.just("\ud800")
    | st.just(datetime(2030, 1, 1, tzinfo=UTC)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4) | st.sampled_from(["labels", "name", "uri"]), inner)
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(changes=st.dictionaries(st.sampled_from([*Job.model_fields, "other"]), json_values))
def test_any_refusal_is_in_our_words_and_can_be_printed(changes: dict[str, Any]) -> None:
    try:
        parse_job({**JOB, **changes})
    except InvalidMessageError as error:
        text = str(error)
        text.encode()
        assert not NOT_OURS.search(text)
        assert re.match(r"invalid_message: [^:]+: \w", text, re.DOTALL)


def refused_setting(name: str, value: Any) -> str:
    try:
        ClientSettings(**{name: value})
    except ServiceConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", ConnectionSettings.model_fields)
def test_a_setting_that_is_refused_is_named_and_its_value_is_not_shown(name: str) -> None:
    values = [SECRET * 40, f"redis://:{SECRET}@h:port/0", f'"{SECRET}"', "\ud800", float("nan"), []]
    texts = [text for value in values if (text := refused_setting(name, value))]

    assert texts
    assert all(f"LABELYARD_{name.upper()}: " in text for text in texts)
    assert not any(SECRET in text or NOT_OURS.search(text) for text in texts)


def test_refusals_can_be_sent_as_json() -> None:
    text = refusal({**JOB, "trace": {"\ud800": 1}})

    assert json.loads(json.dumps(text, ensure_ascii=False).encode()) == text
