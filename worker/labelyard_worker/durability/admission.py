"""Admission gate: decide from a message's raw envelope whether it is a plain call of one of our tasks.

kombu and Celery act on far more of an envelope than a job needs: compression, eta, expires, time
limits, callbacks, chains, JSON types of their own. Here the envelope is taken apart with the
standard library. An admitted call is handed on in a new envelope that holds nothing else of the
old one; any other message becomes a call of the task that sets it aside. Neither reading nor
rewriting raises, whatever the message contains.
"""

import base64
import json
import math
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Self, TypeGuard

from labelyard.outgoing import (
    DELIVER_TASK,
    NO_CANVAS,
    PUBLISHED_AT_HEADER,
    RETURNED_BY_HEADER,
    TASK,
)
from labelyard.set_aside import MAX_KEPT_BYTES

# Never published: only the gate writes calls of it, inside the worker.
SET_ASIDE_TASK: Final = "labelyard.set_aside"
TASKS: Final = frozenset({TASK, DELIVER_TASK})
# The longest job that the contract allows has 10,000 prompts of 1,000 characters, in base64.
MAX_ENVELOPE_BYTES: Final = 16 * 1024 * 1024
# json.loads makes an object of each: as many take some tenths of a second and 100 MB.
MAX_JSON_VALUES: Final = 500_000
# An eta so close is now: the clocks of two machines differ by as much.
ETA_NOW_S: Final = 1.0
MAX_REASON_CHARS: Final = 300
CANVAS_PARTS: Final = ("callbacks", "errbacks", "chain", "chord")
MAX_FOLLOW_UPS: Final = 16
NO_FOLLOW_UPS: Final = "null"
UTF8_NAMES: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii", ""})
# Celery apps may name the argument as they like to call it.
ARGUMENT_NAMES: Final = ("message", "job")
_TASK_ID: Final = re.compile(r"[\x21-\x7e]{1,255}")
# As our own client writes it: spares parsing the job twice. Its parser has the last word.
_PLAIN_JOB_ID: Final = re.compile(r'\A\{"version":1,"job_id":"[A-Za-z0-9][A-Za-z0-9._-]{0,127}",')
_PLAIN: Final = re.compile(r"[\x20-\x7e]{1,511}")
_JOB_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_PLAIN_BODY_START: Final = "[["
_PLAIN_BODY_END: Final = f"],{{}},{NO_CANVAS}]"


class MisfitError(ValueError):
    """The message is not a plain call of one of our tasks."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message as it came, before anything of it is believed.

    Attributes:
        raw: Gives the message's bytes, to be kept if it is set aside.
        body: Text of the body, or its bytes.
        fault: Why the message cannot be taken apart; empty if it can.
        is_again: Whether the broker says that it delivered the message before.
    """

    raw: Callable[[], bytes]
    headers: Any = None
    body: Any = b""
    content_type: Any = None
    content_encoding: Any = None
    correlation_id: Any = None
    is_again: bool = False
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """A call of one of our tasks: everything that Celery is told.

    Attributes:
        arguments: JSON text of the list of arguments.
        published_at: When the client published the message, by the ledger's clock; 0 if it
            does not say.
        returned_by: Which attempt was given back with it while the ledger was away.
        is_result_wanted: Whether a Celery application asked for the task's result.
        follow_ups: JSON text of the calls that Celery makes after this one, in its own form;
            only calls that LABELYARD_CELERY_FOLLOW_UPS names.
    """

    task: str
    task_id: str
    arguments: str
    published_at: float = 0.0
    is_again: bool = False
    is_result_wanted: bool = False
    returned_by: str = ""
    follow_ups: str = NO_FOLLOW_UPS

    def body(self) -> str:
        """Write the body: arguments, keyword arguments, a canvas that holds follow-ups at most."""
        if self.follow_ups == NO_FOLLOW_UPS:
            return f"[{self.arguments},{{}},{NO_CANVAS}]"
        canvas = NO_CANVAS.replace('"chain":null', f'"chain":{self.follow_ups}')
        return f"[{self.arguments},{{}},{canvas}]"

    def headers(self) -> dict[str, Any]:
        """Write the headers of Celery's message protocol 2 that a plain call needs."""
        ours: dict[str, Any] = {}
        if self.published_at:
            ours[PUBLISHED_AT_HEADER] = self.published_at
        if self.returned_by:
            ours[RETURNED_BY_HEADER] = self.returned_by
        return {
            "lang": "py",
            "task": self.task,
            "id": self.task_id,
            "root_id": self.task_id,
            "argsrepr": "",
            "kwargsrepr": "",
            "ignore_result": not self.is_result_wanted,
            **ours,
        }


