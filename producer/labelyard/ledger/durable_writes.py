"""Durable writes: wait until the ledger has a change on disk, or on its replicas.

With ``appendfsync everysec`` Redis loses up to a second of what it has acknowledged when its
machine fails, and a replica that takes over may lag behind. A barrier (``WAITAOF`` or ``WAIT``)
closes that gap: it ends when every write before it is safe.
"""

from collections.abc import Sequence
from typing import Any, Final

import redis
import redis.asyncio
from redis.exceptions import NoScriptError

from labelyard.errors import LedgerUnavailableError, ServiceConfigError
from labelyard.ledger.keys import LedgerKeys
from labelyard.settings import ConnectionSettings

KEY_TTL_S: Final = 3600
NOT_KNOWN: Final = "unknown command"
NO_APPEND_ONLY_FILE: Final = "appendonly is disabled"


class Barrier:
    """How a barrier is written and read; the same for both clients.

    A barrier waits for the writes of its own connection. So it begins with a write of its own:
    what was read on any connection, or written before, is safe when that one is.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        self.is_on: bool = settings.durable_writes != "off"
        self._kind = settings.durable_writes
        self._replicas = settings.durable_replicas
        self._timeout_s = settings.durable_timeout_s
        self._key = LedgerKeys(settings.namespace).barrier

    def add_to(self, pipeline: Any) -> None:
        """Write a barrier's commands into a pipeline."""
        pipeline.set(self._key, "1", ex=KEY_TTL_S)
        timeout_ms = int(self._timeout_s * 1000)
        if self._kind == "fsync":
            pipeline.waitaof(1, 0, timeout_ms)
        else:
            pipeline.wait(self._replicas, timeout_ms)

    def check(self, answers: Sequence[Any]) -> None:
        """Check the answers to the two commands of a barrier.

        Raises:
            LedgerUnavailableError: The writes before it were not safe in time.
            ServiceConfigError: The server does not support the mode in LABELYARD_DURABLE_WRITES.
        """
        written, reached = answers
        for answer in (written, reached):
            if isinstance(answer, Exception):
                raise self._as_ours(answer) from answer
        is_fsync = self._kind == "fsync"  # WAITAOF counts this server and replicas, WAIT replicas
        safe, wanted = (int(reached[0]), 1) if is_fsync else (int(reached), self._replicas)
        if safe < wanted:
            raise LedgerUnavailableError(
                f"the ledger did not make a write durable ({self._kind}) within "
                f"LABELYARD_DURABLE_TIMEOUT_S={self._timeout_s:g}"
            )

    def _as_ours(self, error: Exception) -> Exception:
        text = str(error)
        if NOT_KNOWN in text.lower():
            return ServiceConfigError(
                "LABELYARD_DURABLE_WRITES=fsync needs WAITAOF: Redis 7.2, or Valkey; set it to "
                "off, and appendfsync to always in the ledger, for an older server"
            )
        if NO_APPEND_ONLY_FILE in text:
            return ServiceConfigError(
                "LABELYARD_DURABLE_WRITES=fsync needs an append-only file: set appendonly to yes "
                "in the ledger"
            )
        return error


def run_durably(
    client: "redis.Redis", barrier: Barrier, script: Any, keys: list[str], args: list[str]
) -> Any:
    """Run a script and wait until its writes are safe, in one round trip.

    Raises:
        LedgerUnavailableError: They were not in time; they may have happened.
    """
    while True:
        with client.pipeline(transaction=False) as pipeline:
            # Not the script's own call, which checks in another round trip whether it is loaded.
            pipeline.evalsha(script.sha, len(keys), *keys, *args)
            barrier.add_to(pipeline)
            answer, *reached = pipeline.execute(raise_on_error=False)
        if not isinstance(answer, NoScriptError):
            break
        client.script_load(script.script)
    return _checked(barrier, answer, reached)


async def run_durably_async(
    client: "redis.asyncio.Redis", barrier: Barrier, script: Any, keys: list[str], args: list[str]
) -> Any:
    """Run a script and wait until its writes are safe; see :func:`run_durably`."""
    while True:
        async with client.pipeline(transaction=False) as pipeline:
            pipeline.evalsha(script.sha, len(keys), *keys, *args)
            barrier.add_to(pipeline)
            answer, *reached = await pipeline.execute(raise_on_error=False)
        if not isinstance(answer, NoScriptError):
            break
        await client.script_load(script.script)
    return _checked(barrier, answer, reached)


def _checked(barrier: Barrier, answer: Any, reached: Sequence[Any]) -> Any:
    if isinstance(answer, Exception):
        raise answer
    barrier.check(reached)
    return answer


def wait_until_durable(client: "redis.Redis", barrier: Barrier) -> None:
    """Wait until all that was read or written before is safe.

    Raises:
        LedgerUnavailableError: It was not in time.
        ServiceConfigError: The server does not support the mode in LABELYARD_DURABLE_WRITES.
    """
    with client.pipeline(transaction=False) as pipeline:
        barrier.add_to(pipeline)
        barrier.check(pipeline.execute(raise_on_error=False))


async def wait_until_durable_async(client: "redis.asyncio.Redis", barrier: Barrier) -> None:
    """Wait until all that was read or written before is safe; see :func:`wait_until_durable`."""
    async with client.pipeline(transaction=False) as pipeline:
        barrier.add_to(pipeline)
        barrier.check(await pipeline.execute(raise_on_error=False))


def strip_barrier(barrier: Barrier, answers: list[Any]) -> list[Any]:
    """Check the barrier at the end of a pipeline's answers, and return the others."""
    if not barrier.is_on:
        return answers
    *others, written, reached = answers
    barrier.check((written, reached))
    return others
