"""Digest of a label set, equal for equal sets, and the memory that a set takes."""

import hashlib
import json
import sys
from typing import Final

from labelyard.messages import LabelSet

# Of a parsed label and of a parsed prompt in memory, besides their letters.
LABEL_BYTES: Final = 600
PROMPT_BYTES: Final = 16


def label_set_digest(label_set: LabelSet) -> str:
    """Compute the digest of a label set: equal sets have equal digests, on every machine.

    Defaults are left out, so that a field that a later version adds does not change
    the digest of a set that does not use it. The order of labels counts: it breaks
    ties.

    Returns:
        ``sha256:`` and 64 hex digits, of the set as JSON with sorted keys.
    """
    fields = label_set.model_dump(mode="json", exclude_defaults=True)
    canonical = json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def label_set_bytes(label_set: LabelSet) -> int:
    """Estimate the memory that a parsed label set takes; a little more than it does."""
    sentences = [*label_set.templates, *label_set.abstain]
    for label in label_set.labels:
        sentences.append(label.name)
        sentences.extend(label.prompts)
    letters = sum(map(sys.getsizeof, sentences)) + PROMPT_BYTES * len(sentences)
    return letters + LABEL_BYTES * len(label_set.labels)
