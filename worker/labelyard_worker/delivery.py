"""Takes a result where its job wants it, after the ledger has it.

The ledger's own stream entry is written in the same step as the result. Objects and
webhooks can fail: what is still owed stands in the record and is tried again, so a
webhook may come twice (its id tells), an object is simply written again. What this
worker is not allowed to do is dropped with a warning: trying again would not help.
"""

import base64
import hashlib
import hmac
import http.client
import json
import logging
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from labelyard.errors import ServiceConfigError, StorageUnavailableError, UnsupportedUriError
from labelyard.messages import Deliver, Result
from labelyard_worker.settings import WorkerSettings

log = logging.getLogger(__name__)

WEBHOOK_TIMEOUT_S = 5.0


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A webhook that redirects could lead anywhere: refuse."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        return None


@dataclass(frozen=True)
class Delivery:
    """Writes objects and calls webhooks.

    Attributes:
        s3: boto3 client of the object storage.
        allowed_buckets: Buckets that may be written; empty means all.
        webhook_hosts: Hosts that may be called; empty refuses all.
        webhook_key: Secret that signs webhooks.
    """

    s3: Any
    allowed_buckets: tuple[str, ...]
    webhook_hosts: tuple[str, ...]
    webhook_key: bytes

    @classmethod
    def of(cls, settings: WorkerSettings, s3: Any) -> "Delivery":
        """Build it from the settings.

        Raises:
            ServiceConfigError: The webhook secret is no ``whsec_…``.
        """
        return cls(
            s3=s3,
            allowed_buckets=settings.allowed_buckets,
            webhook_hosts=settings.webhook_hosts,
            webhook_key=webhook_key(settings.webhook_secret),
        )

    def deliver(self, result: Result, deliver: Deliver, owed: tuple[str, ...]) -> tuple[str, ...]:
        """Try what is *owed*, and return what still is."""
        return tuple(name for name in owed if not self._is_settled(name, result, deliver))

    def _is_settled(self, name: str, result: Result, deliver: Deliver) -> bool:
        """Try one delivery; one that is not allowed is settled, too. No address is logged."""
        step = {"object": self._write_object, "webhook": self._call_webhook}[name]
        fields = {"job_id": result.job_id, "delivery": name}
        try:
            step(result, deliver)
        except UnsupportedUriError as error:
            log.warning("delivery_refused", extra={"fields": {**fields, "why": error.reason}})
        except StorageUnavailableError as error:
            log.warning("delivery_failed", extra={"fields": {**fields, "why": error.args[1]}})
            return False
        return True

    def _write_object(self, result: Result, deliver: Deliver) -> None:
        uri = deliver.object_uri or ""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        if self.allowed_buckets and bucket not in self.allowed_buckets:
            raise UnsupportedUriError(uri, "its bucket is not in LABELYARD_ALLOWED_BUCKETS")
        try:
            self.s3.put_object(
                Bucket=bucket,
                Key=key,
                Body=result.model_dump_json().encode(),
                ContentType="application/json",
            )
        except ClientError as error:
            raise StorageUnavailableError(uri, error.response["Error"]["Code"]) from error
        except BotoCoreError as error:
            raise StorageUnavailableError(uri, type(error).__name__) from error

    def _call_webhook(self, result: Result, deliver: Deliver) -> None:
        url = deliver.webhook or ""
        if urlsplit(url).hostname not in self.webhook_hosts or not self.webhook_key:
            raise UnsupportedUriError(url, "LABELYARD_WEBHOOK_HOSTS or _SECRET do not allow it")
        body = webhook_body(result)
        headers = {
            "content-type": "application/json",
            **sign(body, message_id=result.job_id, at=int(time.time()), key=self.webhook_key),
        }
        request = urllib.request.Request(url, data=body, headers=headers)  # noqa: S310
        try:
            opener = urllib.request.build_opener(_NoRedirects)
            with opener.open(request, timeout=WEBHOOK_TIMEOUT_S):
                return
        except urllib.error.HTTPError as error:
            error.close()
            raise StorageUnavailableError(url, f"status {error.code}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise StorageUnavailableError(url, type(error).__name__) from error


def owed_by(deliver: Deliver) -> tuple[str, ...]:
    """Name the deliveries that a job asks for, besides the ledger and its stream."""
    wanted = (("object", deliver.object_uri), ("webhook", deliver.webhook))
    return tuple(name for name, target in wanted if target)


def webhook_body(result: Result) -> bytes:
    """Write the event that a webhook gets."""
    event = {"type": f"job.{result.status}", "data": result.model_dump(mode="json")}
    return json.dumps(event, separators=(",", ":")).encode()


def webhook_key(secret: str | None) -> bytes:
    """Read a Standard Webhooks secret.

    Raises:
        ServiceConfigError: It is no ``whsec_`` followed by base64.
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
    """Sign a webhook.

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
