"""Webhook delivery: POST one signed result, with one limit on its time."""

import asyncio
import contextlib
import math
import ssl
import time
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Final, cast

import h11

from labelyard.ledger.deliveries import DeliveryOutcome
from labelyard.ledger.limits import LONGEST_PAUSE_S
from labelyard.webhook_address import WebhookAddress, webhook_id
from labelyard.webhooks.signature import signature_headers
from labelyard_worker.jobs.delivery.permissions import NotPermittedError, WebhookHosts
from labelyard_worker.jobs.delivery.plan import Sendable, Sent
from labelyard_worker.jobs.delivery.signature import webhook_body
from labelyard_worker.spans import trace_headers

READ_BYTES: Final = 16 * 1024
# The status is known before the body: a receiver gets a moment to finish its answer.
BODY_WITHIN_S: Final = 1.0
MAX_BODY_BYTES: Final = 64 * 1024
# Answers that mean a fault of the host, not of this one call.
HOST_FAULTS: Final = frozenset({429, 500, 502, 503, 504})
GONE: Final = 410


@dataclass(frozen=True)
class WebhookSender:
    """Sends results to webhooks.

    Attributes:
        hosts: Receivers that may be called.
        keys: Secrets that sign; without one nothing is called.
        timeout_s: Seconds for one whole call: name, connection, TLS, request, answer.
    """

    hosts: WebhookHosts
    keys: tuple[bytes, ...]
    timeout_s: float
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)

    def host_of(self, job: Sendable) -> str:
        """Return the host of a job's webhook.

        Raises:
            NotPermittedError: The webhook may not be called.
        """
        address = self._address_of(job)
        return f"{address.host}:{address.port}"

    def _address_of(self, job: Sendable) -> WebhookAddress:
        try:
            address = WebhookAddress.parse(job.deliver.webhook or "")
        except ValueError as error:
            raise NotPermittedError(str(error)) from error
        if not self.keys:
            raise NotPermittedError("LABELYARD_WEBHOOK_SECRET is not set")
        self.hosts.check(address)
        return address

    async def send(self, job: Sendable, result: Sent) -> DeliveryOutcome:
        """Call the job's webhook once."""
        address = self._address_of(job)
        body = webhook_body(result)
        headers = {
            **signature_headers(
                body, message_id=webhook_id(job.job_id), at=int(time.time()), keys=self.keys
            ),
            **trace_headers(job.trace),
        }
        try:
            answer = await post(address, body, headers, tls=self.tls, timeout_s=self.timeout_s)
        except TimeoutError:
            reason = f"no answer within {self.timeout_s:g} s"
            return DeliveryOutcome("failed", reason, is_host_fault=True)
        except (OSError, h11.ProtocolError, EOFError, UnicodeError) as error:
            return DeliveryOutcome("failed", type(error).__name__, is_host_fault=True)
        return outcome_of(answer.status_code, retry_after(answer, now=time.time()))


def outcome_of(status: int, retry_in_s: float | None) -> DeliveryOutcome:
    """Map the HTTP status from a receiver to the outcome of the delivery."""
    if 200 <= status < 300:
        return DeliveryOutcome("delivered")
    if status == GONE:
        return DeliveryOutcome("refused", "status 410: the receiver wants no more")
    if 300 <= status < 400:
        return DeliveryOutcome("failed", f"status {status}: redirects are not followed")
    is_host_fault = status in HOST_FAULTS
    return DeliveryOutcome("failed", f"status {status}", retry_in_s, is_host_fault=is_host_fault)


def retry_after(answer: h11.Response, *, now: float) -> float | None:
    """Read ``Retry-After`` as seconds, an hour at most.

    Source:
        RFC 9110, section 10.2.3: seconds or a date.
    """
    text = next((value for name, value in answer.headers if name == b"retry-after"), b"").decode(
        "latin-1"
    )
    if text.isascii() and text.isdigit():
        seconds = float(text[:12])
    else:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - now
        except (ValueError, TypeError, OverflowError):
            return None
    return min(float(LONGEST_PAUSE_S), max(1.0, seconds)) if math.isfinite(seconds) else None


async def post(
    address: WebhookAddress,
    body: bytes,
    headers: dict[str, str],
    *,
    tls: ssl.SSLContext,
    timeout_s: float,
) -> h11.Response:
    """Send one POST on a connection of its own, and return the answer's status and headers.

    No proxy, redirect, cookie or credential is known here: the request goes to the address
    as it stands, wherever its name resolves to.

    Raises:
        TimeoutError: The answer's status and headers were not there in time.
    """
    writer = None
    try:
        async with asyncio.timeout(timeout_s) as limit:
            reader, writer = await asyncio.open_connection(
                address.host, address.port, ssl=tls if address.scheme == "https" else None
            )
            connection = h11.Connection(h11.CLIENT)
            for event in (_request(address, body, headers), h11.Data(body), h11.EndOfMessage()):
                writer.write(connection.send(event) or b"")
            await writer.drain()
            answer = await _read_answer(connection, reader)
        now = asyncio.get_running_loop().time()
        with contextlib.suppress(TimeoutError, OSError, h11.ProtocolError, EOFError):
            async with asyncio.timeout_at(min(limit.when() or now, now + BODY_WITHIN_S)):
                await _read_body(connection, reader)
        return answer
    finally:
        if writer is not None:
            writer.transport.abort()  # closing in order could hang


def _request(address: WebhookAddress, body: bytes, headers: dict[str, str]) -> h11.Request:
    return h11.Request(
        method="POST",
        target=address.target,
        headers=[
            ("host", address.authority),
            ("user-agent", "labelyard"),
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("connection", "close"),
            *headers.items(),
        ],
    )


async def _next_event(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Event:
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await reader.read(READ_BYTES))
    if event is h11.PAUSED:  # 101: the receiver switched to another protocol
        raise EOFError("the receiver speaks no HTTP")
    return cast("h11.Event", event)


async def _read_answer(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Response:
    while True:
        match await _next_event(connection, reader):
            case h11.Response() as answer:
                return answer
            case h11.ConnectionClosed():
                raise EOFError("the receiver closed the connection without an answer")


async def _read_body(connection: h11.Connection, reader: asyncio.StreamReader) -> None:
    size = 0
    while size < MAX_BODY_BYTES:
        event = await _next_event(connection, reader)
        if not isinstance(event, h11.Data):
            return
        size += len(event.data)
