"""The worker's side of one intake child: its process, its socket and its work."""

import json
import selectors
import socket
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from labelyard_worker.intake.child_process import (
    DecoderProcess,
    FetcherProcess,
    Process,
    is_peer_gone,
)
from labelyard_worker.intake.decoder_child import DecoderSettings
from labelyard_worker.intake.frames import FrameChannel
from labelyard_worker.intake.queue import IntakeRequest
from labelyard_worker.intake.sources.fetcher_settings import FetcherSettings

START_TIMEOUT_S = 60.0

# Files in a decoder's socket at once: it reads the next one without waiting for a busy worker.
MAX_SENT_FILES = 3
# Seconds of decoding beside which the wait for a busy worker is nothing.
LONG_DECODE_S = 0.004


class ChildHandle:
    """One intake child; the intake's loop reads its socket.

    Attributes:
        is_ready: Whether the child has reported that it is ready.
        started_at: When it was started.
    """

    def __init__(self, ours: socket.socket, process: Process, *, max_payload_bytes: int) -> None:
        ours.setblocking(False)
        self.channel = FrameChannel(ours, max_payload_bytes=max_payload_bytes)
        self.process = process
        self.is_ready = False
        self.started_at = time.monotonic()

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    @property
    def is_late(self) -> bool:
        """Return whether the child has exceeded its start timeout."""
        return not self.is_ready and time.monotonic() > self.started_at + START_TIMEOUT_S

    def events(self) -> int:
        """Return the selector events that the child's socket is watched for."""
        writing = selectors.EVENT_WRITE if self.channel.has_unsent else 0
        return selectors.EVENT_READ | writing

    def end(self) -> str:
        """Kill the child, and return its exit code or signal in words."""
        self.channel.close()
        return self.process.end()


@dataclass(slots=True)
class SentFile:
    """A file in a decoder's socket, or being decoded.

    Attributes:
        number: Number of the request.
        request: The request; ``None`` once it was recalled or withdrawn; its answer is
            discarded.
        timeout_s: Seconds that decoding may take.
    """

    number: int
    request: IntakeRequest | None
    timeout_s: float


class DecoderHandle(ChildHandle):
    """A decoder child and the files that were sent to it, oldest first.

    It decodes them in that order, so when it dies or hangs, the image at fault is the first
    that is unanswered.
    """

    def __init__(self, settings: DecoderSettings, *, max_payload_bytes: int) -> None:
        ours, theirs = socket.socketpair()
        try:
            process = DecoderProcess(theirs, settings)
        except BaseException:
            ours.close()
            raise
        super().__init__(ours, process, max_payload_bytes=max_payload_bytes)
        self.sent: deque[SentFile] = deque()
        self.head_since = 0.0
        self.decode_s = 0.0  # of the last image

    @property
    def bulk_depth(self) -> int:
        """Most files in the socket for a bulk one to follow: an interactive one waits for them."""
        return MAX_SENT_FILES - (self.decode_s > LONG_DECODE_S)

    @property
    def has_room(self) -> bool:
        """Return whether another file may be sent."""
        return self.is_ready and len(self.sent) < MAX_SENT_FILES

    def send(self, request: IntakeRequest, *, uri: str, timeout_s: float) -> bool:
        """Send a file; ``False`` if the decoder died while idle: no image is to blame."""
        if not self.sent:
            if is_peer_gone(self.channel.socket):
                return False
            self.head_since = time.monotonic()
        etag = request.etag if request.is_md5 is not False else None
        head = {"id": request.number, "uri": uri, "size": request.size_bytes, "etag": etag}
        self.sent.append(SentFile(request.number, request, timeout_s))
        with suppress(OSError):  # a dead child is noticed when its answer is read
            self.channel.write(head, fd=request.fd)
        return True

    def due_at(self) -> float:
        """Return the time at which the image being decoded times out."""
        return self.head_since + self.sent[0].timeout_s

    def recall_followers(self) -> list[IntakeRequest]:
        """Take back the files queued behind the first."""
        followers = []
        for sent in islice(self.sent, 1, None):
            if sent.request is not None:
                followers.append(sent.request)
                sent.request = None
        return followers

    def has_followers(self) -> bool:
        """Return whether files are queued behind the first."""
        return any(sent.request is not None for sent in islice(self.sent, 1, None))

    def forget(self, request: IntakeRequest) -> bool:
        """Withdraw a file; ``False`` if it was not sent here."""
        for sent in self.sent:
            if sent.request is request:
                sent.request = None
                return True
        return False


class FetcherHandle(ChildHandle):
    """A fetcher and its fetches in flight, by number."""

    def __init__(self, settings: FetcherSettings) -> None:
        ours, theirs = socket.socketpair()
        try:
            self.program = FetcherProcess(theirs, variables=settings.variables)
        except BaseException:
            ours.close()
            raise
        super().__init__(ours, self.program, max_payload_bytes=0)
        self.fetching: dict[int, IntakeRequest] = {}
        self.probing: dict[int, str] = {}  # source, by number
        try:
            # As payload: certificates may be longer than a head.
            self.channel.write({"op": "settings"}, json.dumps(settings.to_json()).encode())
        except BaseException:
            self.end()
            raise

    def send(self, head: dict[str, object]) -> None:
        """Send an order."""
        with suppress(OSError):  # a dead child is noticed when its answer is read
            self.channel.write(head)

    def fetch(self, request: IntakeRequest) -> None:
        """Order a fetch."""
        self.fetching[request.number] = request
        image = request.image
        self.send(
            {
                "op": "fetch",
                "id": request.number,
                "uri": image.uri,
                "etag": image.etag,
                "version_id": image.version_id,
                "known_etag": request.known_etag,
                "known_stamp": request.known_stamp,
                "tenant": request.tenant,
                "is_suspect": bool(request.cut_md5),
            }
        )

    def probe(self, number: int, uri: str, source: str) -> None:
        """Order a probe of a source."""
        self.probing[number] = source
        self.send({"op": "probe", "id": number, "uri": uri})
