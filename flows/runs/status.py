"""How far a campaign is: written by its run, read by `atomsets status`, also from another machine."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from typing import Any

from atomsets_core.campaigns import PROGRESS
from atomsets_core.storage import StorageError, Store

EVERY = 1.0
"""Seconds between two writings."""


class Record:
    """Keeps progress.json of a campaign up to date; a `atomsets_flows.runs.progress.Listener`.

    Args:
        store: of the campaign.
    """

    def __init__(self, store: Store) -> None:
        self._store, self._stages, self._lock = store, {}, threading.Lock()  # type: ignore[var-annotated]
        self._notes: list[str] = []
        self._started = time.time()
        self._written = 0.0
        self._write("running")

    def start(self, stage: str, total: int) -> None:
        """A stage begins, or has more steps than was known."""
        with self._lock:
            now = time.time()
            known = self._stages.setdefault(stage, {"done": 0, "total": total, "started": now, "updated": now})
            known["total"] = total
            self._write("running")

    def advance(self, stage: str, steps: int = 1) -> None:
        """Steps of it are done."""
        with self._lock:
            found = self._stages[stage]
            found["done"] += steps
            found["updated"] = time.time()
            if found["done"] >= found["total"] or time.time() - self._written > EVERY:
                self._write("running")

    def note(self, message: str) -> None:
        """Something that the user should know."""
        with self._lock:
            self._notes.append(message)
            self._write("running")

    def finish(self, state: str) -> None:
        """The run has ended: "done", "failed" or "stopped"."""
        with self._lock:
            self._write(state)

    def _write(self, state: str) -> None:
        self._written = time.time()
        # A disk that is full stops the run where it matters; what shows the way must not.
        with contextlib.suppress(StorageError):
            self._store.write_json(
                PROGRESS,
                {
                    "state": state, "started": self._started, "updated": self._written, "stages": self._stages,
                    "notes": self._notes,
                },
            )  # fmt: skip


@contextlib.contextmanager
def recording(store: Store):  # type: ignore[no-untyped-def]
    """Record the run inside, and how it ended."""
    from atomsets_flows.runs.progress import listening

    record = Record(store)
    try:
        with listening(record):
            yield
    except KeyboardInterrupt:
        record.finish("stopped")
        raise
    except BaseException:
        record.finish("failed")
        raise
    record.finish("done")


@dataclass(frozen=True)
class Row:
    """A stage as it is shown.

    Attributes:
        stage: name.
        done: steps done.
        total: steps it has.
        rate: steps a second since it began; None before the first.
        left: seconds it may still take; None where nobody can tell.
    """

    stage: str
    done: int
    total: int
    rate: float | None
    left: float | None


@dataclass(frozen=True)
class Status:
    """How far a campaign is.

    Attributes:
        state: "running", "done", "failed", "stopped", "killed" (it says running, but no run holds the folder), "new".
        rows: its stages in the order they began.
        seconds: since the run began, or that it took.
        notes: what the user should know.
    """

    state: str
    rows: list[Row]
    seconds: float
    notes: list[str]


def read_status(store: Store, now: float | None = None) -> Status:
    """How far the campaign in a store is, from the files alone.

    Raises:
        StorageError: progress.json is damaged.
    """
    if not store.exists(PROGRESS):
        return Status("new", [], 0.0, [])
    found = store.read_json(PROGRESS)
    state = str(found["state"])
    if state == "running" and store.is_local and not _held(store):
        state = "killed"
    clock = (time.time() if now is None else now) if state == "running" else float(found["updated"])
    rows = [_row(name, about, clock) for name, about in found["stages"].items()]
    return Status(state, rows, clock - float(found["started"]), list(found["notes"]))


def _row(name: str, about: dict[str, Any], clock: float) -> Row:
    done, total = int(about["done"]), int(about["total"])
    end = float(about["updated"]) if done >= total else clock
    spent = end - float(about["started"])
    rate = done / spent if done and spent > 0 else None
    return Row(name, done, total, rate, (total - done) / rate if rate else (0.0 if done >= total else None))


def _held(store: Store) -> bool:
    """Whether a run holds the folder."""
    try:
        with store.lock():
            return False
    except StorageError:
        return True
