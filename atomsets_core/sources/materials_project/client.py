"""Single requests to the Materials Project through its own client: paced, tried again, checked, no key in sight.

The client's methods that collect many pages give nothing back until the last has come, cut a reply without a count to
one entry, and don't try 500 and 503 again. So each page is one call here of the method below them that sends one
request (`_submit_request_and_process` of a rester), on a session whose adapter leaves all tries to `Client`.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn, TypeVar
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter

from atomsets_core.sources.base import SourceError, SourceUnavailableError

DEFAULT_ENDPOINT = "https://api.materialsproject.org/"
WHERE_KEYS_ARE = "https://next-gen.materialsproject.org/api"
KEY_LENGTH = 32
LONGEST_WAIT = 60.0
LONGEST_RETRY_AFTER = 600.0
PASSING = (408, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524)
"""Statuses that may be another a moment later."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Reply:
    """One page.

    Attributes:
        documents: as the server gave them.
        total: how many documents the whole search has, None where the server doesn't say.
    """

    documents: list[dict[str, Any]]
    total: int | None


class _RequestError(Exception):
    """A request that failed.

    Attributes:
        status: HTTP status, 0 where no answer came that could be read.
        retry_after: seconds the server asks to wait.
        passing: whether it is worth another try.
    """

    def __init__(self, what: str, status: int = 0, retry_after: float | None = None, passing: bool = True) -> None:
        super().__init__(what)
        self.status, self.retry_after, self.passing = status, retry_after, passing


class DoubtfulReplyError(Exception):
    """A reply that can be read but isn't what was asked for; the request is sent again."""


def find_key() -> str:
    """The key, from MP_API_KEY or pymatgen's settings (PMG_MAPI_KEY).

    Raises:
        SourceError: there is none, or it can't be one.
    """
    key = os.environ.get("MP_API_KEY", "").strip()
    where = "MP_API_KEY"
    if not key:
        from pymatgen.core import SETTINGS

        key, where = str(SETTINGS.get("PMG_MAPI_KEY") or "").strip(), "PMG_MAPI_KEY in pymatgen's settings"
    if not key:
        raise SourceError(
            f"no key for the Materials Project: get yours at {WHERE_KEYS_ARE} and put it into the environment variable "
            "MP_API_KEY, or once and for all with `pmg config --add PMG_MAPI_KEY <key>`"
        )
    if len(key) != KEY_LENGTH or not key.isalnum():
        raise SourceError(
            f"{where} holds no key of the Materials Project: a key has {KEY_LENGTH} letters and digits, this has "
            f"{len(key)} characters. Copy it again from {WHERE_KEYS_ARE}"
        )
    return key


def find_endpoint() -> str:
    """The address of the interface: MP_API_ENDPOINT, or the public one. No campaign file names it: the key goes there.

    Raises:
        SourceError: it is no address, or the key would cross a network unencrypted.
    """
    endpoint = os.environ.get("MP_API_ENDPOINT", "").strip() or DEFAULT_ENDPOINT
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SourceError(f"MP_API_ENDPOINT is {endpoint!r}, no address: it begins with https://")
    if parts.username or parts.password or parts.query:
        raise SourceError("MP_API_ENDPOINT holds more than an address: the key belongs in MP_API_KEY")
    # a name without a dot is one of this machine or of a network of containers
    if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "::1") and "." in parts.hostname:
        raise SourceError(f"MP_API_ENDPOINT is {endpoint!r}: the key would go there unencrypted. Use https://")
    return endpoint if endpoint.endswith("/") else f"{endpoint}/"


