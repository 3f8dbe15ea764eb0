"""The admission gate: it admits plain calls of our tasks, sets all else aside, and never raises."""

import base64
import json
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelyard.ledger.set_aside import MAX_KEPT_BYTES
from labelyard.messages import Job, new_job_id, parse_job
from labelyard.outgoing import Outgoing
from labelyard.testing import sample_job
from labelyard_worker.broker.admission import TASKS, admit
from labelyard_worker.broker.amqp_transport import to_envelope as amqp_envelope_of
from labelyard_worker.broker.calls import SET_ASIDE_TASK, RefusedMessage, TaskCall, to_list_item
from labelyard_worker.broker.envelopes import MAX_ENVELOPE_BYTES, unpack
from tests.support.envelopes import NO_CANVAS, SIGNATURE, envelope_of, job_of, mutate, mutate_bytes

QUEUE = "labelyard.interactive"
URI = "s3://pictures/a.jpg"
# Envelopes that raised inside Celery or kombu, each by what it raised.
RAISED = json.loads(
    (Path(__file__).parents[1] / "support/data/envelopes.json").read_text(encoding="utf-8")
)
Change = Callable[[dict[str, Any]], Any]


def body_of(*parts: Any) -> str:
    return json.dumps(list(parts))


def gate(envelope: Any) -> TaskCall:
    raw = envelope if isinstance(envelope, bytes) else json.dumps(envelope).encode()
    return admit(unpack(raw), queue=QUEUE)


def refused_message_of(call: TaskCall) -> RefusedMessage:
    assert call.task == SET_ASIDE_TASK
    return RefusedMessage.from_arguments(json.loads(call.arguments))


def changed(change: Change) -> tuple[dict[str, Any], str]:
    job = job_of(URI)
    envelope = envelope_of(job, queue=QUEUE)
    change(envelope)
    return envelope, job["job_id"]


def with_body(*parts: Any) -> Change:
    return lambda m: m.update(body=body_of(*parts))


def with_header(**headers: Any) -> Change:
    return lambda m: m["headers"].update(headers)


@pytest.mark.parametrize("raw", RAISED.values(), ids=range(len(RAISED)))
def test_no_envelope_that_raised_in_celery_is_handed_on_as_it_came(raw: str) -> None:
    call = gate(raw.encode())

    handed_on = json.dumps(to_list_item(call, queue=QUEUE, delivery_tag="tag"))
    assert call.task in {*TASKS, SET_ASIDE_TASK}
    assert set(to_list_item(call, queue=QUEUE, delivery_tag="tag")["headers"]) <= {
        *("lang", "task", "id", "root_id", "argsrepr", "kwargsrepr", "ignore_result"),
        "labelyard_published_at",
    }
    assert json.loads(call.write_body())[2] == NO_CANVAS
    assert "__type__" not in handed_on.replace('\\\\\\"__type__', "")


def test_a_job_goes_on_as_text_that_parses_to_the_same_job() -> None:
    job = sample_job()
    outgoing = Outgoing.of(job, queue="interactive", published_at=12.5)
    envelope = envelope_of({"job_id": job.job_id})
    envelope |= {"body": outgoing.body(), "headers": outgoing.headers()}

    call = gate(envelope)

    text, expires_at = json.loads(call.arguments)
    assert parse_job(text) == job
    assert (call.task, call.task_id, call.published_at) == (outgoing.task, job.job_id, 12.5)
    assert (expires_at, call.is_result_wanted) == (None, False)


def job_text(call: TaskCall) -> Any:
    return json.loads(json.loads(call.arguments)[0])


ADMITTED: dict[str, Change] = {
    "as documented": lambda m: None,
    "in base64": lambda m: (
        m.update(body=base64.b64encode(m["body"].encode()).decode()),
        m["properties"].update(body_encoding="base64"),
    ),
    "with a charset": lambda m: m.update({"content-type": "application/json; charset=utf-8"}),
    "with a charset in capitals": lambda m: m.update(
        {"content-type": 'Application/JSON;Charset="UTF-8"', "content-encoding": "UTF-8"}
    ),
    "without a content-encoding": lambda m: m.pop("content-encoding"),
    "with spaces in the body": lambda m: m.update(body=json.dumps(json.loads(m["body"]), indent=2)),
    "with an empty canvas": lambda m: m.update(
        body=body_of(json.loads(m["body"])[0], {}, {"callbacks": [], "chain": None})
    ),
    "with a canvas that is null": lambda m: m.update(
        body=body_of(json.loads(m["body"])[0], {}, None)
    ),
    "with null times": with_header(eta=None, expires=None, timelimit=[None, None]),
    "with an eta that has passed": with_header(eta="2020-01-01T00:00:00+00:00"),
    "with what Celery tells monitors": with_header(
        argsrepr="x", shadow="x", stamps={}, stamped_headers=None, origin="gen1@host", retries=0
    ),
    "as a keyword": lambda m: m.update(
        body=body_of([], {"message": json.loads(m["body"])[0][0]}, NO_CANVAS)
    ),
    "without properties": lambda m: m.pop("properties"),
    "with a share": with_header(labelyard_tenant="shop-eu", labelyard_images=3),
    "with a tenant that is no text": with_header(labelyard_tenant=[1], labelyard_images={}),
    "with a tenant of 10 kB": with_header(labelyard_tenant="x" * 10_000, labelyard_images=1e99),
    "with a tenant of control characters": with_header(labelyard_tenant="\x00\x1b\n"),
}


