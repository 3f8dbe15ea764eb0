"""Receipt of a claimed message: through the admission gate to the consumer, without exceptions.

Celery's event loop ends at an exception that leaves a receipt, and the worker with it. So a message
that cannot be handed over becomes a call that sets it aside, and if even that fails it goes back to
its queue.
"""

import json
import logging
from typing import Any

from labelyard_worker.broker.admission import admit, set_aside_call
from labelyard_worker.broker.calls import to_list_item
from labelyard_worker.broker.envelopes import unpack
from labelyard_worker.broker.malformed import keep_malformed

log = logging.getLogger(__name__)


def receive(channel: Any, raw: bytes, *, queue: str, delivery_tag: str) -> None:
    """Hand a claimed message over to the consumer of *queue*.

    Args:
        channel: Channel of our transport that claimed the message.
        raw: The message's bytes.
        delivery_tag: Tag that the claim recorded the message under.

    Raises:
        ConnectionError: The connection is lost; nothing else leaves as an exception.
    """
    try:
        if channel.is_gated(queue):
            _hand_over_admitted(channel, raw, queue, delivery_tag)
        else:
            _hand_over(channel, with_tag(raw, delivery_tag), queue)
    except Exception as error:
        if is_lost_connection(channel, error):
            raise
        _put_away(channel, raw, queue, delivery_tag, error)


def _hand_over_admitted(channel: Any, raw: bytes, queue: str, delivery_tag: str) -> None:
    """Hand over the admitted call of a message, or the call that sets the message aside."""
    envelope = unpack(raw)
    try:
        call = admit(envelope, queue=queue, follow_ups=channel.follow_ups)
        _hand_over(channel, to_list_item(call, queue=queue, delivery_tag=delivery_tag), queue)
    except Exception as error:
        if is_lost_connection(channel, error):
            raise
        # Our own call instead, which holds no part of the message's envelope.
        reason = f"the worker failed to take the message ({type(error).__name__})"
        call = set_aside_call(envelope, queue=queue, reason=reason)
        _hand_over(channel, to_list_item(call, queue=queue, delivery_tag=delivery_tag), queue)


def _hand_over(channel: Any, message: dict[str, Any], queue: str) -> None:
    channel.connection._deliver(message, queue)  # noqa: SLF001 - as kombu does


def _put_away(channel: Any, raw: bytes, queue: str, delivery_tag: str, error: Exception) -> None:
    """Return or set aside a message that not even our own call could be delivered for."""
    is_gated = channel.is_gated(queue)
    if is_gated:  # the fault is the worker's: it shuts down, or lacks memory or threads
        channel.qos.restore_by_tag(delivery_tag, leftmost=True)
    else:
        keep_malformed(channel, raw, delivery_tag)
    channel.qos.forget(delivery_tag)
    event = "message_returned" if is_gated else "message_malformed"
    log.error(event, extra={"fields": {"queue": queue, "why": type(error).__name__}})


def is_lost_connection(channel: Any, error: Exception) -> bool:
    """Return whether *error* is a lost connection; kombu counts any KeyError among them."""
    errors = tuple(known for known in channel.connection_errors if known is not KeyError)
    return isinstance(error, errors)


def with_tag(raw: bytes, delivery_tag: str) -> dict[str, Any]:
    """Parse a message that passes no gate, and write its delivery tag into it."""
    message: dict[str, Any] = json.loads(raw)
    message["properties"]["delivery_tag"] = delivery_tag
    message["properties"].setdefault("delivery_info", {})
    return message
