"""Claim script: pop a message and record it as unacknowledged in one step on the server."""

from hashlib import sha1
from typing import Final

from kombu.exceptions import KombuError

from labelyard.tenant_lines.scripts import SCRIPTS

#: ``tenant_lines/scripts/claim.lua`` describes its keys, its arguments and what it returns.
CLAIM: Final = SCRIPTS["claim"]
CLAIM_SHA: Final = sha1(CLAIM.encode(), usedforsecurity=False).hexdigest()


class AtomicClaimError(KombuError):  # type: ignore[misc]
    """The broker, or its configuration, cannot serve atomic claims."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason}. To use kombu's own transport, set LABELYARD_ATOMIC_CLAIM=0."