@pytest.mark.parametrize("change", ADMITTED.values(), ids=ADMITTED.keys())
def test_a_plain_call_is_admitted_however_it_is_written(change: Change) -> None:
    envelope, job_id = changed(change)

    call = gate(envelope)

    assert call.task == "labelyard.classify"
    assert job_text(call)["job_id"] == job_id


REFUSED: dict[str, tuple[Change, str]] = {
    "two parts": (with_body([{}], {}), "[arguments, keyword arguments, canvas]"),
    "four parts": (with_body([{}], {}, NO_CANVAS, {}), "[arguments"),
    "a number": (lambda m: m.update(body="5"), "[arguments"),
    "no base64": (
        lambda m: (m.update(body="!!!"), m["properties"].update(body_encoding="base64")),
        "not base64",
    ),
    "unsaid base64": (
        lambda m: m.update(body=base64.b64encode(m["body"].encode()).decode()),
        "not JSON",
    ),
    "no body": (lambda m: m.pop("body"), "body is missing"),
    "null as body": (lambda m: m.update(body=None), "body is missing"),
    "two arguments": (with_body([{}, 1], {}, NO_CANVAS), "one argument"),
    "no argument": (with_body([], {}, NO_CANVAS), "one argument"),
    "a text as its argument": (with_body(["s3://a/b.jpg"], {}, NO_CANVAS), "not a job"),
    "a list as its argument": (with_body([[]], {}, NO_CANVAS), "not a job"),
    "a job without an id": (with_body([{"images": []}], {}, NO_CANVAS), "not a job"),
    "a job with an odd id": (with_body([{"job_id": "../"}], {}, NO_CANVAS), "not a job"),
    "a body like our client's that is not JSON": (
        lambda m: m.update(body='[[{,"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'),
        "not JSON",
    ),
    "another keyword": (with_body([], {"pictures": {}}, NO_CANVAS), "one argument"),
    "both kinds": (with_body([{}], {"job": {}}, NO_CANVAS), "one argument"),
    "arguments that are no list": (with_body({"a": 1}, {}, NO_CANVAS), "not a list"),
    "keywords that are no object": (with_body([{}], [1], NO_CANVAS), "not an object"),
    "a chain": (with_body([{}], {}, {**NO_CANVAS, "chain": [SIGNATURE]}), "chain is set"),
    "a chord": (with_body([{}], {}, {**NO_CANVAS, "chord": SIGNATURE}), "chord is set"),
    "callbacks": (with_body([{}], {}, {**NO_CANVAS, "callbacks": [SIGNATURE]}), "callbacks"),
    "errbacks": (with_body([{}], {}, {**NO_CANVAS, "errbacks": [SIGNATURE]}), "errbacks"),
    "a canvas that is a text": (with_body([{}], {}, "x"), "canvas is not an object"),
    "another task": (with_header(task="labelyard.clasify"), "unknown task"),
    "the gate's own task": (with_header(task=SET_ASIDE_TASK), "unknown task"),
    "a task of Celery's": (with_header(task="celery.group"), "unknown task"),
    "a task that is a list": (with_header(task=[]), "unknown task"),
    "no id": (lambda m: m["headers"].pop("id"), "headers.id"),
    "an id that is a list": (with_header(id=[]), "headers.id"),
    "an id with a surrogate": (with_header(id="\ud800"), "headers.id"),
    "half a surrogate pair in its text": (
        lambda m: m.update(body=m["body"].replace("a cat", "\ud800")),
        "not UTF-8",
    ),
    "headers that are null": (lambda m: m.update(headers=None), "headers"),
    "compression": (with_header(compression="application/x-gzip"), "compression"),
    "text/plain": (lambda m: m.update({"content-type": "text/plain"}), "content-type"),
    "another charset": (
        lambda m: m.update({"content-type": "application/json; charset=utf-16"}),
        "content-type",
    ),
    "no content-type": (lambda m: m.update({"content-type": None}), "content-type"),
    "another encoding": (lambda m: m.update({"content-encoding": "zlib"}), "content-encoding"),
    "a body encoding": (lambda m: m["properties"].update(body_encoding="rot13"), "body_encoding"),
    "an eta": (with_header(eta="2999-01-01T00:00:00Z"), "submit the job when it is due"),
    "an eta that is a word": (with_header(eta="soon"), "headers.eta is not"),
    "an eta that is false": (with_header(eta=False), "headers.eta is not"),
    "an expiry that is a word": (with_header(expires="soon"), "headers.expires is not"),
    "an expiry beyond all years": (with_header(expires=1e300), "headers.expires is not"),
    "a time limit": (with_header(timelimit=[10, None]), "LABELYARD_JOB_TIMEOUT_S"),
    "a time limit that is a text": (with_header(timelimit="x"), "timelimit"),
}


