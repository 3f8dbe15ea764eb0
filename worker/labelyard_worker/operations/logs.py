"""Log lines are events with fields, written as text or as JSON; callers only name them."""

import json
import logging
import sys
import time
from collections.abc import Mapping
from typing import Any, Literal

NAMES = ("labelyard", "labelyard_worker")


def fields_of(record: logging.LogRecord) -> Mapping[str, Any]:
    """Get the fields that the caller gave as ``extra={"fields": {…}}``."""
    fields = getattr(record, "fields", {})
    return fields if isinstance(fields, Mapping) else {}


class TextFormatter(logging.Formatter):
    """``2026-01-31T12:00:00 info batch_done batch_size=7 model_s=0.021``."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one line, and the traceback behind it if there is one."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(record.created))
        fields = "".join(f" {name}={_short(value)}" for name, value in fields_of(record).items())
        line = f"{at} {record.levelname.lower()} {record.getMessage()}{fields}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


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
            event["traceback"] = self.formatException(record.exc_info)
        return json.dumps(event, default=str)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    is_one_word = text.isprintable() and text and not set(' ="') & set(text)
    return text if is_one_word else json.dumps(text)


def set_up(*, level: str, form: Literal["text", "json"]) -> None:
    """Send our events, and the warnings of everybody else, to standard error."""
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [stream]
    root.setLevel(logging.WARNING)
    for name in NAMES:
        logging.getLogger(name).setLevel(level.upper())
