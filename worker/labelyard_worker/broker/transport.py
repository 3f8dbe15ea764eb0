"""kombu's Redis transport with atomic claims, under schemes of its own.

A message's way: the poller (``poller.py``) has each channel (``channel.py``) send a claim
(``claim.py``), which also records the message as unacknowledged; the receipt (``receipt.py``)
passes it through the admission gate (``admission.py``) to Celery; its acknowledgement
(``acks.py``) leaves with the next turn of the event loop, or it returns to its queue
(``restore.py``).
"""

import ssl
from typing import Any, Final
from urllib.parse import urlsplit

from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis

from labelyard_worker.broker.channel import RedisChannel
from labelyard_worker.broker.claim import AtomicClaimError
from labelyard_worker.broker.poller import PushPoller

PREFIX: Final = "labelyard-"
ALIAS: Final = f"{PREFIX}redis"
TLS_ALIAS: Final = f"{PREFIX}rediss"
KNOWN_SCHEMES: Final = ("redis", "rediss", "redis+socket")


class Transport(kombu_redis.Transport):  # type: ignore[misc]
    """kombu's Redis transport with atomic claims."""

    Channel = RedisChannel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = PushPoller()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        super().register_with_event_loop(connection, loop)
        self.cycle.has_event_loop = True
        # A tick claims again when a push was lost; Celery cancels the timer with the connection.
        loop.call_repeatedly(float(self.brpop_timeout or 1), lambda: None)


class TLSTransport(Transport):
    """Redis transport over TLS; certificates are checked unless the ssl options disable that."""

    def __init__(self, client: Any, **kwargs: Any) -> None:
        client.ssl = client.ssl or {"ssl_cert_reqs": ssl.CERT_REQUIRED}
        super().__init__(client, **kwargs)


def install() -> None:
    """Register the transports with kombu; safe to call again."""
    TRANSPORT_ALIASES[ALIAS] = f"{__name__}:{Transport.__name__}"
    TRANSPORT_ALIASES[TLS_ALIAS] = f"{__name__}:{TLSTransport.__name__}"


def to_atomic_url(url: str) -> str:
    """Turn a Redis broker's address, or several parted by ``;``, into that of this transport.

    Raises:
        AtomicClaimError: The scheme is not one of Redis, or it is Sentinel's.
    """
    return ";".join(_to_atomic_address(address) for address in url.split(";"))


def _to_atomic_address(address: str) -> str:
    scheme = urlsplit(address).scheme
    if scheme.startswith(PREFIX):
        return address
    if scheme not in KNOWN_SCHEMES:
        known = ", ".join(f"{known}://" for known in KNOWN_SCHEMES)
        raise AtomicClaimError(f"The atomic claim works with {known}, not with {scheme}://")
    return PREFIX + address
