"""Turn all output of a worker's process, also that of libraries, into JSON lines.

Celery prints a banner, libraries warn and bring handlers of their own, and Python prints uncaught
exceptions. With ``LABELYARD_LOG_FORMAT=json`` each of their lines becomes an event, so that
a log collector never meets a line that it cannot parse. Output of native code, which writes to the file
descriptor past Python, stays as it is.
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
MAX_LINE_CHARS: Final = 8192  # characters; the rest of a longer one is dropped


class JsonLines(io.TextIOBase):
    """Text stream that writes each line as an event, unless the line is one already.

    Args:
        original: Stream that the events are written to.
        name: ``stdout`` or ``stderr``, named in the events.
    """

    def __init__(self, original: TextIO, *, name: str) -> None:
        self.original = original
        self._name = name
        self._lock = threading.RLock()  # a signal handler may write while its thread does
        self._unfinished = ""

    def write(self, text: str) -> int:
        """Write the lines that *text* completes, and keep its last, unfinished line."""
        with self._lock:
            *lines, unfinished = (self._unfinished + text.replace("\r", "\n")).split("\n")
            self._unfinished = unfinished[:MAX_LINE_CHARS]
            for line in lines:
                self._write_line(line)
        return len(text)

    def _write_line(self, line: str) -> None:
        line = line.strip()[:MAX_LINE_CHARS]
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
        """Flush the finished lines."""
        self.original.flush()

    def finish(self) -> None:
        """Write the unfinished line."""
        self.write("\n")

    def fileno(self) -> int:
        """Return the descriptor of the original stream."""
        return self.original.fileno()

    def isatty(self) -> bool:
        """Return False, so that no library writes colours."""
        return False

    def writable(self) -> bool:
        """Return True."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Return UTF-8; the JSON written to the original is ASCII."""
        return "utf-8"


def _is_event(line: str) -> bool:
    if not line.startswith("{"):
        return False
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def find_event_stream() -> TextIO:
    """Return the stream for lines that are already events."""
    return sys.stderr.original if isinstance(sys.stderr, JsonLines) else sys.stderr


def capture_output() -> None:
    """Turn each line that this process writes from now on into an event; safe to call again."""
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


def remove_library_handlers() -> None:
    """Remove the terminal handlers of libraries, so that their log records reach ours."""
    for logger in list(logging.Logger.manager.loggerDict.values()):
        if not isinstance(logger, logging.Logger):
            continue
        for handler in logger.handlers[:]:
            if type(handler) is logging.StreamHandler:
                logger.removeHandler(handler)
                logger.propagate = True


def replace_celery_banner(worker: Any) -> None:
    """Log the banner and the last lines that Celery prints past ``sys.stdout``."""
    from celery.apps import worker as celery_worker

    worker.quiet = True
    celery_worker.safe_say = _log_celery_output


def _log_celery_output(message: str, f: Any = None) -> None:  # noqa: ARG001 - Celery's stream
    log.warning("celery_says", extra={"fields": {"text": str(message).strip()[:MAX_LINE_CHARS]}})


def dump_stacks(write: Callable[[Any], None]) -> None:
    """Log the stacks that *write* dumps as one event.

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
