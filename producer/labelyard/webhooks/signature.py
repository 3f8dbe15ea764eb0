"""Signatures of webhooks after the Standard Webhooks specification, and the secrets that make them."""

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Iterable, Sequence
from typing import Final

from labelyard.errors import ServiceConfigError

ID_HEADER: Final = "webhook-id"
TIMESTAMP_HEADER: Final = "webhook-timestamp"
SIGNATURE_HEADER: Final = "webhook-signature"
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - not a secret
#: Version of the signatures: HMAC-SHA256 with a shared secret.
VERSION: Final = "v1"

KEY_BYTES: Final = 32

Secrets = str | bytes | Iterable[str | bytes]


def secret_keys(secret: Secrets) -> tuple[bytes, ...]:
    """Read one secret or several: ``whsec_`` and base64, or the key itself as bytes.

    Raises:
        ServiceConfigError: There is none, or one has another form; the text does not repeat it.
    """
    each = [secret] if isinstance(secret, str | bytes) else list(secret)
    keys = tuple(map(_secret_key, each))
    if not keys or not all(keys):
        raise ServiceConfigError("webhook secret: there is none, or it is empty")
    return keys


def _secret_key(secret: str | bytes) -> bytes:
    if isinstance(secret, bytes):
        return secret
    try:
        text = secret.strip().removeprefix(SECRET_PREFIX)
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (ValueError, AttributeError, binascii.Error):
        # The cause is cut off, too: a traceback must not show the secret.
        raise ServiceConfigError("webhook secret: write whsec_ and the key in base64") from None


def new_secret() -> str:
    """Draw a secret of 32 random bytes, as the specification writes it."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def sign(
    body: str | bytes, secret: Secrets, *, message_id: str, at: float | None = None
) -> dict[str, str]:
    """Return the headers that sign a webhook, for example in a receiver's tests.

    Args:
        body: Body of the request, byte for byte.
        secret: One secret or several; each adds a signature.
        message_id: The ``webhook-id``.
        at: Seconds since the epoch; now if it is not given.

    Raises:
        ServiceConfigError: A secret is not ``whsec_`` and base64.
    """
    raw = body.encode() if isinstance(body, str) else body
    at = time.time() if at is None else at
    return signature_headers(raw, message_id=message_id, at=int(at), keys=secret_keys(secret))


def signature_headers(
    body: bytes, *, message_id: str, at: int, keys: Sequence[bytes]
) -> dict[str, str]:
    """Return the headers that sign a webhook, with a signature for each key.

    Args:
        at: Seconds since the epoch.
    """
    signatures = (
        signature(body, message_id=message_id, timestamp=str(at), key=key) for key in keys
    )
    return {
        ID_HEADER: message_id,
        TIMESTAMP_HEADER: str(at),
        SIGNATURE_HEADER: " ".join(f"{VERSION},{one}" for one in signatures),
    }


def signature(body: bytes, *, message_id: str, timestamp: str, key: bytes) -> str:
    """Compute one signature, without its version.

    Source:
        Standard Webhooks 1.0.0, "Signature scheme": HMAC-SHA256 of ``id.timestamp.body``,
        in base64.
    """
    parts = (text.encode("utf-8", "surrogatepass") for text in (message_id, timestamp))
    signed = b".".join((*parts, body))
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
