"""Servers that refuse, babble or hang up: each is an error of ours for every call of a client."""

import asyncio
import inspect
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from amqp.exceptions import (  # type: ignore[import-untyped]
    AccessRefused,
    ConnectionForced,
    MessageNacked,
    PreconditionFailed,
    RecoverableConnectionError,
)
from kombu.exceptions import OperationalError

from labelyard import AsyncClient, Client, ClientSettings
from labelyard.broker_amqp import AMQP_ERRORS
from labelyard.errors import BrokerUnavailableError, LabelyardError
from labelyard.publisher import Outgoing, Publisher
from labelyard.testing import sample_job
from tests.property.test_client_errors import GOOD

REFUSALS = {
    "auth": b"-NOAUTH Authentication required.\r\n",
    "password": b"-WRONGPASS invalid username-password pair or user is disabled.\r\n",
    "rights": b"-NOPERM this user has no permissions\r\n",
    "type": b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
    "memory": b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
    "replica": b"-READONLY You can't write against a read only replica.\r\n",
    "loading": b"-LOADING Redis is loading the dataset in memory\r\n",
    "disk": b"-MISCONF Redis is configured to save RDB snapshots\r\n",
    "busy": b"-BUSY Redis is busy running a script.\r\n",
    "moved": b"-MOVED 3999 127.0.0.1:1\r\n",
    "cluster": b"-CLUSTERDOWN Hash slot not served\r\n",
    "error": b"-ERR unknown command\r\n",
}
BABBLE = {
    "http": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "bytes": b"\x00\xff\xfe\r\n",
    "nothing": b"",
}


@contextmanager
def answering(reply: bytes) -> Iterator[int]:
    """Run a server that answers whatever it gets with *reply*; hangs up if that is empty."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while (data := self.request.recv(65536)) and reply:
                commands = data.count(b"*") if not reply.startswith(b"HTTP") else 1
                self.request.sendall(reply * max(1, commands))

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *_: object) -> None:
            """Log nothing of clients that hang up."""

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


# One call of each way to talk to a server; the property test makes them all.
CHOSEN = [
    ("", "submit"),
    ("", "submit_many"),
    ("", "wait"),
    ("", "queue_lengths"),
    ("", "totals"),
    ("label_sets", "register"),
    ("dead_letters", "replay"),
]


def settings_for(port: int) -> ClientSettings:
    url = f"redis://127.0.0.1:{port}"
    return ClientSettings(broker_url=f"{url}/0", ledger_url=f"{url}/1", publish_timeout_s=0.1)


def arguments_of(call: Any) -> dict[str, Any]:
    known = inspect.signature(call).parameters
    good = {**GOOD, "jobs": ["nothing"]} if call.__name__ in {"wait", "as_completed"} else GOOD
    return {name: good[name] for name in known if name in good}


def failures_of_calls(client: Client) -> list[LabelyardError]:
    """Make a call of each kind; returns the errors."""
    failures = []
    for owner, name in CHOSEN:
        call = getattr(getattr(client, owner) if owner else client, name)
        try:
            answer = call(**arguments_of(call))
            if isinstance(answer, Iterator):
                list(answer)
        except LabelyardError as error:
            failures.append(error)
    return failures


@pytest.mark.timeout(120)
@pytest.mark.parametrize("reply", [*REFUSALS.values(), *BABBLE.values()], ids=[*REFUSALS, *BABBLE])
def test_a_server_that_refuses_or_babbles_is_an_error_of_ours(reply: bytes) -> None:
    with answering(reply) as port, Client(settings_for(port)) as client:
        failures = failures_of_calls(client)

    assert {error.code for error in failures} <= {"ledger_unavailable", "broker_unavailable"}
    assert len(failures) == len(CHOSEN)


@pytest.mark.parametrize("reply", [REFUSALS["auth"], BABBLE["http"]])
def test_the_asynchronous_client_raises_the_same(reply: bytes) -> None:
    async def scenario(settings: ClientSettings) -> list[LabelyardError]:
        failures = []
        async with AsyncClient(settings) as client:
            for act in (
                client.submit(["s3://b/k"], ["cat"]),
                client.result("nothing"),
                client.cancel("nothing"),
                client.totals(),
                client.ping(),
                client.label_sets.names(),
            ):
                try:
                    await act
                except LabelyardError as error:
                    failures.append(error)
        return failures

    with answering(reply) as port:
        failures = asyncio.run(scenario(settings_for(port)))

    assert len(failures) >= 3


@pytest.mark.parametrize(
    "error",
    [
        MessageNacked(),
        AccessRefused("no"),
        ConnectionForced("shutdown"),
        PreconditionFailed("other arguments"),
        RecoverableConnectionError("lost"),
        OperationalError("lost"),
        OSError("lost"),
        KeyError("a frame"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_rabbitmq_raises_after_the_job_was_accepted_is_no_error(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reconciler publishes the job: the submit returns that it is not published."""

    class Refusing:
        def __init__(self, *_: object, **__: object) -> None: ...

        def send(self, _: object) -> None:
            raise error

        depths = close = drop = lambda *_: None

    monkeypatch.setattr(
        "labelyard.publisher._connector", lambda _: (lambda *_, **__: Refusing(), AMQP_ERRORS)
    )
    publisher = Publisher(ClientSettings(), timeout_s=0.01)

    assert not publisher.publish_many([Outgoing.of(sample_job(), queue="bulk", published_at=1.0)])


def test_a_broker_that_never_answers_is_given_up() -> None:
    """It takes connections, and never answers."""

    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = settings_for(silent.getsockname()[1])
        with Client(settings) as client, pytest.raises(BrokerUnavailableError):
            client.queue_lengths()
