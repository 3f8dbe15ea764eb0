"""The ingest service: notifications of object storage in, jobs out, and an answer for the sender."""

import asyncio
import base64
import binascii
import hmac
import ipaddress
import logging
import math
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from labelyard.async_client import AsyncClient
from labelyard.errors import (
    InvalidMessageError,
    LabelyardError,
    QueueFullError,
    ServiceConfigError,
    TenantQuotaError,
)
from labelyard.ingest import sns
from labelyard.ingest.active_rules import ActiveRules, Answer, find_labels
from labelyard.ingest.counters import CONTENT_TYPE, IngestCounters
from labelyard.ingest.http_messages import RequestHead, SenderAnswer
from labelyard.ingest.http_server import HttpServer
from labelyard.ingest.notifications import Notification, read_notification
from labelyard.ingest.rule_file import read_rule_file
from labelyard.loops import ConnectionsByLoop
from labelyard.settings import ClientSettings

log: logging.Logger = logging.getLogger(__name__)

PATH: Final = "/ingest"
#: Seconds after which a sender should try again.
RETRY_BUSY_S: Final = 1
RETRY_AWAY_S: Final = 2
RETRY_FULL_S: Final = 5
MIN_SECRET_CHARS: Final = 16
#: Events in memory from which on requests get 503; the running ones may add their own.
MAX_WAITING_EVENTS: Final = 10_000


