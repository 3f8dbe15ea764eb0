"""The worker's side of a source's reader: orders lines, and notices that it died or hangs."""

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Final, Self

from labelyard.errors import TransientError
from labelyard_worker.intake.child_process import describe_exit, fetcher_environment
from labelyard_worker.intake.frames import Frame, FrameChannel, MalformedFrameError
from labelyard_worker.intake.sources.s3_settings import S3Settings
from labelyard_worker.intake.storage_away import StorageAwayError
from labelyard_worker.runs.sources.plan_parts import (
    MAX_PART_BYTES,
    Checkpoint,
    PlanPart,
    RunSourceError,
)
from labelyard_worker.runs.sources.run_sources import SourceForm

READER: Final = "labelyard_worker.runs.sources.reader_child"
VARIABLES: Final = ("AWS_", "BOTO_CONFIG")
CHECK_EVERY_S: Final = 0.5
#: Longest that a reader may be silent; a listing whose pattern matches nothing is, for a while.
MAX_SILENCE_S: Final = 900.0


class ReaderDiedError(TransientError):
    """The process that reads the run's source died or hung."""

    code = "run_source_reader_died"


@dataclass(frozen=True)
class SourceAddress:
    """A source of lines, as :class:`SourceOpener` opens it."""

    uri: str
    form: SourceForm
    columns: tuple[str, ...] = ()


class ReaderProcess:
    """A source that is read in a process of its own; see ``LineSource``.

    Parsing takes a whole core and a hundred megabytes, which the worker's threads are spared,
    and a file that crashes its parser ends the reader alone.
    """

    def __init__(
        self,
        address: SourceAddress,
        *,
        settings: S3Settings,
        checkpoint: Checkpoint | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Start the reader, and have it open the source behind *checkpoint*.

        Args:
            check: Raises if nobody wants the lines any more; called while the reader works.

        Raises:
            RunSourceError: The source cannot be read.
            StorageAwayError: Storage gave no usable answer.
            ReaderDiedError: The reader died or hung.
        """
        self._check = check
        ours, theirs = socket.socketpair()
        self._channel = FrameChannel(ours, max_payload_bytes=2 * MAX_PART_BYTES)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-P", "-m", READER, str(theirs.fileno()), str(os.getpid())],
                env=fetcher_environment(VARIABLES),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # no Ctrl-C, and no signal to the worker's group
            )
        order = {**asdict(address), "settings": settings.to_json(), "checkpoint": checkpoint}
        try:
            self._ask({"op": "open"}, json.dumps(order).encode())
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Return the source."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the reader."""
        self.close()

    @property
    def pid(self) -> int:
        """Process id of the reader."""
        return self._process.pid

    def take(self, max_lines: int) -> PlanPart | None:
        """Return the next lines; see ``LineSource.take``.

        Raises:
            ReaderDiedError: The reader died or hung.
        """
        frame = self._ask({"op": "take", "max_lines": max_lines})
        head: dict[str, Any] = frame.head
        if head["op"] == "end":
            return None
        return PlanPart(
            first_line=head["first_line"],
            lines=head["lines"],
            images=head["images"],
            body=frame.payload,
            checkpoint=head["checkpoint"],
        )

    def close(self) -> None:
        """End the reader."""
        self._channel.close()
        self._process.kill()
        self._process.wait()

    def _ask(self, head: dict[str, Any], payload: bytes = b"") -> Frame:
        """Send an order, and wait for its answer."""
        try:
            self._channel.write(head, payload)
            self._wait()
            frame = self._channel.read()
        except (EOFError, OSError, MalformedFrameError) as error:
            raise self._death() from error
        if frame is None:
            raise self._death()
        if frame.head["op"] == "refused":
            raise RunSourceError(str(frame.head["reason"]))
        if frame.head["op"] == "storage_away":
            raise StorageAwayError(str(frame.head["uri"]), str(frame.head["reason"]))
        return frame

    def _wait(self) -> None:
        """Wait until the reader answers, or is gone."""
        until = time.monotonic() + MAX_SILENCE_S
        poll = select.poll()
        poll.register(self._channel.socket, select.POLLIN)
        while not poll.poll(CHECK_EVERY_S * 1000):
            self._check()
            if time.monotonic() > until:
                raise ReaderDiedError(f"no answer for {MAX_SILENCE_S:.0f} s")

    def _death(self) -> ReaderDiedError:
        """Return the error of a reader that is gone."""
        self._process.kill()
        return ReaderDiedError(describe_exit(self._process.wait()))
