"""Local stacks of this user: where they run, so that the commands find one without variables.

``labelyard-worker up`` announces its stack in a folder of the user's state, and withdraws it at
its end. Only the command ``labelyard`` looks there, and only if no ``LABELYARD_*_URL`` is set: a
``Client`` of a program never connects to a server that its settings do not name.
"""

import contextlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

PREFIX: Final = "LABELYARD_"
#: Variables of AWS that would lead uploads elsewhere, or spoil the signature of the stack's keys.
FOREIGN_VARIABLES: Final = frozenset(
    {
        "AWS_DEFAULT_PROFILE",
        "AWS_ENDPOINT_URL_S3",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
        "AWS_PROFILE",
        "AWS_REGION",
        "AWS_SECURITY_TOKEN",
        "AWS_SESSION_TOKEN",
    }
)


@dataclass(frozen=True, slots=True)
class StackState:
    """State of a running stack, for the commands that use or end it.

    Attributes:
        pid: Process id of the supervisor.
        started_at: Its start in clock ticks since boot, which a later process with the same
            pid does not share.
        variables: Environment variables that lead producers and workers to the servers.
        health_url: Address of the worker's health.
    """

    pid: int
    started_at: int
    variables: Mapping[str, str]
    health_url: str

    @classmethod
    def read(cls, data_dir: Path) -> Self | None:
        """Read the state of the stack that runs on *data_dir*; ``None`` if none does."""
        try:
            state = cls(**_read_private(data_dir / "stack.json"))
        except (OSError, ValueError, TypeError):
            return None
        return state if process_started_at(state.pid) == state.started_at else None

    def write(self, data_dir: Path) -> None:
        """Write the state to the data folder, readable by this user alone: it has credentials."""
        _write_private(data_dir / "stack.json", asdict(self))


@dataclass(frozen=True, slots=True)
class RunningStack:
    """A stack of this user that runs now."""

    data_dir: Path
    state: StackState

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return *environ* with the variables that lead to the stack.

        Settings of labelyard's that *environ* has stay; the stack's replace those of AWS.
        """
        kept = {name: text for name, text in environ.items() if name not in FOREIGN_VARIABLES}
        ours = {name: text for name, text in kept.items() if name.startswith(PREFIX) and text}
        return {**kept, **self.state.variables, **ours}


def process_started_at(pid: int) -> int | None:
    """Return the start of a process in clock ticks since boot; ``None`` if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def default_data_dir() -> Path:
    """Name the folder that a stack keeps its data in when no other is named."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "labelyard"


def announcements() -> Path:
    """Name the folder that has a file for each running stack of this user."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "labelyard" / "stacks"


def announce(data_dir: Path) -> None:
    """Write down that this process runs a stack on *data_dir*, and drop what dead ones left.

    Raises:
        OSError: The file cannot be written.
    """
    folder = announcements()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in folder.glob("*.json"):
        if _running_stack(file) is None:
            file.unlink(missing_ok=True)
    _write_private(_own_file(), {"data_dir": str(data_dir)})


def withdraw() -> None:
    """Remove this process's announcement, if there is one."""
    with contextlib.suppress(OSError):
        _own_file().unlink(missing_ok=True)


def find_stack() -> RunningStack | None:
    """Find a running stack of this user: the one on the default folder, else the newest."""
    try:
        files = list(announcements().glob("*.json"))
    except OSError:
        return None
    default = default_data_dir()
    found = [stack for stack in map(_running_stack, files) if stack is not None]
    return max(
        found,
        key=lambda stack: (stack.data_dir == default, stack.state.started_at),
        default=None,
    )


def has_addresses(environ: Mapping[str, str]) -> bool:
    """Return whether any address of a server is set for labelyard."""
    return any(
        name.startswith(PREFIX) and name.endswith("_URL") and text for name, text in environ.items()
    )


def _own_file() -> Path:
    return announcements() / f"{os.getpid()}.json"


def _running_stack(file: Path) -> RunningStack | None:
    try:
        data_dir = Path(_read_private(file)["data_dir"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    state = StackState.read(data_dir)
    return RunningStack(data_dir, state) if state and str(state.pid) == file.stem else None


def _read_private(file: Path) -> Any:
    """Read a file that only this user can have written: it decides where pictures are sent.

    Raises:
        PermissionError: Another user owns it, or may write it.
    """
    with file.open(encoding="utf-8") as opened:
        facts = os.fstat(opened.fileno())
        if facts.st_uid != os.getuid() or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(f"{file} may be written by others")
        return json.load(opened)


def _write_private(file: Path, content: Mapping[str, Any]) -> None:
    unfinished = file.with_name(f"{file.name}.new")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=0o600)
    unfinished.write_text(json.dumps(content, indent=2), encoding="utf-8")
    unfinished.replace(file)
