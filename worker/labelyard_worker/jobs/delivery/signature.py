"""Write a webhook's body and sign it after the Standard Webhooks specification."""

import base64
import hashlib
import hmac
import json

from labelyard.errors import ServiceConfigError
from labelyard.messages import Result


def webhook_body(result: Result) -> bytes:
    """Write the event that a webhook gets."""
    event = {"type": f"job.{result.status}", "data": result.model_dump(mode="json")}
    return json.dumps(event, separators=(",", ":")).encode()


def webhook_key(secret: str | None) -> bytes:
    """Read a Standard Webhooks secret; empty if there is none.

    Raises:
        ServiceConfigError: The secret is not ``whsec_`` followed by base64.
    """
    if secret is None:
        return b""
    try:
        if not secret.startswith("whsec_"):
            raise ValueError(secret[:6])
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError as error:
        raise ServiceConfigError(
            "LABELYARD_WEBHOOK_SECRET: write whsec_ and the key in base64"
        ) from error


def sign(body: bytes, *, message_id: str, at: int, key: bytes) -> dict[str, str]:
    """Return the headers that sign a webhook.

    Args:
        at: Seconds since the epoch.

    Source:
        Standard Webhooks 1.0.0, "Signature scheme": HMAC-SHA256 of
        ``id.timestamp.body``, base64, behind ``v1,``.
    """
    signed = b".".join((message_id.encode(), str(at).encode(), body))
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,{signature}",
    }
