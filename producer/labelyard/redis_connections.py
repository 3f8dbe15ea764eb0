"""Connections to Redis: their options, their pools, and what a refused address means."""

from collections.abc import Mapping
from typing import Any, Final

import redis
import redis.asyncio
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError

from labelyard.errors import ServiceConfigError
from labelyard.forking import abandon, call_in_child
from labelyard.retries import AsyncOneLevelRetry, OneLevelRetry

# A half-open connection must not hang a caller for ever (redis-py waits without end).
SOCKET_OPTIONS: Final[Mapping[str, Any]] = {
    "socket_timeout": 10,
    "socket_connect_timeout": 3,
    "socket_keepalive": True,
    "health_check_interval": 10,
}
#: Connections of one pool. A call holds its connection for one round trip, so that a few
#: serve any number of threads; a call beyond them waits for its turn.
POOL_SIZE: Final = 32
#: Seconds that a call waits for a connection of the pool.
POOL_WAIT_S: Final = 20
#: Retries of a command after a lost connection, with pauses of up to 0.5 s.
RETRIES: Final = 2
_POOL_OPTIONS: Final[Mapping[str, Any]] = {"max_connections": POOL_SIZE, "timeout": POOL_WAIT_S}
# kombu's spelling of what redis-py calls "required", "optional" and "none".
_KOMBU_CERT_REQS: Final = "CERT_"


def socket_timeouts(timeout_s: float) -> dict[str, float]:
    """Return the socket options that bound one answer, and so the connecting, to *timeout_s*."""
    connect_s = min(SOCKET_OPTIONS["socket_connect_timeout"], timeout_s)
    return {"socket_timeout": timeout_s, "socket_connect_timeout": connect_s}


def connection_options(url: str, *, setting: str, **options: Any) -> dict[str, Any]:
    """Read *url* into the arguments of a connection pool for threads.

    Args:
        setting: Name of the variable that *url* comes from, for the error's text.
        options: Options in place of those of :data:`SOCKET_OPTIONS`.

    Raises:
        ServiceConfigError: redis-py cannot connect to such an address.
    """
    return _checked(redis.connection, url, setting, options)


def async_connection_options(url: str, *, setting: str, **options: Any) -> dict[str, Any]:
    """Read *url* into the arguments of a connection pool for asyncio."""
    return _checked(redis.asyncio.connection, url, setting, options)


def _checked(module: Any, url: str, setting: str, options: dict[str, Any]) -> dict[str, Any]:
    """Parse *url*, and make one connection without connecting it: unknown options fail there."""
    try:
        pool_options: dict[str, Any] = {**SOCKET_OPTIONS, **module.parse_url(url), **options}
        reqs = pool_options.get("ssl_cert_reqs")
        if isinstance(reqs, str) and reqs.startswith(_KOMBU_CERT_REQS):
            pool_options["ssl_cert_reqs"] = reqs.removeprefix(_KOMBU_CERT_REQS).lower()
        per_connection = dict(pool_options)
        for name in _POOL_OPTIONS:
            per_connection.pop(name, None)
        connection_class = per_connection.pop("connection_class", module.Connection)
        connection_class(**per_connection)
    except (TypeError, ValueError, AttributeError, RedisError) as error:
        # The error's text is not repeated: it may hold a part of the password.
        raise ServiceConfigError(
            f"{setting}: it is not the address of a Redis, or has an option that redis-py refuses"
        ) from error
    return pool_options


class ForkSafeRedis(redis.Redis):
    """Redis client that replaces its connection pool in a forked child.

    redis-py replaces the connections itself, but waits for a lock that another thread may
    have held at the fork.
    """

    def __init__(self, url: str, *, setting: str, timeout_s: float) -> None:
        """Connect when there is something to do; see :func:`connect_redis`."""
        super().__init__(connection_pool=make_pool(url, setting=setting, timeout_s=timeout_s))
        self.auto_close_connection_pool = True
        self._url = url
        self._setting = setting
        self._timeout_s = timeout_s
        call_in_child(self._renew)

    def _renew(self) -> None:
        abandon(self.connection_pool)
        self.connection_pool: redis.ConnectionPool = make_pool(
            self._url, setting=self._setting, timeout_s=self._timeout_s
        )


def connect_redis(url: str, *, setting: str, timeout_s: float) -> "redis.Redis":
    """Open a client for threads with bounded waits, a bounded pool and a few quick retries.

    Args:
        timeout_s: Longest wait for one answer.

    Raises:
        ServiceConfigError: redis-py cannot connect to such an address.
    """
    return ForkSafeRedis(url, setting=setting, timeout_s=timeout_s)


def make_pool(url: str, *, setting: str, timeout_s: float) -> redis.BlockingConnectionPool:
    """Make the pool of :func:`connect_redis`; it connects when there is something to do."""
    retry = OneLevelRetry(ExponentialBackoff(cap=0.5, base=0.05), RETRIES)
    options = connection_options(
        url, setting=setting, decode_responses=True, retry=retry, socket_timeout=timeout_s
    )
    pool: Any = redis.BlockingConnectionPool
    made: redis.BlockingConnectionPool = pool(**{**_POOL_OPTIONS, **options})
    return made


def connect_redis_async(
    url: str, *, setting: str, timeout_s: float, retries: int = RETRIES
) -> "redis.asyncio.Redis":
    """Open a client for one event loop; see :func:`connect_redis`."""
    retry = AsyncOneLevelRetry(ExponentialBackoff(cap=0.5, base=0.05), retries)
    options = async_connection_options(
        url, setting=setting, decode_responses=True, retry=retry, socket_timeout=timeout_s
    )
    pool: Any = redis.asyncio.BlockingConnectionPool(**{**_POOL_OPTIONS, **options})
    return redis.asyncio.Redis.from_pool(pool)
