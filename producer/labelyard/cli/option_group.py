"""Options that several commands share, as one parameter of each command."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, Final

#: Parameter of a command that stands for a whole group.
PARAMETER: Final = "options"


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return *command* as typer takes it: each field of its parameter ``options`` is an option.

    The parameter's type is a dataclass whose fields are annotated as options of typer.
    """
    signature = inspect.signature(command, eval_str=True)
    group = signature.parameters[PARAMETER].annotation
    shared = inspect.signature(group, eval_str=True).parameters
    own = [one for name, one in signature.parameters.items() if name != PARAMETER]
    parameters = [
        one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*own, *shared.values())
    ]

    @wraps(command)
    def flat(**given: Any) -> None:
        options = group(**{name: given.pop(name) for name in shared})
        command(**given, options=options)

    flat.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": None}
    return flat
