"""Confirmation of subscriptions of Amazon SNS, for topics that the rule file lists."""

import http.client
import re
import ssl
from typing import Final
from urllib.parse import parse_qs, urlsplit

from labelyard.errors import InvalidMessageError

TIMEOUT_S: Final = 10.0
#: Longest answer that is read; it is an XML document of some hundred bytes.
MAX_ANSWER_BYTES: Final = 64 * 1024
_HOST: Final = re.compile(r"sns\.([a-z0-9-]{1,32})\.amazonaws\.com(?:\.cn)?")


class ConfirmationFailedError(Exception):
    """SNS did not confirm the subscription now; it sends the request again."""


def check_confirm_url(url: str, *, topic_arn: str) -> str:
    """Return *url* if it confirms a subscription to *topic_arn* at SNS and leads nowhere else.

    Raises:
        InvalidMessageError: It is another address.
    """
    try:
        parts = urlsplit(url)
        has_port = parts.port is not None
    except ValueError:
        raise InvalidMessageError("notification: SubscribeURL is not an address") from None
    host = _HOST.fullmatch(parts.netloc)
    query = parse_qs(parts.query)
    region = topic_arn.split(":")[3] if topic_arn.count(":") >= 5 else ""
    is_printable = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme != "https" or host is None or has_port or not is_printable:
        raise InvalidMessageError("notification: SubscribeURL is not an address of SNS")
    if (
        host[1] != region
        or query.get("Action") != ["ConfirmSubscription"]
        or query.get("TopicArn") != [topic_arn]
    ):
        raise InvalidMessageError("notification: SubscribeURL confirms another topic")
    return url


def confirm(url: str) -> None:
    """Confirm a subscription at a checked address, without following redirects.

    Raises:
        ConfirmationFailedError: There was no answer 200.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPSConnection(
        parts.netloc, timeout=TIMEOUT_S, context=ssl.create_default_context()
    )
    try:
        connection.request("GET", f"{parts.path or '/'}?{parts.query}")
        answer = connection.getresponse()
        answer.read(MAX_ANSWER_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise ConfirmationFailedError(type(error).__name__) from error
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.OK:
        raise ConfirmationFailedError(f"status {answer.status}")
