"""How far a run is: as Prefect progress artifacts, and to whoever listens (the command line's bars)."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Protocol, cast
from urllib.parse import urlsplit
from urllib.request import getproxies
from uuid import UUID

import httpx
from prefect import get_client, get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import refresh_global_settings_context
from prefect.exceptions import MissingContextError
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES

from atomsets_core.campaigns import PROGRESS, SUMMARY
from atomsets_core.storage import Store

EVERY = 2.0
"""Seconds between two updates of an artifact."""


PATIENCE = 20.0
"""Seconds for which a server that is away is asked again, at the end of a run."""

AGAIN = 10.0
"""Seconds between two looks whether a server that was away is there again."""


class Listener(Protocol):
    """Is told of every step."""

    def start(self, stage: str, total: int) -> None:
        """A stage begins that has `total` steps; told again when it turns out to have more."""

    def advance(self, stage: str, steps: int = 1) -> None:
        """Steps of it are done."""

    def note(self, message: str) -> None:
        """Something that the user should know."""


_listeners: list[Listener] = []


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell `listener` of all steps of the runs inside."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


_said_of: ContextVar[str] = ContextVar("said_of", default="")


@contextlib.contextmanager
def said_of(name: str) -> Iterator[None]:
    """Begin the notes inside with this name, e.g. of the property that they are about."""
    token = _said_of.set(f"{name}: ")
    try:
        yield
    finally:
        _said_of.reset(token)


def note(message: str) -> None:
    """Log a warning in the flow's log and tell whoever listens."""
    message = f"{_said_of.get()}{message}"
    try:
        get_run_logger().warning(message)
    except MissingContextError:  # work that is no flow
        logging.getLogger(__name__).warning(message)
    for listener in _listeners:
        listener.note(message)


def slug(text: str) -> str:
    """A text as the key of an artifact: lower case letters, digits and dashes."""
    return "".join(c if c.isalnum() else "-" for c in text.lower()).strip("-")


class Server:
    """The Prefect server as a run sees it: nothing waits for it while nobody listens at its address.

    The client tries a request for half a minute; without this each stage and each step would wait as long.
    """

    def __init__(self) -> None:
        self.away = False
        self._looked = 0.0
        self._retried = 0
        self._address: tuple[str | None, tuple[str, int]] | None = None

    def asked(self) -> bool:
        """Whether a request is worth a try."""
        if self.away:
            return time.monotonic() - self._looked > AGAIN and self.look()
        # Behind a proxy the address says nothing: then the first request that fails tells.
        return bool(getproxies()) or self.look()

    def lose(self) -> None:
        """A request was not answered."""
        if not self.away:
            for listener in _listeners:
                listener.note("the Prefect server can't be reached: the run goes on without it and is not shown there")
            # The end of the run is told too, to nobody: once more, not for half a minute; and that lines of the log
            # don't arrive needn't be said for each.
            self._retried, logging.raiseExceptions = PREFECT_CLIENT_MAX_RETRIES.value(), False
            _retry(1)
        self.away, self._looked = True, time.monotonic()

    def look(self) -> bool:
        """Whether somebody listens at its address."""
        try:
            with socket.create_connection(self._place(), timeout=5.0):
                if self.away:
                    self.away, logging.raiseExceptions = False, True
                    _retry(self._retried)
        except (OSError, ValueError):
            self.lose()
        return not self.away

    def _place(self) -> tuple[str, int]:
        url = PREFECT_API_URL.value()
        if self._address is None or self._address[0] != url:
            parts = urlsplit(str(url or get_client(sync_client=True).api_url))
            port = parts.port or (443 if parts.scheme == "https" else 80)
            self._address = url, (parts.hostname or "", port)
        return self._address[1]


def _retry(times: int) -> None:
    """Have the client try a request again so often."""
    os.environ["PREFECT_CLIENT_MAX_RETRIES"] = str(times)
    refresh_global_settings_context()


server = Server()


