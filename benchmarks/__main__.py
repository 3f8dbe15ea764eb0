"""Run the benchmark: ``python -m benchmarks``."""

import argparse
import faulthandler
import os
import signal
import sys
import time
from dataclasses import replace

from benchmarks.machine import load_before, usable_cores
from benchmarks.measure import Effort
from benchmarks.plans import PLANS, SECTIONS, Plan
from benchmarks.report import LATEST, errors, table, write
from benchmarks.stack import isolate

GRACE_S = 600.0


def main() -> int:
    """Read the command line, measure, and report."""
    options = read_options()
    plan = plan_of(options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # clean up, as after Ctrl-C
    isolate(os.environ)
    if load_before() > 0.5 * usable_cores():
        say(f"the load is {load_before():.1f} on {usable_cores()} cores: the figures will be off")
    # The servers end with this process, even if a thread hangs.
    faulthandler.dump_traceback_later(plan.limit_s + GRACE_S, exit=True)
    from benchmarks.run import run_plan  # torch: seconds that --help need not pay

    results = run_plan(plan, say=say)
    faulthandler.cancel_dump_traceback_later()
    if results["cases"]:
        write(results)
        print(table(results))
        say(f"written to {LATEST.parent}")
    return 1 if errors(results) or not results["is_whole"] else 0


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under three minutes")
    parser.add_argument("--cases", choices=sorted(PLANS), help="which cases; 'full' if not given")
    parser.add_argument("--seconds", type=float, help="length of each measured run")
    parser.add_argument("--rounds", type=int, help="runs of each system")
    parser.add_argument(
        "--sections", help=f"comma-separated, of: {', '.join(sorted(SECTIONS))}; or 'none'"
    )
    return parser.parse_args()


def plan_of(options: argparse.Namespace) -> Plan:
    """Turn the command line into a plan."""
    plan = PLANS[options.cases or ("quick" if options.quick else "full")]
    plan = replace(
        plan,
        effort=asked_for(plan.effort, options),
        section_effort=asked_for(plan.section_effort, options),
    )
    if options.sections is None:
        return plan
    wanted = frozenset(name for name in options.sections.split(",") if name != "none")
    if wanted - SECTIONS:
        sys.exit(f"--sections: no such section: {', '.join(sorted(wanted - SECTIONS))}")
    return replace(plan, sections=wanted)


def asked_for(effort: Effort, options: argparse.Namespace) -> Effort:
    """Apply the command line's options to *effort*."""
    return Effort(options.rounds or effort.rounds, options.seconds or effort.seconds)


def say(line: str) -> None:
    """Log a line to stderr, with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
