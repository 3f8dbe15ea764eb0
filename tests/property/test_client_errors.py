"""Clients raise errors of ours alone, for all arguments and for all answers of the servers."""

import asyncio
import inspect
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labelyard import AsyncClient, Client, ClientSettings, ImageRef, Label, LabelSet
from labelyard.drift.counts import AnswerCounts
from labelyard.errors import InvalidMessageError, JobNotFoundError, LabelyardError
from labelyard.ledger.set_aside import SetAsideMessage
from labelyard.messages import Job
from labelyard.testing import sample_job
from labelyard_worker.local.servers import ValkeyServer

STORES = (
    "label_sets",
    "dead_letters",
    "set_aside",
    "tenants",
    "runs",
    "webhooks",
    "event_groups",
)
# Calls that end the client, or wait for as long as they are told.
EXCLUDED = {"close"}
SHORT_S = 0.01


class Odd:
    """An object of no use to anybody."""


def broken_jobs() -> list[Job]:
    """Make jobs that were changed without checks."""
    return [
        sample_job(tenant="\ud800"),
        sample_job(job_id="\ud800"),
        sample_job(job_id=5),
        sample_job(label_set=Odd()),
        sample_job(expires_at=math.nan),
        sample_job(images=(ImageRef.model_construct(id="\ud800", uri=b"x"),)),
    ]


odd_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from(
        [0, -1, 10**400, math.nan, math.inf, -math.inf, 1e-300, Decimal("NaN"), Decimal(1)]
    ),
    st.text(st.characters(), max_size=5),
    st.sampled_from(["", "\ud800", "x" * 300, "bulk", "a@sha256:b", f"a@sha256:{'0' * 64}", "\0"]),
    st.binary(max_size=4),
    st.just(datetime(2030, 1, 1)),  # noqa: DTZ001 - a naive one is meant
    st.lists(st.one_of(st.none(), st.integers(), st.text(max_size=3), st.just("\ud800"))),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    st.builds(Odd),
    st.sampled_from([Odd, len, LabelSet(labels=(Label(name="cat"),)), *broken_jobs()]),
    st.just(LabelSet.model_construct(labels=(Label.model_construct(name="\ud800"),))),
    st.just(SetAsideMessage(reason="\ud800", queue="\ud800", size_bytes=1, raw=b"\xff")),
)
# Half of the time what is allowed, so that the odd one is met by itself.
GOOD: dict[str, Any] = {
    "images": ["s3://photos/cat.jpg"],
    "labels": ["cat"],
    "queue": "bulk",
    "job": sample_job(),
    "jobs": [sample_job()],
    "job_id": "nothing",
    "entry_id": "nothing",
    "entry_ids": ["nothing"],
    "reference": f"a@sha256:{'0' * 64}",
    "name": "pets",
    "label_set": LabelSet(labels=(Label(name="cat"),)),
    "message": SetAsideMessage(reason="r", queue="q", size_bytes=1, raw=b"x"),
    "limit": 10,
    "timeout_s": SHORT_S,
    "state": "pending",
    "tenant": "shop",
    "since": datetime(2020, 1, 1, tzinfo=UTC),
    "lost_within_s": 60.0,
    "weight": 2.0,
    "max_open_images": 1000,
    "images_per_s": 50.0,
    "prompts_per_s": 100.0,
    "group": "indexer",
    "run_id": "nothing",
    "old_run": "nothing",
    "source": "s3://photos/",
    "out": "s3://results/",
    "codes": ["image_not_found"],
    "folder": "nowhere",
    "every_s": SHORT_S,
    "request": "nothing",
    "host": "example.com",
    "kind": "webhook",
    "start": "new",
    "tenants": ["shop"],
    "kinds": ["run"],
    "tags": ["spring"],
    "manifest": [{"image": "s3://photos/cat.jpg", "label": "cat", "split": "test"}],
    "split": "test",
    "require": ["accuracy>=0.9"],
    "alias": "pets@prod",
    "first": "pets",
    "second": "pets",
    "share": 0.05,
    "expect": "",
    "parent": f"a@sha256:{'0' * 64}",
    "author": "ann",
    "note": "a better one",
    "metrics": {"accuracy": 0.9},
    "hours": 24,
    "counts": AnswerCounts(n=1, answers={"cat": 1}),
    "precision": 0.9,
    "confidence": 0.9,
    "none_of_these": 0.95,
    "shares": {"cat": 0.7, "dog": 0.3},
    "sample": [{"image": "s3://photos/cat.jpg", "split": "test"}],
    "most": 10,
    "templates": ["a photo of {}."],
    "image": "s3://photos/cat.jpg",
    "label": "cat",
    "grid": 4,
}
OPTIONS = (
    "top_k",
    "rescore",
    "explain",
    "explain_grid",
    "tenant",
    "expires_at",
    "expires_in_s",
    "idempotency_key",
    "deliver",
    "trace",
    "unknown",
)


def calls_of(client: object) -> list[tuple[str, str]]:
    """Name every public call of a client, and of what hangs below it."""
    found = []
    for owner in ("", *STORES):
        thing = getattr(client, owner) if owner else client
        names = (name for name in dir(thing) if not name.startswith("_"))
        found += [(owner, name) for name in names if inspect.isroutine(getattr(thing, name))]
    return [pair for pair in found if pair[1] not in EXCLUDED]


