"""Log lines of a service among the commands: events with fields, as text or as JSON."""

import json
import logging
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal

LogFormat = Literal["text", "json"]
#: Lines of one event in a window; the others are counted, so that a stranger cannot fill a disk.
LINES: Final = 20
WINDOW_S: Final = 60.0


class EventLines(logging.Formatter):
    """Formats a record as one line: time, level, event, fields."""

    def __init__(self, kind: LogFormat) -> None:
        super().__init__()
        self._kind = kind

    def format(self, record: logging.LogRecord) -> str:
        """Write one line, and the traceback behind it if there is one."""
        given = getattr(record, "fields", {})
        fields: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
        level, event = record.levelname.lower(), record.getMessage()
        at = datetime.fromtimestamp(record.created, UTC)
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        if self._kind == "json":
            line = {"at": round(record.created, 3), "level": level, "event": event, **fields}
            return json.dumps(line | ({"traceback": trace} if trace else {}), default=str)
        shown = "".join(f" {name}={_value(value)}" for name, value in fields.items())
        line_text = f"{at.isoformat(timespec='seconds')} {level} {event}{shown}"
        return f"{line_text}\n{trace}" if trace else line_text


class RepeatFilter(logging.Filter):
    """Drops lines of an event that comes too often; the next one that passes has their number."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line is to be written."""
        began, count = self._seen.get(record.msg, (0.0, 0))
        now = time.monotonic()
        if now - began > WINDOW_S:
            if count > LINES:
                fields = getattr(record, "fields", {})
                record.fields = {**fields, "dropped": count - LINES}
            began, count = now, 0
        self._seen[record.msg] = (began, count + 1)
        return count < LINES


def write_log_lines(kind: LogFormat) -> None:
    """Write the events of labelyard's loggers to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(EventLines(kind))
    handler.addFilter(RepeatFilter())
    logger = logging.getLogger("labelyard")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)


def _value(value: Any) -> str:
    text = str(value)
    is_plain = text.isprintable() and " " not in text and text
    return text if is_plain else json.dumps(text)
