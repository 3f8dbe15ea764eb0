"""Measure what the event stream costs the ledger, and how fast events are read.

    python -m benchmarks.event_cost --jobs 20000

One Valkey of its own. Jobs of one image with five labels are made final in turns of 500, with events
and without. Printed are the CPU time of Redis for making a job final, in microseconds (medians of the
turns, and the median ratio to the turn without events beside it), the memory of an event, events
read in a second by one consumer, and the time from a job's end until a consumer that waits has its
event.
"""

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

from labelyard import Client
from labelyard.events import Event
from labelyard.ledger import Ledger, connect
from labelyard.ledger.event_commands import EventCommands
from labelyard.ledger.limits import EVENTS_MAX_AGE_S, EVENTS_MAX_ENTRIES
from labelyard.messages import ImageRef, Job, Result, ScoredLabel
from labelyard.queues import Queue
from labelyard.settings import ClientSettings
from labelyard.testing import sample_job, sample_result
from labelyard_worker.local.servers import ValkeyServer

TURN: Final = 500
WAITS: Final = 200
INLINE: Final = 2048
# Bounds of the stream by the name of a turn: entries, bytes of a result in its event.
MODES: Final = {"off": (0, 0), "reference": (EVENTS_MAX_ENTRIES, 0), "result": (0, INLINE)}
LABELS: Final = tuple(ScoredLabel(name=f"a photo of label {n}", score=0.2) for n in range(5))


def new_job() -> Job:
    """Make a job of one image."""
    return sample_job(images=(ImageRef(id="sku-1", uri="s3://photos/shop/sku-1.jpg"),))


def result_of(job: Job) -> Result:
    """Make a result with five labels."""
    result = sample_result(job=job)
    images = tuple(image.model_copy(update={"labels": LABELS}) for image in result.images)
    return result.model_copy(update={"images": images})


def bound(ledger: Ledger, *, max_entries: int, result_max_bytes: int) -> None:
    """Write the bounds of the event stream, as the leader does."""
    commands = EventCommands(ledger.keys, open_ttl_s=ledger.commands.open_ttl_s)
    ledger.run(
        commands.trim(
            max_entries=max_entries,
            max_age_s=EVENTS_MAX_AGE_S,
            result_max_bytes=result_max_bytes,
        )
    )


def finish_turn(ledger: Ledger, jobs: Sequence[Job]) -> float:
    """Make jobs final, and return Redis' CPU time for each, in microseconds."""
    ledger.open_many(jobs, queue=Queue.BULK)
    finishes = [
        ledger.commands.finish(
            job.job_id, state="succeeded", result=result_of(job).model_dump_json()
        )
        for job in jobs
    ]
    before = cpu_s(ledger)
    ledger.run_many(finishes)
    return (cpu_s(ledger) - before) / len(jobs) * 1e6


def cpu_s(ledger: Ledger) -> float:
    """Read the CPU time of the server's main thread."""
    cpu: Any = ledger.client.info("cpu")
    return float(cpu["used_cpu_user_main_thread"] + cpu["used_cpu_sys_main_thread"])


def measure_writes(ledger: Ledger, *, jobs: int) -> dict[str, Any]:
    """Compare jobs with events, with and without their results, to jobs without."""
    turns: dict[str, list[float]] = {mode: [] for mode in MODES}
    sizes: dict[str, list[float]] = {mode: [] for mode in MODES}
    for _ in range(max(1, jobs // TURN // len(MODES))):
        for mode, (entries, inline) in MODES.items():
            most = EVENTS_MAX_ENTRIES if inline else entries
            bound(ledger, max_entries=most, result_max_bytes=inline)
            before = stream_bytes(ledger)
            turns[mode].append(finish_turn(ledger, [new_job() for _ in range(TURN)]))
            sizes[mode].append((stream_bytes(ledger) - before) / TURN)
    medians = {mode: statistics.median(values) for mode, values in turns.items()}
    over_off = {
        mode: statistics.median(one / off for one, off in zip(values, turns["off"], strict=True))
        for mode, values in turns.items()
    }
    return {
        "finish_us": {mode: round(value, 1) for mode, value in medians.items()},
        "over_off": {mode: round(value, 3) for mode, value in over_off.items()},
        "bytes_an_event": {mode: round(statistics.median(sizes[mode])) for mode in MODES},
        "result_bytes": len(result_of(new_job()).model_dump_json()),
    }


def stream_bytes(ledger: Ledger) -> int:
    """Read the memory of the event stream."""
    return int(ledger.client.memory_usage(ledger.keys.events, samples=0) or 0)


def measure_reads(client: Client) -> dict[str, float]:
    """Read all events with one consumer, twice."""
    rates: dict[str, float] = {}
    for prefetch in (16, 200):
        began_at = time.perf_counter()
        stream = client.events(
            f"reader-{prefetch}", start="oldest", prefetch=prefetch, timeout_s=0.0
        )
        count = sum(1 for _ in stream)
        rates[f"prefetch_{prefetch}"] = round(count / (time.perf_counter() - began_at))
    return rates


def measure_waits(client: Client, ledger: Ledger, *, consumers: int) -> dict[str, float]:
    """Measure the time from a job's end to its event, with consumers that share a group."""
    ended_at: dict[str, float] = {}
    took: list[float] = []
    is_last = threading.Event()
    group = f"waiting-{consumers}"

    def consume() -> None:
        for event in client.events(group, timeout_s=5.0):
            if isinstance(event, Event):
                took.append(time.perf_counter() - ended_at[event.id])
                if len(took) == WAITS:
                    is_last.set()

    client.event_groups.create(group)
    jobs = [new_job() for _ in range(WAITS)]
    ledger.open_many(jobs, queue=Queue.BULK)
    threads = [threading.Thread(target=consume) for _ in range(consumers)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)  # all of them wait
    ledger.client.config_resetstat()
    for job in jobs:
        ended_at[job.job_id] = time.perf_counter()
        ledger.finish(job.job_id, result_of(job))
        time.sleep(0.02)
    is_last.wait(30)
    stats: Any = ledger.client.info("commandstats")
    calls = int(stats["cmdstat_evalsha"]["calls"])
    for thread in threads:
        thread.join()
    return {
        "median_ms": round(statistics.median(took) * 1000, 2),
        "p95_ms": round(statistics.quantiles(took, n=20)[-1] * 1000, 2),
        "scripts_an_event": round((calls - WAITS) / WAITS, 1),
    }


def main() -> None:
    """Run the measurement and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(ValkeyServer(folder))
        settings = ClientSettings(ledger_url=server.url, broker_url=server.url, namespace="cost")
        ledger = Ledger(stack.enter_context(closing(connect(settings))), settings)
        client = stack.enter_context(Client(settings))
        figures = {"writes": measure_writes(ledger, jobs=arguments.jobs)}
        bound(ledger, max_entries=EVENTS_MAX_ENTRIES, result_max_bytes=INLINE)
        figures["events_read_per_s"] = measure_reads(client)
        for consumers in (1, 20):
            name = f"from_end_to_event_{consumers}_consumers"
            figures[name] = measure_waits(client, ledger, consumers=consumers)
        print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
