"""Pages of a pull on the disk: what has come stays, and what is there is known without asking the server.

A page is one Parquet file and, written after it, one JSON file with its checksum and the identifiers it holds. Without
a JSON file that fits, a page doesn't exist. `pull.json` beside them says of which search and database version they are.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from atomsets_core.sources.materials_project.documents import Documents
from atomsets_core.storage import StorageError, Store
from atomsets_core.structures import Refusal

STATE, LISTING, WITHDRAWN = "pull.json", "listing.parquet", "withdrawn.json"
LAYOUT = 1


@dataclass(frozen=True)
class Page:
    """A page that is stored whole.

    Attributes:
        number: its place in the order of arrival; an entry in a later page replaces an earlier one's.
        part: of the search, -1 for entries that were fetched by their identifiers.
        page: within the part, from 1.
        db_version: of the database it came from.
        sha256: of the Parquet file.
        ids: of all entries it came with, usable or not.
        last_updated: of each.
        refused: identifier, stage, reason of each entry without a row in the Parquet file.
    """

    number: int
    part: int
    page: int
    db_version: str
    sha256: str
    ids: list[str]
    last_updated: list[str]
    refused: list[list[str]] = field(default_factory=list)

    def refusals(self) -> Iterator[Refusal]:
        """The entries that can't be used."""
        for material_id, stage, reason in self.refused:
            yield Refusal(material_id, stage, reason)


@dataclass
class State:
    """How far a pull is.

    Attributes:
        asked: the search, for people.
        db_version: of the database that the pages are known to agree with, or came from while they aren't complete.
        page_size: of the pages of the parts.
        totals: how many entries each part of the search has, as the server says; None where it doesn't.
        complete: whether every entry of `db_version` was here when the pull ended.
        digest: of all files then; a page that is lost must not bring back an older form of its entries unseen.
    """

    asked: dict[str, Any]
    db_version: str
    page_size: int
    totals: dict[str, int | None] = field(default_factory=dict)
    complete: bool = False
    digest: str = ""
    layout: int = LAYOUT


class PageStore:
    """The pages of one search in a folder of a store.

    Args:
        store: the campaign's.
        folder: in it; one for each search.
    """

    def __init__(self, store: Store, folder: str) -> None:
        self.store, self.folder = store, folder
        self.pages: list[Page] = sorted(self._stored(), key=lambda page: page.number)

    def _name(self, name: str) -> str:
        return f"{self.folder}/{name}"

    def _stored(self) -> Iterator[Page]:
        for name in self.store.names(self.folder, ".json"):
            if name.rsplit("/", 1)[-1].startswith("page-"):
                try:
                    page = Page(**self.store.read_json(name))
                    whole = hashlib.sha256(self.store.read(self._file(page.number))).hexdigest() == page.sha256
                except (StorageError, TypeError):
                    continue
                if whole:
                    yield page

    def _file(self, number: int) -> str:
        return self._name(f"page-{number:06d}.parquet")

    def state(self) -> State | None:
        """How far the pull is; None before its first request."""
        if not self.store.exists(self._name(STATE)):
            return None
        found = self.store.read_json(self._name(STATE))
        return State(**found) if found.get("layout") == LAYOUT else None

    def write_state(self, state: State) -> None:
        """Remember how far it is."""
        self.store.write_json(self._name(STATE), asdict(state))

    def finish(self, state: State, db_version: str) -> None:
        """Remember that everything of a version is here, and what that is."""
        state.db_version, state.complete, state.digest = db_version, True, self.digest()
        self.write_state(state)

    def holds(self, state: State, db_version: str) -> bool:
        """Whether everything of a version is here, and still as it was when it was finished."""
        return state.complete and state.db_version == db_version and state.digest == self.digest()

    def append(self, documents: Documents, db_version: str, part: int = -1, page: int = 0) -> Page:
        """Store what came."""
        number = self.pages[-1].number + 1 if self.pages else 1
        # a file without a page's JSON may lie there from a run that was killed; it is replaced
        sink = io.BytesIO()
        pq.write_table(documents.table, sink, compression="zstd")
        data = sink.getvalue()
        self.store.write(self._file(number), data)
        stored = Page(
            number, part, page, db_version, hashlib.sha256(data).hexdigest(), documents.ids, documents.last_updated,
            [[item.material_id, item.stage, item.reason] for item in documents.refused],
        )  # fmt: skip
        self.store.write_json(self._name(f"page-{number:06d}.json"), asdict(stored))
        self.pages.append(stored)
        return stored

    def known(self) -> dict[str, str]:
        """Identifier -> last_updated of every entry that is stored, in its latest form."""
        return {i: when for page in self.pages for i, when in zip(page.ids, page.last_updated, strict=True)}

    def latest(self) -> dict[str, int]:
        """Identifier -> number of the page that has its latest form."""
        return {i: page.number for page in self.pages for i in page.ids}

    def table(self, page: Page) -> pa.Table:
        """Structures and columns of a page."""
        return self.store.read_table(self._file(page.number))

    def listing(self, db_version: str) -> pa.Table | None:
        """What the database of this version held for the search: material_id, last_updated, columns."""
        if not self.store.exists(self._name(LISTING)):
            return None
        table = self.store.read_table(self._name(LISTING))
        version = (table.schema.metadata or {}).get(b"db_version", b"").decode()
        return table if version == db_version else None

    def write_listing(self, table: pa.Table, db_version: str) -> None:
        """Keep a listing that was checked."""
        self.store.write_table(self._name(LISTING), table.replace_schema_metadata({"db_version": db_version}))

    def withdrawn(self) -> dict[str, dict[str, str]]:
        """Identifier -> what became of an entry that was here once, and the database version that showed it."""
        name = self._name(WITHDRAWN)
        found: dict[str, dict[str, str]] = self.store.read_json(name) if self.store.exists(name) else {}
        return found

    def write_withdrawn(self, withdrawn: dict[str, dict[str, str]]) -> None:
        """Keep what became of entries."""
        self.store.write_json(self._name(WITHDRAWN), withdrawn)

    def write_side(self, name: str, table: pa.Table) -> None:
        """Keep columns that came from another endpoint."""
        self.store.write_table(self._name(name), table)

    def side(self, name: str) -> pa.Table | None:
        """Columns of another endpoint, None where they haven't come."""
        return self.store.read_table(self._name(name)) if self.store.exists(self._name(name)) else None

    def digest(self) -> str:
        """Digest of everything the assembled table is made from."""
        digest = hashlib.sha256()
        for page in self.pages:
            digest.update(page.sha256.encode())
        for name in self.store.names(self.folder):
            base = name.rsplit("/", 1)[-1]
            if not base.startswith("page-") and base != STATE:
                digest.update(base.encode() + hashlib.sha256(self.store.read(name)).digest())
        return digest.hexdigest()


def count_ids(pages: Iterable[Page]) -> tuple[int, int]:
    """How many entries pages came with, and how many of them are different."""
    ids = [i for page in pages for i in page.ids]
    return len(ids), len(set(ids))
