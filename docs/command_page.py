"""Runs the commands of ``docs/commands.md`` and writes their output below them.

``python -m docs.command_page`` does so, for another page as well if it is named, in the environment it is started in: a stack that runs, as
``eval "$(labelyard-worker env)"`` shows the way to it. Lines that begin with ``$`` in blocks of
``console`` are run in one shell; comments of the form ``<!-- run: … -->`` are run unseen.
"""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from labelyard_worker.local.photographs import read_all

PAGE: Final = Path(__file__).with_name("commands.md")
COLUMNS, LINES = 110, 50
END: Final = "end-of-command"
BLOCK: Final = re.compile(
    r"^```console\n(.*?)^```$|^<!-- run: (.*?) -->$", re.MULTILINE | re.DOTALL
)
ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Shell:
    """A shell whose output goes to a terminal of a fixed size."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self._fd, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        attributes = termios.tcgetattr(theirs)
        attributes[1] &= ~termios.OPOST  # line ends stay as they are written
        termios.tcsetattr(theirs, termios.TCSANOW, attributes)
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],  # noqa: S607 - the bash of who writes the page
            cwd=folder,
            env={**variables, "TERM": "xterm-256color"},
            stdin=subprocess.PIPE,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)

    def run(self, command: str) -> str:
        """Run a command; returns its output, with its exit code if that is not 0."""
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        script = f"{{ {command}\n}} </dev/null; echo {END} $?\n"
        self._process.stdin.write(script.encode())
        self._process.stdin.flush()
        output = ""
        while not (ended := re.search(rf"^{END} (\d+)\n", output, re.MULTILINE)):
            output += os.read(self._fd, 65536).decode()
        text = ESCAPES.sub("", output[: ended.start()])
        code = "" if ended[1] == "0" else f"[exit code {ended[1]}]\n"
        return "".join(f"{line.rstrip()}\n" for line in text.splitlines()) + code

    def close(self) -> None:
        """End the shell."""
        self._process.communicate(timeout=60)
        os.close(self._fd)


@contextmanager
def open_shell(variables: Mapping[str, str]) -> Iterator[Shell]:
    """Run a shell in a folder with the demo's photographs, while the block runs."""
    with tempfile.TemporaryDirectory() as folder:
        for name, picture in read_all().items():
            (Path(folder) / name).write_bytes(picture)
        shell = Shell(Path(folder), variables)
        try:
            yield shell
        finally:
            shell.close()


def rerun(page: str, variables: Mapping[str, str]) -> str:
    """Run the commands of a page; returns the page with their output.

    Args:
        variables: The environment: it names the servers of a stack that runs.
    """
    with open_shell(variables) as shell:

        def run_block(block: re.Match[str]) -> str:
            if block[2]:
                if output := shell.run(block[2]):
                    sys.stderr.write(output)
                return block[0]
            return f"```console\n{_run_lines(shell, block[1])}```"

        return BLOCK.sub(run_block, page)


def _run_lines(shell: Shell, block: str) -> str:
    """Run the lines of a block that begin with ``$``."""
    commands = [line for line in block.splitlines() if line.startswith("$ ")]
    return "".join(f"{line}\n{shell.run(line[2:])}" for line in commands)


if __name__ == "__main__":
    page = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE
    page.write_text(rerun(page.read_text(encoding="utf-8"), os.environ), encoding="utf-8")