@dataclass(frozen=True, slots=True)
class Misfit:
    """A message that is set aside.

    Attributes:
        queue: Name of the queue that brought it.
        raw: Its bytes, as far as they are kept.
        size_bytes: How many bytes it had.
        job_id: Job that its producer waits for, if the message tells; else empty.
    """

    reason: str
    queue: str
    raw: bytes = field(repr=False)
    size_bytes: int
    job_id: str = ""

    def arguments(self) -> str:
        """Write the arguments of the task that sets the message aside."""
        raw = base64.b64encode(self.raw).decode()
        return json.dumps([self.reason, self.queue, raw, self.size_bytes, self.job_id])

    @classmethod
    def of_arguments(cls, arguments: Sequence[Any]) -> Self:
        """Read what :meth:`arguments` wrote."""
        reason, queue, raw, size_bytes, job_id = arguments
        return cls(reason, queue, base64.b64decode(raw), size_bytes, job_id)


def admit(envelope: Envelope, *, queue: str, follow_ups: Collection[str] = ()) -> Call:
    """Return the call that Celery is to run for *envelope*: its own, or the one that sets it aside.

    Args:
        queue: Name of the queue that brought it.
        follow_ups: Calls that may follow in a chain, each as ``task@queue``.
    """
    try:
        return _read_call(envelope, follow_ups)
    except MisfitError as error:
        reason = error.reason
    except Exception as error:  # noqa: BLE001 - nothing that a message contains may get further
        reason = f"the envelope cannot be read ({type(error).__name__})"
    return set_aside_call(envelope, queue=queue, reason=reason)


def set_aside_call(envelope: Envelope, *, queue: str, reason: str) -> Call:
    """Write the call that sets *envelope* aside."""
    job_id = job_id_in(envelope)
    raw = _raw_of(envelope)
    misfit = Misfit(reason[:MAX_REASON_CHARS], queue, raw[:MAX_KEPT_BYTES], len(raw), job_id)
    headers = envelope.headers if isinstance(envelope.headers, dict) else {}
    task_id = headers.get("id")
    return Call(
        task=SET_ASIDE_TASK,
        task_id=task_id if _is_task_id(task_id) else (job_id or "unknown"),
        arguments=misfit.arguments(),
        is_again=envelope.is_again,
        is_result_wanted=_is_result_wanted(headers),
    )


def _raw_of(envelope: Envelope) -> bytes:
    try:
        return envelope.raw()
    except Exception:  # noqa: BLE001 - a message that cannot be written down is still set aside
        return b""


def list_item(call: Call, *, queue: str, delivery_tag: str) -> dict[str, Any]:
    """Write the envelope of *call*, as kombu takes it from a list on Redis."""
    return {
        "body": call.body(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": call.headers(),
        "properties": {
            "correlation_id": call.task_id,
            "delivery_mode": 2,
            "delivery_tag": delivery_tag,
            "delivery_info": {
                "exchange": "",
                "routing_key": queue,
                "redelivered": call.is_again,
            },
            "priority": 0,
        },
    }


def unpack(raw: bytes) -> Envelope:
    """Take apart what a list on Redis held; an unreadable message gives an empty envelope."""
    try:
        check_size(raw)
        message = json.loads(raw.decode())
        return _envelope_of(message, raw)
    except MisfitError as error:
        return Envelope(lambda: raw, fault=error.reason)
    except Exception as error:  # noqa: BLE001 - whatever the bytes are, they are set aside
        return Envelope(lambda: raw, fault=f"the envelope is not JSON ({type(error).__name__})")


def check_size(text: str | bytes) -> None:
    """Refuse JSON whose parsing alone would hold up the event loop.

    Raises:
        MisfitError: It is too long, or holds too many values.
    """
    if len(text) > MAX_ENVELOPE_BYTES:
        raise MisfitError(f"{len(text)} bytes are too many (limit {MAX_ENVELOPE_BYTES})")
    if len(text) <= MAX_JSON_VALUES:
        return
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "replace")
    if sum(raw.count(separator) for separator in (b",", b"[", b"{")) > MAX_JSON_VALUES:
        raise MisfitError(f"more than {MAX_JSON_VALUES} JSON values are too many")


def _envelope_of(message: Any, raw: bytes) -> Envelope:
    if not isinstance(message, dict):
        raise MisfitError("the envelope is not a JSON object")
    properties = message.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    info = properties.get("delivery_info")
    body, fault = _body_of(message.get("body"), properties.get("body_encoding"))
    return Envelope(
        lambda: raw,
        headers=message.get("headers"),
        body=body,
        content_type=message.get("content-type"),
        content_encoding=message.get("content-encoding"),
        correlation_id=properties.get("correlation_id"),
        is_again=isinstance(info, dict) and info.get("redelivered") is True,
        fault=fault,
    )


