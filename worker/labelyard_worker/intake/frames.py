"""Frames between the worker and its intake children: JSON head, payload, file descriptors.

No message of a child is unpickled or trusted: lengths are bounded before memory is
allocated, and a head is a JSON object whose fields ``child_answers.py`` checks one by one.
"""

import json
import os
import socket
import struct
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

HEADER = struct.Struct("!II")  # bytes of the head, bytes of the payload
MAX_HEAD_BYTES = 64 * 1024
MAX_FDS = 8
SEND_BUFFER_BYTES = 1024 * 1024


class MalformedFrameError(ValueError):
    """The other side sent bytes that are not a frame, or a frame that it may not send."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message.

    Attributes:
        head: Fields of the message.
        payload: Bytes that belong to it, for example pixels.
        fd: File descriptor that came with it, if its head says so; the receiver closes it.
    """

    head: dict[str, Any]
    payload: bytes = b""
    fd: int | None = None


class FrameChannel:
    """One end of a Unix socket that carries frames; blocking or not, as the socket is.

    Args:
        connection: Connected Unix stream socket.
        max_payload_bytes: Largest payload that is accepted.
    """

    def __init__(self, connection: socket.socket, *, max_payload_bytes: int = 0) -> None:
        self.socket = connection
        self._max_payload_bytes = max_payload_bytes
        self._fds: deque[int] = deque()
        self._outbox: deque[tuple[memoryview, int | None]] = deque()
        self._copies: set[int | None] = set()  # of descriptors that wait in the outbox
        self._header = bytearray(HEADER.size)
        self._body = bytearray()
        self._have = 0
        self._head_bytes = -1  # -1 while the header is incomplete
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)

    def read(self) -> Frame | None:
        """Return the next frame; ``None`` if it is not complete yet (non-blocking sockets).

        Raises:
            EOFError: The other side is gone.
            MalformedFrameError: Close the channel; the bytes that follow cannot be read as frames.
        """
        while True:
            target = self._header if self._head_bytes < 0 else self._body
            if self._have < len(target):
                try:
                    count = self._receive(memoryview(target)[self._have :])
                except BlockingIOError:
                    return None
                if count == 0:
                    raise EOFError
                self._have += count
                continue
            self._have = 0
            if self._head_bytes >= 0:
                return self._finish_frame()
            self._begin_body()

    def write(self, head: dict[str, Any], payload: bytes = b"", *, fd: int | None = None) -> None:
        """Send a frame; a non-blocking socket keeps the unsent rest for ``flush``.

        Args:
            fd: Sent along; the caller may close its own copy afterwards.

        Raises:
            OSError: The other side is gone.
        """
        text = json.dumps(head if fd is None else {**head, "has_fd": True}).encode()
        if len(text) > MAX_HEAD_BYTES:
            raise MalformedFrameError("the head is too long")
        start = memoryview(HEADER.pack(len(text), len(payload)) + text)
        if fd is None or not self._outbox:
            self._outbox.append((start, fd))
        else:
            self._outbox.append((start, os.dup(fd)))
            self._copies.add(self._outbox[-1][1])
        if payload:
            self._outbox.append((memoryview(payload), None))
        self.flush()
        if fd is not None and self._outbox and self._outbox[0] == (start, fd):
            self._outbox[0] = (start, os.dup(fd))
            self._copies.add(self._outbox[0][1])

    def flush(self) -> None:
        """Send the unsent rest, as far as the socket takes it."""
        while self._outbox:
            data, fd = self._outbox[0]
            try:
                if fd is None:
                    sent = self.socket.send(data)
                else:
                    sent = socket.send_fds(self.socket, [data], [fd])
            except BlockingIOError:
                return
            if fd in self._copies:
                self._copies.discard(fd)
                close_fd(fd)
            if sent == len(data):
                self._outbox.popleft()
            else:
                self._outbox[0] = (data[sent:], None)

    @property
    def has_unsent(self) -> bool:
        """Return whether ``flush`` must be called once the socket is writable."""
        return bool(self._outbox)

    def close(self) -> None:
        """Close the socket and all unclaimed file descriptors."""
        self.socket.close()
        for fd in (*self._fds, *self._copies):
            close_fd(fd)
        self._fds.clear()
        self._copies.clear()

    def _receive(self, target: memoryview) -> int:
        count, ancillary, _, _ = self.socket.recvmsg_into([target], socket.CMSG_SPACE(4 * MAX_FDS))
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fits = len(data) - len(data) % 4
                self._fds.extend(fd for (fd,) in struct.iter_unpack("i", data[:fits]))
        return count

    def _begin_body(self) -> None:
        head_bytes, payload_bytes = HEADER.unpack(self._header)
        if not 2 <= head_bytes <= MAX_HEAD_BYTES or payload_bytes > self._max_payload_bytes:
            raise MalformedFrameError(f"lengths {head_bytes} and {payload_bytes}")
        self._head_bytes = head_bytes
        self._body = bytearray(head_bytes + payload_bytes)

    def _finish_frame(self) -> Frame:
        body, head_bytes = memoryview(self._body), self._head_bytes
        self._body, self._head_bytes = bytearray(), -1
        try:
            head = json.loads(bytes(body[:head_bytes]))
        except (ValueError, RecursionError) as error:
            raise MalformedFrameError("the head is not JSON") from error
        if not isinstance(head, dict):
            raise MalformedFrameError("the head is not an object")
        fd = None
        if head.pop("has_fd", False):
            if not self._fds:
                raise MalformedFrameError("a file descriptor is missing")
            fd = self._fds.popleft()
        if self._fds and fd is None:
            raise MalformedFrameError("a file descriptor that no frame announced")
        return Frame(head, bytes(body[head_bytes:]), fd)


def close_fd(fd: int | None) -> None:
    """Close a raw file descriptor, if there is one."""
    if fd is not None:
        with suppress(OSError):
            os.close(fd)
