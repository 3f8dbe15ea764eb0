"""Poller that reads the server's pushes and flushes acknowledgements at each turn of the loop."""

from queue import Empty
from typing import Any

from kombu.transport import redis as kombu_redis


class PushPoller(kombu_redis.MultiChannelPoller):  # type: ignore[misc]
    """Poller of all channels, which also reads pushes while no claim is on its way.

    Attributes:
        has_event_loop: Whether ``on_poll_start`` is called at each turn of a loop, so that
            acknowledgements can wait for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.has_event_loop = False

    def on_readable(self, fileno: int) -> Any:
        channel, kind = self._fd_to_chan.get(fileno, (None, None))
        if kind == "BRPOP" and not channel._in_poll:  # noqa: SLF001
            channel.read_push()
            raise Empty
        return super().on_readable(fileno)

    def on_poll_start(self) -> None:
        for channel in self._channels:
            channel.qos.flush_acks()
        super().on_poll_start()

    def get(self, callback: Any, timeout: float | None = None) -> Any:
        """Wait at most until the fallback is due; without an event loop no timer wakes us."""
        fallback_s = min((channel.fallback_s for channel in self._channels), default=1.0)
        return super().get(callback, fallback_s if timeout is None else min(timeout, fallback_s))
