"""Log formats: each line is an event with fields, written as text or as JSON."""

import json
import logging
import re
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Literal

from pydantic import ValidationError

from labelyard.messages import refusal_of
from labelyard_worker.operations import output

ExceptionInfo = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
)
MAX_TEXT_CHARS: Final = 500
QUERY: Final = re.compile(r"(?<=\S)\?[^\s'\"]*=[^\s'\"]*")  # of an address: it may be signed

NAMES = ("labelyard", "labelyard_worker")


def read_fields(record: logging.LogRecord) -> Mapping[str, Any]:
    """Return the fields that the caller passed as ``extra={"fields": {…}}``."""
    fields = getattr(record, "fields", {})
    return fields if isinstance(fields, Mapping) else {}


class TextFormatter(logging.Formatter):
    """Text format: ``2026-01-31T12:00:00+01:00 info batch_done batch_size=7 model_s=0.021``."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one line, and the traceback behind it if there is one."""
        at = datetime.fromtimestamp(record.created, UTC).astimezone().isoformat(timespec="seconds")
        fields = "".join(
            f" {name}={_format_value(value)}" for name, value in read_fields(record).items()
        )
        line = f"{at} {record.levelname.lower()} {record.getMessage()}{fields}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line

    def formatException(self, ei: ExceptionInfo) -> str:  # noqa: N802 - logging's name
        """Format the traceback without the contents of a message."""
        return format_traceback(ei[1])


class JsonFormatter(logging.Formatter):
    """JSON format: one object for each line."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one line, the traceback inside it if there is one."""
        event = {
            "at": round(record.created, 3),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
            **read_fields(record),
        }
        if record.exc_info:
            event["traceback"] = format_traceback(record.exc_info[1])
        return json.dumps(event, default=str)


def format_traceback(error: BaseException | None) -> str:
    """Format an error with its causes, each cut to one line without values of the message."""
    parts: list[str] = []
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        frames = "".join(traceback.format_tb(error.__traceback__))
        name = type(error).__name__
        text = redact(error)
        head = f"Traceback (most recent call last):\n{frames}" if frames else ""
        parts.append(f"{head}{name}: {text}" if text else f"{head}{name}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n\nwhich led to\n\n".join(reversed(parts))


def redact(error: BaseException) -> str:
    """Return the text of *error* in one line, without a message's values and signed addresses."""
    if isinstance(error, ValidationError):  # its own text quotes the refused values
        return str(refusal_of(error).args[0])[:MAX_TEXT_CHARS]
    line = str(error).strip().partition("\n")[0]
    return QUERY.sub("?…", line)[:MAX_TEXT_CHARS]


def _format_value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    is_one_word = text.isprintable() and text and not set(' ="') & set(text)
    return text if is_one_word else json.dumps(text)


def set_up_process(*, level: str, form: Literal["text", "json"]) -> None:
    """Set up the log of a worker's process; with JSON, all of its output is JSON."""
    if form == "json":
        output.capture_output()
        output.remove_library_handlers()
    set_up(level=level, form=form)


def set_up(*, level: str, form: Literal["text", "json"]) -> None:
    """Send our events, and the warnings of libraries, to standard error."""
    stream = logging.StreamHandler(output.find_event_stream())
    stream.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [stream]
    root.setLevel(logging.WARNING)
    for name in NAMES:
        logging.getLogger(name).setLevel(level.upper())
