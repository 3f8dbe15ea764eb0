"""Admission gate: admit only messages whose raw envelope is a plain call of one of our tasks.

kombu and Celery act on far more of an envelope than a job needs: compression, eta, expires, time
limits, callbacks, chains, JSON types of their own. Here the envelope is taken apart with the
standard library (``envelopes.py``). An admitted call is handed on in a new envelope that holds
nothing else of the old one (``calls.py``); any other message becomes a call of the task that sets
it aside. Neither reading nor rewriting raises, whatever the content.
"""

import json
import math
import re
import time
from collections.abc import Collection, Mapping
from typing import Any, Final

from labelyard.ledger.set_aside import MAX_KEPT_BYTES
from labelyard.outgoing import (
    DELIVER_TASK,
    JOB_TASKS,
    NO_CANVAS,
    PUBLISHED_AT_HEADER,
    RETURNED_BY_HEADER,
)
from labelyard_worker.broker.calls import NO_FOLLOW_UPS, SET_ASIDE_TASK, RefusedMessage, TaskCall
from labelyard_worker.broker.envelopes import (
    Envelope,
    EnvelopeRefusedError,
    check_size,
    find_job_id,
    is_job_id,
    is_plain,
    is_task_id,
    read_instant,
    read_text,
)

TASKS: Final = frozenset({*JOB_TASKS, DELIVER_TASK})
# An eta so close is now: the clocks of two machines differ by as much.
ETA_NOW_S: Final = 1.0
MAX_REASON_CHARS: Final = 300
CANVAS_PARTS: Final = ("callbacks", "errbacks", "chain", "chord")
MAX_FOLLOW_UPS: Final = 16
UTF8_NAMES: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii", ""})
# Names under which Celery applications may pass the argument.
ARGUMENT_NAMES: Final = ("message", "job")
# As our own client writes it: spares parsing the job twice. The parser has the last word.
_PLAIN_JOB_ID: Final = re.compile(r'\A\{"version":1,"job_id":"[A-Za-z0-9][A-Za-z0-9._-]{0,127}",')
_PLAIN_BODY_START: Final = "[["
_PLAIN_BODY_END: Final = f"],{{}},{NO_CANVAS}]"


def admit(envelope: Envelope, *, queue: str, follow_ups: Collection[str] = ()) -> TaskCall:
    """Return the call that Celery is to run for *envelope*: its own, or the one that sets it aside.

    Args:
        queue: Name of the queue that it came from.
        follow_ups: Calls that may follow in a chain, each as ``task@queue``.
    """
    try:
        return _read_call(envelope, follow_ups)
    except EnvelopeRefusedError as error:
        reason = error.reason
    except Exception as error:  # noqa: BLE001 - no content of a message may get further
        reason = f"the envelope cannot be read ({type(error).__name__})"
    return set_aside_call(envelope, queue=queue, reason=reason)


def set_aside_call(envelope: Envelope, *, queue: str, reason: str) -> TaskCall:
    """Write the call that sets *envelope* aside."""
    job_id = find_job_id(envelope)
    raw = _read_raw(envelope)
    refused = RefusedMessage(
        reason[:MAX_REASON_CHARS], queue, raw[:MAX_KEPT_BYTES], len(raw), job_id
    )
    headers = envelope.headers if isinstance(envelope.headers, dict) else {}
    task_id = headers.get("id")
    return TaskCall(
        task=SET_ASIDE_TASK,
        task_id=task_id if is_task_id(task_id) else (job_id or "unknown"),
        arguments=refused.write_arguments(),
        is_redelivered=envelope.is_redelivered,
        is_result_wanted=_is_result_wanted(headers),
    )


def _read_raw(envelope: Envelope) -> bytes:
    try:
        return envelope.raw()
    except Exception:  # noqa: BLE001 - a message that cannot be written down is still set aside
        return b""


def _read_call(envelope: Envelope, follow_ups: Collection[str]) -> TaskCall:
    if envelope.fault:
        raise EnvelopeRefusedError(envelope.fault)
    headers = envelope.headers
    if not isinstance(headers, dict):
        raise EnvelopeRefusedError("headers are missing or not an object")
    task, task_id = headers.get("task"), headers.get("id")
    if not isinstance(task, str) or task not in TASKS:
        raise EnvelopeRefusedError(f"unknown task; known are {', '.join(sorted(TASKS))}")
    if not is_task_id(task_id):
        raise EnvelopeRefusedError(
            "headers.id is missing, or is not a text of 1 to 255 ASCII characters"
        )
    _check_content(envelope)
    if headers.get("compression"):
        raise EnvelopeRefusedError("headers.compression is set: bodies are sent uncompressed")
    _check_times(headers)
    argument, chain = _split_body(read_text(envelope.body), follow_ups)
    returned_by = headers.get(RETURNED_BY_HEADER)
    return TaskCall(
        task=task,
        task_id=task_id,
        arguments=_write_arguments(task, argument, headers),
        published_at=_read_finite(headers.get(PUBLISHED_AT_HEADER)),
        is_redelivered=envelope.is_redelivered,
        returned_by=returned_by if is_plain(returned_by) else "",
        is_result_wanted=_is_result_wanted(headers),
        follow_ups=chain,
    )


