"""Driver of a run: traffic, faults at their times, recovery, and the check at the end."""

import random
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos.brokers import BROKERS
from tests.chaos.context import Fault, FaultContext, NoVictimError
from tests.chaos.effects import EffectsLog
from tests.chaos.environment import SETTINGS, STOCK_SETTINGS, Environment, start_environment
from tests.chaos.faults import draw_schedule
from tests.chaos.invariants import Findings, check, count_unfinished, settle
from tests.chaos.recovery import Recoveries
from tests.chaos.report import Report, examples_of, exits_by_cause
from tests.chaos.slots import Exit
from tests.chaos.traffic import Traffic
from tests.support.apps import orders

FAULTS_AT_ONCE: Final = 3
WORKERS_UP_WITHIN_S: Final = 120.0
RECOVERED_WITHIN_S: Final = 90.0
# Retries are put off by up to 32 s, half-open connections are noticed after 10.
QUIET_S: Final = 75.0  # what is owed is looked at each minute
SETTLED_WITHIN_S: Final = 180.0
LOOK_EVERY_S: Final = 0.1
# A worker whose model obeys one of them leaves with 70, whether it drains by then or not.
ORDERS_THAT_END: Final = (orders.HANG_MODEL, orders.LOSE_DEVICE)


@dataclass(frozen=True)
class Options:
    """Options of a run.

    Attributes:
        seconds: How long faults come.
        is_stock: Run Celery's own parts, without our transport and guards.
        broker: What carries the messages, one of ``BROKERS``.
        disk: Folder on a small disk of its own, for the broker's data.
    """

    seconds: float
    seed: int
    workers: int = 2
    is_stock: bool = False
    broker: str = "redis"
    disk: Path | None = None
    log: Callable[[str], None] = print


@dataclass
class Injector:
    """Inflicts faults at their times, a few at once.

    Attributes:
        inflicted: How many of each kind.
        missed: Kinds that found nothing to hit, and why.
        broken: Errors of the faults' own code.
    """

    context: FaultContext
    recoveries: Recoveries
    log: Callable[[str], None]
    inflicted: Counter[str] = field(default_factory=Counter)
    missed: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def inflict_all(self, schedule: list[tuple[float, Fault]], *, seed: int) -> None:
        """Inflict *schedule*, and return when the last fault is over."""
        started_at = time.monotonic()
        with ThreadPoolExecutor(FAULTS_AT_ONCE, thread_name_prefix="chaos-fault") as pool:
            for number, (at_s, fault) in enumerate(schedule):
                time.sleep(max(0.0, started_at + at_s - time.monotonic()))
                pool.submit(self._inflict, fault, random.Random(f"{seed}-{number}"))

    def _inflict(self, fault: Fault, rng: random.Random) -> None:
        hit = self.recoveries.begin(fault.name)
        try:
            fault.inflict(self.context, rng, hit)
        except NoVictimError as error:
            with self._lock:
                self.missed[fault.name] = str(error)
            return
        except Exception:  # noqa: BLE001 - the run goes on; the report shows it
            with self._lock:
                self.broken.append(f"{fault.name}: {traceback.format_exc()}")
            return
        self.recoveries.end(hit)
        with self._lock:
            self.inflicted[fault.name] += 1
        where = " ".join(sorted(hit.slots)) or hit.job_id
        self.log(f"{fault.name} ({time.time() - hit.started_at:.1f} s) on {where}")


