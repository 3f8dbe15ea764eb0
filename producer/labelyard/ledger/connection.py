"""The connection of a thread's ledger client: it runs scripts, and waits for durable writes."""

import time
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

import redis

from labelyard.ledger.clock import LedgerClock
from labelyard.ledger.commands import Command, Commands
from labelyard.ledger.durable_writes import Barrier, run_durably, strip_barrier, wait_until_durable
from labelyard.ledger.keys import LedgerKeys
from labelyard.ledger.redis_errors import ledger_errors_as_ours, ledger_timeout_s
from labelyard.ledger.scripts import SCRIPTS
from labelyard.redis_connections import connect_redis
from labelyard.settings import ConnectionSettings

# Commands in one pipeline: enough to hide the round trip, few enough not to hold up others.
PIPELINE_SIZE: Final = 500


def connect(settings: ConnectionSettings) -> "redis.Redis":
    """Connect to the ledger's Redis with bounded waits and a few quick retries.

    Raises:
        ServiceConfigError: LABELYARD_LEDGER_URL is not the address of a Redis.
    """
    timeout_s = ledger_timeout_s(settings)
    return connect_redis(settings.ledger_url, setting="LABELYARD_LEDGER_URL", timeout_s=timeout_s)


class LedgerConnection:
    """Runs the scripts of a ledger.

    Every method raises LedgerUnavailableError when Redis gives no answer.

    Attributes:
        commands: Builds the calls of the scripts.
        keys: The namespace's keys.
        clock: The ledger's clock, as far as this process knows it.
    """

    def __init__(self, client: "redis.Redis", settings: ConnectionSettings) -> None:
        self.client = client
        self.commands: Commands = Commands(settings)
        self.keys: LedgerKeys = self.commands.keys
        self.clock: LedgerClock = LedgerClock()
        self._barrier = Barrier(settings)
        self._is_barrier_checked = False
        self._scripts = {name: client.register_script(text) for name, text in SCRIPTS.items()}

    def now(self) -> float:
        """Return the ledger's time, in seconds since the epoch; Redis is queried once a minute."""
        if not self.clock.is_fresh:
            asked_at = time.monotonic()
            with ledger_errors_as_ours():
                self.clock.note(self.client.time(), asked_at=asked_at)
        return self.clock.now()

    def check_durability(self) -> None:
        """Try a barrier once, if LABELYARD_DURABLE_WRITES needs one.

        Raises:
            ServiceConfigError: The server does not support the mode of the setting.
        """
        if self._barrier.is_on and not self._is_barrier_checked:
            self.wait_until_durable()
            self._is_barrier_checked = True

    def wait_until_durable(self) -> None:
        """Wait until all that was read or written before is safe, if durable writes are on."""
        if self._barrier.is_on:
            with ledger_errors_as_ours():
                wait_until_durable(self.client, self._barrier)

    def run(self, command: Command, *, is_durable: bool = False) -> Any:
        """Run a script and return its answer.

        Args:
            is_durable: Whether to wait until its writes are safe, if durable writes are on.
        """
        name, keys, args = command
        script = self._scripts[name]
        with ledger_errors_as_ours():
            if is_durable and self._barrier.is_on:
                return run_durably(self.client, self._barrier, script, keys, args)
            return script(keys=keys, args=args)

    def run_many(self, commands: Iterable[Command], *, is_durable: bool = False) -> list[Any]:
        """Run scripts in few round trips and return their answers, in their order.

        Args:
            is_durable: As for :meth:`run`.

        Returns:
            With *is_durable* a refusal of Redis stands in place of an answer.
        """
        answers: list[Any] = []
        left = iter(commands)
        with ledger_errors_as_ours():
            while part := list(islice(left, PIPELINE_SIZE)):
                with self.client.pipeline(transaction=False) as pipeline:
                    for name, keys, args in part:
                        self._scripts[name](keys=keys, args=args, client=pipeline)
                    if not is_durable:
                        answers += pipeline.execute()
                        continue
                    if self._barrier.is_on:
                        self._barrier.add_to(pipeline)
                    answers += strip_barrier(self._barrier, pipeline.execute(raise_on_error=False))
        return answers
