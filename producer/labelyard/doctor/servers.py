"""Reach the Redis servers: the ledger, the broker and the cache of embeddings."""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from redis.retry import Retry

from labelyard.doctor.examination import ANSWER_S, describe
from labelyard.doctor.report import Finding, FindingKind, Severity
from labelyard.doctor.settings import DoctorSettings
from labelyard.queues import is_amqp
from labelyard.redis_connections import connection_options, socket_timeouts

PINGS: Final = 3
SLOW_S: Final = 0.1

REDIS_REACHED: Final = FindingKind(
    "redis_reached", "redis", Severity.OK, "The {role} at {place} answers in {ms:.1f} ms."
)
REDIS_UNREACHABLE: Final = FindingKind(
    "redis_unreachable",
    "redis",
    Severity.SERIOUS,
    "The {role} at {place} gave no usable answer: {why}.",
    "Start that server, open the way to it, or set {setting} to its address.",
)
REDIS_LOGIN_REFUSED: Final = FindingKind(
    "redis_login_refused",
    "redis",
    Severity.SERIOUS,
    "The {role} at {place} refused user or password: {why}.",
    "Set {setting} to redis://user:password@host:port/database with the right ones.",
)
REDIS_DATABASE_REFUSED: Final = FindingKind(
    "redis_database_refused",
    "redis",
    Severity.SERIOUS,
    "The {role} at {place} refused database {database}: {why}.",
    "Set {setting} to an address that ends in the number of a database that exists, such as /0; "
    "Redis Cluster, which has database 0 alone, cannot be used.",
)
REDIS_SLOW: Final = FindingKind(
    "redis_slow",
    "redis",
    Severity.WARNING,
    "The {role} at {place} takes {ms:.0f} ms for one answer; a job needs about ten.",
    "Move the server into the same network, or look for slow commands of others: "
    "redis-cli --latency, SLOWLOG GET.",
)
EMBEDDINGS_UNREACHABLE: Final = FindingKind(
    "embeddings_unreachable",
    "redis",
    Severity.WARNING,
    "The cache of embeddings at {place} gave no usable answer: {why}.",
    "Start that server, set LABELYARD_EMBEDDINGS_URL to its address, or unset the variable: "
    "workers go on without it, and compute each embedding again.",
)
KINDS: Final = (
    REDIS_REACHED,
    REDIS_UNREACHABLE,
    REDIS_LOGIN_REFUSED,
    REDIS_DATABASE_REFUSED,
    REDIS_SLOW,
    EMBEDDINGS_UNREACHABLE,
)


@dataclass(frozen=True, slots=True)
class RedisRole:
    """Role that a Redis has for labelyard.

    Attributes:
        name: Noun for sentences: ``ledger``, ``broker`` or ``cache of embeddings``.
        setting: Variable that its address comes from.
    """

    name: str
    setting: str
    url: str

    @property
    def place(self) -> str:
        """Host, port and database, without user and password."""
        parts = urlsplit(self.url)
        return f"{parts.hostname or 'localhost'}:{parts.port or 6379}/{self.database}"

    @property
    def database(self) -> str:
        """Number of the database, as in the address."""
        return urlsplit(self.url).path.strip("/") or "0"

    @property
    def user(self) -> str:
        """User that connects."""
        return urlsplit(self.url).username or "default"

    @property
    def keeps_jobs(self) -> bool:
        """Whether jobs or their messages are in it, and not a cache."""
        return self.setting != "LABELYARD_EMBEDDINGS_URL"


def redis_roles(settings: DoctorSettings) -> list[RedisRole]:
    """List the roles that a Redis has in this installation."""
    roles = [RedisRole("ledger", "LABELYARD_LEDGER_URL", settings.ledger_url)]
    if not is_amqp(settings.broker_url):
        roles.append(RedisRole("broker", "LABELYARD_BROKER_URL", settings.broker_url))
    if settings.embeddings_url:
        url = settings.embeddings_url
        roles.append(RedisRole("cache of embeddings", "LABELYARD_EMBEDDINGS_URL", url))
    return roles


def open_client(role: RedisRole, **options: Any) -> "redis.Redis":
    """Open a client that waits at most ANSWER_S seconds, and does not retry.

    Raises:
        ServiceConfigError: redis-py cannot connect to such an address.
    """
    made: dict[str, Any] = connection_options(
        role.url,
        setting=role.setting,
        decode_responses=True,
        retry=Retry(NoBackoff(), 0),
        **socket_timeouts(ANSWER_S),
        **options,
    )
    return redis.Redis(connection_pool=redis.ConnectionPool(**made))


def check_answers(role: RedisRole, client: "redis.Redis") -> Iterator[Finding]:
    """Measure how fast a Redis answers; a serious finding means that it cannot be used."""
    try:
        seconds = min(_ping_s(client) for _ in range(PINGS))
    except (RedisError, OSError, UnicodeError) as error:
        yield _refusal(role, error)
        return
    yield REDIS_REACHED.at(role=role.name, place=role.place, ms=1000 * seconds)
    if seconds > SLOW_S:
        yield REDIS_SLOW.at(role=role.name, place=role.place, ms=1000 * seconds)


def _ping_s(client: "redis.Redis") -> float:
    started_at = time.perf_counter()
    with suppress(NoPermissionError):  # an answer; rights are checked elsewhere
        client.ping()
    return time.perf_counter() - started_at


def _refusal(role: RedisRole, error: Exception) -> Finding:
    values: dict[str, Any] = {"role": role.name, "place": role.place, "setting": role.setting}
    values |= {"why": describe(error), "database": role.database}
    if not role.keeps_jobs:
        return EMBEDDINGS_UNREACHABLE.at(**values)
    text = str(error)
    if isinstance(error, AuthenticationError) or "NOAUTH" in text or "WRONGPASS" in text:
        return REDIS_LOGIN_REFUSED.at(**values)
    if "DB index" in text or "SELECT is not allowed" in text:
        return REDIS_DATABASE_REFUSED.at(**values)
    return REDIS_UNREACHABLE.at(**values)