def _write_arguments(task: str, argument: str, headers: Mapping[str, Any]) -> str:
    """Write a task's arguments; a job goes on as text, in which kombu finds no types of its own."""
    if task == DELIVER_TASK:
        job_id = json.loads(argument)
        if not is_job_id(job_id):
            raise EnvelopeRefusedError(f"the argument of {DELIVER_TASK} is not a job id")
        return json.dumps([job_id])
    if _PLAIN_JOB_ID.search(argument) is None:
        job = json.loads(argument)
        if not isinstance(job, dict) or not is_job_id(job.get("job_id")):
            raise EnvelopeRefusedError(
                "the argument is not a job with a job_id of 1 to 128 letters, digits, . _ or -"
            )
    expires_at = read_instant(headers.get("expires"), "expires")
    # A lone text is written several times as fast as a list that holds it.
    return f"[{json.dumps(argument)},{'null' if expires_at is None else expires_at}]"


def _check_content(envelope: Envelope) -> None:
    content_type = envelope.content_type
    if content_type == "application/json" and envelope.content_encoding == "utf-8":
        return
    if not isinstance(content_type, str):
        raise EnvelopeRefusedError("content-type is missing or not a text")
    kind, *parameters = (part.strip().lower() for part in content_type.split(";"))
    charsets = [part.partition("=")[2].strip(' "') for part in parameters if part]
    if kind != "application/json" or not UTF8_NAMES.issuperset(charsets):
        raise EnvelopeRefusedError("content-type is not application/json in UTF-8")
    encoding = envelope.content_encoding
    if encoding is not None and str(encoding).strip().lower() not in UTF8_NAMES:
        raise EnvelopeRefusedError("content-encoding is not utf-8")


def _check_times(headers: Mapping[str, Any]) -> None:
    """Refuse a call with a future ETA or a time limit of its own: neither can be honoured."""
    eta = read_instant(headers.get("eta"), "eta")
    if eta is not None and eta > time.time() + ETA_NOW_S:
        raise EnvelopeRefusedError(
            "headers.eta (countdown) is not supported: submit the job when it is due"
        )
    limits = headers.get("timelimit")
    if limits is not None and not (
        isinstance(limits, list) and len(limits) <= 2 and all(limit is None for limit in limits)
    ):
        raise EnvelopeRefusedError(
            "headers.timelimit is not supported: LABELYARD_JOB_TIMEOUT_S limits jobs"
        )


def _split_body(text: str, follow_ups: Collection[str]) -> tuple[str, str]:
    """Find the only argument and the follow-ups, as JSON texts, in a body of message protocol 2."""
    if text.startswith(_PLAIN_BODY_START) and text.endswith(_PLAIN_BODY_END):
        # As our own client writes it. The parser decides whether this is one JSON value.
        return text[len(_PLAIN_BODY_START) : -len(_PLAIN_BODY_END)], NO_FOLLOW_UPS
    try:
        check_size(text)
        body = json.loads(text)
    except EnvelopeRefusedError:
        raise
    except (ValueError, RecursionError) as error:
        raise EnvelopeRefusedError(f"the body is not JSON ({type(error).__name__})") from error
    if not (isinstance(body, list) and len(body) == 3):
        raise EnvelopeRefusedError("the body is not [arguments, keyword arguments, canvas]")
    args, kwargs, canvas = body
    chain = _read_follow_ups(canvas, follow_ups)
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise EnvelopeRefusedError("arguments are not a list, or keyword arguments not an object")
    values = args + [kwargs[name] for name in ARGUMENT_NAMES if name in kwargs]
    if len(values) != 1 or len(args) + len(kwargs) != 1:
        raise EnvelopeRefusedError("the task takes one argument: the job as a JSON object")
    return json.dumps(values[0]), chain


def _read_follow_ups(canvas: Any, allowed: Collection[str]) -> str:
    """Write the calls of a chain anew; any other part of a canvas is refused."""
    if canvas is None:
        return NO_FOLLOW_UPS
    if not isinstance(canvas, dict):
        raise EnvelopeRefusedError("the canvas is not an object")
    names = [name for name, value in canvas.items() if value]
    if not names:
        return NO_FOLLOW_UPS
    calls = canvas.get("chain")
    if names != ["chain"] or not allowed:
        found = ", ".join(name for name in names if name in CANVAS_PARTS) or "its canvas"
        raise EnvelopeRefusedError(f"workers call no other tasks: {found} is set")
    if not isinstance(calls, list) or len(calls) > MAX_FOLLOW_UPS:
        raise EnvelopeRefusedError(f"the chain is not a list of at most {MAX_FOLLOW_UPS} calls")
    return json.dumps([_rewrite_follow_up(call, allowed) for call in calls])


def _rewrite_follow_up(call: Any, allowed: Collection[str]) -> dict[str, Any]:
    """Write a follow-up call: its task, arguments and queue, without its other options."""
    options = call.get("options") if isinstance(call, dict) else None
    if not isinstance(options, dict) or call.get("subtask_type") is not None:
        raise EnvelopeRefusedError("the chain holds something else than plain calls with a queue")
    name, task_id = f"{call.get('task')}@{options.get('queue')}", options.get("task_id")
    if name not in allowed:
        raise EnvelopeRefusedError(
            "the chain holds a call that LABELYARD_CELERY_FOLLOW_UPS does not name"
        )
    args, kwargs = call.get("args") or [], call.get("kwargs") or {}
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise EnvelopeRefusedError("a call of the chain has odd arguments")
    kept_id = {"task_id": task_id} if is_task_id(task_id) else {}
    return {
        "task": call["task"],
        "args": args,
        "kwargs": kwargs,
        "options": {"queue": options["queue"], **kept_id},
        "subtask_type": None,
        "immutable": call.get("immutable") is True,
    }


def _is_result_wanted(headers: Mapping[str, Any]) -> bool:
    """Return whether a Celery application wants the result: ``ignore_result`` is false or null."""
    return "ignore_result" in headers and headers["ignore_result"] in (False, None)


def _read_finite(value: Any) -> float:
    return value if isinstance(value, float) and math.isfinite(value) else 0.0
