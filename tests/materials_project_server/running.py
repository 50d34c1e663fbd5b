"""The server in a process of its own, and the requests that steer it."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "atomsets_core" / "data"
KEY = "0123456789abcdefABCDEF0123456789"
QUICK = {"page_size": 40, "requests_per_second": 1000, "first_wait": 0.01, "timeout": 5}
"""Options of a query under which waiting costs no time."""


@dataclass(frozen=True)
class Running:
    """A server that runs.

    Attributes:
        url: of it, for MP_API_ENDPOINT.
        pid: of its process.
    """

    url: str
    pid: int

    def log(self) -> dict[str, Any]:
        """Requests, and how often each identifier was sent with its structure, since the last `forget` or `reset`."""
        with urllib.request.urlopen(f"{self.url}control/log") as reply:  # noqa: S310
            return json.load(reply)  # type: ignore[no-any-return]

    def structures(self) -> dict[str, int]:
        """How often each identifier was sent with its structure."""
        return self.log()["structures"]  # type: ignore[no-any-return]

    def faults(self, *faults: dict[str, Any]) -> None:
        """Misbehave; see `faults`."""
        self._post("faults", list(faults))

    def release(self, version: str, **changes: list[str]) -> None:
        """Another version of the database; see `Database.release`."""
        self._post("release", {"version": version, **changes})

    def options(self, **options: Any) -> None:
        """Key, spelling of identifiers, GNoME."""
        self._post("options", options)

    def forget(self) -> None:
        """Start the log anew."""
        self._post("forget", None)

    def reset(self) -> None:
        """Be again what it was when it started."""
        self._post("reset", None)

    def _post(self, what: str, body: Any) -> None:
        request = urllib.request.Request(f"{self.url}control/{what}", json.dumps(body).encode(), method="POST")  # noqa: S310
        with urllib.request.urlopen(request):  # noqa: S310
            pass


class Notes:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.totals: list[int] = []
        self.messages: list[str] = []
        self.entries = self.stored = 0

    def total(self, n: int) -> None:
        """So many entries are to come."""
        self.totals.append(n)

    def got(self, n: int, before: bool = False) -> None:
        """So many more are here, or were before."""
        self.entries += n
        self.stored += n if before else 0

    def note(self, message: str) -> None:
        """Something that the user should know."""
        self.messages.append(message)


@contextmanager
def running(data: Path, *options: str) -> Iterator[Running]:
    """A server of the structures in a file; `options` as on its command line."""
    command = [sys.executable, "-m", "tests.materials_project_server", "--data", str(data), "--key", KEY, *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise RuntimeError(f"the server didn't start: {' '.join(command)}")
        yield Running(url, process.pid)
    finally:
        process.kill()
        process.wait()
