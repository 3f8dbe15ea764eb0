"""``labelyard webhooks listen``: it verifies, prints, forwards, and fails on purpose."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

from labelyard.errors import ServiceConfigError
from labelyard.messages import Deliver
from labelyard.webhooks import new_secret, sign
from labelyard.webhooks.listener import ListenerOptions, ReceivedWebhook, WebhookListener
from tests.support.delivering import SECRET, delivering
from tests.support.receiver import running_receiver
from tests.support.waiting import wait_until

BODY = b'{"type":"job.succeeded","data":{"job_id":"a","images":[{},{}]}}'


@dataclass
class Listening:
    """A listener that runs, and the requests that it got."""

    url: str
    received: list[ReceivedWebhook] = field(default_factory=list)


@contextmanager
def listening(**options: Any) -> Iterator[Listening]:
    """Run a listener while the block runs."""
    received: list[ReceivedWebhook] = []
    listener = WebhookListener(SECRET, received.append, ListenerOptions(**options))
    thread = threading.Thread(target=listener.serve)
    thread.start()
    try:
        yield Listening(listener.url, received)
    finally:
        listener.close()
        thread.join()


def post(url: str, body: bytes, headers: Mapping[str, str]) -> int:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 0, timeout=10)
    try:
        connection.request("POST", parts.path, body=body, headers=dict(headers))
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_workers_webhook_is_verified_after_failures_on_purpose(ledger_url: str) -> None:
    with (
        listening(failures=2) as receiver,
        delivering(ledger_url, delivery_first_pause_s=0.01) as rig,
    ):
        job = rig.finish(Deliver(webhook=f"{receiver.url}hook"))

        wait_until(lambda: rig.state(job).state == "delivered", within_s=20)

    assert [one.status for one in receiver.received] == [503, 503, 204]
    assert [one.fault for one in receiver.received] == ["failed on purpose"] * 2 + [""]
    assert {one.payload.id for one in receiver.received if one.payload} == {job.job_id}


def test_a_verified_webhook_is_forwarded_as_it_came_and_its_answer_comes_back() -> None:
    headers = sign(BODY, SECRET, message_id="a")
    with running_receiver() as behind, listening(forward=f"{behind.url}?x=1") as receiver:
        behind.statuses = [202, 500]

        statuses = [post(receiver.url, BODY, headers) for _ in range(2)]

    assert statuses == [202, 500]
    hook = behind.hooks[0]
    passed_on = {name.lower(): value for name, value in hook.headers.items()}
    assert (hook.path, hook.body) == ("/hook?x=1", BODY)
    assert passed_on.items() >= headers.items()


def test_a_receiver_that_is_away_is_a_bad_gateway() -> None:
    with listening(forward="http://127.0.0.1:9/") as receiver:
        status = post(receiver.url, BODY, sign(BODY, SECRET, message_id="a"))

    assert (status, receiver.received[0].fault) == (502, "forward: ConnectionRefusedError")


def test_a_forged_webhook_is_neither_forwarded_nor_counted() -> None:
    with running_receiver() as behind, listening(forward=behind.url, failures=1) as receiver:
        forged = post(receiver.url, BODY, sign(BODY, new_secret(), message_id="a"))
        unsigned = post(receiver.url, BODY, {})

    assert (forged, unsigned, behind.hooks) == (400, 400, [])
    assert [one.fault.partition(":")[0] for one in receiver.received] == [
        "webhook_signature",
        "webhook_headers",
    ]


@pytest.mark.parametrize(
    ("length", "status"), [("17000000", 413), ("9" * 40, 413), ("-1", 400), ("x", 400)]
)
def test_a_body_without_a_bounded_length_is_not_read(length: str, status: int) -> None:
    with listening() as receiver:
        parts = urlsplit(receiver.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 0, timeout=10)
        connection.putrequest("POST", "/")
        connection.putheader("content-length", length)
        connection.endheaders()
        answered = connection.getresponse().status
        connection.close()

    assert (answered, receiver.received) == (status, [])


def test_a_port_that_is_used_is_an_error_with_its_number() -> None:
    with listening() as receiver:
        port = urlsplit(receiver.url).port or 0
        with pytest.raises(ServiceConfigError, match=f"127.0.0.1:{port} cannot be listened on"):
            WebhookListener(SECRET, print, ListenerOptions(port=port))


@contextmanager
def command(*args: str, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """Run the command, and yield it with its address and what it printed before."""
    environ = {name: text for name, text in os.environ.items() if not name.startswith("LABELYARD_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "labelyard", "webhooks", "listen", "--port", "0", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environ, "LABELYARD_LEDGER_URL": "redis://127.0.0.1:9/0", **variables},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        try:
            first = process.stderr.readline()
            url = re.search(r"http://\S+?/", first)
            assert url is not None, first
            yield process, url[0], first
        finally:
            process.kill()


def test_the_command_needs_no_server_and_prints_a_line_for_each_webhook() -> None:
    with command(LABELYARD_WEBHOOK_SECRET=f"{new_secret()},{SECRET}") as (process, url, _):
        assert process.stdout is not None
        post(url, BODY, sign(BODY, SECRET, message_id="job-1"))
        post(url, BODY, sign(BODY, new_secret(), message_id="job-1"))
        lines = [process.stdout.readline() for _ in range(2)]

        process.send_signal(signal.SIGINT)
        left, errors = process.communicate(timeout=20)

    assert re.fullmatch(r"\S+ job.succeeded job-1, 2 images -> 204\n", lines[0])
    assert lines[1].startswith("not verified -> 400 (webhook_signature: ")
    assert (process.returncode, left) == (130, "")
    assert "Traceback" not in errors
    assert SECRET not in errors


def test_without_a_secret_the_command_prints_a_new_one_with_the_workers_settings() -> None:
    with command("--json") as (process, url, _):
        assert process.stderr is not None
        assert process.stdout is not None
        shown = [process.stderr.readline() for _ in range(3)]
        secret = shown[1].strip().removeprefix("LABELYARD_WEBHOOK_SECRET=")

        status = post(url, BODY, sign(BODY, secret, message_id="job-1"))
        fields = json.loads(process.stdout.readline())

    assert shown[2] == "LABELYARD_WEBHOOK_HOSTS=127.0.0.1\n"
    assert (status, fields["status"], fields["webhook_id"]) == (204, 204, "job-1")
    assert fields["payload"] == json.loads(BODY)