@pytest.mark.parametrize(("change", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refused_message_is_set_aside_with_its_reason_and_its_job(
    change: Change, reason: str
) -> None:
    envelope, job_id = changed(change)

    refused = refused_message_of(gate(envelope))

    assert reason in refused.reason
    assert (refused.queue, refused.job_id) == (QUEUE, job_id)
    assert json.loads(refused.raw) == json.loads(json.dumps(envelope))


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"not JSON", b"[1, 2]", b"\xff\xfe", b"null", b'"x"', b"\x80" * 100),
        b"[" * 100_000,
        b'{"headers":' * 5_000 + b"1" + b"}" * 5_000,
        b'{"headers": {"id": ' + b"9" * 10_000 + b"}}",
        '{"properties": {}}'.encode("utf-16"),
    ],
    ids=range(11),
)
def test_bytes_that_are_no_envelope_are_set_aside(raw: bytes) -> None:
    refused = refused_message_of(gate(raw))

    assert refused.raw == raw[:MAX_KEPT_BYTES]
    assert refused.size_bytes == len(raw)


@pytest.mark.parametrize(
    "raw",
    [b" " * (MAX_ENVELOPE_BYTES + 1), b"[" + b"[]," * 1_000_000 + b"1]"],
    ids=["too long", "too many values"],
)
def test_what_would_hold_up_the_event_loop_is_not_even_parsed(
    raw: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[int] = []
    monkeypatch.setattr(json, "loads", lambda text: parsed.append(len(text)))

    assert gate(raw).task == SET_ASIDE_TASK
    assert max(parsed, default=0) < len(raw)


def with_chain(*calls: Any) -> dict[str, Any]:
    return changed(with_body([job_of(URI)], {}, {**NO_CANVAS, "chain": list(calls)}))[0]


def follow_ups_of(envelope: dict[str, Any]) -> Any:
    raw = json.dumps(envelope).encode()
    call = admit(unpack(raw), queue=QUEUE, follow_ups=("shop.after@shop",))
    return (
        refused_message_of(call)
        if call.task == SET_ASIDE_TASK
        else json.loads(call.write_body())[2]["chain"]
    )


def test_a_call_that_may_follow_is_written_anew() -> None:
    options = {"queue": "shop", "task_id": "t1", "serializer": "pickle", "link": [SIGNATURE]}
    odd = {**SIGNATURE, "options": options, "args": [1], "chord_size": 2, "x": 1}

    assert follow_ups_of(with_chain(odd)) == [
        {
            "task": "shop.after",
            "args": [1],
            "kwargs": {},
            "options": {"queue": "shop", "task_id": "t1"},
            "subtask_type": None,
            "immutable": False,
        }
    ]


@pytest.mark.parametrize(
    "call",
    [
        {**SIGNATURE, "task": "shop.refund"},
        {**SIGNATURE, "options": {"queue": "theirs"}},
        {**SIGNATURE, "options": {}},
        {**SIGNATURE, "options": None},
        {**SIGNATURE, "subtask_type": "group"},
        {**SIGNATURE, "args": "x"},
        {**SIGNATURE, "kwargs": [1]},
        {**SIGNATURE, "task": ["shop.after"]},
        *("shop.after", None, 7, []),
    ],
)
def test_a_call_that_may_not_follow_is_refused(call: Any) -> None:
    assert isinstance(follow_ups_of(with_chain(SIGNATURE, call)), RefusedMessage)


def test_a_chain_of_any_length_is_not_followed() -> None:
    assert isinstance(follow_ups_of(with_chain(*[SIGNATURE] * 17)), RefusedMessage)


def test_an_expiry_goes_on_beside_the_job() -> None:
    at = datetime.now(UTC) + timedelta(minutes=5)
    envelope, _ = changed(with_header(expires=at.isoformat()))

    _, expires_at = json.loads(gate(envelope).arguments)

    assert expires_at == pytest.approx(at.timestamp())


def test_an_expiry_without_a_zone_is_utc() -> None:
    envelope, _ = changed(with_header(expires="1970-01-01T00:01:00"))

    assert json.loads(gate(envelope).arguments)[1] == 60.0


@pytest.mark.parametrize(
    ("headers", "is_wanted"),
    [
        ({"ignore_result": False}, True),
        ({"ignore_result": None}, True),
        ({"ignore_result": True}, False),
        ({"ignore_result": "false"}, False),
        ({}, False),
    ],
)
def test_a_result_is_wanted_by_whoever_says_that_it_is_not_ignored(
    headers: dict[str, Any], is_wanted: bool
) -> None:
    """Celery 5.7 writes null for its default; a producer in another language writes nothing."""
    envelope, _ = changed(
        lambda m: (m["headers"].pop("ignore_result"), m["headers"].update(headers))
    )

    assert gate(envelope).is_result_wanted is is_wanted


@pytest.mark.parametrize("argument", [{"job_id": "x"}, 7, "../x", "", "a b", None])
def test_a_delivery_is_asked_for_by_a_job_id_alone(argument: object) -> None:
    job_id = new_job_id()
    good, _ = changed(with_header(task="labelyard.deliver"))
    good["body"] = body_of([job_id], {}, NO_CANVAS)
    bad = good | {"body": body_of([argument], {}, NO_CANVAS)}

    assert json.loads(gate(good).arguments) == [job_id]
    assert gate(bad).task == SET_ASIDE_TASK


@pytest.mark.parametrize("task", sorted(TASKS))
@pytest.mark.parametrize("argument", ["nope", "{", "[" * 3_000, "", "9" * 5_000])
def test_a_body_like_our_clients_that_holds_no_json_is_set_aside(task: str, argument: str) -> None:
    canvas = json.dumps(NO_CANVAS, separators=(",", ":"))
    envelope, job_id = changed(with_header(task=task))
    envelope["body"] = f"[[{argument}],{{}},{canvas}]"

    assert refused_message_of(gate(envelope)).job_id == job_id


@pytest.mark.parametrize("published_at", [float("nan"), float("inf"), "x", 10**400, [], True])
def test_an_odd_time_of_publication_counts_as_none(published_at: object) -> None:
    envelope, _ = changed(with_header(labelyard_published_at=published_at))
    raw = json.dumps(envelope).encode()

    assert gate(raw).published_at == 0.0


def test_a_type_of_kombus_in_a_job_stays_text() -> None:
    """``{"__type__": "decimal"}`` froze the process: int() of it has 100 million digits."""
    odd = {"__type__": "decimal", "__value__": "1e100000000"}
    envelope, _ = changed(with_body([{**job_of(URI), "top_k": odd}], {}, NO_CANVAS))

    started = time.monotonic()
    with pytest.raises(ValueError, match="top_k"):
        Job.model_validate_json(json.loads(gate(envelope).arguments)[0])

    assert time.monotonic() - started < 60  # it would be minutes


@settings(max_examples=400, deadline=None)
@given(st.randoms(use_true_random=False), st.booleans())
def test_whatever_is_changed_the_gate_answers_with_a_call_that_it_wrote(
    rng: random.Random, is_damaged: bool
) -> None:
    raw = json.dumps(mutate(job_of(URI), rng, queue=QUEUE)).encode()
    raw = mutate_bytes(raw, rng) if is_damaged else raw

    assert_ours(gate(raw))


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            ["content_type", "content_encoding", "correlation_id", "application_headers"]
        ),
        st.recursive(
            st.none() | st.integers() | st.text() | st.binary() | st.floats() | st.dates(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.binary(), inner),
        ),
    ),
    st.binary() | st.just(body_of([job_of(URI)], {}, NO_CANVAS).encode()),
)
def test_whatever_amqp_brings_the_gate_answers_with_a_call_that_it_wrote(
    properties: dict[str, Any], body: bytes
) -> None:
    assert_ours(admit(amqp_envelope_of(properties, body, False), queue=QUEUE))


def assert_ours(call: TaskCall) -> None:
    args, kwargs, canvas = json.loads(call.write_body())
    assert call.task in {*TASKS, SET_ASIDE_TASK}
    assert (kwargs, canvas) == ({}, NO_CANVAS)
    assert all(isinstance(arg, str | int | float | None) for arg in args)
    json.dumps(to_list_item(call, queue=QUEUE, delivery_tag="tag")).encode()
