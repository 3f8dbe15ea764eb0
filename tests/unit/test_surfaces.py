"""The clients and the fakes offer the same: names, parameters, and what hangs below them."""

import inspect
from typing import Any

import pytest

from labelyard import AsyncClient, AsyncJobHandle, Client, JobHandle
from labelyard.runs.async_client import AsyncRunHandle
from labelyard.runs.client import RunHandle
from labelyard.testing import AsyncFakeClient, FakeClient

CLIENT, ASYNC_CLIENT = Client(), AsyncClient()
FAKE, ASYNC_FAKE = FakeClient(), AsyncFakeClient()
STORES = (
    *("label_sets", "dead_letters", "set_aside", "tenants", "webhooks", "event_groups"),
    "runs",
)
# What a call returns is its own client's handle.
HANDLES = {
    "'AsyncJobHandle'": "'JobHandle'",
    "AsyncIterator": "Iterator",
    "labelyard.events.async_stream.AsyncEventStream": "labelyard.events.stream.EventStream",
    "AsyncEventStream": "EventStream",
    "AsyncJobHandle": "JobHandle",
    "AsyncRunHandle": "RunHandle",
    "async_client": "client",
}


def surface(thing: object) -> set[str]:
    """Name the public attributes of an instance or a class."""
    return {name for name in dir(thing) if not name.startswith("_")}


def signature(method: Any) -> str:
    """Write a method's parameters and result, without what differs by design."""
    text = str(inspect.signature(method))
    for theirs, ours in HANDLES.items():
        text = text.replace(theirs, ours)
    return text


def pairs_of(one: object, other: object) -> list[Any]:
    names = sorted(name for name in surface(one) if callable(getattr(one, name)))
    return [pytest.param(one, other, name, id=f"{type(other).__name__}-{name}") for name in names]


TWINS = [(CLIENT, FAKE), (CLIENT, ASYNC_CLIENT), (ASYNC_CLIENT, ASYNC_FAKE)]
PARTS = [(getattr(one, store), getattr(other, store)) for one, other in TWINS for store in STORES]


@pytest.mark.parametrize(("one", "other"), [*TWINS, *PARTS], ids=lambda one: type(one).__name__)
def test_nothing_public_is_missing(one: object, other: object) -> None:
    assert surface(one) - surface(other) == set()


def test_the_asynchronous_client_offers_nothing_of_its_own() -> None:
    assert surface(ASYNC_CLIENT) == surface(CLIENT)
    assert surface(AsyncJobHandle) == surface(JobHandle)
    assert surface(AsyncRunHandle) == surface(RunHandle)


@pytest.mark.parametrize(
    ("one", "other", "name"), [pair for twins in (*TWINS, *PARTS) for pair in pairs_of(*twins)]
)
def test_the_parameters_are_the_same(one: object, other: object, name: str) -> None:
    assert signature(getattr(other, name)) == signature(getattr(one, name))


def test_every_call_of_the_asynchronous_client_is_awaited_but_for_three() -> None:
    calls = {each for each in surface(ASYNC_CLIENT) if callable(getattr(ASYNC_CLIENT, each))}

    plain = {name for name in calls if not inspect.iscoroutinefunction(getattr(ASYNC_CLIENT, name))}

    assert plain == {"prepare", "as_completed", "events"}
