"""Claim script: pop a message and record it as unacknowledged in one step on the server."""

import re
from hashlib import sha1
from typing import Final

from kombu.exceptions import KombuError

from labelyard.messages import MAX_IMAGES
from labelyard.tenant_lines.scripts import SCRIPTS

#: ``tenant_lines/scripts/claim.lua`` describes its keys, its arguments and what it returns.
CLAIM: Final = SCRIPTS["claim"]
CLAIM_SHA: Final = sha1(CLAIM.encode(), usedforsecurity=False).hexdigest()
# The header that _lines.lua reads; inside of a body its quotes are escaped.
IMAGES: Final = re.compile(rb'"labelyard_images" ?: ?(\d{1,6})[,} ]')


class AtomicClaimError(KombuError):  # type: ignore[misc]
    """The broker, or its configuration, cannot serve atomic claims."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason}. To use kombu's own transport, set LABELYARD_ATOMIC_CLAIM=0."


def is_shard(raw: bytes) -> bool:
    """Return whether a message has more images than any job: it is a shard of a run."""
    found = IMAGES.search(raw)
    return found is not None and int(found[1]) > MAX_IMAGES
