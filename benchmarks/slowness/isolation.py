"""Simulate the isolation of jobs that kill workers: its cost to others, and innocents buried.

    python -m benchmarks.slowness.isolation [--jobs 20000]

Simulates the rule of ``START`` (``producer/labelyard/ledger/scripts.py``) with made-up workers: jobs
of random length run in slots, workers are killed from outside at random, and some jobs kill
their worker themselves. No server is needed; the seed repeats a simulation.
"""

import argparse
import heapq
import json
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from labelyard.ledger.limits import UNCONFIRMED_DEATHS

Mode = Literal["none", "suspect", "crowded", "alone"]
QUARANTINE_AFTER, DEAD_AFTER = 2, 2
SLOTS = 16
VISIBILITY_S, START_S = 120.0, 10.0
IDLE_WITHIN_S = 30.0


@dataclass
class Job:
    """One job, with the ledger's counters of it."""

    length_s: float
    is_poison: bool
    deaths: int = 0
    blamed: int = 0
    alone: int = 0
    beside: int = 0
    was_suspect: bool = False
    state: Literal["open", "done", "dead"] = "open"

    @property
    def is_suspect(self) -> bool:
        """Return whether it goes through the quarantine queue."""
        return self.deaths + self.beside / 2 >= QUARANTINE_AFTER

    @property
    def is_dead(self) -> bool:
        """Return whether it is buried instead of run."""
        return (self.alone > 0 and self.blamed >= DEAD_AFTER) or (
            self.blamed >= DEAD_AFTER + UNCONFIRMED_DEATHS
        )


@dataclass
class Worker:
    """One process: its running jobs, and the end of its downtime."""

    running: dict[int, Mode] = field(default_factory=dict)
    up_at: float = 0.0
    generation: int = 0

    @property
    def suspect(self) -> int | None:
        """The suspect that runs, if one does."""
        return next((job for job, mode in self.running.items() if mode != "none"), None)


class Simulation:
    """A fleet under random kills."""

    def __init__(self, jobs: list[Job], *, workers: int, kill_every_s: float, seed: int) -> None:
        self.jobs = jobs
        self.kills = 0
        self._random = random.Random(seed)
        self._workers = [Worker() for _ in range(workers)]
        self._kill_every_s = kill_every_s
        self._ordinary: deque[int] = deque(range(len(jobs)))
        self._suspects: deque[int] = deque()
        self._asked_at: dict[int, float] = {}
        self._events: list[tuple[float, int, str, int, int, int]] = []
        self._count = 0

    def run(self) -> None:
        """Simulate until every job is done or dead."""
        now = 0.0
        self._at(self._random.expovariate(1 / self._kill_every_s), "kill")
        self._fill(now)
        while any(job.state == "open" for job in self.jobs):
            now, _, kind, worker, generation, job = heapq.heappop(self._events)
            match kind:
                case "kill":
                    self._die(self._random.randrange(len(self._workers)), now)
                    self.kills += 1
                    self._at(now + self._random.expovariate(1 / self._kill_every_s), "kill")
                case "back":
                    self._queue(job)
                case "end" if self._workers[worker].generation == generation:
                    self._end(worker, job, now)
            self._fill(now)

    def _at(
        self, when: float, kind: str, *, worker: int = 0, generation: int = 0, job: int = 0
    ) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, kind, worker, generation, job))

    def _queue(self, number: int) -> None:
        job = self.jobs[number]
        if job.is_dead:
            job.state = "dead"
        elif job.is_suspect:
            job.was_suspect = True
            self._suspects.append(number)
        else:
            self._ordinary.append(number)

    def _fill(self, now: float) -> None:
        for number, worker in enumerate(self._workers):
            if worker.up_at > now:
                continue
            self._begin_suspect(number, worker, now)
            while self._ordinary and len(worker.running) < SLOTS:
                self._begin(number, self._ordinary.popleft(), "none", now)

    def _begin_suspect(self, number: int, worker: Worker, now: float) -> None:
        if not self._suspects or worker.suspect is not None:
            return
        first = self._suspects[0]
        mode: Mode = "suspect"
        if self.jobs[first].blamed >= DEAD_AFTER - 1:
            asked_at = self._asked_at.setdefault(first, now)
            if worker.running and now - asked_at < IDLE_WITHIN_S:
                self._at(asked_at + IDLE_WITHIN_S, "look")
                return
            mode = "crowded" if worker.running else "alone"
            del self._asked_at[first]
        self._begin(number, self._suspects.popleft(), mode, now)

    def _begin(self, number: int, job: int, mode: Mode, now: float) -> None:
        worker = self._workers[number]
        worker.running[job] = mode
        length_s = self.jobs[job].length_s * (0.2 if self.jobs[job].is_poison else 1.0)
        self._at(now + length_s, "end", worker=number, generation=worker.generation, job=job)

    def _end(self, number: int, job: int, now: float) -> None:
        if self.jobs[job].is_poison:
            self._die(number, now)
            return
        del self._workers[number].running[job]
        self.jobs[job].state = "done"

    def _die(self, number: int, now: float) -> None:
        worker = self._workers[number]
        if worker.up_at > now:
            return
        for number_of_job, mode in worker.running.items():
            job = self.jobs[number_of_job]
            if mode != "none":
                job.deaths, job.blamed = job.deaths + 1, job.blamed + 1
                job.alone += mode == "alone"
            elif worker.suspect is not None:
                job.beside += 1
            else:
                job.deaths += 1
            self._at(now + VISIBILITY_S, "back", job=number_of_job)
        worker.running.clear()
        worker.generation += 1
        worker.up_at = now + START_S
        self._at(worker.up_at, "look")


def simulate(
    *, jobs: int, poison: int, length_s: float, kill_every_s: float, workers: int, seed: int
) -> dict[str, float]:
    """Simulate one fleet, and count its runs and deaths."""
    drawn = random.Random(seed)
    all_jobs = [Job(drawn.expovariate(1 / length_s), number < poison) for number in range(jobs)]
    drawn.shuffle(all_jobs)
    fleet = Simulation(all_jobs, workers=workers, kill_every_s=kill_every_s, seed=seed)
    fleet.run()
    innocent = [job for job in all_jobs if not job.is_poison]
    culprits = [job for job in all_jobs if job.is_poison]
    return {
        "kills": fleet.kills,
        "innocent": len(innocent),
        "innocent_suspects": sum(job.was_suspect for job in innocent),
        "innocent_dead": sum(job.state == "dead" for job in innocent),
        "culprits": len(culprits),
        "culprits_dead": sum(job.state == "dead" for job in culprits),
        "deaths_of_a_culprit": round(
            sum(job.deaths + job.beside for job in culprits) / max(1, len(culprits)), 2
        ),
    }


def main() -> None:
    """Simulate several fleets, and print the final states of their jobs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    fleets = [
        {"length_s": length_s, "kill_every_s": kill_every_s, "poison": poison, "workers": workers}
        for workers in (1, 4)
        for length_s in (1.0, 25.0)
        for kill_every_s in (60.0, 600.0)
        for poison in (0, 20)
    ]
    for settings in fleets:
        jobs = options.jobs if settings["length_s"] < 10 else options.jobs // 10
        found = simulate(jobs=jobs, seed=options.seed, **settings)  # type: ignore[arg-type]
        print(json.dumps({**settings, **found}), flush=True)


if __name__ == "__main__":
    main()
