"""Run the GPU check: ``python -m benchmarks.gpu``; benchmarks/gpu/check.sh installs what it needs.

Imports the standard library alone, and each step is a process of its own: whatever is missing
or breaks on a machine that was seen by nobody, the other steps run, and their figures are kept.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import IO, Any

from benchmarks.folders import REPOSITORY, RESULTS
from benchmarks.gpu import results
from benchmarks.gpu.form import Form, form_of
from benchmarks.gpu.results import Ran, Status
from benchmarks.gpu.step_result import VARIABLE
from benchmarks.gpu.steps import Step, command_line, steps_for

WITHIN_S = 480.0  # from the start of check.sh to the last line
REPORT_S = 5.0
GRACE_S = 3.0
WORDS_KEPT = 400
LINES_SHOWN = 12
# pytest would load every plugin that the machine happens to have.
VARIABLES = {"PYTHONUNBUFFERED": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
STARTED_AT = "GPU_CHECK_STARTED_AT"


def main() -> int:
    """Run every step that there is time for, and report after each."""
    parser = argparse.ArgumentParser(prog="check.sh", description=__doc__)
    parser.add_argument("--device", choices=["auto", "cuda", "cpu"], default="auto")
    parser.add_argument("--within-s", type=float, default=WITHIN_S, help="seconds for all")
    parser.add_argument("--is-quick", action="store_true", help="one checkpoint, no tests")
    parser.add_argument("--steps", default="", help="only those whose names contain this text")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # end the step, as after Ctrl-C
    device = options.device if options.device != "auto" else present_device()
    form = form_of(device)
    steps = [one for one in steps_for(form, is_quick=options.is_quick) if options.steps in one.name]
    check = Check(form, ends_at=started_at() + options.within_s)
    try:
        for step in steps:
            check.run(step)
    finally:
        check.report()
        print(check.folder / "gpu-check.md", "\n", check.text(), sep="")
    return 1 if any(one.status == "failed" for one in check.ran) else 0


def started_at() -> float:
    """Return the start time of the whole check, with the installation by check.sh."""
    return float(os.environ.get(STARTED_AT) or time.time())


def present_device() -> str:
    """Return ``cuda`` or ``cpu``, as torch sees it in a child process: CUDA can hang or crash."""
    command = [sys.executable, "-c", "import torch; print(torch.cuda.is_available())"]
    try:
        answer = subprocess.run(command, capture_output=True, timeout=60, check=False).stdout
    except subprocess.TimeoutExpired:
        return "cuda"  # a hanging driver: the steps report it
    return "cuda" if answer.strip() == b"True" else "cpu"


class Check:
    """The steps that ran, and where their report goes.

    Attributes:
        ran: In order.
        folder: ``$OUT`` if it is set.
    """

    def __init__(self, form: Form, *, ends_at: float) -> None:
        self.ran: list[Ran] = []
        self.folder = Path(os.environ.get("OUT") or RESULTS / "gpu")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._form = form
        self._ends_at = ends_at
        self._log_path = self.folder / "gpu-check.log"
        self._log_path.write_bytes(b"")

    def run(self, step: Step) -> None:
        """Run one step, and write the report; nothing that it does can end the check."""
        left_s = self._ends_at - REPORT_S - time.time()
        if left_s < step.least_s:
            self.ran.append(Ran(step.name, step.subject, "skipped", 0.0, "no time was left"))
            self.report()
            return
        print(f"{time.strftime('%H:%M:%S')} {step.name} …", flush=True)
        started_at = time.monotonic()
        running = Ran(step.name, step.subject, "failed", 0.0, "the check was ended")
        self.ran.append(running)
        with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder, self._log() as log:
            log.write(f"\n== {step.name}\n".encode())
            log.flush()
            begin = log.tell()
            try:
                running.status, running.why = self._finish(
                    step, Path(folder), log, within_s=min(step.limit_s, left_s)
                )
            finally:
                running.seconds = time.monotonic() - started_at
                running.found = found_in(Path(folder))
        print(f"  {running.status} after {running.seconds:.1f} s {running.why}", flush=True)
        if running.status == "failed":
            print(self._last_lines(begin), flush=True)
        self.report()

    def _finish(
        self, step: Step, folder: Path, log: IO[bytes], *, within_s: float
    ) -> tuple[Status, str]:
        """Wait for the step's process, and end it and all that it started when its time is over."""
        process = subprocess.Popen(
            command_line(step, report=str(folder / "tests.xml")),
            cwd=REPOSITORY,
            env={**os.environ, **VARIABLES, VARIABLE: str(folder / "found.json")},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(within_s)
        except subprocess.TimeoutExpired:
            return "failed", f"not done after {within_s:.0f} s"
        finally:
            end_group(process)
        if step.is_test:
            return judge_tests(folder / "tests.xml", code)
        return ("ok", "") if code == 0 else ("failed", f"exit code {code}")

    def report(self) -> None:
        """Write the results of the steps so far."""
        found = results.as_json(self.ran, device=self.device, is_tiny=self._form.is_tiny)
        (self.folder / "gpu-check.json").write_text(json.dumps(found, indent=1) + "\n")
        (self.folder / "gpu-check.md").write_text(self.text())

    def text(self) -> str:
        """Write the report for people."""
        return results.markdown(self.ran, device=self.device, is_tiny=self._form.is_tiny)

    @property
    def device(self) -> str:
        """Name of the device, once a step has found it out."""
        names = [one.found["device"] for one in self.ran if "device" in one.found]
        return str(names[0]) if names else self._form.device

    def _log(self) -> IO[bytes]:
        return self._log_path.open("ab")

    def _last_lines(self, begin: int) -> str:
        with self._log_path.open("rb") as log:
            log.seek(begin)
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(f"  | {line[:200]}" for line in lines[-LINES_SHOWN:])


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """Terminate the process group of a step, with SIGTERM first."""
    for signal_number, within_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, GRACE_S)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal_number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(within_s)


def found_in(folder: Path) -> dict[str, Any]:
    """Read a step's figures, whole or as far as it came."""
    found: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        found |= json.loads((folder / "found.json").read_text())
    with contextlib.suppress(OSError, ET.ParseError):
        for one in ET.parse(folder / "tests.xml").iter("property"):
            found[one.attrib["name"]] = one.attrib["value"]
    return found


def judge_tests(report: Path, code: int) -> tuple[Status, str]:
    """Parse pytest's report: a step without a single test that ran has failed."""
    try:
        cases = list(ET.parse(report).iter("testcase"))
    except (OSError, ET.ParseError):
        return "failed", f"pytest left no report, exit code {code}"
    failed = [one.attrib["name"] for one in cases if has(one, "failure") or has(one, "error")]
    skipped = sum(has(one, "skipped") for one in cases)
    if failed or code or skipped == len(cases):
        names = ", ".join(failed)[:WORDS_KEPT]
        return "failed", f"{len(failed)} of {len(cases)} tests failed: {names}"
    return "ok", ""


def has(case: ET.Element, tag: str) -> bool:
    """Return whether a test case has an element of this name."""
    return case.find(tag) is not None


if __name__ == "__main__":
    sys.exit(main())
