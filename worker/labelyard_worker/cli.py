"""The worker's command line: run one worker, or a whole stack on this machine."""

import json
import os
import shlex
import sys
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labelyard.command_group import CommandError, new_app
from labelyard.local_stack import StackState, default_data_dir, find_stack
from labelyard.service_urls import without_password

if TYPE_CHECKING:
    from labelyard_worker.settings import WorkerSettings

HELP = """Run labelyard's worker, or the whole service on this machine.

All settings are read from LABELYARD_* variables: see docs/settings.md.

Exit codes: 0, done, or a worker ended after SIGTERM; 1, no stack or no healthy worker is
there, or one could not start; 2, the command or a setting is wrong; 70, a worker lost its
device or hung; 130, interrupted.
"""

app = new_app("labelyard-worker", summary=HELP)

DataDir = Annotated[
    Path | None, typer.Option("--data", help="Folder that keeps the stack's data", file_okay=False)
]

# The worker makes no use of these: peers are the ledger's affair, not Celery's.
CELERY_FLAGS = ("--without-mingle", "--without-gossip", "--loglevel", "WARNING")
# glibc gives pixels and activations back to the system after each batch, and pays page
# faults for it: up to 5 ms an image. A thread's own arena gives back whatever is larger
# than 64 MB, as the activations of a convolutional tower are, so all share one.
MALLOC_VARIABLES = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 32),
}


def no_stack(data_dir: Path) -> CommandError:
    """Make the error of a command that needs a running stack."""
    other = find_stack()
    advice = f"add{data_option(other.data_dir)}" if other else "start one with labelyard-worker up"
    return CommandError("no_stack", f"none runs on {data_dir}: {advice}")


@app.command()
def start(
    celery_options: Annotated[
        list[str] | None, typer.Argument(help="Further options for 'celery worker', after --")
    ] = None,
    *,
    devices: Annotated[
        str, typer.Option(help="One worker for each: 'all', 'cuda:0,cuda:1', 'cpu,cpu'")
    ] = "",
) -> None:
    """Run one worker until SIGTERM, with the pool, the concurrency and the flags it needs."""
    from labelyard_worker.operations import output
    from labelyard_worker.settings import read_settings

    if os.environ.get("LABELYARD_LOG_FORMAT") == "json":
        output.capture_output()  # before a setting is refused
    settings = read_settings()
    if devices:
        raise typer.Exit(start_fleet(settings, devices, celery_options or []))
    command = [sys.executable, "-m", "celery", "-A", "labelyard_worker", "worker"]
    os.execve(  # noqa: S606 - our own command
        sys.executable,
        [*command, *CELERY_FLAGS, *(celery_options or [])],
        {**MALLOC_VARIABLES, **os.environ},
    )


def start_fleet(settings: "WorkerSettings", devices: str, celery_options: list[str]) -> int:
    """Run one worker for each device; their health ports count up from the setting's."""
    from labelyard_worker.operations import fleet, logs

    logs.set_up_process(level=settings.log_level, form=settings.log_format)
    first_port = settings.health_port
    return fleet.run_fleet(
        [
            fleet.FleetWorker(
                device,
                health_port=first_port + index if first_port > 0 else first_port,
                command=fleet.worker_command(celery_options),
            )
            for index, device in enumerate(fleet.parse_devices(devices))
        ]
    )


@app.command()
def up(
    data: DataDir = None,
    *,
    detach: Annotated[bool, typer.Option(help="Return when it is up; end it with 'down'")] = False,
) -> None:
    """Start Valkey, SeaweedFS and a worker, on 127.0.0.1 only."""
    from labelyard_worker.local import stack
    from labelyard_worker.local.servers import ServerStartError
    from labelyard_worker.operations import logs

    data_dir = data or default_data_dir()
    if StackState.read(data_dir) is not None:
        option = data_option(data_dir)
        text = f"one runs on {data_dir} already: end it with labelyard-worker down{option}"
        raise CommandError("stack_is_up", text)
    logs.set_up(level="info", form="text")
    try:
        if detach:
            stack.detach(data_dir)
            tell_how_to_reach(data_dir)
        else:
            stack.supervise(data_dir, on_up=lambda _: tell_how_to_reach(data_dir))
    except (ServerStartError, OSError) as error:
        raise CommandError("stack_failed", str(error)) from error