def without_server(store: Store, started: float, error: Exception) -> dict[str, Any] | None:
    """The summary of a run that did all its work and failed only because it could not tell its server.

    Args:
        store: of the campaign.
        started: when the run began, seconds since 1970.
        error: with which it ended.

    Returns:
        None where the run failed for another reason, or before its end.
    """
    if not server.away or not isinstance(error, httpx.TransportError) or not store.exists(PROGRESS):
        return None
    told = store.read_json(PROGRESS)
    if told["state"] != "done" or told["started"] < started:
        return None
    summary: dict[str, Any] = store.read_json(SUMMARY)
    return summary


@contextlib.contextmanager
def _tolerated() -> Iterator[None]:
    """A server that is away for longer than the client tries costs a picture of the progress, not the run."""
    try:
        yield
    except httpx.HTTPError as error:
        if isinstance(error, httpx.TransportError):
            server.lose()
        logging.getLogger(__name__).debug("progress could not be shown: %s", error)


def publish(create: Callable[..., Any], *args: Any, **options: Any) -> None:
    """Publish an artifact at the end of a run; while the server is away, again and again for `PATIENCE` seconds.

    After that the run goes on without, and so it does at once where the server was away before and isn't back: what the
    artifact shows is in the campaign's folder too.

    Args:
        create: of `prefect.artifacts`.
        args: its arguments.
        options: its named arguments.
    """
    missing = options.get("key", "an artifact")
    # This is told once, so it is worth a look even right after the last one: the server may be back.
    if not (server.look() if server.away else server.asked()):
        logging.getLogger(__name__).warning("the Prefect server is away: %s is not shown there", missing)
        return
    deadline, wait = time.monotonic() + PATIENCE, 1.0
    while True:
        try:
            create(*args, **options)
            return
        except httpx.TransportError as error:
            server.lose()
            why = error
        while True:
            if time.monotonic() + wait > deadline:
                note(f"the Prefect server can't be reached ({why}): {missing} is not shown there")
                return
            time.sleep(wait)
            wait = min(2 * wait, 30.0)
            if server.look():
                break


class Stage:
    """A stage of a run, inside a flow.

    Args:
        name: e.g. "featurize"; with the campaign it makes the artifact's key.
        campaign: name of the campaign.
        total: steps it has; without any it is done at once and shown nowhere.
    """

    def __init__(self, name: str, campaign: str, total: int) -> None:
        self.name, self.total, self.done = name, total, 0
        self._told = time.monotonic()
        self._artifact: UUID | None = None
        if total:
            key = slug(f"{campaign}-{name}")
            description = f"{name}: {total} steps"
            if server.asked():
                with _tolerated():
                    self._artifact = cast(
                        UUID, create_progress_artifact(progress=0.0, key=key, description=description)
                    )
            for listener in _listeners:
                listener.start(name, total)

    def grow(self, total: int) -> None:
        """It has more steps than was known."""
        self.total = total
        for listener in _listeners:
            listener.start(self.name, total)

    def advance(self, steps: int = 1) -> None:
        """Steps more are done."""
        self.done += steps
        for listener in _listeners:
            listener.advance(self.name, steps)
        if self._artifact and server.asked() and (self.done >= self.total or time.monotonic() - self._told > EVERY):
            self._told = time.monotonic()
            with _tolerated():
                update_progress_artifact(self._artifact, progress=min(100.0, 100.0 * self.done / self.total))


class Pulling:
    """Shows a pull as a stage of a run, inside a task; see `atomsets_core.sources.base.Watcher`."""

    def __init__(self, dataset: str, campaign: str) -> None:
        self._name, self._campaign = f"pull {dataset}", campaign
        self._stage: Stage | None = None

    def total(self, n: int) -> None:
        """So many entries are to come."""
        if self._stage is None and n:
            self._stage = Stage(self._name, self._campaign, n)
        elif self._stage is not None and n > self._stage.total:
            self._stage.grow(n)

    def got(self, n: int, before: bool = False) -> None:  # noqa: ARG002  # shown alike
        """So many more are here, or were before."""
        if self._stage is not None:
            self._stage.advance(n)

    def note(self, message: str) -> None:
        """Something that the user should know."""
        note(message)
