"""Slow storage of one tenant beside interactive jobs of another.

    python -m benchmarks.slowness.storage [--seconds 30]

Tenant A submits 100 interactive jobs whose files drip a byte each half second, from an S3
bucket in one run and from an https host in the other. Tenant B submits one interactive job
after another. Reported are B's latencies, from submit to result, before and meanwhile.
"""

import argparse
import json
import ssl
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.instant import COMMAND, ROOT
from tests.support import pictures
from tests.support.answering import answering
from tests.support.faulty_s3 import FaultyS3, faulty_s3
from tests.support.service import READY_WITHIN_S, Service, running_service

from labelyard import Client

LABELS = ["a cat", "a dog"]
TARPIT = "tarpit"
FLOOD = 100
PAUSE_S = 0.1
TIMEOUT_S = 120.0


def main() -> None:
    """Run both faults, and print a table as JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of each phase")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running_service(Path(folder)) as service:
        for fault in ("s3", "https"):
            report = measure(service, fault=fault, seconds=options.seconds)
            print(json.dumps(report), flush=True)


def measure(service: Service, *, fault: str, seconds: float) -> dict[str, object]:
    """Measure B's latencies before A's flood, and beside it."""
    with faulty_s3(service.seaweed.port) as (faults, port), dripping_https(service) as host:
        faults.dripping.add(TARPIT)
        flags = service.folder / f"flags-{fault}"
        flags.mkdir()
        worker = service.worker(
            name=f"slowness-{fault}",
            command=COMMAND,
            variables={
                "PYTHONPATH": str(ROOT),
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
                "SSL_CERT_FILE": str(service.folder / "chain.pem"),
                "TEST_PRIVATE_HTTPS": "1",
                "TEST_EFFECTS": str(service.folder / f"effects-{fault}.log"),
                "TEST_FLAGS": str(flags),
            },
            namespace=f"slowness-{fault}",
            https_sources="1",
            https_hosts=host,
            image_cache_bytes="0",
            health_port="0",
        )
        with (
            worker.start(within_s=READY_WITHIN_S),
            service.client(namespace=f"slowness-{fault}") as client,
        ):
            picture = service.pictures.put("fast.jpg", pictures.jpeg())
            latencies(client, picture, seconds=3.0)
            idle = latencies(client, picture, seconds=seconds)
            address = f"s3://{TARPIT}" if fault == "s3" else f"https://{host}"
            for number in range(FLOOD):
                client.submit(
                    [f"{address}/{number}.jpg"], labels=LABELS, tenant="a", queue="interactive"
                )
            beside = latencies(client, picture, seconds=seconds)
            log = worker.log_path.read_text()
            faults.is_over.set()
    return {
        "fault": fault,
        "idle": summary(idle),
        "beside_100_dripping_jobs": summary(beside),
        "p95_above_idle_s": round(p95(beside) - p95(idle), 3),
        "jobs_sent_away": log.count("job_waits_for_storage"),
    }


def latencies(client: Client, picture: str, *, seconds: float) -> list[float]:
    """Submit interactive jobs one after another, and time each."""
    taken = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began_at = time.monotonic()
        job = client.submit([picture], labels=LABELS, tenant="b", queue="interactive")
        result = job.result(timeout_s=TIMEOUT_S)
        if result.status != "succeeded":
            raise SystemExit(f"a job of B {result.status}: {result}")
        taken.append(time.monotonic() - began_at)
        time.sleep(PAUSE_S)
    return taken


@contextmanager
def dripping_https(service: Service) -> Iterator[str]:
    """Serve files over TLS that never end; gives ``host:port``."""
    chain, key = service.folder / "chain.pem", service.folder / "key.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
        f" -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout {key} -out {chain}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    faults = FaultyS3(0)
    faults.dripping = _All()
    with answering(faults, tls=context) as port:
        try:
            yield f"localhost:{port}"
        finally:
            faults.is_over.set()


class _All(set[str]):
    def __contains__(self, _: object) -> bool:
        return True


def p95(values: list[float]) -> float:
    """Return the 95th percentile."""
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.95))]


def summary(values: list[float]) -> dict[str, float]:
    """Describe latencies in seconds."""
    return {
        "jobs": len(values),
        "p50_s": round(statistics.median(values), 3),
        "p95_s": round(p95(values), 3),
        "max_s": round(max(values), 3),
    }


if __name__ == "__main__":
    main()
