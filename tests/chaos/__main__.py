"""Run the chaos suite: ``python -m tests.chaos --seconds 120``.

Exits with 1 if a promise was not kept; ``--stock`` shows that the suite can fail.
"""

import argparse
import logging
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.brokers import BROKERS
from tests.chaos.disk import small_disk
from tests.chaos.driver import Options, run
from tests.support.rabbitmq import NOT_INSTALLED, is_installed
from tests.support.variables import isolate


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="how long faults come")
    parser.add_argument("--seed", type=int, help="draws the same run again")
    parser.add_argument("--broker", choices=BROKERS, default="redis", help="carries the messages")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--stock", action="store_true", help="without our transport and guards")
    parser.add_argument("--report", type=Path, default=Path("chaos-report.json"))
    parser.add_argument(
        "--keep", action="store_true", help="keep data and logs of a clean run, too"
    )
    asked = parser.parse_args(arguments)
    if asked.broker == "rabbitmq" and not is_installed():
        parser.error(NOT_INSTALLED)
    return asked


def allow_many_files() -> None:
    """Raise the soft limit: every proxied connection takes two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main(arguments: list[str]) -> int:
    """Run the suite, write its report, and print a summary."""
    asked = parse(arguments)
    isolate(os.environ)
    logging.basicConfig(level=logging.ERROR)  # that a dead broker takes no message is no news
    allow_many_files()
    folder = Path(tempfile.mkdtemp(prefix="labelyard-chaos-"))
    seed = random.randrange(10**6) if asked.seed is None else asked.seed
    print(f"seed {seed}, data and logs in {folder}", flush=True)
    started_at = time.monotonic()
    options = Options(
        seconds=asked.seconds,
        seed=seed,
        workers=asked.workers,
        is_stock=asked.stock,
        broker=asked.broker,
        disk=small_disk(folder / "disk") if asked.broker == "redis" else None,
        log=lambda line: print(f"{time.monotonic() - started_at:6.1f} s  {line}", flush=True),
    )
    report = run(folder, options)
    report.write(asked.report)
    print("\n".join(report.lines()))
    if report.is_clean and not asked.keep:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if report.is_clean else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
