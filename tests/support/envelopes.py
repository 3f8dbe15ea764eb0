"""Envelopes of messages, well-formed ones and mutations of any part of them."""

import base64
import copy
import json
import random
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Final

NO_CANVAS: Final = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
SIGNATURE: Final = {
    "task": "shop.after",
    "args": [],
    "kwargs": {},
    "options": {"queue": "shop", "serializer": "pickle"},
    "subtask_type": None,
    "immutable": False,
}
MINUS_ONE_YEAR: Final = "2020-01-01T00:00:00Z"
ODD_VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, 1, -1, 1.5, -0.0, float("nan"), float("inf"), 10**40, 2**63),
    *("", "x", "0", "soon", MINUS_ONE_YEAR, "2999-01-01T00:00:00", "\ud800", "\x00", "é" * 300),
    *([], [1], [None], [[]], {}, {"a": 1}, {"": None}, [None, None], [1, 2], "a" * 5000),
    {"__type__": "decimal", "__value__": "1e100000000"},
    {"__type__": "datetime", "__value__": "2030-01-01T00:00:00"},
    {"__type__": "bytes", "__value__": "x"},
    {"__type__": "uuid", "__value__": "x"},
    SIGNATURE,
    [SIGNATURE],
)
HEADERS: Final = (
    *("lang", "task", "id", "root_id", "parent_id", "group", "group_index", "meth", "shadow"),
    *("eta", "expires", "retries", "timelimit", "argsrepr", "kwargsrepr", "origin", "compression"),
    *("ignore_result", "stamped_headers", "stamps", "replaced_task_nesting", "redelivered"),
    *("labelyard_published_at", "labelyard_job_id", "delivery_info", "callbacks", "args"),
)
PROPERTIES: Final = (
    *("correlation_id", "reply_to", "delivery_mode", "delivery_tag", "delivery_info", "priority"),
    *("body_encoding", "expiration", "message_id", "type", "headers"),
)
FOREIGN_TASKS: Final = (
    "labelyard.clasify",
    "celery.backend_cleanup",
    "labelyard.ledger.set_aside",
    "é",
)
CONTENT_TYPES: Final = (
    *("application/json; charset=utf-8", "application/x-python-serialize", "text/plain"),
    *("application/json; charset=utf-16", "application/data", "application/x-yaml"),
)


def job_of(uri: str, job_id: str | None = None) -> dict[str, Any]:
    """Write the smallest job."""
    labels = [{"name": "a cat"}, {"name": "a dog"}]
    return {
        "version": 1,
        "job_id": job_id or str(uuid.uuid4()),
        "images": [{"id": "1", "uri": uri}],
        "label_set": {"labels": labels},
    }


def envelope_of(job: Any, *, queue: str = "labelyard.interactive") -> dict[str, Any]:
    """Write the envelope that docs/message-contract.md shows."""
    job_id = job["job_id"]
    return {
        "body": json.dumps([[job], {}, NO_CANVAS]),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {
            "lang": "py",
            "task": "labelyard.classify",
            "id": job_id,
            "root_id": job_id,
            "ignore_result": True,
        },
        "properties": {
            "correlation_id": job_id,
            "delivery_mode": 2,
            "delivery_tag": str(uuid.uuid4()),
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": 0,
        },
    }


def mutate(job: dict[str, Any], rng: random.Random, *, queue: str) -> dict[str, Any]:
    """Change one to three things in a well-formed envelope, at any depth of it or of its body."""
    envelope = envelope_of(job, queue=queue)
    body = json.loads(envelope["body"])
    for _ in range(rng.randint(1, 3)):
        rng.choice(STRUCTURE_MUTATIONS)(envelope, body, rng)
    if "body" in envelope and isinstance(envelope["body"], str):
        envelope["body"] = rng.choice(BODY_FORMS)(envelope, body, rng)
    return envelope


