"""Commands for the versions of label sets: log, diff, figures, and aliases that name a version."""

import getpass
import json
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from labelyard.cli.inputs import AsJson
from labelyard.cli.output import print_fields, print_json
from labelyard.cli.tables import Column, print_columns
from labelyard.cli.words import ago
from labelyard.client import Client
from labelyard.errors import InvalidMessageError
from labelyard.label_sets.diff import LabelSetDiff
from labelyard.label_sets.versions import LabelSetVersion
from labelyard.local_paths import read_text

SHOWN_DIGITS: Final = 12
VERSION_COLUMNS: Final = (
    Column("reference"),
    Column("registered", rank=2),
    Column("accuracy", rank=1, is_right=True),
    Column("aliases", rank=1),
    Column("parent", rank=3),
    Column("author", rank=4),
    Column("note", rank=5, is_sentence=True),
)
ALIAS_COLUMNS: Final = (
    Column("alias"),
    Column("reference"),
    Column("canary", rank=1),
    Column("share", rank=1, is_right=True),
    Column("moved", rank=2),
    Column("author", rank=3),
    Column("note", rank=4, is_sentence=True),
)
MOVE_COLUMNS: Final = (
    Column("when"),
    Column("action"),
    Column("reference"),
    Column("before", rank=2),
    Column("author", rank=3),
    Column("note", rank=4, is_sentence=True),
)

Version = Annotated[
    str, typer.Argument(metavar="REF", help="name@sha256:…, an alias, or a name for its newest")
]
Other = Annotated[str, typer.Argument(metavar="OTHER_REF", help="Version to compare it with")]
AliasName = Annotated[
    str, typer.Argument(metavar="ALIAS", help="name@alias, such as moderation@prod")
]
Target = Annotated[
    str, typer.Argument(metavar="ALIAS", help="name@alias, or the part behind the @ alone")
]
Share = Annotated[
    float | None,
    typer.Option("--share", help="Only score this share of the jobs with it, too, and count"),
]
Expect = Annotated[
    str | None,
    typer.Option("--expect", help="Version that the alias must name now; none: it must not exist"),
]
Author = Annotated[str | None, typer.Option("--author", help="Who does it; the user if not given")]
Note = Annotated[str, typer.Option("--note", help="Why")]
Report = Annotated[Path, typer.Argument(metavar="REPORT", help="report.json of evaluate")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="Most moves to list")]


def log(name: str, as_json: AsJson = False) -> None:
    """List the versions of a label set, the newest first: parents, notes, figures, aliases."""
    with Client() as client:
        versions = client.label_sets.log(name)
    if as_json:
        for version in versions:
            print_json(version.fields())
    else:
        print_columns(VERSION_COLUMNS, map(_version_row, versions))


def diff(reference: Version, other: Other, as_json: AsJson = False) -> None:
    """Print the differences between two versions of a label set."""
    with Client() as client:
        found = client.label_sets.diff(reference, other)
    if as_json:
        print_json(found.fields())
    elif found.is_empty:
        typer.echo("the same label set")
    else:
        for line in diff_lines(found):
            typer.echo(line)


def promote(
    reference: Version,
    alias: Target,
    share: Share = None,
    expect: Expect = None,
    author: Author = None,
    note: Note = "",
    as_json: AsJson = False,
) -> None:
    """Move an alias to a version, at once and in one step; with --share begin a canary."""
    with Client() as client:
        version = client.label_sets.resolve(reference)
        name = alias if "@" in alias else f"{version.partition('@')[0]}@{alias}"
        moved = client.label_sets.promote(
            version,
            name,
            share=share,
            expect="" if expect == "none" else expect and client.label_sets.resolve(expect),
            author=user() if author is None else author,
            note=note,
        )
    if as_json:
        print_json(moved.fields())
    elif moved.canary is None:
        typer.echo(f"{moved.name} names {moved.reference}")
    else:
        typer.echo(f"{moved.share * 100:.3g} % of the jobs of {moved.name} try {moved.canary}, too")


