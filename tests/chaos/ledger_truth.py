"""Faults of the ledger, in larger numbers than the suite: clocks, late messages, lost seconds.

    python -m tests.chaos.ledger_truth --jobs 200 [--only clocks|late|power]

Real workers and servers, a few minutes. Prints a line of JSON for each scenario, and exits with 1 if
a job was lost, came to two ends, was expired wrongly or was not found.
"""

import argparse
import json
import os
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from labelyard import Client
from labelyard.errors import JobNotFoundError, LabelyardError, LedgerUnavailableError
from labelyard.settings import ClientSettings
from labelyard_worker.local.servers import ValkeyServer
from labelyard_worker.local.worker_process import WorkerProcess
from tests.e2e.instant import COMMAND, ROOT, SETTINGS
from tests.support import pictures
from tests.support.power import PowerFailure
from tests.support.service import READY_WITHIN_S, Service, running_service
from tests.support.waiting import wait_until

LABELS = ["a cat", "a dog"]
HOUR_S = 3600.0
WITHIN_S = 120.0
LOST = {"pending", "running", "not_found", "vanished"}


def worker_of(
    service: Service, name: str, *, clock_s: float = 0.0, **settings: str
) -> WorkerProcess:
    """Describe a worker whose clock is wrong by *clock_s*."""
    clock = service.folder / f"clock-{name}"
    clock.write_bytes(struct.pack("d", clock_s))
    flags = service.folder / f"flags-{name}"
    flags.mkdir()
    variables = {
        "PYTHONPATH": str(ROOT),
        "TEST_CLOCK": str(clock),
        "TEST_EFFECTS": str(service.folder / f"effects-{name}.log"),
        "TEST_FLAGS": str(flags),
    }
    changes = {"max_attempts": "5", "job_timeout_s": "60", "drain_s": "2", "quarantine_after": "9"}
    values: dict[str, Any] = {**SETTINGS, **changes, **settings}
    return service.worker(name=name, command=COMMAND, variables=variables, **values)


def end_of(client: Client, job_id: str) -> str:
    """Read a job's state; ``not_found`` or ``vanished`` if the client raises that."""
    try:
        return client.status(job_id).state
    except JobNotFoundError:
        return "not_found"
    except LedgerUnavailableError:
        return "vanished"


def run_clocks(service: Service, picture: str, jobs: int) -> dict[str, int]:
    """Run jobs that may live for a minute at workers two hours apart, and kill one of them."""
    settings = {"namespace": "clocks", "visibility_timeout_s": "5"}
    with ExitStack() as stack:
        client = stack.enter_context(service.client(namespace="clocks"))
        ahead = worker_of(service, "ahead", clock_s=HOUR_S, **settings)
        stack.enter_context(ahead.start(within_s=READY_WITHIN_S))
        slow = [
            client.submit([picture], LABELS, tenant="slow-8", expires_in_s=100) for _ in range(8)
        ]
        wait_until(lambda: all(job.state() == "running" for job in slow), within_s=WITHIN_S)
        behind = worker_of(service, "behind", clock_s=-HOUR_S, **settings)
        stack.enter_context(behind.start(within_s=READY_WITHIN_S))
        quick = [client.submit([picture], LABELS, expires_in_s=100) for _ in range(jobs)]
        ahead.kill()
        records = client.wait([*slow, *quick], timeout_s=WITHIN_S)
        states = [record.state for record in records]
    return {
        "jobs": len(states),
        "succeeded": states.count("succeeded"),
        "expired": states.count("expired"),
        "wrong": len(states) - states.count("succeeded"),
    }


def run_late(service: Service, picture: str, jobs: int) -> dict[str, int]:
    """Let the records of cancelled jobs expire before a worker comes to their messages."""
    ttl = {"namespace": "late", "result_ttl_s": "3"}
    with ExitStack() as stack:
        client = stack.enter_context(service.client(namespace="late", result_ttl_s=3))
        handles = [client.submit([picture], LABELS) for _ in range(jobs)]
        cancelled, kept = handles[::2], handles[1::2]
        for job in cancelled:
            job.cancel()
        wait_until(
            lambda: all(end_of(client, job.id) == "not_found" for job in cancelled),
            within_s=WITHIN_S,
        )
        ends: dict[str, str] = {}
        stack.enter_context(worker_of(service, "late", **ttl).start(within_s=READY_WITHIN_S))
        for record in client.as_completed(kept, timeout_s=WITHIN_S):
            ends[record.job_id] = record.state
        wait_until(lambda: sum(client.queue_lengths().values()) == 0, within_s=WITHIN_S)
        back = [job for job in cancelled if end_of(client, job.id) != "not_found"]
    lost = [job for job in kept if ends.get(job.id) != "succeeded"]
    return {
        "jobs": jobs,
        "cancelled": len(cancelled),
        "came_back": len(back),
        "lost": len(lost),
        "wrong": len(back) + len(lost),
    }


class Reader:
    """Consumer that notes the first end that it reads of each job."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.ends: dict[str, str] = {}
        self.not_found: set[str] = set()

    def look(self, job_ids: list[str]) -> None:
        """Read the jobs that were not final when last read."""
        for job_id in job_ids:
            if job_id in self.ends:
                continue
            try:
                record = self.client.status(job_id)
            except JobNotFoundError:
                self.not_found.add(job_id)
            except LedgerUnavailableError:
                return
            else:
                if record.is_final:
                    self.ends[job_id] = end_text(self.client, job_id)


def end_text(client: Client, job_id: str) -> str:
    """Write a job's end as a consumer sees it."""
    record = client.status(job_id)
    result = record.result.model_dump_json() if record.result else ""
    return f"{record.state} {result}"


