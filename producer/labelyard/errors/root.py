"""Base class of every error, and the walk through the classes below it."""

from collections.abc import Iterator
from typing import ClassVar


class LabelyardError(Exception):
    """Base class of every error that labelyard raises.

    Attributes:
        code: Stable name of the error, for programs.
        is_retryable: Whether the same request may succeed later.
    """

    code: ClassVar[str] = "labelyard_error"
    is_retryable: ClassVar[bool] = False

    def __str__(self) -> str:
        """Return the code, then the error's arguments."""
        return ": ".join([self.code, *(str(arg) for arg in self.args if arg)])


def all_errors(root: type[LabelyardError] = LabelyardError) -> Iterator[type[LabelyardError]]:
    """Yield *root* and every class below it, parents first."""
    yield root
    for child in root.__subclasses__():
        yield from all_errors(child)