@dataclass
class Client:
    """The Materials Project's client for one pull.

    Attributes:
        endpoint: address of the interface, with a slash at its end.
        key: sent with each request, never shown.
        requests_per_second: at most so many.
        attempts: tries for each request.
        first_wait: seconds before the second try; each later wait is twice as long, up to a minute, give or take.
        timeout: seconds.
        note: is told of each try that failed.
        sent: requests so far, tries included.
    """

    endpoint: str
    key: str = field(repr=False)
    requests_per_second: float
    attempts: int
    first_wait: float
    timeout: float
    note: Callable[[str], None] = lambda _message: None
    sent: int = 0
    _next: float = 0.0
    _rester: Any = field(default=None, repr=False)

    def db_version(self) -> str:
        """Version of the database now, e.g. "2026.10.01".

        Raises:
            SourceError: the server can't be reached or says nothing of the kind.
        """

        def ask() -> str:
            # without the key: nobody is asked who he is here
            with requests.get(urljoin(self.endpoint, "heartbeat"), timeout=self.timeout) as response:
                _refuse_errors(response)
                body = response.json()
            version = body.get("db_version") if isinstance(body, dict) else None
            if not version or not isinstance(version, str):
                raise DoubtfulReplyError("the server names no database version")
            return version

        return self.attempt("the version of the database", ask)

    def page(
        self, endpoint: str, parameters: Mapping[str, Any], what: str, check: Callable[[Reply], None] | None = None
    ) -> Reply:
        """One page of a search.

        Args:
            endpoint: "summary", "elasticity" or "dielectric".
            parameters: of the request.
            what: what messages call it, e.g. "page 3 of the summary".
            check: raises `DoubtfulReplyError` where the reply isn't what was asked for.

        Raises:
            SourceError: no such reply after all tries, or a request the server refuses.
        """

        def ask() -> Reply:
            rester = getattr(self._connected().materials, endpoint)
            with _without_collector():
                body, _ = rester._submit_request_and_process(
                    url=rester.endpoint,
                    verify=True,
                    params=dict(parameters),
                    use_document_model=False,
                    timeout=self.timeout,
                )
            reply = _read_body(body)
            if check:
                check(reply)
            return reply

        return self.attempt(what, ask)

    def attempt(self, what: str, ask: Callable[[], Result]) -> Result:
        """Call until it succeeds, waiting longer each time.

        Raises:
            SourceError: it failed for good; what it says holds no key.
        """
        for attempt in range(1, self.attempts + 1):
            self._wait_for_turn()
            try:
                return ask()
            except Exception as error:
                failure = _failure(error)
            # outside of the handler: no exception that knows the request hangs on the one raised here
            reason = str(failure).replace(self.key, "<key>") if self.key else str(failure)
            if failure.status in (401, 403):
                self._refuse_key(failure.status)
            if not failure.passing:
                raise SourceError(f"the Materials Project refuses {what}: {reason}")
            if attempt < self.attempts:
                wait = self._wait_before(attempt, failure)
                self.note(f"{what}: {reason}; try {attempt + 1} of {self.attempts} in {wait:.1f} s")
                time.sleep(wait)
        raise SourceUnavailableError(
            f"{what} didn't come from {self.endpoint} in {self.attempts} tries; at last: {reason}. Pages that came are "
            "kept: run the same command again later to go on (https://status.materialsproject.org tells of outages)"
        )

    def _connected(self) -> Any:
        """The MPRester, made when it is needed: that imports a lot, and asks for the heartbeat twice."""
        if self._rester is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from mp_api.client import MPRester
                from mp_api.client.core.client import _Rester

                session = _Rester._create_session(self.key, include_user_agent=True, headers={})
                # the tries are counted and spaced here, with the server's wishes and for more kinds of failure
                for scheme in ("http://", "https://"):
                    session.mount(scheme, HTTPAdapter(max_retries=0))
                session.hooks["response"].append(_refuse_errors)
                self._rester = MPRester(
                    self.key,
                    endpoint=self.endpoint,
                    session=session,
                    use_document_model=False,
                    mute_progress_bars=True,
                )
        return self._rester

    def _wait_for_turn(self) -> None:
        now = time.monotonic()
        time.sleep(max(0.0, self._next - now))
        self._next = max(now, self._next) + 1.0 / self.requests_per_second
        self.sent += 1

    def _wait_before(self, attempt: int, failure: _RequestError) -> float:
        if failure.retry_after is not None:
            if failure.retry_after > LONGEST_RETRY_AFTER:
                raise SourceUnavailableError(
                    f"the Materials Project asks to wait {failure.retry_after / 60:.0f} minutes. Pages that came are "
                    "kept: run the same command again then to go on"
                )
            return failure.retry_after
        wait = min(LONGEST_WAIT, self.first_wait * 2 ** (attempt - 1))
        return wait * random.uniform(0.75, 1.25)  # noqa: S311  # spreads clients, hides nothing

    def _refuse_key(self, status: int) -> NoReturn:
        raise SourceError(
            f"the Materials Project doesn't take the key (status {status}): copy yours again from {WHERE_KEYS_ARE} "
            "into MP_API_KEY, or with `pmg config --add PMG_MAPI_KEY <key>`"
        )


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Hold the garbage collector: it walks the hundred thousand new dicts of a page again and again, to no end.

    Measured on a page of 1,000 structures (7 MB): 0.15 s instead of 0.5 to 1.1 s. What is held goes with the page.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _refuse_errors(response: requests.Response, **_: Any) -> None:
    """Hook of the session: anything but 200 is an exception that holds neither address nor headers."""
    if response.status_code == 200:
        return
    status, retry_after = response.status_code, _seconds(response.headers.get("Retry-After"))
    said = " ".join(_detail(response).split())[:200]
    response.close()
    if 300 <= status < 400:
        # following it would carry the key to another server
        raise _RequestError(f"status {status}, a redirection; is MP_API_ENDPOINT right?", status, passing=False)
    raise _RequestError(f"status {status}{f' ({said})' if said else ''}", status, retry_after, status in PASSING)


