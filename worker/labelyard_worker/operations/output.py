"""Turn everything that a worker's process writes into JSON lines, whoever writes it.

Celery prints a banner, libraries warn and bring handlers of their own, and Python prints what
nobody caught. With ``LABELYARD_LOG_FORMAT=json`` each of their lines becomes an event, so that
a log collector never meets a line that it cannot parse. What native code writes to the file
descriptor itself, past Python, stays as it is.
"""

import atexit
import io
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, TextIO

log = logging.getLogger(__name__)

STREAMS: Final = ("stdout", "stderr")
LONGEST_LINE: Final = 8192  # characters; the rest of a longer one is dropped


class JsonLines(io.TextIOBase):
    """A text stream that writes each line as an event, unless the line is one already.

    Args:
        original: Where the events go.
        name: ``stdout`` or ``stderr``, named in the events.
    """

    def __init__(self, original: TextIO, *, name: str) -> None:
        self.original = original
        self._name = name
        self._lock = threading.RLock()  # a signal handler may write while its thread does
        self._begun = ""

    def write(self, text: str) -> int:
        """Take *text*, and write the lines that it ends."""
        with self._lock:
            *lines, begun = (self._begun + text.replace("\r", "\n")).split("\n")
            self._begun = begun[:LONGEST_LINE]
            for line in lines:
                self._write_line(line)
        return len(text)

    def _write_line(self, line: str) -> None:
        line = line.strip()[:LONGEST_LINE]
        if line:
            self.original.write(f"{line if _is_event(line) else self._as_event(line)}\n")
            self.original.flush()

    def _as_event(self, line: str) -> str:
        level = "info" if self._name == "stdout" else "warning"
        at = round(time.time(), 3)
        return json.dumps(
            {"at": at, "level": level, "event": "output", "logger": self._name, "text": line}
        )

    def flush(self) -> None:
        """Flush the lines that have ended."""
        self.original.flush()

    def finish(self) -> None:
        """End the line that was begun."""
        self.write("\n")

    def fileno(self) -> int:
        """Return the descriptor of the original, for those who need one."""
        return self.original.fileno()

    def isatty(self) -> bool:
        """Return False: nobody looks at it, so nobody needs colours."""
        return False

    def writable(self) -> bool:
        """Return True."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Return UTF-8: JSON is ASCII, whatever is written here."""
        return "utf-8"


def _is_event(line: str) -> bool:
    if not line.startswith("{"):
        return False
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def own_stream() -> TextIO:
    """Return the stream for lines that are events already."""
    return sys.stderr.original if isinstance(sys.stderr, JsonLines) else sys.stderr


def take_over() -> None:
    """Have every line that this process writes become an event, from now on; once is enough."""
    if isinstance(sys.stderr, JsonLines):
        return
    for name in STREAMS:
        stream = JsonLines(getattr(sys, name), name=name)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
        atexit.register(stream.finish)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    sys.unraisablehook = lambda raised: _log_uncaught(
        raised.exc_type, raised.exc_value, raised.exc_traceback
    )
    threading.excepthook = lambda raised: _log_uncaught(
        raised.exc_type, raised.exc_value, raised.exc_traceback
    )


def _log_uncaught(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    """Log an uncaught exception as one event."""
    if kind is SystemExit:
        return  # it ends a thread, silently, as Python has it
    if error is None:
        error = kind()
    log.critical(
        "uncaught", exc_info=(kind, error, trace), extra={"fields": {"error": kind.__name__}}
    )


def adopt_foreign_handlers() -> None:
    """Remove the terminal handlers of libraries, so that their log records reach ours."""
    for logger in list(logging.Logger.manager.loggerDict.values()):
        if not isinstance(logger, logging.Logger):
            continue
        for handler in logger.handlers[:]:
            if type(handler) is logging.StreamHandler:
                logger.removeHandler(handler)
                logger.propagate = True


def quieten_celery(worker: Any) -> None:
    """Replace the banner and the farewell that Celery prints past ``sys.stdout``."""
    from celery.apps import worker as celery_worker

    worker.quiet = True
    celery_worker.safe_say = _log_saying


def _log_saying(message: str, f: Any = None) -> None:  # noqa: ARG001 - the stream that Celery means
    log.warning("celery_says", extra={"fields": {"text": str(message).strip()[:LONGEST_LINE]}})


def dump_stacks(write: Callable[[Any], None]) -> None:
    """Have *write* dump stacks into a file, and log them as one event.

    Args:
        write: Called with a file that has a descriptor, as ``faulthandler`` wants it.
    """
    if not isinstance(sys.stderr, JsonLines):
        write(sys.stderr)
        sys.stderr.flush()
        return
    with os.fdopen(os.memfd_create("stacks"), "w+b") as file:
        write(file)
        file.seek(0)
        text = file.read().decode(errors="replace")
    log.critical("stacks", extra={"fields": {"text": text}})
