"""Node and packages of the npm registry, for tests of other languages."""

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

INSTALL_WITHIN_S: Final = 60
RUN_WITHIN_S: Final = 30


class NodeFolder:
    """A folder with packages, and node to run scripts in it."""

    def __init__(self, folder: Path, *packages: str) -> None:
        """Install *packages*; skips the test with the reason if that cannot be done here."""
        self.folder = folder
        command = [find("npm"), "install", "--no-audit", "--no-fund", "--ignore-scripts", *packages]
        try:
            done = subprocess.run(
                [*command, "--prefix", str(folder)],
                cwd=folder,
                env=environment(),
                capture_output=True,
                text=True,
                timeout=INSTALL_WITHIN_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            pytest.skip("the npm registry gave no answer in time")
        if done.returncode:
            pytest.skip(f"npm install {' '.join(packages)}: {done.stderr[-300:]}")

    def run(self, script: str, given: Any, **variables: str) -> Any:
        """Run a script whose ``given`` is this value, and return what it writes as JSON."""
        text = f"const given = JSON.parse(require('fs').readFileSync(0));\n{script}"
        done = subprocess.run(
            [find("node"), "-e", text],
            cwd=self.folder,
            env={**environment(), **variables},
            input=json.dumps(given),
            capture_output=True,
            text=True,
            timeout=RUN_WITHIN_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@cache
def find(program: str) -> str:
    """Return the path of node or npm; skips the test if there is none."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"there is no {program} on this machine")
    return path


def environment() -> dict[str, str]:
    """Return our environment without the tests' settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LABELYARD_")}
