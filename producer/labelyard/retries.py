"""Retry policies of redis-py that do not multiply: a connect inside a call is not retried by itself.

redis-py retries a command, and within each try the connect with its handshake. Against a server
that accepts connections and does not answer, three tries of three tries took 28 s.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from redis.asyncio.retry import Retry as AsyncRetry
from redis.retry import Retry

_IS_RETRYING: ContextVar[bool] = ContextVar("labelyard_is_retrying", default=False)


def _report(fail: Callable[..., Any], error: Exception, *, with_count: bool) -> Any:
    """Call redis-py's failure handler as its own retry does for a first failure."""
    return fail(error, 1) if with_count else fail(error)


class OneLevelRetry(Retry):
    """A Retry of which only the outermost call repeats anything."""

    def __hash__(self) -> int:
        return super().__hash__()

    def call_with_retry(
        self,
        do: Callable[[], Any],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> Any:
        """Call *do*, again after a failure if no retry is in progress around it."""
        if _IS_RETRYING.get():
            try:
                return do()
            except self._supported_errors as error:
                _report(fail, error, with_count=with_failure_count)
                raise
        token = _IS_RETRYING.set(True)
        try:
            return super().call_with_retry(do, fail, is_retryable, with_failure_count)
        finally:
            _IS_RETRYING.reset(token)


class AsyncOneLevelRetry(AsyncRetry):
    """OneLevelRetry for asyncio."""

    def __hash__(self) -> int:
        return super().__hash__()

    async def call_with_retry(
        self,
        do: Callable[[], Any],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> Any:
        """Await *do*, again after a failure if no retry is in progress around it."""
        if _IS_RETRYING.get():
            try:
                return await do()
            except self._supported_errors as error:
                await _report(fail, error, with_count=with_failure_count)
                raise
        token = _IS_RETRYING.set(True)
        try:
            return await super().call_with_retry(do, fail, is_retryable, with_failure_count)
        finally:
            _IS_RETRYING.reset(token)
