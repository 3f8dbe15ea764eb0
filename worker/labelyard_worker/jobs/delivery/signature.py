"""Body of a webhook, and the keys that sign it."""

import json

from labelyard.errors import ServiceConfigError
from labelyard.messages import Result
from labelyard.runs.run_end import RunEnd
from labelyard.webhooks.signature import SECRET_PREFIX, secret_keys


def webhook_body(result: Result | RunEnd) -> bytes:
    """Write the event that a webhook gets."""
    kind = f"run.{result.state}" if isinstance(result, RunEnd) else f"job.{result.status}"
    event = {"type": kind, "data": result.model_dump(mode="json")}
    return json.dumps(event, separators=(",", ":")).encode()


def webhook_keys(secret: str | None) -> tuple[bytes, ...]:
    """Read the Standard Webhooks secrets of the setting; none if it is not set.

    Raises:
        ServiceConfigError: One is not ``whsec_`` followed by base64; it is not repeated.
    """
    secrets = [part.strip() for part in (secret or "").split(",") if part.strip()]
    if not secrets:
        return ()
    try:
        if not all(one.startswith(SECRET_PREFIX) for one in secrets):
            raise ServiceConfigError("webhook secret: write whsec_ first")
        return secret_keys(secrets)
    except ServiceConfigError:
        raise ServiceConfigError(
            "LABELYARD_WEBHOOK_SECRET: write whsec_ and the key in base64"
        ) from None