def _body_of(body: Any, encoding: Any) -> tuple[Any, str]:
    """Decode the body as *encoding* says; the second value is why that is impossible."""
    if encoding is None or encoding == "":
        return body, ""
    if encoding != "base64":
        return body, "properties.body_encoding is neither absent nor base64"
    try:
        return base64.b64decode(body, validate=True), ""
    except (ValueError, TypeError):
        return body, "the body is not base64, as properties.body_encoding says it is"


def _read_call(envelope: Envelope, follow_ups: Collection[str]) -> Call:
    if envelope.fault:
        raise MisfitError(envelope.fault)
    headers = envelope.headers
    if not isinstance(headers, dict):
        raise MisfitError("headers are missing or not an object")
    task, task_id = headers.get("task"), headers.get("id")
    if not isinstance(task, str) or task not in TASKS:
        raise MisfitError(f"unknown task; known are {', '.join(sorted(TASKS))}")
    if not _is_task_id(task_id):
        raise MisfitError("headers.id is missing, or is not a text of 1 to 255 ASCII characters")
    _check_content(envelope)
    if headers.get("compression"):
        raise MisfitError("headers.compression is set: bodies are sent uncompressed")
    _check_times(headers)
    argument, chain = _parts_of(_text_of(envelope.body), follow_ups)
    returned_by = headers.get(RETURNED_BY_HEADER)
    return Call(
        task=task,
        task_id=task_id,
        arguments=_arguments(task, argument, headers),
        published_at=_finite(headers.get(PUBLISHED_AT_HEADER)),
        is_again=envelope.is_again,
        returned_by=returned_by if _is_plain(returned_by) else "",
        is_result_wanted=_is_result_wanted(headers),
        follow_ups=chain,
    )


def _arguments(task: str, argument: str, headers: Mapping[str, Any]) -> str:
    """Write a task's arguments; a job goes on as text, in which kombu finds no types of its own."""
    if task == DELIVER_TASK:
        job_id = json.loads(argument)
        if not _is_job_id(job_id):
            raise MisfitError(f"the argument of {DELIVER_TASK} is not a job id")
        return json.dumps([job_id])
    if _PLAIN_JOB_ID.search(argument) is None:
        job = json.loads(argument)
        if not isinstance(job, dict) or not _is_job_id(job.get("job_id")):
            raise MisfitError(
                "the argument is not a job with a job_id of 1 to 128 letters, digits, . _ or -"
            )
    expires_at = _instant(headers.get("expires"), "expires")
    # A lone text is written several times as fast as a list that holds it.
    return f"[{json.dumps(argument)},{'null' if expires_at is None else expires_at}]"


def _check_content(envelope: Envelope) -> None:
    content_type = envelope.content_type
    if content_type == "application/json" and envelope.content_encoding == "utf-8":
        return
    if not isinstance(content_type, str):
        raise MisfitError("content-type is missing or not a text")
    kind, *parameters = (part.strip().lower() for part in content_type.split(";"))
    charsets = [part.partition("=")[2].strip(' "') for part in parameters if part]
    if kind != "application/json" or not UTF8_NAMES.issuperset(charsets):
        raise MisfitError("content-type is not application/json in UTF-8")
    encoding = envelope.content_encoding
    if encoding is not None and str(encoding).strip().lower() not in UTF8_NAMES:
        raise MisfitError("content-encoding is not utf-8")


def _check_times(headers: Mapping[str, Any]) -> None:
    """Refuse what cannot be honoured: a job waits for no instant, and has no limit of its own."""
    eta = _instant(headers.get("eta"), "eta")
    if eta is not None and eta > time.time() + ETA_NOW_S:
        raise MisfitError("headers.eta (countdown) is not supported: submit the job when it is due")
    limits = headers.get("timelimit")
    if limits is not None and not (
        isinstance(limits, list) and len(limits) <= 2 and all(limit is None for limit in limits)
    ):
        raise MisfitError("headers.timelimit is not supported: LABELYARD_JOB_TIMEOUT_S limits jobs")


def _instant(value: Any, name: str) -> float | None:
    """Read an ISO 8601 instant as Celery writes it; one without a zone is UTC."""
    if value is None:
        return None
    try:
        instant = datetime.fromisoformat(value)
        return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError) as error:
        raise MisfitError(f"headers.{name} is not an ISO 8601 instant") from error


