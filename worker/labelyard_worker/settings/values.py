"""Kinds of values that several groups of settings share."""

from typing import Annotated

from pydantic import BeforeValidator
from pydantic_settings import NoDecode

MIB = 1024 * 1024


def _split(value: object) -> object:
    """Read ``a,b`` as a tuple, as an operator would write it in an environment file."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
