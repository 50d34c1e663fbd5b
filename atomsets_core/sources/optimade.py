"""Structures from any database with an OPTIMADE interface (https://optimade.org, specification 1.x).

Requests are made here instead of through `optimade.client`: that client gives back what it got when a provider fails in
the middle, keeps all pages of a process in a class attribute, and never compares what came with what was promised. Its
library checks the filter before anything is sent.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote, urlencode, urljoin, urlsplit, urlunsplit

import numpy as np
import requests
from pymatgen.core import Element

from atomsets_core.sources.base import (
    Crystal,
    Entry,
    Pulled,
    SourceError,
    one_line,
    pulled_from_entries,
    reason_of,
    without_duplicates,
)
from atomsets_core.structures import Refusal

STRUCTURE_FIELDS = (
    "lattice_vectors",
    "cartesian_site_positions",
    "species_at_sites",
    "species",
    "dimension_types",
    "nsites",
    "structure_features",
    "last_modified",
)
ATTEMPTS = 6
LARGEST_PAGE = 256_000_000  # bytes
_AGAIN = (408, 425, 429, 500, 502, 503, 504)
_LONGEST_WAIT = 120.0  # seconds; a provider that asks for more is told of instead
_FEATURES = {
    "disorder": "it is disordered: only ordered structures have a graph",
    "implicit_atoms": "some of its atoms have no positions",
    "site_attachments": "groups of atoms are attached to its sites without positions",
    "assemblies": "it has alternative arrangements of sites: only ordered structures have a graph",
    "unknown_positions": "some of its positions are unknown",
}


_wait = time.sleep


@dataclass(frozen=True)
class Query:
    """What is asked of a provider.

    Attributes:
        url: base URL, with or without the version at its end.
        filter: in the OPTIMADE filter language, e.g. 'elements HAS ALL "Si","O" AND nelements=2'; "" for everything.
        fields: properties to have as columns beside the structures, e.g. those of the provider ("_mp_stability").
        page_limit: structures a request; the provider's own default is taken where it refuses so many.
        pause: seconds between requests.
        timeout: seconds to wait for an answer.
    """

    url: str
    filter: str = ""
    fields: Sequence[str] = ()
    page_limit: int = 100
    pause: float = 0.1
    timeout: float = 60.0


def pull_optimade(address: str, filter: str = "", fields: Sequence[str] = (), **options: Any) -> Pulled:
    """All structures of a provider that pass a filter.

    Args:
        address: base URL; "?filter=..." and "&fields=a,b" at its end say the same as the arguments.
        filter: see `Query`.
        fields: see `Query`.
        options: other attributes of `Query`.

    Returns:
        The structures under the provider's identifiers (bare numbers get the provider's prefix), with `last_modified`
        and the fields asked for as columns. `provenance` names provider, licence, versions, filter and counts.

    Raises:
        SourceError: the address or filter is wrong, the provider can't be reached or fails to the end, or the pages
            don't add up to what it says it holds. A short result never comes back.
    """
    return _Pull(_query(address, filter, fields, options)).run()


def _query(address: str, filter: str, fields: Sequence[str], options: Mapping[str, Any]) -> Query:
    base, _, tail = address.partition("?")
    for part in tail.split("&") if tail else []:
        name, _, value = part.partition("=")
        if name == "filter":
            filter = unquote(value)
        elif name == "fields":
            fields = [item for item in unquote(value).split(",") if item]
        else:
            raise SourceError(f"optimade:{address}: unknown option {name!r}; there are filter and fields")
    parts = urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SourceError(f"optimade:{address}: the address must begin with https:// or http:// and name a host")
    _check_filter(filter)
    return Query(base.rstrip("/"), filter.strip(), tuple(fields), **options)


def _check_filter(text: str) -> None:
    try:
        parser = importlib.import_module("optimade.filterparser")
    except ImportError as error:
        raise SourceError(
            "OPTIMADE providers need the extra optimade: pip install 'atomsets-screening[optimade]'"
        ) from error
    if text.strip():
        try:
            parser.LarkParser().parse(text)
        except Exception as error:
            raise SourceError(
                f"filter {text!r} is not of the OPTIMADE language ({reason_of(error)}); "
                'write e.g. elements HAS "Si" AND nelements=2'
            ) from error


@dataclass
class _Pull:
    """One pull: the session, and what the provider has said so far."""

    query: Query
    session: requests.Session = field(default_factory=requests.Session)
    promised: int | None = None
    received: int = 0
    pages: int = 0
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.session.headers["User-Agent"] = "atomsets-screening (structures for machine learning)"
        last = self.query.url.rsplit("/", 1)[-1]
        versioned = last.startswith("v") and last[1:2].isdigit()
        self.base = self.query.url if versioned else f"{self.query.url}/v1"

    def run(self) -> Pulled:
        with self.session:
            info = self._info()
            pulled = without_duplicates(pulled_from_entries(self._entries()))
        provider = self.meta.get("provider") or {}
        modified = [value for value in pulled.columns.get("last_modified", []) if isinstance(value, str)]
        provenance = {
            "name": f"optimade:{provider.get('name') or self.query.url}",
            "url": self.base,
            "provider": provider.get("name"),
            "prefix": provider.get("prefix"),
            "homepage": _href(provider.get("homepage")),
            "licence": _licence(info),
            "filter": self.query.filter,
            "api_version": self.meta.get("api_version"),
            "implementation": (self.meta.get("implementation") or {}).get("version"),
            "available": self.meta.get("data_available"),
            "returned": self.received,
            "counted": self.promised is not None,
            "last_modified": max(modified, default=None),
        }
        return replace(pulled, provenance={name: value for name, value in provenance.items() if value is not None})

    def _info(self) -> dict[str, Any]:
        """Attributes of the provider's info, which states the licence; it isn't always there."""
        document = self._get(f"{self.base}/info", tolerate=(400, 403, 404, 501))
        data = document.get("data") if document else None
        attributes = data.get("attributes") if isinstance(data, dict) else None
        return attributes if isinstance(attributes, dict) else {}

    def _entries(self) -> Iterator[Entry | Refusal]:
        seen: set[str] = set()
        for document in self._pages():
            for item in document["data"]:
                self.received += 1
                name = str(item["id"]) if isinstance(item, dict) and item.get("id") is not None else ""
                if name and name in seen:
                    raise self._error(
                        f"{name} came twice: its order changes between pages, so others are missing; try again later, "
                        "or pull in parts with a filter"
                    )
                seen.add(name)
                yield self._entry(item, name)
        self._check_counts()

    def _entry(self, item: Any, name: str) -> Entry | Refusal:
        if not name:
            return Refusal(f"entry {self.received} of {self.query.url}", "parse", "it has no id")
        material_id = f"{self._prefix()}-{name}" if name.isdigit() else name
        try:
            attributes = item["attributes"]
            wanted = {"last_modified": attributes.get("last_modified")}
            wanted |= {column: attributes.get(column) for column in self.query.fields}
            return Entry(material_id, crystal_from(attributes), wanted)
        except Exception as error:  # whatever a provider's data may hold
            return Refusal(material_id, "parse", reason_of(error))

    def _prefix(self) -> str:
        provider = self.meta.get("provider") or {}
        return str(provider.get("prefix") or urlsplit(self.base).hostname)

    def _pages(self) -> Iterator[dict[str, Any]]:
        url = self._first_url(self.query.page_limit)
        document = self._get(url, tolerate=(400, 403)) if self.query.page_limit else None
        if document is None:  # it may not give so many at a time
            url = self._first_url(None)
            document = self._page(url)
        visited = {url}
        while True:
            self._take_note(document)
            yield document
            following = self._next(document, url)
            if following is None:
                return
            if following in visited:
                raise self._error(f"page {self.pages} leads back to an earlier one")
            if not document["data"]:
                raise self._error(f"page {self.pages} is empty, but more are said to follow")
            visited.add(following)
            url = following
            _wait(self.query.pause)
            document = self._page(url)

    def _page(self, url: str) -> dict[str, Any]:
        return self._get(url) or {}

    def _first_url(self, page_limit: int | None) -> str:
        options: dict[str, Any] = {"response_fields": ",".join(dict.fromkeys([*STRUCTURE_FIELDS, *self.query.fields]))}
        if self.query.filter:
            options["filter"] = self.query.filter
        if page_limit:
            options["page_limit"] = page_limit
        return f"{self.base}/structures?{urlencode(options)}"

    def _take_note(self, document: dict[str, Any]) -> None:
        data, meta = document.get("data"), document.get("meta")
        if not isinstance(data, list):
            raise self._error("its answer holds no list of structures")
        self.meta = meta if isinstance(meta, dict) else {}
        self.pages += 1
        stated = self.meta.get("data_returned")
        if stated is None and not self.query.filter:
            stated = self.meta.get("data_available")
        if isinstance(stated, int):
            if self.promised not in (None, stated):
                raise self._error(
                    f"the number of structures changed from {self.promised} to {stated} on page {self.pages}: "
                    "the database is being updated; pull again"
                )
            self.promised = stated

    def _next(self, document: dict[str, Any], url: str) -> str | None:
        links = document.get("links")
        following = _href(links.get("next")) if isinstance(links, dict) else None
        if following is None:
            if self.meta.get("more_data_available") is True:
                raise self._error(f"page {self.pages} says that more follows, but not where")
            return None
        here, there = urlsplit(url), urlsplit(urljoin(url, following))
        if there.scheme not in ("http", "https") or there.hostname != here.hostname:
            raise self._error(f"its next page is on another server ({one_line(following)}), which is not followed")
        if here.scheme == "https":  # some proxies forget that they speak https
            there = there._replace(scheme="https", netloc=here.netloc)
        return urlunsplit(there)

    def _check_counts(self) -> None:
        if self.promised is not None and self.received != self.promised:
            raise self._error(
                f"{self.received} structures came on {self.pages} pages, but it says that there are {self.promised}: "
                "pull again, or in parts with a filter"
            )

    def _get(self, url: str, tolerate: Sequence[int] = ()) -> dict[str, Any] | None:
        """A document, after as many attempts as it takes; None for a status that is tolerated."""
        problem = ""
        for attempt in range(ATTEMPTS):
            wait = float(2**attempt)
            try:
                with self.session.get(url, timeout=self.query.timeout, stream=True) as reply:
                    if reply.status_code in tolerate:
                        return None
                    if reply.status_code in _AGAIN:
                        wait = _retry_after(reply.headers.get("Retry-After"), wait)
                        problem = f"it answered {reply.status_code}{_said(reply)}"
                    elif reply.status_code != 200:
                        raise self._error(f"it answered {reply.status_code}{_said(reply)}; check address and filter")
                    else:
                        document = json.loads(_body(reply))
                        if isinstance(document, dict):
                            return document
                        problem = "its answer is no JSON object"
            except (requests.RequestException, OSError) as error:
                problem = _connection_problem(error)
            except ValueError:  # half of a page, or the HTML of a proxy
                problem = "its answer is no JSON"
            if wait > _LONGEST_WAIT:
                raise self._error(f"{problem} and asks to wait for {wait:.0f} s: pull again then")
            if attempt + 1 < ATTEMPTS:
                _wait(wait)
        raise self._error(f"{problem}, {ATTEMPTS} times; after {self.received} structures. Try again later")

    def _error(self, text: str) -> SourceError:
        return SourceError(f"optimade:{self.query.url}: {text}")


def crystal_from(attributes: Mapping[str, Any]) -> Crystal:
    """The crystal that the attributes of an OPTIMADE structure describe.

    Raises:
        ValueError: it is disordered, not periodic in three directions, incomplete, or holds vacancies or atoms without
            positions; the message says which.
    """
    for feature in attributes.get("structure_features") or ():
        raise ValueError(_FEATURES.get(feature, f"it has the feature {feature!r}, which has no graph"))
    dimensions = attributes.get("dimension_types")
    if dimensions is not None and list(dimensions) != [1, 1, 1]:
        raise ValueError("not periodic in all three directions")
    lattice = _numbers(attributes.get("lattice_vectors"), "lattice_vectors")
    positions = _numbers(attributes.get("cartesian_site_positions"), "cartesian_site_positions")
    names = attributes.get("species_at_sites")
    if not names:
        raise ValueError("'species_at_sites' is missing")
    if lattice.shape != (3, 3) or positions.shape != (len(names), 3):
        raise ValueError(f"{len(names)} sites, but positions of shape {positions.shape}, lattice {lattice.shape}")
    if attributes.get("nsites") not in (None, len(names)):
        raise ValueError(f"'nsites' is {attributes['nsites']}, but {len(names)} sites are listed")
    known = {item["name"]: item for item in attributes.get("species") or ()}
    number_of = {name: _atomic_number(name, known.get(name)) for name in dict.fromkeys(names)}
    if abs(np.linalg.det(lattice)) < 1e-12:
        raise ValueError("the cell has no volume")
    return Crystal(lattice, np.array([number_of[name] for name in names]), positions @ np.linalg.inv(lattice))


def _numbers(value: Any, name: str) -> Any:
    if value is None:
        raise ValueError(f"'{name}' is missing")
    try:
        numbers = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"'{name}' isn't made of numbers") from error
    if not np.isfinite(numbers).all():
        raise ValueError(f"'{name}' has an unknown number")
    return numbers


def _atomic_number(name: str, species: Mapping[str, Any] | None) -> int:
    symbols = [name] if species is None else list(species.get("chemical_symbols") or ())
    concentration = [1.0] if species is None else list(species.get("concentration") or ())
    if species is not None and (species.get("attached") or any(species.get("nattached") or ())):
        raise ValueError(f"atoms are attached to the species {name!r} without positions")
    if "vacancy" in symbols:
        raise ValueError(f"the species {name!r} is partly or wholly vacant: only ordered structures have a graph")
    if len(symbols) != 1 or len(concentration) != 1 or abs(concentration[0] - 1) > 1e-6:
        raise ValueError(f"partial occupancy of the species {name!r}: only ordered structures have a graph")
    if symbols[0] in ("D", "T") or not Element.is_valid_symbol(symbols[0]):
        raise ValueError(f"unknown element {symbols[0]!r}")
    return int(Element(symbols[0]).Z)


def _href(link: Any) -> str | None:
    """A JSON:API link, which is text or an object with the text under "href"."""
    if isinstance(link, dict):
        link = link.get("href")
    return link if isinstance(link, str) and link else None


def _licence(info: Mapping[str, Any]) -> str:
    stated = _href(info.get("license"))
    others = [str(item) for item in info.get("available_licenses") or ()]
    return ", ".join([stated, *others] if stated else others) or "not stated by the provider: ask before you publish"


def _body(reply: requests.Response) -> bytes:
    pieces, size = [], 0
    for piece in reply.iter_content(1 << 16):
        size += len(piece)
        if size > LARGEST_PAGE:
            raise SourceError(f"{reply.url}: a page of more than {LARGEST_PAGE // 1_000_000} MB")
        pieces.append(piece)
    return b"".join(pieces)


def _said(reply: requests.Response) -> str:
    """What the provider's error says, for a message."""
    try:
        errors = json.loads(_body(reply)).get("errors")
        text = str(errors[0].get("detail") or errors[0].get("title"))
    except Exception:  # it may be anything
        return ""
    return f" ({one_line(text)})"


def _retry_after(header: str | None, wait: float) -> float:
    return max(wait, float(header)) if header and header.strip().isdigit() else wait


def _connection_problem(error: Exception) -> str:
    if isinstance(error, requests.Timeout):
        return "it did not answer in time"
    if isinstance(error, requests.ConnectionError) and "Name or service" in str(error):
        return "there is no server of this name, or no network"
    return f"the connection failed ({type(error).__name__})"