class PowerTraffic:
    """Threads that submit jobs and read their ends while the ledger's power is cut.

    Attributes:
        accepted: Ids of the jobs whose submit returned.
        reader: The consumer, with the ends that it read.
    """

    def __init__(self, client: Client, picture: str, jobs: int) -> None:
        self.accepted: list[str] = []
        self.reader = Reader(client)
        self._client, self._picture, self._jobs = client, picture, jobs
        self._stop = threading.Event()
        self._submitting = threading.Thread(target=self._submit)
        self._reading = threading.Thread(target=self._read)

    def start(self) -> None:
        """Start submitting and reading."""
        self._submitting.start()
        self._reading.start()

    def join_submits(self) -> None:
        """Wait until all jobs are submitted; reading goes on."""
        self._submitting.join(timeout=WITHIN_S)

    def stop(self) -> None:
        """Stop both threads."""
        self._stop.set()
        self._submitting.join()
        self._reading.join()

    def _submit(self) -> None:
        for _ in range(self._jobs):
            if self._stop.wait(0.05):  # spread over the failures
                return
            prepared = self._client.prepare([self._picture], LABELS)
            try:
                self.accepted.append(self._client.submit_job(prepared).id)
            except LabelyardError:
                time.sleep(0.1)

    def _read(self) -> None:
        while not self._stop.wait(0.05):
            self.reader.look(list(self.accepted))


def run_power(
    service: Service, picture: str, jobs: int, *, durable_writes: str = "fsync"
) -> dict[str, int]:
    """Cut the power of the ledger three times while jobs are submitted, run and read."""
    name = f"power-{durable_writes}"
    with ExitStack() as stack:
        ledger = stack.enter_context(ValkeyServer(service.folder / f"ledger-{name}"))
        client = stack.enter_context(Client(power_settings(service, ledger, name, durable_writes)))
        worker = power_worker(service, ledger, name, durable_writes)
        stack.enter_context(worker.start(within_s=READY_WITHIN_S))
        traffic = PowerTraffic(client, picture, jobs)
        traffic.start()
        for _ in range(3):
            wait_until(lambda: len(traffic.reader.ends) > 0, within_s=WITHIN_S)
            time.sleep(2.0)
            power = PowerFailure(ledger)
            time.sleep(1.0)  # what is written in it is lost
            power.strike()
        traffic.join_submits()
        is_final = wait_for(
            lambda: all(is_over(client, job) for job in traffic.accepted),
            within_s=WITHIN_S if durable_writes != "off" else 20.0,
        )
        traffic.stop()
        lost = [job for job in traffic.accepted if end_of(client, job) in LOST]
        ends, not_found = traffic.reader.ends, traffic.reader.not_found
        changed = [job for job, end in ends.items() if end_now(client, job) != end]
    return {
        "jobs": len(traffic.accepted),
        "read": len(ends),
        "lost": len(lost),
        "contradictory": len(changed),
        "not_found": len(not_found),
        "wrong": len(lost) + len(changed) + len(not_found) + (not is_final),
    }


def power_settings(
    service: Service, ledger: ValkeyServer, name: str, durable_writes: str
) -> ClientSettings:
    """Make the settings of the producer and consumer of :func:`run_power`."""
    return ClientSettings.model_validate(
        {
            "broker_url": service.valkey.url_of(0),
            "ledger_url": ledger.url,
            "namespace": name,
            "durable_writes": durable_writes,
            "durable_timeout_s": 1.0,
        }
    )


def power_worker(
    service: Service, ledger: ValkeyServer, name: str, durable_writes: str
) -> WorkerProcess:
    """Describe the worker of :func:`run_power`, whose ledger is a server of its own."""
    return service.worker(
        name=name,
        command=COMMAND,
        variables={
            "PYTHONPATH": str(ROOT),
            "LABELYARD_LEDGER_URL": ledger.url,
            "TEST_EFFECTS": str(service.folder / f"effects-{name}.log"),
            "TEST_FLAGS": str(service.folder),
        },
        **{
            **SETTINGS,
            "namespace": name,
            "durable_writes": durable_writes,
            "durable_timeout_s": "1",
            "max_attempts": "5",
            "job_timeout_s": "60",
            "quarantine_after": "9",
            "visibility_timeout_s": "10",
            "reconcile_every_s": "2",
            "reconcile_after_s": "5",
        },
    )


def end_now(client: Client, job_id: str) -> str:
    try:
        return end_text(client, job_id)
    except LabelyardError as error:
        return error.code


def is_over(client: Client, job_id: str) -> bool:
    try:
        return client.status(job_id).is_final
    except LabelyardError:
        return False


def wait_for(condition: Callable[[], bool], *, within_s: float) -> bool:
    """Wait until *condition* holds; ``False`` if it does not in time."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.5)
    return False


SCENARIOS: dict[str, Callable[[Service, str, int], dict[str, int]]] = {
    "clocks": run_clocks,
    "late": run_late,
    "power": run_power,
}


def main() -> None:
    """Run the scenarios; exit with 1 if one of them went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--only", choices=[*SCENARIOS, "power-off"], default=None)
    arguments = parser.parse_args()
    wrong = 0
    with (
        tempfile.TemporaryDirectory() as folder,
        running_service(Path(folder) / "service") as service,
    ):
        picture = service.pictures.put("truth.jpg", pictures.jpeg() + os.urandom(8))
        chosen = [arguments.only] if arguments.only else list(SCENARIOS)
        for name in chosen:
            if name == "power-off":  # shows losses: proof that the scenario can fail
                found = run_power(service, picture, arguments.jobs, durable_writes="off")
            else:
                found = SCENARIOS[name](service, picture, arguments.jobs)
            print(json.dumps({"scenario": name, **found}), flush=True)
            wrong += found["wrong"]
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