class IngestService:
    """Receives notifications over HTTP and submits jobs, until SIGTERM or SIGINT.

    Attributes:
        counters: What it has done so far.
        port: Port that it listens on, once :meth:`run` has started it.
    """

    def __init__(
        self,
        rules_path: Path,
        settings: ClientSettings,
        *,
        host: str,
        port: int,
        confirm: Callable[[str], None] = sns.confirm,
    ) -> None:
        """Check the settings.

        Args:
            rules_path: The rule file; read at the start and at each SIGHUP.
            port: Port to listen on; 0 lets the system choose.
            confirm: Confirms a subscription of SNS at an address.

        Raises:
            ServiceConfigError: There is no secret, or one is short.
        """
        check_secrets(settings.ingest_secret, host=host)
        self.counters: IngestCounters = IngestCounters()
        self.port: int = port
        self._host = host
        self._rules_path = rules_path
        self._settings = settings
        self._secrets = [one.encode() for one in settings.ingest_secret]
        self._confirm = confirm
        self._active: ActiveRules | None = None
        self._stopping = asyncio.Event()
        self._reloads: set[asyncio.Task[None]] = set()
        self._reload_lock = asyncio.Lock()

    async def run(self, *, on_ready: Callable[[], None] = lambda: None) -> None:
        """Serve until :meth:`stop`; running requests are answered first.

        Raises:
            ServiceConfigError: The rule file is refused.
            UnknownLabelSetError: A rule names a label set that is not registered.
            LedgerUnavailableError: The ledger gave no answer at the start.
        """
        self._connections = ConnectionsByLoop(self._settings)
        async with AsyncClient(self._settings) as client:
            self._client = client
            self._ledger = (await self._connections.here()).ledger
            self._active = await self._load()
            server = HttpServer(
                self._answer,
                check=self._check,
                limits=lambda: self._rules.rules.limits,
                counters=self.counters,
            )
            try:
                self.port = await server.start(self._host, self.port)
                fields = {"host": self._host, "port": self.port, "path": PATH}
                log.info("ingest_started", extra={"fields": fields})
                on_ready()
                await self._stopping.wait()
                await self._drain(server)
            finally:
                await server.close(drain_s=0)
                await self._rules.abort()
                await self._connections.close_here()

    def stop(self) -> None:
        """End :meth:`run`, once running requests have their answers."""
        self._stopping.set()

    def reload(self) -> None:
        """Read the rule file again; a refused one leaves the rules as they are."""
        task = asyncio.get_running_loop().create_task(self._reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    def handle_signals(self) -> None:
        """Stop at SIGTERM and SIGINT, reload at SIGHUP; for the loop of a main thread."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self.reload)

    @property
    def _rules(self) -> ActiveRules:
        if self._active is None:  # pragma: no cover - run() loads them first
            raise ServiceConfigError("the service has not been started")
        return self._active

    async def _load(self) -> ActiveRules:
        rules = await asyncio.to_thread(read_rule_file, self._rules_path)
        labels = await find_labels(rules, self._client)
        active = ActiveRules(
            rules, labels=labels, client=self._client, ledger=self._ledger, counters=self.counters
        )
        active.start()
        log.info("ingest_rules_loaded", extra={"fields": {"rules": len(rules.rules)}})
        return active

    async def _reload(self) -> None:
        async with self._reload_lock:
            before = self._rules
            try:
                self._active = await self._load()
            except LabelyardError as error:
                self.counters.note_reload("refused")
                fields = {"code": error.code, "reason": str(error.args[0])}
                log.error("ingest_rules_refused", extra={"fields": fields})  # noqa: TRY400
                return
            self.counters.note_reload("done")
            await before.close()

    async def _drain(self, server: HttpServer) -> None:
        drain_s = self._rules.rules.limits.drain_s
        log.info("ingest_draining", extra={"fields": {"running": self.counters.running}})
        self._rules.hurry()
        await server.close(drain_s=drain_s)
        for task in self._reloads:
            task.cancel()
        await asyncio.gather(*self._reloads, return_exceptions=True)
        log.info("ingest_stopped", extra={"fields": {"jobs": self.counters.events("job")}})

    def _check(self, head: RequestHead) -> SenderAnswer | None:
        """Refuse a request before its body is read."""
        if head.path in {"/live", "/ready", "/metrics"}:
            return None if head.method in {"GET", "HEAD"} else _refusal(405, "use GET")
        if head.path != PATH and not head.path.startswith(f"{PATH}/"):
            return _refusal(HTTPStatus.NOT_FOUND, f"notifications go to {PATH}")
        if head.method not in {"POST", "GET", "HEAD"}:
            return _refusal(HTTPStatus.METHOD_NOT_ALLOWED, "use POST")
        if not self._is_known(head):
            log.warning("ingest_sender_refused", extra={"fields": {"status": 401}})
            return _refusal(HTTPStatus.UNAUTHORIZED, "the secret is missing or wrong")
        is_full = self.counters.waiting >= MAX_WAITING_EVENTS
        if is_full or self.counters.running >= self._rules.rules.limits.max_requests:
            return _refusal(503, "too many requests at once", retry_after_s=RETRY_BUSY_S)
        return None

    def _is_known(self, head: RequestHead) -> bool:
        """Return whether a sender presents a secret: as bearer token, password or part of a path."""
        if not self._secrets:
            return True
        presented = [head.path.removeprefix(PATH).strip("/")]
        scheme, _, value = head.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            presented.append(value.strip())
        elif scheme.lower() == "basic":
            presented.append(_password(value))
        elif value == "":
            presented.append(scheme)  # MinIO sends a token without a scheme as it is
        return any(
            hmac.compare_digest(one.encode("utf-8", "replace"), secret)
            for one in presented
            for secret in self._secrets
        )

    async def _answer(self, head: RequestHead, body: bytes) -> SenderAnswer:
        match head.path:
            case "/live" if self._rules.is_alive:
                return SenderAnswer.of_json(HTTPStatus.OK, {"status": "live"})
            case "/live":
                return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "a rule's queue has ended")
            case "/ready":
                return await self._ready()
            case "/metrics":
                return SenderAnswer(HTTPStatus.OK, self.counters.text(), content_type=CONTENT_TYPE)
        if head.method != "POST":
            return SenderAnswer(HTTPStatus.NO_CONTENT)
        try:
            notification = read_notification(body)
            return await self._receive(notification)
        except InvalidMessageError as error:
            reason = str(error.args[0])
            log.warning("ingest_notification_refused", extra={"fields": {"reason": reason}})
            return _refusal(HTTPStatus.BAD_REQUEST, reason)

    async def _ready(self) -> SenderAnswer:
        if not self._stopping.is_set():
            try:
                await self._ledger.client.ping()
            except Exception:  # noqa: BLE001 - whatever it is, the service is not ready
                log.debug("ingest_ledger_away")
            else:
                return SenderAnswer.of_json(HTTPStatus.OK, {"status": "ready"})
        return _refusal(503, "the ledger is away, or the service stops")

    async def _receive(self, notification: Notification) -> SenderAnswer:
        topic = notification.topic_arn
        if topic and topic not in self._rules.rules.sns_topics:
            log.warning("ingest_topic_refused", extra={"fields": {"topic_arn": topic}})
            return _refusal(HTTPStatus.FORBIDDEN, "sns_topics of the rule file lacks this topic")
        if notification.subscription is not None:
            return await self._subscribe(notification)
        for reason in notification.ignored:
            self.counters.note_event(reason)
        active = self._rules
        answers = [answer for event in notification.events for answer in active.put(event)]
        if answers:
            await asyncio.wait(answers, timeout=active.answer_s)
        return self._summary(notification, answers)

    async def _subscribe(self, notification: Notification) -> SenderAnswer:
        subscription, fields = notification.subscription, {"topic_arn": notification.topic_arn}
        if subscription is None or not subscription.is_new:
            log.warning("ingest_unsubscribed", extra={"fields": fields})
            return SenderAnswer.of_json(HTTPStatus.OK, {"subscription": "ended"})
        url = sns.check_confirm_url(subscription.confirm_url, topic_arn=notification.topic_arn)
        try:
            await asyncio.to_thread(self._confirm, url)
        except sns.ConfirmationFailedError as error:
            fields["reason"] = str(error)
            log.warning("ingest_confirmation_failed", extra={"fields": fields})
            return _refusal(503, "SNS did not confirm", retry_after_s=RETRY_AWAY_S)
        log.info("ingest_subscribed", extra={"fields": fields})
        return SenderAnswer.of_json(HTTPStatus.OK, {"subscription": "confirmed"})

    def _summary(self, notification: Notification, answers: Sequence[Answer]) -> SenderAnswer:
        """Answer 200 with a count of outcomes, or the refusal if there is one."""
        late = [one for one in answers if not one.done()]
        refusals = [error for one in answers if one.done() and (error := one.exception())]
        for one in late:
            one.cancel()
        if refusals:
            return _refusal_of(refusals[0])
        if late:
            return _refusal(503, "no answer in time", retry_after_s=RETRY_AWAY_S)
        counts: Counter[str] = Counter(one.result() for one in answers)
        taken = {"events": len(notification.events), "ignored": len(notification.ignored)}
        return SenderAnswer.of_json(HTTPStatus.OK, {**taken, **counts})


def check_secrets(secrets: Sequence[str], *, host: str) -> None:
    """Check that strangers cannot submit jobs.

    Raises:
        ServiceConfigError: There is no secret on an address that others reach, or one is short.
    """
    if not secrets and not _is_loopback(host):
        raise ServiceConfigError(
            f"labelyard ingest on {host} needs LABELYARD_INGEST_SECRET or --secret, for example "
            "from: openssl rand -hex 24"
        )
    for one in secrets:
        if len(one) < MIN_SECRET_CHARS or not one.isascii() or not one.isprintable() or "/" in one:
            raise ServiceConfigError(
                f"LABELYARD_INGEST_SECRET: write at least {MIN_SECRET_CHARS} ASCII characters "
                "without / for each secret"
            )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _password(value: str) -> str:
    """Return the password of HTTP's basic authentication; empty if there is none."""
    try:
        pair = base64.b64decode(value, validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
    return pair.partition(":")[2]


def _refusal(status: int, text: str, *, retry_after_s: int | None = None) -> SenderAnswer:
    return SenderAnswer.of_json(status, {"error": text}, retry_after_s=retry_after_s)


def _refusal_of(error: BaseException) -> SenderAnswer:
    """Answer with the status after which a sender tries again, and when it should."""
    content: dict[str, Any] = {"error": getattr(error, "code", "internal")}
    match error:
        case TenantQuotaError():
            status, retry_after_s = HTTPStatus.TOO_MANY_REQUESTS, math.ceil(error.retry_after_s)
        case QueueFullError():
            status, retry_after_s = HTTPStatus.TOO_MANY_REQUESTS, RETRY_FULL_S
        case _:
            status, retry_after_s = HTTPStatus.SERVICE_UNAVAILABLE, RETRY_AWAY_S
    return SenderAnswer.of_json(status, content, retry_after_s=max(1, retry_after_s))
