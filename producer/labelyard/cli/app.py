"""The commands of ``labelyard``, and the servers that they use."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final

import typer

from labelyard.cli import (
    answers,
    compare,
    dead,
    doctor,
    evaluate,
    event_groups,
    events,
    explain,
    fleet,
    ingest,
    jobs,
    label_sets,
    learning,
    listing,
    prior,
    removal,
    runs,
    set_aside,
    state,
    tenants,
    titles,
    top,
    webhooks,
)
from labelyard.command_group import HELP_OPTIONS, ErrorsAsLines, Version, new_app
from labelyard.errors import BrokerUnavailableError, LabelyardError, LedgerUnavailableError
from labelyard.local_stack import RunningStack, find_stack, has_addresses

QUIET_OPTIONS: Final = ("-q", "--quiet")
#: Commands that need no server.
OFFLINE: Final = frozenset({"schema"})
HELP: Final = """Label pictures with any words, through the labelyard workers.

Where the servers are is read from LABELYARD_BROKER_URL, LABELYARD_LEDGER_URL and, for
uploads, LABELYARD_S3_ENDPOINT_URL and the AWS variables. If no LABELYARD_*_URL is set, the
stack of labelyard-worker up on this machine is used.

Exit codes: 0, every image has its labels; 1, an image or a job failed, was cancelled,
expired or is unknown; 2, the command or a setting is wrong; 3, not now: a server did not
answer, the queue is full or the time was over, so try again; 130, interrupted.
"""
NO_SERVERS: Final = (
    "no LABELYARD_*_URL is set, and no local stack runs: start one with labelyard-worker up, "
    "or set LABELYARD_BROKER_URL and LABELYARD_LEDGER_URL"
)


@contextmanager
def environment_of(stack: RunningStack) -> Iterator[None]:
    """Lead the settings of this process to *stack* while the block runs."""
    before = dict(os.environ)
    after = stack.environment(before)
    for name in before.keys() - after.keys():
        del os.environ[name]
    os.environ.update(after)
    try:
        yield
    finally:
        for name in after.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


class LabelyardGroup(ErrorsAsLines):
    """Group of the commands; it finds a local stack if no server is configured."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command, and the servers for it."""
        found = super().resolve_command(ctx, args)
        is_offline = args[0] in OFFLINE or not set(args).isdisjoint(HELP_OPTIONS)
        if not (ctx.resilient_parsing or is_offline or has_addresses(os.environ)):
            stack = find_stack()
            if stack is not None:
                ctx.with_resource(environment_of(stack))
                if not (ctx.params["quiet"] or set(args).intersection(QUIET_OPTIONS)):
                    typer.echo(f"using the local stack on {stack.data_dir}", err=True)
        return found

    def explain(self, error: LabelyardError) -> str:
        """Write an error as one line, with a remedy if no server was ever named."""
        is_away = isinstance(error, LedgerUnavailableError | BrokerUnavailableError)
        if is_away and not has_addresses(os.environ) and find_stack() is None:
            return f"{str(error).rstrip('.')}; {NO_SERVERS}"
        return super().explain(error)


def take_options(
    *,
    version: Version = False,
    quiet: Annotated[
        bool, typer.Option(*QUIET_OPTIONS, help="Print results and errors, and nothing else")
    ] = False,
) -> None:
    """Take the options that stand before the command."""
    _ = version, quiet  # the group reads them


app: typer.Typer = new_app("labelyard", summary=HELP, group=LabelyardGroup)
app.callback()(take_options)
app.command()(jobs.classify)
app.command()(explain.explain)
app.command()(jobs.submit)
app.command()(jobs.rescore)
app.command()(jobs.result)
app.command()(jobs.wait)
app.command("jobs")(listing.list_jobs)
app.command()(removal.cancel)
app.command()(removal.forget)
app.command()(state.status)
app.command()(fleet.workers)
app.command()(top.top)
app.command()(state.why)
app.command()(events.events)
app.command()(doctor.doctor)
app.command()(evaluate.evaluate)
app.command()(compare.compare)
app.command()(learning.examples)
app.command()(learning.calibrate)
app.command()(prior.prior)
app.command()(answers.drift)
app.command()(titles.titles)
app.command(hidden=True)(state.schema)
app.add_typer(dead.app, name="dead")
app.add_typer(set_aside.app, name="set-aside")
app.add_typer(label_sets.app, name="label-sets")
app.add_typer(tenants.app, name="tenants")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(event_groups.app, name="event-groups")
app.add_typer(runs.app, name="run")
app.add_typer(ingest.app, name="ingest")