def _detail(response: requests.Response) -> str:
    try:
        body = response.json()
    except (ValueError, requests.RequestException):
        return response.reason or ""
    detail = (body.get("detail") or body.get("message") or "") if isinstance(body, dict) else ""
    if isinstance(detail, list):  # of a parameter that is none
        return "; ".join(str(item.get("msg", item)) if isinstance(item, dict) else str(item) for item in detail)
    return str(detail)


def _seconds(text: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, be it a number or a date; None where it says neither."""
    if not text:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


def _read_body(body: Any) -> Reply:
    documents = body.get("data") if isinstance(body, dict) else None
    if not isinstance(documents, list) or not all(isinstance(document, dict) for document in documents):
        raise DoubtfulReplyError("the reply holds no list of documents")
    meta = body.get("meta")
    total = meta.get("total_doc") if isinstance(meta, dict) else None
    return Reply(documents, total if isinstance(total, int) and not isinstance(total, bool) else None)


def _failure(error: Exception) -> _RequestError:
    """What went wrong, in words that hold nothing of the request."""
    if isinstance(error, _RequestError):
        return error
    if isinstance(error, SourceError):
        return _RequestError(str(error), passing=False)
    if isinstance(error, DoubtfulReplyError):
        return _RequestError(str(error))
    if isinstance(error, requests.exceptions.SSLError):
        return _RequestError("no secure connection: the certificate of the server isn't accepted", passing=False)
    if isinstance(error, requests.Timeout):
        return _RequestError("no answer in time")
    if isinstance(error, requests.exceptions.ChunkedEncodingError | requests.exceptions.ContentDecodingError):
        return _RequestError("the reply broke off")
    if isinstance(error, requests.exceptions.JSONDecodeError):
        return _RequestError("the reply is not JSON")
    if isinstance(error, requests.ConnectionError | ConnectionError):
        return _RequestError("no connection, or it broke")
    if isinstance(error, requests.RequestException):
        return _RequestError(f"the request can't be sent ({type(error).__name__})", passing=False)
    if isinstance(error, ValueError):
        return _RequestError("the reply is not JSON")
    if type(error).__name__ == "MPRestError":
        return _RequestError(
            "no answer in time" if "timed out" in str(error) else f"{error}", passing="timed out" in str(error)
        )
    return _RequestError(f"{type(error).__name__}: {error}", passing=False)
