"""With LABELYARD_LOG_FORMAT=json a worker writes JSON lines alone, without secrets."""

import json
import os
import signal
import subprocess
import sys
from typing import Any

from tests.support.pictures import photo
from tests.support.service import READY_WITHIN_S, Service
from tests.support.waiting import wait_until

LABEL = "a label that no log may hold"
START = (sys.executable, "-m", "labelyard_worker", "start")
PLAIN = (sys.executable, "-m", "celery", "-A", "labelyard_worker", "worker")


def events_in(text: str) -> list[dict[str, Any]]:
    lines = text.splitlines()
    events = [json.loads(line) for line in lines]
    assert all(
        isinstance(event, dict) and {"at", "level", "event"} <= set(event) for event in events
    )
    return events


def test_every_line_of_a_worker_s_life_is_json(service: Service) -> None:
    """Start, a job, a job that fails, a message that is refused, and SIGTERM."""
    uri = service.pictures.put("cat.png", photo("cat"))
    worker = service.worker(name="json", command=PLAIN, namespace="json", log_format="json")
    with (
        worker.start(within_s=READY_WITHIN_S),
        service.client(namespace="json") as producer,
    ):
        good = producer.classify([uri], labels=[LABEL, "a dog"], timeout_s=60)
        bad = producer.classify(
            ["https://example.com/a.jpg?X-Amz-Signature=secret"], labels=[LABEL], timeout_s=60
        )
        broken = producer.prepare([uri], labels=[LABEL]).model_copy(update={"top_k": 0})
        producer.submit_job(broken).result(timeout_s=60)
        os.kill(worker.pid, signal.SIGTERM)
        wait_until(lambda: not worker.is_running(), within_s=60)

    text = worker.log_path.read_text()
    names = [event["event"] for event in events_in(text)]
    assert (good.status, bad.status) == ("succeeded", "failed")
    assert {"worker_ready", "job_done", "job_refused", "worker_drains"} <= set(names)
    assert "celery_says" in names  # its farewell
    for secret in (LABEL, "X-Amz-Signature", service.variables["AWS_SECRET_ACCESS_KEY"]):
        assert secret not in text


def test_a_start_that_is_refused_says_so_in_json(service: Service) -> None:
    done = subprocess.run(
        START,
        env={
            **os.environ,
            **service.variables,
            "LABELYARD_LOG_FORMAT": "json",
            "LABELYARD_CONCURENCY": "8",
        },
        capture_output=True,
        text=True,
        check=False,
    )

    (event,) = events_in(done.stdout + done.stderr)
    assert done.returncode == 2
    assert "LABELYARD_CONCURENCY: no such setting" in event["text"]
