"""Options that several commands share: a group of them is one parameter of each command."""

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import wraps
from typing import Any


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return *command* as typer takes it: each field of a group of options is an option.

    A group is a parameter whose type is a dataclass; the fields are annotated as options of typer,
    and stand in ``--help`` where the group stands.
    """
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, type[Any]] = {
        name: one.annotation
        for name, one in signature.parameters.items()
        if isinstance(one.annotation, type) and is_dataclass(one.annotation)
    }
    fields = {name: inspect.signature(kind, eval_str=True) for name, kind in groups.items()}
    parameters = [
        each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, one in signature.parameters.items()
        for each in (fields[name].parameters.values() if name in fields else (one,))
    ]

    @wraps(command)
    def flat(**given: Any) -> None:
        made = {
            name: kind(**{field: given.pop(field) for field in fields[name].parameters})
            for name, kind in groups.items()
        }
        command(**given, **made)

    flat.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": None}
    return flat
