"""Requests of a run's source through boto3: repeated for a while, with errors that are ours."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

from labelyard_worker.intake.storage_away import StorageAwayError
from labelyard_worker.runs.sources.plan_parts import RunSourceError

Answer = TypeVar("Answer")

#: Seconds before each further attempt; boto3 repeats a request by itself as well.
PAUSES_S: Final = (0.2, 1.0)
CHANGED: Final = "it was changed or deleted while it was read: start a new run"
# Answers that the same request would get again.
REFUSALS: Final = {
    "NoSuchKey": "there is no such object",
    "404": "there is no such object",
    "NoSuchBucket": "there is no such bucket",
    "AccessDenied": "the worker may not read it",
    "403": "the worker may not read it",
    "PreconditionFailed": CHANGED,
    "412": CHANGED,
    "InvalidRange": CHANGED,
}


def request(send: Callable[[], Answer], *, uri: str) -> Answer:
    """Send a request, again after a pause if storage gives no usable answer.

    Raises:
        RunSourceError: Storage refuses the request.
        StorageAwayError: Storage gave no usable answer to any attempt.
    """
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

    for pause_s in (*PAUSES_S, None):
        try:
            return send()
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in REFUSALS:
                raise RunSourceError(f"{uri}: {REFUSALS[code]}") from error
            reason, cause = code, error
        except (BotoCoreError, HTTPClientError, OSError) as error:
            reason, cause = type(error).__name__, error  # type: ignore[assignment]
        if pause_s is None:
            raise StorageAwayError(uri, reason) from cause
        time.sleep(pause_s)
    raise AssertionError("the last attempt returns or raises")
