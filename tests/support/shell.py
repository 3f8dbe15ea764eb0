"""A shell as a new user has it: this installation's commands, and nothing of ours set."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

CALLERS_PREFIXES = ("LABELYARD_", "AWS_")
TIMEOUT_S = 150


def fresh_environment(home: Path, variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Make the environment of a user whose data goes below *home*."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(CALLERS_PREFIXES)
    }
    commands = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    homes = {"XDG_DATA_HOME": str(home), "XDG_STATE_HOME": str(home)}
    ours = {"PATH": commands, **homes, "AWS_CONFIG_FILE": os.devnull}
    return {**kept, **ours, **(variables or {})}


def shell(
    home: Path, script: str, *, variables: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a script in *home*; it ends at the first command that fails."""
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=home,
        env=fresh_environment(home, variables),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