def run(folder: Path, options: Options) -> Report:
    """Run the suite once in *folder*, which keeps the logs; return the report."""
    recoveries = Recoveries()
    settings = STOCK_SETTINGS if options.is_stock else {}
    rng = random.Random(options.seed)
    skipped = faults_to_skip(options)
    # Taken out of the whole plan: a seed draws the same on every machine and broker.
    plan = draw_schedule(rng, seconds=options.seconds)
    schedule = [one for one in plan if one[1].name not in skipped]
    with (
        start_environment(
            folder,
            workers=options.workers,
            settings=settings,
            broker_kind=options.broker,
            disk=options.disk,
        ) as environment,
        EffectsLog(environment.effects_path, on_effect=recoveries.on_effect) as effects,
    ):
        traffic = Traffic(environment, rng, on_final=recoveries.note_final)
        injector = Injector(FaultContext(environment, effects, traffic), recoveries, options.log)
        try:
            findings = run_phases(injector, schedule, options)
        finally:
            traffic.close()
    return Report(
        submitted=len(traffic.submitted),
        final=dict(findings.final),
        lost=len(findings.lost),
        stuck=len(findings.stuck),
        twice_visible=len(findings.twice_visible),
        executions=effects.begun.total(),
        faults=dict(injector.inflicted),
        recovery_s=recoveries.summary(),
        seed=options.seed,
        broker=options.broker,
        doubtful=len(traffic.doubtful),
        violations=findings.violations | own_violations(environment, injector),
        unrecovered=[hit.name for hit in recoveries.pending()],
        missed_faults=injector.missed,
        skipped_faults=skipped,
        worker_exits=exits_by_cause(one for slot in environment.slots for one in slot.exits),
        settings={**SETTINGS, **settings},
        damaged_files=environment.damaged_files,
        examples=examples_of(findings) | {"broken_faults": injector.broken},
    )


def faults_to_skip(options: Options) -> dict[str, str]:
    """Return the faults that this machine or broker cannot have, each with the reason."""
    skipped = {}
    if options.disk is None:
        skipped["broker_disk_full"] = "needs the right to mount a small disk for the broker"
    return skipped | dict(BROKERS[options.broker].impossible)


def own_violations(environment: Environment, injector: Injector) -> dict[str, int]:
    """Count wrong exit codes of drained workers, and faults that could not be inflicted."""
    obeyed = injector.context.effects.obeyed
    excused = {pid for order in ORDERS_THAT_END for _, pid in obeyed[order]}
    for job_id, tenant in injector.context.traffic.poison.items():
        if tenant == orders.HANGS:  # the watchdog ends its worker with 70, draining or not
            excused |= injector.context.effects.begun_by[job_id]
    exits = [one for slot in environment.slots for one in slot.exits]
    found = {
        "sigterm_not_0": wrong_exits(exits, excused=excused),
        "broken_faults": len(injector.broken),
    }
    return {name: count for name, count in found.items() if count}


def wrong_exits(exits: Iterable[Exit], *, excused: set[int]) -> int:
    """Count the workers that ended after SIGTERM with an exit code other than 0.

    Args:
        excused: Processes that something else was ending already.
    """
    asked = [one for one in exits if one.cause == "sigterm_under_load"]
    return sum(one.code != 0 and one.pid not in excused for one in asked)


def run_phases(
    injector: Injector, schedule: list[tuple[float, Fault]], options: Options
) -> Findings:
    """Go through the phases of a run: start, faults under traffic, recovery, rest, check."""
    environment, traffic = injector.context.environment, injector.context.traffic
    wait_for(lambda: all(slot.pid for slot in environment.slots), within_s=WORKERS_UP_WITHIN_S)
    options.log(f"{len(environment.slots)} workers are up; {len(schedule)} faults come")
    traffic.start()
    injector.inflict_all(schedule, seed=options.seed)
    options.log(f"faults are over; {len(traffic.submitted)} jobs submitted")
    wait_for(lambda: not injector.recoveries.pending(), within_s=RECOVERED_WITHIN_S)
    traffic.end()
    settle(lambda: count_unfinished(environment), quiet_s=QUIET_S, within_s=SETTLED_WITHIN_S)
    while traffic.drain_stream():
        continue
    return check(environment, traffic)


def wait_for(is_true: Callable[[], bool], *, within_s: float) -> None:
    """Wait for a condition; the report shows if it never held."""
    until = time.monotonic() + within_s
    while not is_true() and time.monotonic() < until:
        time.sleep(LOOK_EVERY_S)
