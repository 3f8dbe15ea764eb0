"""A Prometheus of our own, where its programs are installed (Debian's package ``prometheus``)."""

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import yaml

from labelyard_worker.local.embedded import HOST, EmbeddedServer

NOT_INSTALLED = "prometheus and promtool are not installed; run: apt-get install prometheus"
ANSWERS_WITHIN_S = 10.0


def is_installed() -> bool:
    """Return whether this machine has Prometheus and its tool."""
    return all(shutil.which(program) for program in ("prometheus", "promtool"))


def promtool(*arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run ``promtool`` in a folder, and return its output."""
    return subprocess.run(
        ["promtool", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


class PrometheusServer(EmbeddedServer):
    """A Prometheus that scrapes addresses of this machine.

    Args:
        data_dir: Folder for data, settings and log; made when missing.
        targets: Addresses to scrape, ``host:port``.
        every_s: Seconds between two scrapes of a target.
        rules: Files of alert rules.
        job: Name of the scrape job.
    """

    name = "prometheus"
    stop_grace_s: ClassVar[float] = 10.0

    def __init__(
        self,
        data_dir: Path,
        *,
        targets: Sequence[str],
        every_s: float = 1.0,
        rules: Sequence[Path] = (),
        job: str = "labelyard",
    ) -> None:
        super().__init__(data_dir)
        self.every_s = every_s
        self._job = job
        self._rules = [str(path.absolute()) for path in rules]
        self.set_targets(targets)

    @property
    def url(self) -> str:
        """Address of the HTTP interface."""
        return f"http://{HOST}:{self.port}"

    def set_targets(self, targets: Sequence[str]) -> None:
        """Scrape other addresses from now on; a running server is told to read them."""
        interval = f"{int(self.every_s * 1000)}ms"
        settings = {
            "global": {"scrape_interval": interval, "evaluation_interval": interval},
            "rule_files": self._rules,
            "scrape_configs": [
                {
                    "job_name": self._job,
                    "scrape_timeout": interval,
                    "static_configs": [{"targets": list(targets)}] if targets else [],
                }
            ],
        }
        self.data_dir.mkdir(parents=True, exist_ok=True)
        (self.data_dir / "prometheus.yml").write_text(yaml.safe_dump(settings))
        if self.is_running():
            self._request("/-/reload", method="POST")

    def is_ready(self) -> bool:
        try:
            self._request("/-/ready")
        except OSError:
            return False
        return True

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Evaluate an expression now, and return its series.

        Raises:
            OSError: Prometheus refused it.
        """
        found: list[dict[str, Any]] = self._api("query", query=expression)["result"]
        return found

    def query_range(
        self, expression: str, *, start_s: float, end_s: float, step_s: float
    ) -> list[dict[str, Any]]:
        """Evaluate an expression at each step of a time, in seconds since the epoch."""
        bounds = {"start": f"{start_s:.3f}", "end": f"{end_s:.3f}", "step": f"{step_s:g}"}
        found: list[dict[str, Any]] = self._api("query_range", query=expression, **bounds)["result"]
        return found

    def _api(self, name: str, **parameters: str) -> Any:
        answer = self._request(f"/api/v1/{name}?{urllib.parse.urlencode(parameters)}")
        return json.loads(answer)["data"]

    def _request(self, path: str, *, method: str = "GET") -> bytes:
        request = urllib.request.Request(f"{self.url}{path}", method=method)
        with urllib.request.urlopen(request, timeout=ANSWERS_WITHIN_S) as answer:
            return bytes(answer.read())

    def _command(self) -> list[str]:
        return [
            "prometheus",
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            f"--web.listen-address={HOST}:{self.port}",
            "--web.enable-lifecycle",
            "--log.level=warn",
        ]