def mutate_bytes(raw: bytes, rng: random.Random) -> bytes:
    """Damage a message's bytes."""
    at = rng.randrange(len(raw))
    match rng.randrange(7):
        case 0:
            return raw[:at]
        case 1:
            return raw[at:]
        case 2:
            return raw[:at] + bytes([rng.randrange(256)]) + raw[at + 1 :]
        case 3:
            return raw[:at] + rng.randbytes(rng.randint(1, 9)) + raw[at:]
        case 4:
            return raw[:at] + b"[" * rng.choice((10, 900, 30_000)) + raw[at:]
        case 5:
            return raw.replace(b'"id"', b'"task"').replace(b"1", b"9" * 5000, 1)
        case _:
            return raw + rng.choice((raw, b"\0", b"}", b"\xff\xfe"))


def _replace_any(envelope: Any, body: Any, rng: random.Random) -> None:
    container, key = rng.choice(list(_places(rng.choice((envelope, body)))))
    container[key] = copy.deepcopy(rng.choice(ODD_VALUES))


def _drop_any(envelope: Any, body: Any, rng: random.Random) -> None:
    container, key = rng.choice(list(_places(rng.choice((envelope, body)))))
    del container[key]


def _add_header(envelope: Any, body: Any, rng: random.Random) -> None:
    if isinstance(envelope.get("headers"), dict):
        envelope["headers"][rng.choice(HEADERS)] = copy.deepcopy(rng.choice(ODD_VALUES))


def _add_property(envelope: Any, body: Any, rng: random.Random) -> None:
    if isinstance(envelope.get("properties"), dict):
        envelope["properties"][rng.choice(PROPERTIES)] = copy.deepcopy(rng.choice(ODD_VALUES))


def _name_another_task(envelope: Any, body: Any, rng: random.Random) -> None:
    if isinstance(envelope.get("headers"), dict):
        envelope["headers"]["task"] = rng.choice(FOREIGN_TASKS)


def _name_another_type(envelope: Any, body: Any, rng: random.Random) -> None:
    envelope["content-type"] = rng.choice(CONTENT_TYPES)


def _compress(envelope: Any, body: Any, rng: random.Random) -> None:
    if isinstance(envelope.get("headers"), dict):
        envelope["headers"]["compression"] = rng.choice(("application/x-gzip", "x", "bzip2"))


def _set_canvas(envelope: Any, body: Any, rng: random.Random) -> None:
    if len(body) == 3 and isinstance(body[2], dict):
        body[2][rng.choice(list(NO_CANVAS))] = copy.deepcopy(rng.choice(ODD_VALUES))


def _add_argument(envelope: Any, body: Any, rng: random.Random) -> None:
    if body and isinstance(body[0], list):
        body[0].append(copy.deepcopy(rng.choice(ODD_VALUES)))


def _nest(envelope: Any, body: Any, rng: random.Random) -> None:
    deep: Any = []
    for _ in range(rng.choice((5, 100, 400))):
        deep = [deep]
    envelope[rng.choice(("headers", "body", "extra"))] = deep


STRUCTURE_MUTATIONS: Final[tuple[Callable[[Any, Any, random.Random], None], ...]] = (
    *(_replace_any, _replace_any, _replace_any, _drop_any, _drop_any, _add_header, _add_header),
    *(_add_property, _name_another_task, _name_another_type, _compress, _set_canvas),
    *(_add_argument, _nest),
)


def _as_text(envelope: Any, body: Any, rng: random.Random) -> str:
    return json.dumps(body)


def _as_base64(envelope: Any, body: Any, rng: random.Random) -> str:
    if isinstance(envelope.get("properties"), dict):
        envelope["properties"]["body_encoding"] = "base64"
    return base64.b64encode(json.dumps(body).encode()).decode()


def _as_bare_job(envelope: Any, body: Any, rng: random.Random) -> str:
    return json.dumps(body[0] if body else None)


def _as_damaged_text(envelope: Any, body: Any, rng: random.Random) -> str:
    return mutate_bytes(json.dumps(body).encode(), rng).decode("utf-8", "replace")


BODY_FORMS: Final = (_as_text, _as_text, _as_base64, _as_base64, _as_bare_job, _as_damaged_text)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """List every key and index at any depth."""
    if isinstance(value, dict | list):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        for key in keys:
            yield value, key
            yield from _places(value[key])