def aliases(as_json: AsJson = False) -> None:
    """List the aliases and the versions that they name."""
    with Client() as client:
        found = client.label_sets.aliases()
    if as_json:
        for one in found:
            print_json(one.fields())
        return
    rows = [
        (
            one.name,
            one.reference,
            short(one.canary),
            f"{one.share:.3g}" if one.canary else "",
            _since(one.moved_at),
            one.author,
            one.note,
        )
        for one in found
    ]
    print_columns(ALIAS_COLUMNS, rows)


def moves(alias: AliasName, limit: Limit = 100, as_json: AsJson = False) -> None:
    """List the moves of an alias, the newest first."""
    with Client() as client:
        found = client.label_sets.moves(alias, limit=limit)
    if as_json:
        for move in found:
            print_json(move.fields())
        return
    rows = [
        (
            _since(one.at),
            one.action if one.share is None else f"{one.action} {one.share:.3g}",
            one.reference,
            short(one.before),
            one.author,
            one.note,
        )
        for one in found
    ]
    print_columns(MOVE_COLUMNS, rows)


def remove_alias(
    alias: AliasName, author: Author = None, note: Note = "", as_json: AsJson = False
) -> None:
    """Remove an alias; submits that use it are refused from then on."""
    with Client() as client:
        client.label_sets.remove_alias(
            alias, author=user() if author is None else author, note=note
        )
    if as_json:
        print_json({"alias": alias, "removed": True})
    else:
        typer.echo(f"{alias} removed")


def attach(reference: Version, report: Report, as_json: AsJson = False) -> None:
    """Attach the figures of an evaluation's report.json to a version, for the log."""
    figures = read_figures(report)
    with Client() as client:
        version = client.label_sets.attach(reference, figures)
    if as_json:
        print_json(version.fields())
    else:
        print_fields({"reference": version.reference, **version.metrics})


def read_figures(report: Path) -> dict[str, Any]:
    """Read the figures of all pictures from a ``report.json``.

    Raises:
        InvalidMessageError: It cannot be read, or holds no figures.
    """
    try:
        content = json.loads(read_text(report))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "not JSON"
        raise InvalidMessageError(f"{report}: {reason}") from error
    names = ("n", "accuracy", "accuracy_interval", "ece", "nll", "coverage", "failed")
    if not isinstance(content, dict) or "accuracy" not in content:
        raise InvalidMessageError(f"{report} is not a report.json of labelyard evaluate")
    return {name: content[name] for name in (*names, "manifest", "split") if name in content}


def diff_lines(diff: LabelSetDiff) -> list[str]:
    """Write a difference for people, a change a line."""
    lines = [f"+ {name}" for name in diff.added] + [f"- {name}" for name in diff.removed]
    for name, changes in diff.changed.items():
        lines += [f"~ {name}: {field} {_change(*pair)}" for field, pair in changes.items()]
    lines += [f"{field}: {_change(*pair)}" for field, pair in diff.settings.items()]
    return [*lines, "labels stand in another order"] if diff.is_reordered else lines


def short(reference: str | None) -> str:
    """Return a reference with the first digits of its digest."""
    name, _, digest = (reference or "").partition("@sha256:")
    return f"{name}@sha256:{digest[:SHOWN_DIGITS]}" if digest else name


def user() -> str:
    """Return the name of the user that runs the command, or an empty text."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return ""


def _version_row(version: LabelSetVersion) -> tuple[str, ...]:
    accuracy = version.metrics.get("accuracy")
    return (
        version.reference,
        _since(version.created_at),
        f"{accuracy:.3f}" if isinstance(accuracy, float | int) else "",
        ", ".join(version.aliases),
        short(version.parent),
        version.author,
        version.note,
    )


def _since(at: float | None) -> str:
    return "" if at is None else ago(max(0.0, time.time() - at))


def _change(before: object, after: object) -> str:
    return f"{_shown(before)} → {_shown(after)}"


def _shown(value: object) -> str:
    written = json.dumps(value, ensure_ascii=False)
    return written if len(written) <= 80 else f"{written[:79]}…"
