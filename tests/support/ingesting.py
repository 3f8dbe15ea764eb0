"""The ingest service in a thread of this process, and a sender of notifications."""

import asyncio
import http.client
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelyard.ingest.service import IngestService
from labelyard.settings import ClientSettings
from tests.support.waiting import wait_until

LABELS = 'labels = ["a cat", "a dog"]\n'
RULE = f'[[rules]]\nname = "uploads"\nbucket = "photos"\n{LABELS}'


@dataclass(frozen=True)
class Answer:
    """Answer of the service."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def content(self) -> dict[str, Any]:
        """The body as JSON."""
        content: dict[str, Any] = json.loads(self.body)
        return content


@dataclass(frozen=True)
class RunningIngest:
    """A running service.

    Attributes:
        service: The service, which runs in another thread.
        loop: Its event loop.
    """

    service: IngestService
    loop: asyncio.AbstractEventLoop

    def send(
        self,
        content: Any = None,
        *,
        method: str = "POST",
        path: str = "/ingest",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request; *content* is written as JSON unless it is bytes."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=30)
        with closing(connection):
            connection.request(
                method, path, body if method == "POST" else None, dict(headers or {})
            )
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())

    def reload(self) -> None:
        """Read the rule file again, and wait until it is done or refused."""
        before = self.service.counters.text()
        self.loop.call_soon_threadsafe(self.service.reload)

        def reloads(text: str) -> list[str]:
            return [line for line in text.splitlines() if "reloads_total{" in line]

        wait_until(lambda: reloads(self.service.counters.text()) != reloads(before))

    def stop(self) -> None:
        """Stop as SIGTERM does, without waiting for the end."""
        self.loop.call_soon_threadsafe(self.service.stop)


@contextmanager
def running_ingest(
    folder: Path,
    settings: ClientSettings,
    rules: str = RULE,
    *,
    confirm: Callable[[str], None] = lambda _: None,
) -> Iterator[RunningIngest]:
    """Run the service while the block runs."""
    path = folder / "rules.toml"
    path.write_text(rules, encoding="utf-8")
    started: list[RunningIngest] = []
    ended: list[BaseException] = []

    async def main() -> None:
        service = IngestService(path, settings, host="127.0.0.1", port=0, confirm=confirm)
        loop = asyncio.get_running_loop()
        await service.run(on_ready=lambda: started.append(RunningIngest(service, loop)))

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:  # noqa: BLE001 - the test raises it
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        wait_until(lambda: started or ended)
        if ended:
            raise ended[0]
        yield started[0]
    finally:
        if started and thread.is_alive():
            started[0].stop()
        thread.join(timeout=30)
    if ended:
        raise ended[0]


def record(
    key: str = "a.jpg",
    *,
    sequencer: str | None = "0055AED6DCD90281E5",
    kind: str = "ObjectCreated:Put",
    bucket: str = "photos",
    **fields: str,
) -> dict[str, Any]:
    """Make an element of ``Records``; *key* is encoded as S3 does it."""
    stored = {"key": key, "size": 9, "eTag": f"etag-{sequencer}", **fields}
    if sequencer is not None:
        stored["sequencer"] = sequencer
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventTime": "2026-01-01T00:00:00.000Z",
        "eventName": kind,
        "s3": {"bucket": {"name": bucket}, "object": stored},
    }


def records(*events: dict[str, Any]) -> dict[str, Any]:
    """Make the body of a notification."""
    return {"Records": list(events)}