def data_option(data_dir: Path) -> str:
    """Write the option for a folder that is not the default one."""
    return "" if data_dir == default_data_dir() else f" --data {shlex.quote(str(data_dir))}"


def tell_how_to_reach(data_dir: Path) -> None:
    """Print the commands to type next."""
    option = data_option(data_dir)
    typer.echo(f"the local stack is up; its data is in {data_dir}")
    typer.echo('  labelyard classify PHOTO.jpg --labels "cat,dog,a bowl of soup"')
    typer.echo(f'  eval "$(labelyard-worker env{option})"    # for your own programs')
    typer.echo(f"  labelyard-worker down{option}")


def read_state(data_dir: Path) -> StackState:
    """Read the state of the stack that runs on *data_dir*.

    Raises:
        CommandError: None runs there.
    """
    state = StackState.read(data_dir)
    if state is None:
        raise no_stack(data_dir)
    return state


@app.command()
def env(data: DataDir = None) -> None:
    """Print export lines that lead producers and workers to the running stack."""
    state = read_state(data or default_data_dir())
    for name, value in state.variables.items():
        typer.echo(f"export {name}={shlex.quote(value)}")
    # To standard error: an interactive zsh evaluates no comments.
    typer.echo(f"metrics: {state.health_url}/metrics (LABELYARD_HEALTH_PORT)", err=True)


@app.command()
def status(data: DataDir = None) -> None:
    """Show whether the stack runs and its worker takes jobs (exits with 1 if not)."""
    state = read_state(data or default_data_dir())
    typer.echo(f"stack: process {state.pid}")
    for name, value in state.variables.items():
        if "SECRET" not in name:
            typer.echo(f"  {name}={without_password(value)}")
    typer.echo(f"metrics: {state.health_url}/metrics (LABELYARD_HEALTH_PORT)")
    probe("ready", state.health_url)


@app.command()
def down(data: DataDir = None) -> None:
    """Stop the stack; what waits in its queues stays in its data."""
    from labelyard_worker.local.stack import take_down

    data_dir = data or default_data_dir()
    if not take_down(data_dir):
        raise no_stack(data_dir)
    typer.echo("stopped")


def probe(what: str, url: str) -> None:
    """Check a worker's health, and exit with 1 if it is not well."""
    try:
        why = read_health(f"{url}/{what}")
    except (OSError, HTTPException, ValueError, LookupError, TypeError) as error:
        raise CommandError(what, f"no worker answers at {url}: {error}") from error
    if why:
        raise CommandError(what, "; ".join(why))
    typer.echo(f"{what}: yes")


def read_health(address: str) -> list[str]:
    """Read why the answer is no; an empty list is yes."""
    try:
        answer = urllib.request.urlopen(address, timeout=5)  # noqa: S310 - a worker's, or an error
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return [str(reason) for reason in json.load(answer)["why"]]


HealthUrl = Annotated[str, typer.Option("--url", help="Where the worker's health is answered")]


def health_url() -> str:
    """Guess it from LABELYARD_HEALTH_PORT, as a probe in the same container would."""
    return f"http://127.0.0.1:{os.environ.get('LABELYARD_HEALTH_PORT', '9464')}"


@app.command()
def live(url: HealthUrl = "") -> None:
    """Check whether the worker must be restarted (exits with 1 if so)."""
    probe("live", url or health_url())


@app.command()
def ready(url: HealthUrl = "") -> None:
    """Check whether the worker takes jobs (exits with 1 if not)."""
    probe("ready", url or health_url())


@app.command()
def doctor(
    time_limit_s: Annotated[
        float, typer.Option(min=1, help="Seconds for the whole examination")
    ] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False,
) -> None:
    """Examine servers, settings, model and device (exits with 1 if a fault is serious)."""
    from labelyard.cli.doctor import print_report
    from labelyard_worker.operations.doctor import examine_worker

    print_report(examine_worker(time_limit_s=time_limit_s), as_json=as_json)
