"""Commands that cancel jobs, one by one or all of a tenant or a queue, and that erase them."""

import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated

import typer

from labelyard.cli.inputs import AsJson
from labelyard.cli.listing import OfQueue, OfTenant
from labelyard.cli.output import print_error, print_json
from labelyard.cli.words import count
from labelyard.client import Client
from labelyard.diagnosis.phrases import count_of
from labelyard.errors import InvalidMessageError, LabelyardError
from labelyard.ledger.erasure import Erasure
from labelyard.queues import JobQueue

SomeJobs = Annotated[list[str] | None, typer.Argument(metavar="[JOB_ID...]")]
Jobs = Annotated[list[str], typer.Argument(metavar="JOB_ID...")]
Every = Annotated[bool, typer.Option("--all", help="All jobs that are not final")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation")]


def cancel(
    job_id: SomeJobs = None,
    every: Every = False,
    tenant: OfTenant = None,
    queue: OfQueue = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Cancel jobs, running or not; with --all every open job, of a tenant or a queue if named."""
    if bool(job_id) == every:
        raise InvalidMessageError("name the jobs, or add --all")
    if not every and (tenant is not None or queue is not None):
        raise InvalidMessageError("--tenant and --queue go with --all")
    with Client() as client:
        if every:
            _cancel_all(client, tenant=tenant, queue=queue, yes=yes, as_json=as_json)
            return
        for_each(job_id or [], lambda one: _cancel_one(client, one, as_json=as_json))


def forget(job_id: Jobs, as_json: AsJson = False) -> None:
    """Erase jobs from the ledger: messages, results, everything that names them."""
    with Client() as client:

        def erase(one: str) -> bool:
            _print_erasure(client.forget(one), as_json=as_json)
            return True

        for_each(job_id, erase)


def for_each(job_ids: list[str], call: Callable[[str], bool]) -> None:
    """Call for each job, and go on after one that is refused; exit with 1 if any was.

    Raises:
        LabelyardError: A server gave no answer.
    """
    has_failed = False
    for one in job_ids:
        try:
            has_failed |= not call(one)
        except LabelyardError as error:
            if error.is_retryable:
                raise
            print_error(error)
            has_failed = True
    if has_failed:
        raise typer.Exit(1)


def _cancel_one(client: Client, job_id: str, *, as_json: bool) -> bool:
    is_cancelled = client.cancel(job_id)
    state = "cancelled" if is_cancelled else client.status(job_id).state
    if as_json:
        print_json({"job_id": job_id, "state": state})
    else:
        typer.echo(f"{job_id} {state}")
    return is_cancelled


def _cancel_all(
    client: Client, *, tenant: str | None, queue: JobQueue | None, yes: bool, as_json: bool
) -> None:
    """Cancel all open jobs of a tenant or a queue, after a confirmation."""
    if not yes:
        _confirm(client, tenant=tenant, queue=queue)
    cancelled = client.cancel_all(tenant=tenant, queue=queue)
    if as_json:
        print_json({"cancelled": cancelled})
    else:
        typer.echo(f"{count_of(cancelled, 'job')} cancelled")


def _confirm(client: Client, *, tenant: str | None, queue: JobQueue | None) -> None:
    """Have a person confirm on the terminal how many jobs are cancelled, or end the command."""
    if not sys.stdin.isatty():
        raise InvalidMessageError(
            "cancel --all asks for confirmation, and there is no terminal: add --yes"
        )
    counted = [
        backlog
        for key, backlog in client.backlog().items()
        if tenant in (None, key.tenant) and queue in (None, key.queue)
    ]
    jobs, images = sum(one.jobs for one in counted), sum(one.images for one in counted)
    where = f" of {tenant}" if tenant is not None else ""
    where += f" in the queue {queue}" if queue is not None else ""
    what = f"{count(jobs)} open job{'' if jobs == 1 else 's'}{where} with {count(images)}"
    if not typer.confirm(f"Cancel {what} image{'' if images == 1 else 's'}?", err=True):
        typer.echo("Nothing was cancelled.", err=True)
        raise typer.Exit(1)


def _print_erasure(erasure: Erasure, *, as_json: bool) -> None:
    """Print that a job is erased, and which copies of its result are not ours to delete."""
    if as_json:
        print_json(asdict(erasure))
        return
    typer.echo(f"{erasure.job_id} erased")
    for copy in filter(None, (erasure.object_uri, erasure.webhook)):
        typer.echo(f"  its result may have been delivered to {copy}: delete it there")
    for uri in erasure.maps:
        typer.echo(f"  the map of an explanation is {uri}: delete it there")
