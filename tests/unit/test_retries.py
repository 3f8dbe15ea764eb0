"""A retry inside a retry repeats nothing: the tries of a call are not multiplied."""

import asyncio

import pytest
from redis.backoff import NoBackoff
from redis.exceptions import TimeoutError as RedisTimeoutError

from labelyard.retries import AsyncOneLevelRetry, OneLevelRetry

TRIES = 3


def test_a_call_that_connects_at_each_try_is_tried_as_often_as_one_that_does_not() -> None:
    retry = OneLevelRetry(NoBackoff(), TRIES - 1)
    connects: list[int] = []
    failures: list[Exception] = []

    def connect() -> None:
        connects.append(1)
        raise RedisTimeoutError("silent")

    with pytest.raises(RedisTimeoutError):
        retry.call_with_retry(
            lambda: retry.call_with_retry(connect, failures.append), failures.append
        )

    assert (len(connects), len(failures)) == (TRIES, 2 * TRIES)


def test_the_retry_for_asyncio_does_not_multiply_either() -> None:
    retry = AsyncOneLevelRetry(NoBackoff(), TRIES - 1)
    connects: list[int] = []

    async def connect() -> None:
        connects.append(1)
        raise RedisTimeoutError("silent")

    async def fail(error: Exception) -> None:
        """Do nothing about it."""

    async def call() -> None:
        await retry.call_with_retry(connect, fail)

    with pytest.raises(RedisTimeoutError):
        asyncio.run(retry.call_with_retry(call, fail))

    assert len(connects) == TRIES


def test_a_later_call_is_retried_again() -> None:
    retry = OneLevelRetry(NoBackoff(), TRIES - 1)
    tries: list[int] = []

    def succeed_at_last() -> str:
        tries.append(1)
        if len(tries) < TRIES:
            raise RedisTimeoutError("silent")
        return "answer"

    assert retry.call_with_retry(succeed_at_last, lambda _: None) == "answer"
    tries.clear()
    assert retry.call_with_retry(succeed_at_last, lambda _: None) == "answer"
