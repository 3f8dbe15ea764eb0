"""Receivers in FastAPI, in Django and with the public Standard Webhooks libraries read our webhooks."""

import asyncio
import io
import re
import types
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks

from labelyard.errors import WebhookSignatureError
from labelyard.messages import Deliver
from labelyard.webhooks import new_secret, sign, verify
from tests.support.delivering import SECRET, delivering
from tests.support.node import NodeFolder
from tests.support.receiver import Hook, running_receiver

PAGE = Path(__file__).parents[3] / "docs/webhooks.md"
# Names of labels and pictures are what a library could encode in another way.
PICTURE = "Kätzchen 🐈.jpg"


@dataclass(frozen=True)
class Sent:
    """A webhook as a worker sent it."""

    job_id: str
    hook: Hook

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the signature, as the receiver got them."""
        headers = self.hook.headers.items()
        return {name: value for name, value in headers if name.lower().startswith("webhook-")}


@pytest.fixture(scope="module")
def sent(valkey: Any) -> Sent:
    """Have a worker send one webhook."""
    with running_receiver() as receiver, delivering(valkey.url_of(1)) as rig:
        rig.client.flushdb()
        job = rig.finish(Deliver(webhook=receiver.url))
        rig.tried(job)
        rig.client.flushdb()
    (hook,) = receiver.hooks
    return Sent(job.job_id, hook)


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the secret as a receiver's operator does, with the next one beside it."""
    monkeypatch.setenv("LABELYARD_WEBHOOK_SECRET", f"{new_secret()},{SECRET}")


def example(language: str, marker: str) -> str:
    """Return the block of the page that holds *marker*."""
    blocks = re.findall(
        rf"^```{language}\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    (found,) = [block for block in blocks if marker in block]
    return str(found)


def module_of(code: str, name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    exec(compile(code, name, "exec"), module.__dict__)
    return module


def post_asgi(app: Any, hook: Hook, *, body: bytes) -> tuple[int, bytes]:
    """Send a request to an ASGI application, as a server would."""
    answers: list[dict[str, Any]] = []

    async def call() -> None:
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> dict[str, Any]:
            return next(messages, {"type": "http.disconnect"})

        async def send(message: dict[str, Any]) -> None:
            answers.append(message)

        headers = [(name.lower().encode(), value.encode()) for name, value in hook.headers.items()]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/labels",
            "raw_path": b"/labels",
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        await app(scope, receive, send)

    asyncio.run(call())
    text = b"".join(answer.get("body", b"") for answer in answers)
    return int(answers[0]["status"]), text


def post_wsgi(app: Any, hook: Hook, *, body: bytes) -> tuple[int, bytes]:
    """Send a request to a WSGI application, as a server would."""
    answered: list[str] = []
    headers = {
        f"HTTP_{name.upper().replace('-', '_')}": value
        for name, value in hook.headers.items()
        if name.lower() not in ("content-type", "content-length")
    }
    environ = {
        **headers,
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/labels",
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    answer = app(environ, lambda status, _: answered.append(status))
    try:
        text = b"".join(answer)
    finally:
        answer.close()
    return int(answered[0].split()[0]), text


def test_the_fastapi_example_takes_a_webhook_once_and_refuses_a_forged_one(
    sent: Sent, capsys: pytest.CaptureFixture[str]
) -> None:
    module = module_of(example("python", "FastAPI()"), "fastapi_example")

    answers = [post_asgi(module.app, sent.hook, body=sent.hook.body) for _ in range(2)]
    status, text = post_asgi(module.app, sent.hook, body=sent.hook.body + b" ")

    assert [status for status, _ in answers] == [204, 204]
    assert module.processed == {sent.job_id}
    assert len(capsys.readouterr().out.splitlines()) == 2  # its two pictures
    assert (status, text.partition(b":")[0]) == (400, b"webhook_signature")


@pytest.fixture(scope="module")
def django_example() -> tuple[types.ModuleType, Any]:
    """Serve the example's URLs with Django, which has its settings once for a process."""
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler

    settings.configure(ALLOWED_HOSTS=["*"], LOGGING_CONFIG=None, SECRET_KEY="unused")
    import django

    django.setup()
    module = module_of(example("python", "urlpatterns"), "django_example")
    settings.ROOT_URLCONF = module
    return module, WSGIHandler()


def test_the_django_example_takes_a_webhook_once_and_refuses_a_forged_one(
    sent: Sent,
    django_example: tuple[types.ModuleType, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    module, app = django_example

    answers = [post_wsgi(app, sent.hook, body=sent.hook.body) for _ in range(2)]
    status, text = post_wsgi(app, sent.hook, body=sent.hook.body + b" ")

    assert [status for status, _ in answers] == [204, 204]
    assert module.processed == {sent.job_id}
    assert len(capsys.readouterr().out.splitlines()) == 2  # its two pictures
    assert (status, text.partition(b":")[0]) == (400, b"webhook_signature")


def test_the_standard_library_of_pypi_verifies_what_a_worker_sends(sent: Sent) -> None:
    payload = standardwebhooks.Webhook(SECRET).verify(sent.hook.body, sent.headers)

    assert (payload["type"], payload["data"]["job_id"]) == ("job.succeeded", sent.job_id)


def test_we_verify_what_the_standard_library_of_pypi_signs() -> None:
    body, at = f'{{"type": "x", "name": "{PICTURE}"}}', datetime.now(UTC)
    signature = standardwebhooks.Webhook(SECRET).sign("msg_1", at, body)
    headers = {
        "Webhook-Id": "msg_1",
        "Webhook-Timestamp": str(int(at.timestamp())),
        "Webhook-Signature": signature,
    }

    assert verify(headers, body.encode(), SECRET)["name"] == PICTURE
    with pytest.raises(WebhookSignatureError):
        verify(headers, body.encode(), new_secret())


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> NodeFolder:
    return NodeFolder(tmp_path_factory.mktemp("npm"), "standardwebhooks@1")


def test_the_standard_library_of_npm_verifies_what_a_worker_sends(
    sent: Sent, node: NodeFolder
) -> None:
    """With the lines that the page shows."""
    script = example("js", "standardwebhooks") + (
        "const one = readResult(given.headers, given.body);\n"
        "let forged = 'accepted';\n"
        "try { readResult(given.headers, given.body + ' '); } catch (error) { forged = error.message; }\n"
        "console.log(JSON.stringify([one.job_id, forged]));"
    )
    given = {"headers": sent.headers, "body": sent.hook.body.decode()}

    read = node.run(script, given, LABELYARD_WEBHOOK_SECRET=SECRET)

    assert read == [sent.job_id, "No matching signature found"]


def test_we_verify_what_the_standard_library_of_npm_signs(node: NodeFolder) -> None:
    body = f'{{"type": "x", "name": "{PICTURE}"}}'
    script = """
        const { Webhook } = require("standardwebhooks");
        const at = new Date();
        console.log(JSON.stringify({
          "webhook-id": "msg_1",
          "webhook-timestamp": String(Math.floor(at / 1000)),
          "webhook-signature": new Webhook(given.secret).sign("msg_1", at, given.body),
        }));
    """

    headers = node.run(script, {"secret": SECRET, "body": body})

    assert verify(headers, body.encode(), SECRET)["name"] == PICTURE
    assert (
        headers["webhook-signature"]
        == sign(body, SECRET, message_id="msg_1", at=int(headers["webhook-timestamp"]))[
            "webhook-signature"
        ]
    )
