"""Addresses of results with placeholders for the event, such as ``s3://results/{key}.json``."""

import re
from collections.abc import Mapping
from typing import Final

PLACEHOLDERS: Final = ("bucket", "key", "version_id", "rule", "job_id")
_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")


def placeholders_of(template: str) -> set[str]:
    """Return the names in braces.

    Raises:
        ValueError: A brace is left open, or a name is not a placeholder.
    """
    names = set(_PLACEHOLDER.findall(template))
    if unknown := sorted(names - set(PLACEHOLDERS)):
        allowed = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        raise ValueError(f"{{{unknown[0]}}} is not a placeholder: write one of {allowed}")
    if "{" in _PLACEHOLDER.sub("", template) or "}" in _PLACEHOLDER.sub("", template):
        raise ValueError("a brace is left open")
    return names


def fill_in(template: str, values: Mapping[str, str]) -> str:
    """Replace each placeholder by its value."""
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template)
