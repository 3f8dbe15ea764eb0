"""Webhook addresses that a job may name, and the ids that their receivers get."""

import uuid
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class WebhookAddress:
    """The parts of a webhook's address.

    Attributes:
        scheme: ``http`` or ``https``.
        host: Lower case, without brackets and without a dot at its end.
        port: The address's own, or the scheme's.
        target: Path and query, as they stand in the request line.
    """

    scheme: str
    host: str
    port: int
    target: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Take an address apart.

        Raises:
            ValueError: The address cannot be called; the text names the right form, and
                does not repeat the address, which may hold a secret.
        """
        if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
            raise ValueError("a webhook's address is ASCII without spaces: percent-encode all else")
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise ValueError("write a webhook as https://host/path") from None
        if parts.scheme not in DEFAULT_PORTS or not parts.hostname or port == 0:
            raise ValueError("write a webhook as https://host/path")
        if "@" in parts.netloc:
            raise ValueError("a webhook's address holds no user and no password")
        query = f"?{parts.query}" if parts.query else ""
        return cls(
            scheme=parts.scheme,
            host=parts.hostname.rstrip("."),
            port=port or DEFAULT_PORTS[parts.scheme],
            target=f"{parts.path or '/'}{query}",
        )

    @property
    def authority(self) -> str:
        """Host and port as they stand in the ``Host`` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def webhook_id(job_id: str) -> str:
    """Return the ``webhook-id`` of a job's webhook, the same for each attempt.

    That is the job's id, unless it holds a dot: then a UUIDv5 of it.

    Source:
        Standard Webhooks 1.0.0, "Signature scheme": id, timestamp and body are joined
        by dots, so an id must not contain one.
    """
    if "." not in job_id:
        return job_id
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"https://labelyard.dev/webhook/{job_id}"))
