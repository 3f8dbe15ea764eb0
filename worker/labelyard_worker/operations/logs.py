"""Log lines are events with fields, written as text or as JSON; callers only name them."""

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
LONGEST_WORDS: Final = 500
QUERY: Final = re.compile(r"(?<=\S)\?[^\s'\"]*=[^\s'\"]*")  # of an address: it may be signed

NAMES = ("labelyard", "labelyard_worker")


def fields_of(record: logging.LogRecord) -> Mapping[str, Any]:
    """Get the fields that the caller gave as ``extra={"fields": {…}}``."""
    fields = getattr(record, "fields", {})
    return fields if isinstance(fields, Mapping) else {}


class TextFormatter(logging.Formatter):
    """``2026-01-31T12:00:00+01:00 info batch_done batch_size=7 model_s=0.021``."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one line, and the traceback behind it if there is one."""
        at = datetime.fromtimestamp(record.created, UTC).astimezone().isoformat(timespec="seconds")
        fields = "".join(f" {name}={_short(value)}" for name, value in fields_of(record).items())
        line = f"{at} {record.levelname.lower()} {record.getMessage()}{fields}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line

    def formatException(self, ei: ExceptionInfo) -> str:  # noqa: N802 - logging's name
        """Format the traceback without the contents of a message."""
        return traceback_of(ei[1])


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one line, the traceback inside it if there is one."""
        event = {
            "at": round(record.created, 3),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
            **fields_of(record),
        }
        if record.exc_info:
            event["traceback"] = traceback_of(record.exc_info[1])
        return json.dumps(event, default=str)


def traceback_of(error: BaseException | None) -> str:
    """Format an error with its causes, each cut to one line without values of the message."""
    parts: list[str] = []
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        frames = "".join(traceback.format_tb(error.__traceback__))
        name = type(error).__name__
        said = words_of(error)
        head = f"Traceback (most recent call last):\n{frames}" if frames else ""
        parts.append(f"{head}{name}: {said}" if said else f"{head}{name}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n\nwhich led to\n\n".join(reversed(parts))


def words_of(error: BaseException) -> str:
    """Return the text of *error* in one line, without a message's values and signed addresses."""
    if isinstance(error, ValidationError):  # its own words quote what was refused
        return str(refusal_of(error).args[0])[:LONGEST_WORDS]
    line = str(error).strip().partition("\n")[0]
    return QUERY.sub("?…", line)[:LONGEST_WORDS]


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    is_one_word = text.isprintable() and text and not set(' ="') & set(text)
    return text if is_one_word else json.dumps(text)


def begin(*, level: str, form: Literal["text", "json"]) -> None:
    """Set up the log of a process that is ours alone; with JSON, all that it writes is JSON."""
    if form == "json":
        output.take_over()
        output.adopt_foreign_handlers()
    set_up(level=level, form=form)


def set_up(*, level: str, form: Literal["text", "json"]) -> None:
    """Send our events, and the warnings of everybody else, to standard error."""
    stream = logging.StreamHandler(output.own_stream())
    stream.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [stream]
    root.setLevel(logging.WARNING)
    for name in NAMES:
        logging.getLogger(name).setLevel(level.upper())