CALLS = calls_of(Client())


@st.composite
def arguments_of(draw: st.DrawFn, call: Any) -> dict[str, Any]:
    """Draw arguments for a call: its own ones, good or odd, and some options."""
    drawn: dict[str, Any] = {}
    for name, parameter in inspect.signature(call).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            for option in draw(st.lists(st.sampled_from(OPTIONS), max_size=2, unique=True)):
                drawn[option] = draw(odd_values)
        elif draw(st.booleans()):
            drawn[name] = draw(odd_values)
        else:
            drawn[name] = GOOD[name]
    if getattr(call, "__name__", "") == "evaluate" and drawn["out"] == GOOD["out"]:
        drawn["out"] = None  # else it uploads the manifest of a run
    if getattr(call, "__name__", "") == "events":  # else the loop never ends
        drawn["timeout_s"] = SHORT_S
    # A wait may be for ever, if that is asked for.
    if drawn.get("timeout_s") == math.inf or (
        isinstance(drawn.get("timeout_s"), int | float) and drawn["timeout_s"] > 1
    ):
        drawn["timeout_s"] = SHORT_S
    return drawn


def check_words(error: LabelyardError) -> None:
    """Check that an error begins with its code, and that any log can hold it."""
    assert str(error).encode().startswith(error.code.encode())


def use(answer: Any) -> None:
    """Iterate over the value that a call returned, as callers do."""
    if isinstance(answer, Iterator):
        list(answer)


@pytest.fixture(scope="module")
def urls(valkey: ValkeyServer) -> dict[str, str]:
    """Return addresses of databases that other tests do not look at."""
    return {"broker_url": valkey.url_of(13), "ledger_url": valkey.url_of(14)}


@pytest.fixture(scope="module")
def client(urls: dict[str, str]) -> Iterator[Client]:
    with Client(ClientSettings(**urls, publish_timeout_s=0.5)) as client:
        yield client


@pytest.fixture(autouse=True)
def no_listener_is_left(client: Client) -> Iterator[None]:
    """End the shared client's listener before the check for threads that are left over."""
    yield
    client._listener.close()


@pytest.mark.parametrize(("owner", "name"), CALLS)
@settings(
    deadline=None,
    max_examples=20,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_only_errors_of_ours_leave_a_call(
    client: Client, owner: str, name: str, data: st.DataObject
) -> None:
    call = getattr(getattr(client, owner) if owner else client, name)
    arguments = data.draw(arguments_of(call))

    try:
        use(call(**arguments))
    except LabelyardError as error:
        check_words(error)


@pytest.mark.parametrize(("owner", "name"), [pair for pair in CALLS if pair[0] == ""])
@settings(
    deadline=None,
    max_examples=10,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_only_errors_of_ours_leave_an_asynchronous_call(
    urls: dict[str, str], owner: str, name: str, data: st.DataObject
) -> None:
    client = AsyncClient(ClientSettings(**urls, publish_timeout_s=0.5))
    arguments = data.draw(arguments_of(getattr(client, name)))

    async def scenario() -> None:
        try:
            answer = getattr(client, name)(**arguments)
            if inspect.isawaitable(answer):
                await answer
            elif hasattr(answer, "__aiter__"):
                _ = [record async for record in answer]
        except LabelyardError as error:
            check_words(error)
        finally:
            await client.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"timeout_s": math.nan}, "timeout_s"),
        ({"timeout_s": "5"}, "timeout_s"),
        ({"timeout_s": None}, "timeout_s"),
        ({"timeout_s": 10**400}, "timeout_s"),
        ({"jobs": "id"}, "jobs"),
        ({"jobs": None}, "jobs"),
        ({"jobs": [None]}, "job_id"),
        ({"jobs": [5]}, "job_id"),
    ],
)
def test_a_wait_names_the_argument_at_fault(
    client: Client, arguments: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidMessageError, match=f"^invalid_message: {field}: "):
        client.wait(**{"jobs": ["nothing"], "timeout_s": 0, **arguments})


def test_an_id_that_no_job_can_have_is_not_found(client: Client) -> None:
    with pytest.raises(JobNotFoundError):
        client.status("\ud800")


@pytest.mark.parametrize("kind", ["string", "hash", "bytes"])
def test_foreign_values_under_our_keys_are_errors_of_ours(
    urls: dict[str, str], client: Client, kind: str
) -> None:
    """Another program wrote into the ledger's database."""
    with redis.Redis.from_url(urls["ledger_url"]) as foreign:
        foreign.flushdb()
        for name in (
            "open_images",
            "totals",
            "dead",
            "set_aside",
            "label_set_names",
            "job:x",
            "backlog",
            "jobs",
            "open:bulk",
            "tenants",
            "rates:shop",
        ):
            key = f"labelyard:{name}"
            if kind == "hash":
                foreign.hset(key, "succeeded", "many")
            else:
                foreign.set(key, "many" if kind == "string" else b"\xff\xfe")
        failures = []
        for owner, name in CALLS:
            call = getattr(getattr(client, owner) if owner else client, name)
            known = inspect.signature(call).parameters
            try:
                use(call(**{key: GOOD[key] for key in known if key in GOOD}))
            except LabelyardError as error:
                failures.append(error)
        foreign.flushdb()

    assert failures
