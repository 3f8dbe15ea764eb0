"""Headless Chromium, driven through its DevTools protocol over a pipe."""

import base64
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome")
OPTIONS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
    *("--disable-dev-shm-usage", "--disable-extensions", "--disable-background-networking"),
    *("--disable-component-update", "--no-zygote", "--mute-audio", "--remote-debugging-pipe"),
    # Whatever a page might want from the network goes nowhere.
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
#: The browser reads commands from descriptor 3 and answers on 4.
PIPE: Final = 'exec "$0" "$@" 3<&{read} 4>&{write}'


def browser_program() -> str | None:
    """Find a browser, if there is one."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


class Browser:
    """One browser with one page."""

    def __init__(self, profile: Path) -> None:
        """Start the browser; *profile* is an empty folder for what it writes."""
        program = browser_program()
        assert program is not None
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        script = PIPE.format(read=theirs_in, write=theirs_out)
        self._process = subprocess.Popen(
            ["bash", "-c", script, program, *OPTIONS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(profile)},
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._out, self._in = os.fdopen(ours_out, "wb", 0), os.fdopen(ours_in, "rb")
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self.events: list[Mapping[str, Any]] = []
        targets = self.send("Target.getTargets")["targetInfos"]
        page = next(one["targetId"] for one in targets if one["type"] == "page")
        attached = self.send("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Log", "Runtime", "Network"):
            self.send(f"{domain}.enable")

    def __enter__(self) -> Self:
        """Use the browser within a block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the browser."""
        self._session = None
        self.send("Browser.close")
        self._process.wait(20)
        self._out.close()
        self._in.close()

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command, and return its result; events that come meanwhile are kept."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer.get("result", {})
                return result

    def show(
        self,
        page: Path,
        *,
        width: int = 1280,
        height: int = 900,
        scheme: Literal["light", "dark"] = "light",
    ) -> None:
        """Load a page at the width of a screen; a narrow one is a phone's."""
        is_phone = width < 600
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if is_phone else 1,
            mobile=is_phone,
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.send("Emulation.setEmulatedMedia", features=[feature])
        self.events.clear()
        self.send("Page.navigate", url=page.absolute().as_uri())
        while not any(one["method"] == "Page.loadEventFired" for one in self.events):
            self._read()

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; the page's own policy does not bind it."""
        answer = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, *, code: int) -> None:
        """Press a key."""
        for kind in ("rawKeyDown", "char", "keyUp"):
            text = "\r" if key == "Enter" and kind == "char" else ""
            self.send(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                text=text,
            )

    def screenshot(self, path: Path, *, is_whole: bool = False) -> Path:
        """Write a picture of the window, or of the whole page."""
        answer = self.send("Page.captureScreenshot", captureBeyondViewport=is_whole, format="png")
        path.write_bytes(base64.b64decode(answer["data"]))
        return path

    def requests(self) -> list[str]:
        """Return the addresses that the page asked for, besides itself and embedded ones."""
        wanted = [
            one["params"]["request"]["url"]
            for one in self.events
            if one["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in wanted if not url.startswith(("file:", "data:"))]

    def complaints(self) -> list[str]:
        """Return what the browser logged about the page: errors, and breaches of its policy."""
        logged = [one for one in self.events if one["method"] == "Log.entryAdded"]
        return [one["params"]["entry"]["text"] for one in logged]

    def _read(self) -> dict[str, Any]:
        buffer = bytearray()
        while (byte := self._in.read(1)) not in (b"\0", b""):
            buffer += byte
        assert buffer, "the browser ended"
        message: dict[str, Any] = json.loads(buffer)
        if "method" in message:
            self.events.append(message)
        return message


@contextmanager
def running_browser(profile: Path) -> Iterator[Browser]:
    """Run a browser while the block runs."""
    with Browser(profile) as browser:
        yield browser
