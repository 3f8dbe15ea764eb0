"""The command that turns notifications of object storage into jobs, and checks its rule file."""

import asyncio
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from labelyard.cli.inputs import AsJson
from labelyard.cli.log_lines import LogFormat, write_log_lines
from labelyard.cli.output import print_json
from labelyard.errors import InvalidMessageError
from labelyard.ingest.explanation import explain
from labelyard.ingest.rule_file import read_rule_file
from labelyard.ingest.service import IngestService
from labelyard.settings import ClientSettings

PORT: Final = 8460

app: typer.Typer = typer.Typer(
    help="Turn notifications of object storage (S3, MinIO, SeaweedFS) into jobs, by a rule file.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@app.callback()
def ingest(
    context: typer.Context,
    rules: Annotated[Path | None, typer.Option(help="Rule file; SIGHUP reads it again")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: the system chooses")] = PORT,
    secret: Annotated[
        list[str] | None,
        typer.Option(help="In place of LABELYARD_INGEST_SECRET, which other users cannot see"),
    ] = None,
    log_format: Annotated[LogFormat, typer.Option(help="Format of the log lines")] = "text",
) -> None:
    """Receive notifications over HTTP until SIGTERM; the sender's answer is 200 once jobs exist."""
    if context.invoked_subcommand is not None:
        return
    if rules is None:
        raise InvalidMessageError("ingest: give --rules; `labelyard ingest check FILE` checks them")
    settings = ClientSettings(ingest_secret=tuple(secret)) if secret else ClientSettings.read()
    write_log_lines(log_format)
    asyncio.run(_serve(IngestService(rules, settings, host=host, port=port)))


async def _serve(service: IngestService) -> None:
    service.handle_signals()
    await service.run()


@app.command()
def check(
    rules: Annotated[Path, typer.Argument(help="Rule file")],
    event: Annotated[
        Path | None, typer.Option(help="Body of a notification, for example from a log")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a rule file, and explain which jobs a notification would become. Sends nothing."""
    content = read_rule_file(rules)
    if event is None:
        if as_json:
            print_json({"rules": [rule.name for rule in content.rules]})
        else:
            typer.echo(f"{rules.name}: {len(content.rules)} rules, no fault")
        return
    try:
        body = event.read_bytes()
    except OSError as error:
        raise InvalidMessageError(f"--event: {event}: {error.strerror or error}") from error
    for part in explain(content, body, ClientSettings.read()):
        if as_json:
            print_json(part)
        else:
            typer.echo("\n".join(_lines(part)))


def _lines(part: dict[str, Any]) -> list[str]:
    """Write one part of an explanation for a person."""
    if "event" not in part:
        return [", ".join(f"{name}: {value}" for name, value in part.items())]
    event = part["event"]
    version = f", version {event['version_id']}" if event["version_id"] else ""
    lines = [f"{event['kind']} of {event['bucket']}/{event['key']}{version}: {part['outcome']}"]
    for job in part["jobs"]:
        lines.append(f"  rule {job.pop('rule')}")
        lines += [f"    {name:<9}{_shown(value)}" for name, value in job.items() if value]
    for rule, field in part["excluded_by"].items():
        reason = "an earlier rule takes it" if field == "match" else f"its {field} does not fit"
        lines.append(f"  not rule {rule}: {reason}")
    return lines


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={one}" for name, one in value.items())
    return ", ".join(value) if isinstance(value, list) else str(value)
