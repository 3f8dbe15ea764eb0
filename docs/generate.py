"""Writes the generated pages of ``docs/``: settings, ledger keys, metrics, doctor, schemas.

It also writes deploy/grafana/labelyard.json, and the names of all settings for the doctor. ``make docs`` runs it. A test fails when a page is not what it would write.
"""

import ast
import inspect
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le
from deploy.grafana import dashboard
from docs.doctor_page import PAGE, doctor_page
from docs.key_page import key_page
from docs.metrics_page import metrics_page
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from labelyard.doctor.settings import NAMES_FILE
from labelyard.schemas import MODEL_BY_NAME, schema_text
from labelyard.settings import PREFIX, ClientSettings, ConnectionSettings
from labelyard_worker.settings import WorkerSettings

DOCS: Final = Path(__file__).parent
MIB: Final = 1024 * 1024

INTRODUCTION: Final = """\
# Settings

<!-- Generated from the settings classes: change the comments above their fields, then run make docs. -->

Settings are environment variables; each begins with `LABELYARD_`.
A variable of that beginning that is not listed here stops a worker at its start, so a typo cannot pass in silence; a value that is refused is named in the error.
Lists are written with commas: `LABELYARD_ALLOWED_BUCKETS=photos,results`. Times are in seconds (`_S`), sizes in bytes (`_BYTES`).
Credentials, and all else that concerns S3, come from the usual AWS variables and files.
"""

SETTING_NAMES: Final = DOCS.parent / "producer/labelyard/doctor" / NAMES_FILE
GROUPS: Final = f"{WorkerSettings.__module__}."


def groups() -> list[type[BaseModel]]:
    """Return the classes that define settings, in the order of the page."""
    of_workers = [cls for cls in WorkerSettings.__mro__ if cls.__module__.startswith(GROUPS)]
    return [ConnectionSettings, ClientSettings, *of_workers]


def meanings(cls: type) -> dict[str, str]:
    """Read the meaning of each setting of a class from the ``#:`` comment above it.

    Returns:
        The meaning of each setting, by its name, in the order of the class; empty for a
        setting without such a comment.
    """
    lines = inspect.getsource(cls).splitlines()
    return {
        statement.target.id: comment_above(lines, statement.lineno)
        for statement in ast.parse("\n".join(lines)).body[0].body  # type: ignore[attr-defined]
        if isinstance(statement, ast.AnnAssign)
        and isinstance(statement.target, ast.Name)
        and "ClassVar" not in ast.unparse(statement.annotation)
    }


def comment_above(lines: Sequence[str], number: int) -> str:
    """Return the text of the ``#:`` lines directly above the line of that number, from 1."""
    above = [line.strip() for line in reversed(lines[: number - 1])]
    comment = list(itertools.takewhile(lambda line: line.startswith("#: "), above))
    return " ".join(line.removeprefix("#: ") for line in reversed(comment))


def page() -> str:
    """Write docs/settings.md."""
    return "\n".join([INTRODUCTION, *map(section, groups())])


def section(cls: type[BaseModel]) -> str:
    """Write the table of a class's settings, under the first line of its docstring."""
    heading = inspect.cleandoc(cls.__doc__ or "").partition("\n")[0].removesuffix(".")
    lines = [f"## {heading}\n", "| variable | default | values | meaning |"]
    lines.append("|---|---|---|---|")
    for name, meaning in meanings(cls).items():
        field = cls.model_fields[name]
        variable = f"`{PREFIX}{name.upper()}`"
        cells = (variable, default_of(name, field), values_of(name, field), code_of(meaning))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def default_of(name: str, field: FieldInfo) -> str:
    """Write a default as an operator would set it."""
    match field.default:
        case None:
            return "unset"
        case ():
            return "empty"
        case bool(value):
            return f"`{str(value).lower()}`"
        case int(value) if name.endswith("_bytes") and value and value % MIB == 0:
            return f"`{value}` ({value // MIB} MiB)"
        case float(value):
            return f"`{value:g}`"
        case value:
            return f"`{value}`"


def values_of(name: str, field: FieldInfo) -> str:
    """Describe the values that a setting allows: kind, unit, bounds."""
    annotation: Any = field.annotation
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if annotation is bool:
        return "`true`, `false`"
    if get_origin(annotation) is tuple:
        return "list"
    if annotation not in (int, float):
        return "path" if Path in get_args(annotation) else "text"
    unit = "seconds" if name.endswith("_s") else "bytes" if name.endswith("_bytes") else "number"
    return ", ".join([unit, *bounds_of(field)])


def bounds_of(field: FieldInfo) -> Iterator[str]:
    """Yield the bounds of a number."""
    for rule in field.metadata:
        match rule:
            case Ge(ge=bound):
                yield f"≥ {bound}"
            case Gt(gt=bound):
                yield f"> {bound}"
            case Le(le=bound):
                yield f"≤ {bound}"


def code_of(meaning: str) -> str:
    """Turn a docstring's double backquotes into Markdown, and name settings as variables."""
    names = {name for cls in (WorkerSettings, ClientSettings) for name in cls.model_fields}
    words = re.split(r"(``.+?``|\w+)", meaning)
    return "".join(
        f"`{word[2:-2]}`"
        if word.startswith("``")
        else f"`{PREFIX}{word.upper()}`"
        if word in names and "_" in word
        else word
        for word in words
    )


def pages() -> dict[Path, str]:
    """Write every generated page, by its path."""
    schemas = {DOCS / f"{message}.schema.json": schema_text(message) for message in MODEL_BY_NAME}
    return {
        DOCS / "settings.md": page(),
        DOCS / "ledger-keys.md": key_page(),
        dashboard.PATH: dashboard.dashboard_text(),
        DOCS / "metrics.md": metrics_page(),
        PAGE: doctor_page(),
        SETTING_NAMES: setting_names(),
        **schemas,
    }


def setting_names() -> str:
    """Write the names of all settings, by which a producer's doctor finds misspelt variables."""
    names = {*ClientSettings.model_fields, *WorkerSettings.model_fields}
    return "".join(f"{name}\n" for name in sorted(names))


def main() -> None:
    """Write the generated pages."""
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
