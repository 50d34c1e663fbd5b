"""A real browser for tests: Chromium without a window, driven over its DevTools protocol.

Nothing but Chromium itself is needed; `websockets` is there through prefect. Where there is no browser the tests that
want one are skipped and say so.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--allow-file-access-from-files",
    # WebGL on the CPU: machines that run tests have no GPU
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)

START_SECONDS, WAIT_SECONDS = 90.0, 90.0


def find() -> str | None:
    """Path of a browser; the variable ATOMSETS_BROWSER names another one."""
    return os.environ.get("ATOMSETS_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """A tab: go somewhere, run JavaScript in it, press keys, look at it."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self.messages: list[str] = []
        self.requests: list[str] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol and its result; what else happened is kept in `messages` and `requests`."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=WAIT_SECONDS))
            if message.get("id") == number:
                if "error" in message:
                    raise AssertionError(f"{method}: {message['error']}")
                result: dict[str, Any] = message["result"]
                return result
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        method, about = message["method"], message["params"]
        if method == "Runtime.exceptionThrown":
            details = about["exceptionDetails"]
            self.messages.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and about["type"] == "error":
            self.messages.append(str([argument.get("value") for argument in about["args"]]))
        elif method == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.messages.append(about["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])

    def go(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load a page at this size, in light or dark."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", media="", features=[scheme])
        self.messages, self.requests = [], []
        self.send("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """The value of an expression (a promise is waited for); an exception in it fails the test."""
        found = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            raise AssertionError(details.get("exception", {}).get("description", details["text"]))
        return found["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until an expression is true."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not self.run(condition):
            if time.monotonic() > deadline:
                raise AssertionError(f"never true: {condition}; {self.messages}")
            time.sleep(0.05)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press the mouse at a place of the window, move it in steps, let go."""
        self.send("Input.dispatchMouseEvent", type="mousePressed", x=start[0], y=start[1], button="left", clickCount=1)
        for k in range(1, 6):
            x, y = (a + (b - a) * k / 5 for a, b in zip(start, end, strict=True))
            self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, button="left", buttons=1)
        self.send("Input.dispatchMouseEvent", type="mouseReleased", x=end[0], y=end[1], button="left", clickCount=1)

    def capture(self, **options: Any) -> bytes:
        """A PNG of the window; see Page.captureScreenshot for the options, of which clip counts from the window."""
        if clip := options.get("clip"):
            left, top = self.run("[scrollX, scrollY]")
            options["clip"] = {**clip, "x": clip["x"] + left, "y": clip["y"] + top}
        return base64.b64decode(self.send("Page.captureScreenshot", format="png", **options)["data"])

    def pdf(self) -> bytes:
        """The page as it prints."""
        return base64.b64decode(self.send("Page.printToPDF", printBackground=True)["data"])


@contextlib.contextmanager
def opened(browser: str, folder: Path) -> Iterator[Page]:
    """A browser with one tab, and a profile of its own in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    profile = Path(tempfile.mkdtemp(prefix="profile", dir=folder))
    log = (folder / "browser.log").open("wb")
    process = subprocess.Popen([browser, *FLAGS, f"--user-data-dir={profile}", "about:blank"], stdout=log, stderr=log)
    try:
        address = _address(process, profile, folder / "browser.log")
        with connect(address, max_size=None, open_timeout=WAIT_SECONDS) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        log.close()


def _address(process: subprocess.Popen[bytes], profile: Path, log: Path) -> str:
    """Where the tab listens; the browser writes its port into the profile."""
    deadline, file = time.monotonic() + START_SECONDS, profile / "DevToolsActivePort"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"the browser ended: {log.read_text(errors='replace')[-2000:]}")
        if file.exists() and len(lines := file.read_text().splitlines()) > 1:
            with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json/list", timeout=10) as reply:
                pages = [page for page in json.load(reply) if page["type"] == "page"]
            if pages:
                return str(pages[0]["webSocketDebuggerUrl"])
        time.sleep(0.05)
    raise AssertionError(f"the browser did not start: {log.read_text(errors='replace')[-2000:]}")
