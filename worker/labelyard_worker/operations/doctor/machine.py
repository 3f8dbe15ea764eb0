"""Worker's machine: its cores, memory, open files, and the port of the probes."""

import errno
import json
import resource
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Final

from labelyard.doctor import Finding
from labelyard.redis_connections import POOL_SIZE
from labelyard_worker.cpu_budget import usable_cores
from labelyard_worker.intake.pool import default_children
from labelyard_worker.operations.doctor import kinds
from labelyard_worker.settings import WorkerSettings

MIB: Final = 2**20
#: Resident memory of a decoder, without the picture that it decodes.
CHILD_BYTES: Final = 30 * MIB
#: Libraries, logs, pipes to children, connections of the broker.
OTHER_FILES: Final = 200
PROBE_TIMEOUT_S: Final = 2.0


def examine_machine(settings: WorkerSettings) -> Iterator[Finding]:
    """Find limits of the machine that a worker of these settings would meet."""
    if usable_cores() == 1:
        yield kinds.CORES_FEW.at()
    yield from check_open_files(settings)
    yield from check_health_port(settings)


def check_open_files(settings: WorkerSettings) -> Iterator[Finding]:
    """Compare the limit on open files with those that a worker, or a fetcher, may need."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    worker = OTHER_FILES + 3 * POOL_SIZE + 4 * count_children(settings)
    fetcher = OTHER_FILES + 2 * settings.fetches
    needed = max(worker, fetcher)
    if limit != resource.RLIM_INFINITY and limit < needed:
        yield kinds.FILES_FEW.at(limit=limit, needed=needed)


def check_health_port(settings: WorkerSettings) -> Iterator[Finding]:
    """Listen on the port of the probes for a moment; a worker that runs there is no fault."""
    host, port = settings.health_host, settings.health_port
    if port < 0:
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    address = f"{host}:{port}"
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE and is_worker_at(port):
            yield kinds.HEALTH_PORT_OURS.at(address=address)
        else:
            yield kinds.HEALTH_PORT_TAKEN.at(address=address, why=error.strerror or error)


def is_worker_at(port: int) -> bool:
    """Return whether the probes of a worker answer on a port of this machine."""
    url = f"http://127.0.0.1:{port}/live"
    try:
        answer = urllib.request.urlopen(url, timeout=PROBE_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        answer = error
    except (OSError, HTTPException):
        return False
    with answer:
        try:
            return "why" in json.loads(answer.read(4096))
        except (OSError, ValueError, TypeError):
            return False


def check_memory(settings: WorkerSettings, *, root: Path = Path("/")) -> Iterator[Finding]:
    """Compare free memory with what a worker may use once its model is loaded."""
    available = available_bytes(root)
    children = count_children(settings)
    needed = (
        settings.max_pixels_in_flight_bytes
        + settings.max_fetched_bytes
        + settings.label_cache_bytes
        + settings.image_cache_bytes
        + CHILD_BYTES * children
    )
    if available is not None and available < needed:
        yield kinds.MEMORY_SHORT.at(
            available_mib=available / MIB, needed_mib=needed / MIB, children=children
        )


def count_children(settings: WorkerSettings) -> int:
    """Count the decoders and fetchers of a worker."""
    return (settings.intake_children or default_children()) + settings.fetchers


def available_bytes(root: Path) -> int | None:
    """Return the memory that this machine and its control group have left; ``None`` if unknown."""
    found = [_meminfo_available(root)]
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        group = root / "sys/fs/cgroup"
        most, now = _number_in(group / limit), _number_in(group / used)
        if most is not None and now is not None:
            found.append(max(0, most - now))
    return min((one for one in found if one is not None), default=None)


def _meminfo_available(root: Path) -> int | None:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    line = next((one for one in lines if one.startswith("MemAvailable:")), "")
    words = line.split()
    return int(words[1]) * 1024 if len(words) > 1 and words[1].isdigit() else None


def _number_in(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
