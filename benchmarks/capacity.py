"""Compute the workers that a number of images a day needs: ``python -m benchmarks.capacity 5e6``.

What one worker does is taken from the last run of the benchmark, or given. Assumed, and
printed with the answer: the load's peak, how busy a worker may be, one worker for each
machine or GPU, and that storage and Redis keep up with the figures that are named.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.report import LATEST

DAY_S = 86_400
COMMANDS_FOR_A_JOB = 8  # of Redis: publish, claim, start, finish, acknowledge, and their kin


@dataclass(frozen=True, slots=True)
class Load:
    """Load to plan for.

    Attributes:
        images_per_day: On the busiest day.
        peak: Images in the busiest second of that day, over the day's mean.
        utilisation: How busy workers may be at the peak; above 0.7 latencies grow quickly.
        job_size: Images in a job.
        kib_per_image: Mean size of a file.
    """

    images_per_day: float
    peak: float = 3.0
    utilisation: float = 0.7
    job_size: int = 16
    kib_per_image: float = 500.0

    @property
    def images_per_s(self) -> float:
        """Images in the busiest second."""
        return self.images_per_day / DAY_S * self.peak


@dataclass(frozen=True, slots=True)
class Capacity:
    """Capacity that a load needs.

    Attributes:
        workers: Machines or GPUs with one worker each.
        busy: How busy they are at the peak.
        storage_mib_per_s: Read from object storage at the peak, no picture being known.
        redis_commands_per_s: At the peak, by all together.
    """

    workers: int
    busy: float
    storage_mib_per_s: float
    redis_commands_per_s: float


def capacity_for(load: Load, *, images_per_s: float) -> Capacity:
    """Size a fleet of which each worker classifies *images_per_s* when it is fully busy.

    Raises:
        ValueError: A figure is not positive, or the utilisation is above 1.
    """
    figures = (images_per_s, load.images_per_day, load.peak, load.job_size)
    if min(figures) <= 0 or not 0 < load.utilisation <= 1:
        raise ValueError("figures must be positive, and the utilisation at most 1")
    workers = max(1, math.ceil(load.images_per_s / (images_per_s * load.utilisation)))
    return Capacity(
        workers=workers,
        busy=load.images_per_s / (images_per_s * workers),
        storage_mib_per_s=load.images_per_s * load.kib_per_image / 1024,
        redis_commands_per_s=load.images_per_s / load.job_size * COMMANDS_FOR_A_JOB,
    )


def measured_rate(results: dict[str, Any], *, megapixels: float, job_size: int) -> float:
    """Return one worker's images/s in the last run with CLIP, at the nearest picture and job size.

    Raises:
        ValueError: The run has no such case.
    """
    cases = [case for case in results["cases"] if case["checkpoint"].startswith("clip")]
    if not cases:
        raise ValueError("the last run has no case of CLIP: give --images-per-s")
    case = min(cases, key=lambda one: abs(one["megapixels"] - megapixels))
    rates = {
        int(name.removeprefix("labelyard_")): float(system["images_per_s"])
        for name, system in case["systems"].items()
        if name.startswith("labelyard_")
    }
    return rates[min(rates, key=lambda size: abs(size - job_size))]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the capacity that a load needs."""
    usual = Load(0.0)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.capacity", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("images_per_day", type=float)
    parser.add_argument("--images-per-s", type=float, help="of one worker; else the last run's")
    parser.add_argument("--megapixels", type=float, default=2.0)
    parser.add_argument("--peak", type=float, default=usual.peak)
    parser.add_argument("--utilisation", type=float, default=usual.utilisation)
    parser.add_argument("--job-size", type=int, default=usual.job_size)
    parser.add_argument("--kib-per-image", type=float, default=usual.kib_per_image)
    chosen = parser.parse_args(arguments)
    load = Load(
        chosen.images_per_day,
        peak=chosen.peak,
        utilisation=chosen.utilisation,
        job_size=chosen.job_size,
        kib_per_image=chosen.kib_per_image,
    )
    try:
        rate = chosen.images_per_s or measured_rate(
            json.loads(LATEST.read_text()), megapixels=chosen.megapixels, job_size=chosen.job_size
        )
        needed = capacity_for(load, images_per_s=rate)
    except (OSError, ValueError) as error:
        print(f"{error}\nrun make bench first, or give --images-per-s", file=sys.stderr)
        return 1
    print(
        f"{load.images_per_day:,.0f} images a day, {load.images_per_s:,.0f} a second at the peak "
        f"({load.peak:g} x the mean)\n"
        f"one worker does {rate:,.1f} a second, {rate * DAY_S:,.0f} a day\n"
        f"workers (machines or GPUs): {needed.workers}, {needed.busy:.0%} busy at the peak "
        f"(at most {load.utilisation:.0%})\n"
        f"storage: {needed.storage_mib_per_s:,.0f} MiB/s at {load.kib_per_image:g} KiB an image\n"
        f"Redis: {needed.redis_commands_per_s:,.0f} commands/s in jobs of {load.job_size}\n"
        "add one worker for each that may be down at a time"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
