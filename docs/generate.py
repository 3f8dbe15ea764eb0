"""Writes the generated pages of ``docs/``: settings.md and the schemas of the messages.

``make docs`` runs it. A test fails when a page is not what it would write.
"""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic.fields import FieldInfo

from labelyard.schemas import MODEL_BY_NAME, schema_text
from labelyard.settings import PREFIX, ClientSettings, ConnectionSettings
from labelyard_worker.settings import WorkerSettings

DOCS: Final = Path(__file__).parent
MIB: Final = 1024 * 1024

INTRODUCTION: Final = """\
# Settings

<!-- Generated from the settings classes: change their docstrings, then run make docs. -->

Settings are environment variables; each begins with `LABELYARD_`.
A variable of that beginning that is not listed here stops a worker at its start, so a typo cannot pass in silence; a value that is refused is named in the error.
Lists are written with commas: `LABELYARD_ALLOWED_BUCKETS=photos,results`. Times are in seconds (`_S`), sizes in bytes (`_BYTES`).
Credentials, and all else that concerns S3, come from the usual AWS variables and files.
"""

# Each paragraph of a class's attributes, by the first setting in it.
TITLES: Final = {
    "broker_url": "Producers and workers: connections",
    "tenant": "Producers",
    "checkpoint": "Workers: the model",
    "max_batch_size": "Workers: batches and memory",
    "decode": "Workers: reading pictures",
    "concurrency": "Workers: jobs",
    "atomic_claim": "Workers: durability",
    "result_buckets": "Workers: deliveries, probes, logs",
}


def attribute_groups(cls: type) -> list[dict[str, str]]:
    """Read the ``Attributes`` of a class's own docstring, paragraph by paragraph.

    Returns:
        What each attribute means, by its name, in the order of the docstring.
    """
    _, _, section = inspect.cleandoc(cls.__doc__ or "").partition("\nAttributes:\n")
    groups: list[dict[str, str]] = []
    for paragraph in section.split("\n\n"):
        entries = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", paragraph, flags=re.MULTILINE)
        groups.append({name: " ".join(meaning.split()) for name, meaning in entries})
    return groups


def page() -> str:
    """Write docs/settings.md."""
    sections = [
        section(group, cls)
        for cls in (ConnectionSettings, ClientSettings, WorkerSettings)
        for group in attribute_groups(cls)
    ]
    return "\n".join([INTRODUCTION, *sections])


def section(group: dict[str, str], cls: type[ConnectionSettings]) -> str:
    """Write the table of some settings that belong together."""
    lines = [f"## {TITLES[next(iter(group))]}\n", "| variable | default | values | meaning |"]
    lines.append("|---|---|---|---|")
    for name, meaning in group.items():
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
    return {DOCS / "settings.md": page(), **schemas}


def main() -> None:
    """Write the generated pages."""
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
