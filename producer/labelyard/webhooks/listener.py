"""Receiver of webhooks for development: verifies, forwards, and fails on purpose."""

import http.client
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, Final

from labelyard.errors import ServiceConfigError, WebhookError
from labelyard.webhook_address import WebhookAddress
from labelyard.webhooks.signature import Secrets, secret_keys
from labelyard.webhooks.verification import WebhookPayload, verify

#: A worker's webhooks are smaller: it keeps results below 8 MiB.
MAX_BODY_BYTES: Final = 16 * 1024 * 1024
#: Below LABELYARD_WEBHOOK_TIMEOUT_S, so that a worker gets an answer if what is behind hangs.
FORWARD_TIMEOUT_S: Final = 4.0
READ_TIMEOUT_S: Final = 10.0
REFUSED: Final = 400
TOO_LARGE: Final = 413
BAD_GATEWAY: Final = 502
RECEIVED: Final = 204
# Headers of one connection alone; the rest is passed on.
HOP_BY_HOP: Final = frozenset({"host", "connection", "content-length", "transfer-encoding"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerOptions:
    """Options of a listener.

    Attributes:
        port: 0 takes a free one.
        forward: Address that verified webhooks are passed on to, and whose status is answered.
        failures: Number of verified webhooks, from the first, that are answered with
            *failure_status* and not forwarded.
    """

    host: str = "127.0.0.1"
    port: int = 0
    forward: str | None = None
    failures: int = 0
    failure_status: int = 503


@dataclass(frozen=True, slots=True)
class ReceivedWebhook:
    """One request to the listener, and the answer that it got.

    Attributes:
        payload: ``None`` if it was not verified.
        status: HTTP status of the answer.
        fault: Why it was not verified or not forwarded; empty if it was.
    """

    payload: WebhookPayload | None
    status: int
    fault: str = ""


class WebhookListener:
    """HTTP server that receives webhooks on this machine.

    Attributes:
        url: Address to name in ``deliver.webhook``.
    """

    def __init__(
        self,
        secret: Secrets,
        on_webhook: Callable[[ReceivedWebhook], None],
        options: ListenerOptions | None = None,
    ) -> None:
        """Listen on the port; requests are answered while :meth:`serve` runs.

        Args:
            on_webhook: Called for each request, by one thread at a time.

        Raises:
            ServiceConfigError: The secret or the forward address is malformed, or the port is used.
        """
        options = options or ListenerOptions()
        self._options = options
        self._keys = secret_keys(secret)
        self._forward = None if options.forward is None else _forward_address(options.forward)
        self._on_webhook = on_webhook
        self._failures_left = options.failures
        self._lock = threading.Lock()
        listener = self

        class Handler(WebhookRequest):
            answer = staticmethod(listener._answer)

        try:
            self._server = ThreadingHTTPServer((options.host, options.port), Handler)
        except OSError as error:
            raise ServiceConfigError(
                f"{options.host}:{options.port} cannot be listened on: {error.strerror}"
            ) from error
        self._server.daemon_threads = True
        host = f"[{options.host}]" if ":" in options.host else options.host
        self.url: str = f"http://{host}:{self._server.server_address[1]}/"

    def serve(self) -> None:
        """Answer requests until :meth:`close` or an exception, such as Ctrl-C, ends it."""
        try:
            self._server.serve_forever(poll_interval=0.05)
        finally:
            self._server.server_close()

    def close(self) -> None:
        """End :meth:`serve`, which runs in another thread."""
        self._server.shutdown()

    def _answer(self, headers: Mapping[str, str], body: bytes) -> int:
        try:
            payload = verify(headers, body, self._keys)
        except WebhookError as error:
            received = ReceivedWebhook(None, REFUSED, str(error))
        else:
            received = self._process(payload, headers, body)
        with self._lock:
            self._on_webhook(received)
        return received.status

    def _process(
        self, payload: WebhookPayload, headers: Mapping[str, str], body: bytes
    ) -> ReceivedWebhook:
        with self._lock:
            fails = self._failures_left > 0
            self._failures_left -= fails
        if fails:
            return ReceivedWebhook(payload, self._options.failure_status, "failed on purpose")
        if self._forward is None:
            return ReceivedWebhook(payload, RECEIVED)
        try:
            return ReceivedWebhook(payload, _pass_on(self._forward, headers, body))
        except (OSError, http.client.HTTPException) as error:
            return ReceivedWebhook(payload, BAD_GATEWAY, f"forward: {type(error).__name__}")


class WebhookRequest(BaseHTTPRequestHandler):
    """One request to a listener."""

    timeout: ClassVar[float | None] = READ_TIMEOUT_S
    answer: Callable[[Mapping[str, str], bytes], int]

    def do_POST(self) -> None:
        """Read a bounded body, and answer with the listener's status."""
        length = self.headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()):
            return self._finish(REFUSED)
        if len(length) > len(str(MAX_BODY_BYTES)) or int(length) > MAX_BODY_BYTES:
            return self._finish(TOO_LARGE)
        body = self.rfile.read(int(length))
        return self._finish(type(self).answer(dict(self.headers.items()), body))

    def _finish(self, status: int) -> None:
        self.close_connection = True
        self.send_response(status)
        self.send_header("content-length", "0")
        self.send_header("connection", "close")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Log nothing: the listener prints what it received."""


def _forward_address(text: str) -> WebhookAddress:
    try:
        return WebhookAddress.parse(text)
    except ValueError as error:
        raise ServiceConfigError(f"forward: {error}") from None


def _pass_on(address: WebhookAddress, headers: Mapping[str, str], body: bytes) -> int:
    """Send a webhook on, byte for byte, and return the status of the answer."""
    connect = (
        http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    )
    connection = connect(address.host, address.port, timeout=FORWARD_TIMEOUT_S)
    kept = {name: value for name, value in headers.items() if name.lower() not in HOP_BY_HOP}
    try:
        connection.request("POST", address.target, body=body, headers=kept)
        return connection.getresponse().status
    finally:
        connection.close()