def _text_of(body: Any) -> str:
    if isinstance(body, bytes | bytearray | memoryview):
        try:
            return str(body, "utf-8")
        except UnicodeDecodeError as error:
            raise MisfitError("the body is not UTF-8") from error
    if not isinstance(body, str):
        raise MisfitError("the body is missing or not a text")
    if not body.isascii():
        try:
            body.encode()
        except UnicodeEncodeError as error:  # JSON can name half of a surrogate pair
            raise MisfitError("the body is not UTF-8") from error
    return body


def _parts_of(text: str, follow_ups: Collection[str]) -> tuple[str, str]:
    """Find the only argument and the follow-ups, as JSON texts, in a body of message protocol 2."""
    if text.startswith(_PLAIN_BODY_START) and text.endswith(_PLAIN_BODY_END):
        # As our own client writes it. Whether this is one JSON value, its parser says.
        return text[len(_PLAIN_BODY_START) : -len(_PLAIN_BODY_END)], NO_FOLLOW_UPS
    try:
        check_size(text)
        body = json.loads(text)
    except MisfitError:
        raise
    except (ValueError, RecursionError) as error:
        raise MisfitError(f"the body is not JSON ({type(error).__name__})") from error
    if not (isinstance(body, list) and len(body) == 3):
        raise MisfitError("the body is not [arguments, keyword arguments, canvas]")
    args, kwargs, canvas = body
    chain = _follow_ups_in(canvas, follow_ups)
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise MisfitError("arguments are not a list, or keyword arguments not an object")
    values = args + [kwargs[name] for name in ARGUMENT_NAMES if name in kwargs]
    if len(values) != 1 or len(args) + len(kwargs) != 1:
        raise MisfitError("the task takes one argument: the job as a JSON object")
    return json.dumps(values[0]), chain


def _follow_ups_in(canvas: Any, allowed: Collection[str]) -> str:
    """Write the calls of a chain anew; any other part of a canvas is refused."""
    if canvas is None:
        return NO_FOLLOW_UPS
    if not isinstance(canvas, dict):
        raise MisfitError("the canvas is not an object")
    names = [name for name, value in canvas.items() if value]
    if not names:
        return NO_FOLLOW_UPS
    calls = canvas.get("chain")
    if names != ["chain"] or not allowed:
        shown = ", ".join(name for name in names if name in CANVAS_PARTS) or "its canvas"
        raise MisfitError(f"workers call no other tasks: {shown} is set")
    if not isinstance(calls, list) or len(calls) > MAX_FOLLOW_UPS:
        raise MisfitError(f"the chain is not a list of at most {MAX_FOLLOW_UPS} calls")
    return json.dumps([_follow_up(call, allowed) for call in calls])


def _follow_up(call: Any, allowed: Collection[str]) -> dict[str, Any]:
    """Write a call that follows: its task, arguments and queue, and nothing else that it says."""
    options = call.get("options") if isinstance(call, dict) else None
    if not isinstance(options, dict) or call.get("subtask_type") is not None:
        raise MisfitError("the chain holds something else than plain calls with a queue")
    name, task_id = f"{call.get('task')}@{options.get('queue')}", options.get("task_id")
    if name not in allowed:
        raise MisfitError("the chain holds a call that LABELYARD_CELERY_FOLLOW_UPS does not name")
    args, kwargs = call.get("args") or [], call.get("kwargs") or {}
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise MisfitError("a call of the chain has odd arguments")
    kept_id = {"task_id": task_id} if _is_task_id(task_id) else {}
    return {
        "task": call["task"],
        "args": args,
        "kwargs": kwargs,
        "options": {"queue": options["queue"], **kept_id},
        "subtask_type": None,
        "immutable": call.get("immutable") is True,
    }


def _is_result_wanted(headers: Mapping[str, Any]) -> bool:
    """Whether a Celery application asks for the result: it says false, or null for the default."""
    return "ignore_result" in headers and headers["ignore_result"] in (False, None)


def job_id_in(envelope: Envelope) -> str:
    """Find the job that a misfit's producer waits for; empty if the message does not tell."""
    headers = envelope.headers if isinstance(envelope.headers, dict) else {}
    found = (_job_id_in_body(envelope.body), headers.get("id"), envelope.correlation_id)
    return next((job_id for job_id in found if _is_job_id(job_id)), "")


def _job_id_in_body(body: Any) -> Any:
    try:
        text = _text_of(body)
        check_size(text)
        value = json.loads(text)
        while isinstance(value, list):
            value = value[0]
        return value.get("job_id")
    except Exception:  # noqa: BLE001 - it is only looked for
        return None


def _is_job_id(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and _JOB_ID.fullmatch(value) is not None


def _is_plain(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and _PLAIN.fullmatch(value) is not None


def _is_task_id(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and _TASK_ID.fullmatch(value) is not None


def _finite(value: Any) -> float:
    return value if isinstance(value, float) and math.isfinite(value) else 0.0
