"""Named label sets: their digests, versions and aliases, and the registry that keeps them."""

from labelyard.label_sets.arguments import as_label_set, check_registration, checked_reference
from labelyard.label_sets.digest import label_set_bytes, label_set_digest
from labelyard.label_sets.registry import LabelSetRegistry

__all__ = [
    "LabelSetRegistry",
    "as_label_set",
    "check_registration",
    "checked_reference",
    "label_set_bytes",
    "label_set_digest",
]
