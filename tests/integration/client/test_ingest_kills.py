"""The ingest service is killed in the middle of its work: each event still becomes one job."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from labelyard import Client
from labelyard.settings import ClientSettings
from labelyard_worker.local.embedded import choose_ports
from tests.support.ingesting import RULE, record, records
from tests.support.waiting import wait_until

SENDERS, EVENTS = 8, 60
SECRET = "a-secret-of-the-sender"
RULES = "[limits]\nhold_s = 0\n" + RULE


class KilledService:
    """The command as a process that is killed and started again on one port."""

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        [self.port] = choose_ports(1)
        (folder / "rules.toml").write_text(RULES)
        self._command = [
            *(sys.executable, "-m", "labelyard", "ingest"),
            *("--rules", str(folder / "rules.toml"), "--port", str(self.port)),
        ]
        self._variables = {**os.environ, **variables}
        self._log = folder / "ingest.log"
        self._starts = 0

    def start(self) -> "subprocess.Popen[bytes]":
        with self._log.open("ab") as log:
            process = subprocess.Popen(self._command, env=self._variables, stderr=log)
        self._starts += 1
        wait_until(
            lambda: (
                self._log.read_text().count("ingest_started") == self._starts
                or process.poll() is not None
            )
        )
        assert process.poll() is None, self._log.read_text()
        return process


def send_until_taken(port: int, key: str, sent: "Counter[str]") -> None:
    """Send an event again and again, as MinIO does, until it is answered 200."""
    body = json.dumps(records(record(key)))

    def is_taken() -> bool:
        sent[key] += 1
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("POST", f"/ingest/{SECRET}", body)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    wait_until(is_taken, within_s=60)


@pytest.mark.timeout(120)
def test_each_event_becomes_one_job_although_the_service_is_killed_twice(
    tmp_path: Path, broker_url: str, ledger_url: str
) -> None:
    urls = {"LABELYARD_BROKER_URL": broker_url, "LABELYARD_LEDGER_URL": ledger_url}
    service = KilledService(tmp_path, {**urls, "LABELYARD_INGEST_SECRET": SECRET})
    sent: Counter[str] = Counter()

    def send_all(sender: int) -> None:
        for number in range(EVENTS):
            send_until_taken(service.port, f"{sender}-{number}.jpg", sent)

    process = service.start()
    senders = [threading.Thread(target=send_all, args=(number,)) for number in range(SENDERS)]
    for sender in senders:
        sender.start()
    for share in (0.2, 0.5):
        wait_until(lambda share=share: len(sent) >= share * SENDERS * EVENTS)  # type: ignore[misc]
        process.kill()
        process.wait()
        process = service.start()
    for sender in senders:
        sender.join()
    process.send_signal(signal.SIGTERM)

    assert process.wait(timeout=30) == 0
    with Client(ClientSettings(broker_url=broker_url, ledger_url=ledger_url)) as client:
        jobs = [client.status(one.job_id) for one in client.list_jobs(limit=1000).jobs]
    images = Counter(image["uri"] for job in jobs for image in json.loads(job.message)["images"])
    assert images == Counter(
        f"s3://photos/{s}-{n}.jpg" for s in range(SENDERS) for n in range(EVENTS)
    )
    assert sum(sent.values()) > SENDERS * EVENTS  # some were sent again
