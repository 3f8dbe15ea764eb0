"""Start a worker as a process of its own, with the command that production uses."""

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from labelyard_worker.local.embedded import HOST, EmbeddedServer


class WorkerProcess(EmbeddedServer):
    """A worker that lives no longer than this process.

    Args:
        data_dir: Folder for the log; made when missing.
        variables: Settings, added to this process's environment.
        command: Another way to start a worker than ``labelyard-worker start``.
    """

    name = "worker"
    stop_grace_s: ClassVar[float] = 40.0
    umask: ClassVar[int] = -1  # this process's own: a worker writes into shared caches, too

    def __init__(
        self,
        data_dir: Path,
        *,
        variables: Mapping[str, str],
        command: tuple[str, ...] = (sys.executable, "-m", "labelyard_worker", "start"),
    ) -> None:
        super().__init__(data_dir)
        self._variables = dict(variables)
        self._start_command = command

    @property
    def health_url(self) -> str:
        """Address of ``/live`` and ``/ready``."""
        return f"http://{HOST}:{self.port}"

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.health_url}/ready", timeout=2) as answer:  # noqa: S310 - our own port
                return bool(answer.status == 200)
        except urllib.error.HTTPError as error:
            error.close()
            return False
        except OSError:
            return False

    def _command(self) -> list[str]:
        return list(self._start_command)

    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self._variables, "LABELYARD_HEALTH_PORT": str(self.port)}
