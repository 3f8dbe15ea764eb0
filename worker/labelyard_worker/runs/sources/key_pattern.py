"""Patterns of object keys: ``photos/**/*.jpg``."""

import re
from dataclasses import dataclass
from typing import Final, Self

from labelyard_worker.runs.sources.plan_parts import RunSourceError

_WILD: Final = re.compile(r"[*?\[]")
# Every text matches it; one that has an end is compiled to a regular expression.
_PARTS: Final = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|[^*?\[]+|\[")


@dataclass(frozen=True, slots=True)
class KeyPattern:
    """A glob for keys below a prefix.

    Attributes:
        prefix: Beginning of every key that matches; storage lists these alone.
        regex: ``None`` if every key with the prefix matches.
    """

    prefix: str
    regex: re.Pattern[str] | None

    @classmethod
    def parse(cls, pattern: str) -> Self:
        """Parse a pattern; one without wildcards is a prefix.

        ``*`` and ``?`` stand for characters other than ``/``, ``**`` for any, and ``**/`` for
        any folders or none; ``[a-z]`` and ``[!a-z]`` for one character.

        Raises:
            RunSourceError: A range is wrong, such as ``[z-a]``.
        """
        wild = _WILD.search(pattern)
        if wild is None:
            return cls(pattern, None)
        try:
            regex = re.compile("".join(map(_to_regex, _PARTS.findall(pattern))), re.DOTALL)
        except re.error as error:
            raise RunSourceError(f"{pattern!r} is not a pattern of keys: {error}") from error
        return cls(pattern[: wild.start()], regex)

    def matches(self, key: str) -> bool:
        """Return whether *key* matches; its prefix has been checked."""
        return self.regex is None or self.regex.fullmatch(key) is not None


def _to_regex(part: str) -> str:
    if part == "**/":
        return "(?:.*/)?"
    if part == "**":
        return ".*"
    if part == "*":
        return "[^/]*"
    if part == "?":
        return "[^/]"
    if part.startswith("[") and part.endswith("]") and len(part) > 2:
        inner = part[1:-1].replace("\\", r"\\")
        negated, inner = inner.startswith("!"), inner.removeprefix("!")
        inner = inner.replace("[", r"\[").replace("^", r"\^")
        return f"(?!/)[{'^' if negated else ''}{inner}]"
    return re.escape(part)
