"""A pull of the Materials Project: pages first, then whatever differs from what the database says it holds.

The first pull reads the search page by page, sorted by identifier. Where pages don't add up, or the database has
another version than the pages, a listing without structures (identifiers, dates, numbers) says what there is, and only
entries that are missing or have another date are fetched, by their identifiers. So a killed pull, an order that changed
between two pages, a release in the middle of a pull and next week's pull are one and the same work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from atomsets_core.sources.base import PulledFile, Silent, SourceError, SourceUnavailableError, Watcher
from atomsets_core.sources.identifiers import normalise
from atomsets_core.sources.materials_project.assemble import assemble
from atomsets_core.sources.materials_project.client import Client, DoubtfulReplyError, Reply, find_endpoint, find_key
from atomsets_core.sources.materials_project.documents import read_columns, read_documents, updated
from atomsets_core.sources.materials_project.fields import SUMMARY, top_level
from atomsets_core.sources.materials_project.pages import PageStore, State, count_ids
from atomsets_core.sources.materials_project.query import IDS_IN_A_REQUEST, MaterialsQuery, chunks
from atomsets_core.storage import Store

TRIES = 3
"""Times that a listing which doesn't add up is asked for, or a pull made during which the database changes."""


def pull_materials_project(
    query: MaterialsQuery, store: Store, target: str, watch: Watcher | None = None, pages: str = "pages"
) -> PulledFile:
    """Bring a file up to what the Materials Project holds now; a pull that was stopped goes on where it was.

    Args:
        query: which entries, and which of their numbers.
        store: where the file and the pages lie.
        target: the file, Parquet; its provenance goes beside it as JSON.
        watch: is told how far it is.
        pages: folder of the pages.

    Raises:
        SourceError: no key or a wrong one, nothing matches, or the server fails for good; what came is kept.
        StorageError: the store can't be written.
    """
    watch = watch or Silent()
    endpoint = find_endpoint()
    client = Client(
        endpoint,
        find_key(),
        requests_per_second=query.requests_per_second,
        attempts=query.attempts,
        first_wait=query.first_wait,
        timeout=query.timeout,
        note=watch.note,
    )
    if query.include_gnome:
        watch.note("entries from GNoME are included: their licence, CC BY-NC 4.0, forbids commercial use")
    work = _Pull(query, client, PageStore(store, f"{pages}/{query.digest(endpoint)}"), watch)
    version = work.run()
    return assemble(query, work.pages, store, target, version, endpoint, {**work.counts, "requests": client.sent})


class _Pull:
    """One run."""

    def __init__(self, query: MaterialsQuery, client: Client, pages: PageStore, watch: Watcher) -> None:
        self.query, self.client, self.pages, self.watch = query, client, pages, watch
        self.counts = {"fetched": 0, "pages": 0}
        self.summary = query.columns(SUMMARY)

    def run(self) -> str:
        """Until everything is of one version of the database, which is given back."""
        version = self.client.db_version()
        for _ in range(TRIES):
            if not self._bring_up_to(version):
                return version
            now = self.client.db_version()
            if now == version:
                return version
            self.watch.note(
                f"the database changed from version {version} to {now} during the pull: what changed follows"
            )
            version = now
        raise SourceUnavailableError(
            f"the Materials Project changed its database {TRIES} times during this pull. Pages that came are kept: run "
            "the same command again later"
        )

    def _bring_up_to(self, version: str) -> bool:
        """Fetch what is missing; whether anything was asked for."""
        state = self.pages.state()
        if state is None:
            state = State(self.query.asked(), version, self.query.page_size)
            self.pages.write_state(state)
        if self.pages.holds(state, version):
            return False
        if state.complete and state.db_version == version:
            self.watch.note("some of what was stored is damaged or gone: it is fetched again")
            state.complete = False
        if not self.pages.pages:
            state.page_size = self.query.page_size
        begun = (
            state.db_version == version
            and not state.complete
            and self.pages.listing(version) is None
            and all(page.db_version == version for page in self.pages.pages)
        )
        if not (begun and self._read_parts(state)):
            self._reconcile(version)
        for endpoint in self.query.endpoints():
            self._read_side(endpoint)
        self.pages.finish(state, version)
        return True

    # The search, page by page

    def _read_parts(self, state: State) -> bool:
        """Fetch every page that isn't stored; whether they add up."""
        for number, parameters in enumerate(self.query.parts()):
            if not self._read_part(state, number, parameters):
                self.watch.note("the pages don't add up: the database is asked what it holds, and the rest follows")
                return False
        totals = [state.totals.get(str(number)) for number in range(len(self.query.parts()))]
        n, different = count_ids(page for page in self.pages.pages if page.part >= 0)
        if None in totals:
            self.watch.note("the server doesn't say how many entries there are: they are listed to make sure")
            return False
        if n != different or different != sum(total or 0 for total in totals):
            self.watch.note(
                f"{n - different} entries came twice: the order changed between two pages; the rest follows"
            )
            return False
        if not n:
            self._refuse_nothing()
        return True

    def _read_part(self, state: State, part: int, parameters: Mapping[str, Any]) -> bool:
        size, key = state.page_size, str(part)
        stored = {page.page: len(page.ids) for page in self.pages.pages if page.part == part}
        if stored:
            self._tell_total(state)
            self.watch.got(sum(stored.values()), before=True)
        fields = ["material_id", "last_updated", "structure", *top_level(self.summary)]
        ended = False  # a page that isn't full came: nothing may follow
        for page in range(1, 10_000_000):
            total = state.totals.get(key)
            if total is not None and (page - 1) * size >= max(total, 1):
                return True
            if page in stored:
                ended = stored[page] < size
                continue
            reply = self._page(SUMMARY, parameters, fields, page, size, total)
            if total is None and reply.total is not None:
                state.totals[key] = total = reply.total
                self.pages.write_state(state)
                self._tell_total(state)
            if not reply.documents:
                return True
            self._store(reply.documents, state.db_version, part, page)
            if ended or reply.total not in (None, total):
                return False  # something was missing before, or entries came or went
            ended = len(reply.documents) < size
        raise AssertionError("no search has so many pages")

    def _tell_total(self, state: State) -> None:
        self.watch.total(sum(total or 0 for total in state.totals.values()))

    def _store(self, documents: Sequence[Mapping[str, Any]], version: str, part: int = -1, page: int = 0) -> None:
        self.pages.append(read_documents(documents, self.summary), version, part, page)
        self.counts["fetched"] += len(documents)
        self.counts["pages"] += 1
        self.watch.got(len(documents))

    def _page(
        self, endpoint: str, parameters: Mapping[str, Any], fields: Sequence[str], page: int, size: int,
        known: int | None,
    ) -> Reply:  # fmt: skip
        """One page of a search, with as many entries as it must have."""

        def check(reply: Reply) -> None:
            total = known if reply.total is None else reply.total
            _check_ids(reply)
            expected = size if total is None else min(size, max(0, total - (page - 1) * size))
            n = len(reply.documents)
            if n > expected or (total is not None and n < expected):
                hint = "; a server that sends smaller pages needs a smaller page_size" if n else ""
                raise DoubtfulReplyError(f"it holds {n} of {expected} entries{hint}")

        given = {
            **parameters,
            "_fields": ",".join(fields),
            "_sort_fields": "material_id",
            "_page": page,
            "_per_page": size,
        }
        return self.client.page(endpoint, given, f"page {page} of the {endpoint}", check)

    # What differs from what the database holds

    def _reconcile(self, version: str) -> None:
        listing = self.pages.listing(version)
        if listing is None:
            listing = self._list(version)
            self.pages.write_listing(listing, version)
        there = dict(zip(listing["material_id"].to_pylist(), listing["last_updated"].to_pylist(), strict=True))
        known = self.pages.known()
        fresh = {i for page in self.pages.pages if page.db_version == version for i in page.ids}
        # an entry without a date may have changed: it is fetched once in each version
        wanted = [i for i, when in there.items() if known.get(i) != when or (not when and i not in fresh)]
        self.counts["new"] = sum(i not in known for i in wanted)
        self.counts["changed"] = len(wanted) - self.counts["new"]
        self.watch.total(len(wanted))
        fields = ["material_id", "last_updated", "structure", *top_level(self.summary)]
        for some in chunks(wanted):
            self._store(self._by_ids(SUMMARY, some, {"deprecated": False}, fields), version)
        self._mark_withdrawn(there, version)

    def _by_ids(
        self,
        endpoint: str,
        ids: Sequence[str],
        parameters: Mapping[str, Any],
        fields: Sequence[str],
        some: bool = False,
    ) -> list[dict[str, Any]]:
        """Documents by their identifiers; all of them, or with `some` those that exist."""

        def check(reply: Reply) -> None:
            _check_ids(reply)
            found = {normalise(document["material_id"]) for document in reply.documents}
            if not found <= set(ids) or len(found) != len(reply.documents):
                raise DoubtfulReplyError("it holds entries that weren't asked for")
            if not some and len(found) < len(ids):
                raise DoubtfulReplyError(f"it holds {len(found)} of {len(ids)} entries")
            if some and reply.total is not None and reply.total != len(found):
                raise DoubtfulReplyError(f"it holds {len(found)} of {reply.total} entries")

        given = {
            **parameters,
            "material_ids": ",".join(ids),
            "_fields": ",".join(fields),
            "_page": 1,
            "_per_page": IDS_IN_A_REQUEST,
        }
        return self.client.page(endpoint, given, f"{ids[0]} and {len(ids) - 1} more of the {endpoint}", check).documents

    def _list(self, version: str) -> pa.Table:
        """What the database holds for the search, without structures: material_id, last_updated, columns."""
        fields = ["material_id", "last_updated", *top_level(self.summary)]
        last: set[str] = set()
        for _ in range(TRIES):
            documents, total = [], 0
            for parameters in self.query.parts():
                found, count = self._collect(SUMMARY, parameters, fields)
                documents += found
                total = -1 if count is None or total < 0 else total + count
            ids = [normalise(document["material_id"]) for document in documents]
            # without a count, two listings that agree
            enough = len(ids) == total or (total < 0 and set(ids) == last)
            if len(set(ids)) == len(ids) and enough:
                if not ids:
                    self._refuse_nothing()
                columns = read_columns(documents, self.summary)
                when = pa.array([updated(document) for document in documents], pa.string())
                return pa.table({"material_id": pa.array(ids, pa.string()), "last_updated": when, **columns})
            last = set(ids) if len(set(ids)) == len(ids) else set()
            if total >= 0:
                self.watch.note(f"a listing of {version} doesn't add up, {len(set(ids))} entries of {total}: again")
        raise SourceUnavailableError(
            "the Materials Project gives its entries in another order, or another number of them, with each request: "
            f"{TRIES} listings didn't add up. Pages that came are kept: run the same command again later"
        )

    def _collect(
        self, endpoint: str, parameters: Mapping[str, Any], fields: Sequence[str]
    ) -> tuple[list[dict[str, Any]], int | None]:
        """All documents of a search, and how many there should be, None where the server doesn't say."""
        size, total = self.query.page_size, None
        documents: list[dict[str, Any]] = []
        for page in range(1, 10_000_000):
            reply = self._page(endpoint, parameters, fields, page, size, total)
            total = reply.total if reply.total is not None else total
            documents += reply.documents
            if not reply.documents or (total is not None and page * size >= total):
                break
        return documents, total

    def _mark_withdrawn(self, there: Mapping[str, str], version: str) -> None:
        """Find out what became of entries that the search doesn't give any more."""
        before = self.pages.withdrawn()
        withdrawn = {i: about for i, about in before.items() if i not in there}
        lost = [i for i in self.pages.known() if i not in there and i not in withdrawn]
        for some in chunks(lost):
            for deprecated, status in ((True, "deprecated"), (False, "outside")):
                left = [i for i in some if i not in withdrawn]
                if left:
                    found = self._by_ids(SUMMARY, left, {"deprecated": deprecated}, ["material_id"], some=True)
                    for document in found:
                        withdrawn[normalise(document["material_id"])] = {"status": status, "db_version": version}
            for i in some:
                withdrawn.setdefault(i, {"status": "gone", "db_version": version})
        for status in ("deprecated", "outside", "gone"):
            self.counts[status] = sum(withdrawn[i]["status"] == status for i in lost)
        if withdrawn != before:
            self.pages.write_withdrawn(withdrawn)

    # Numbers from other endpoints

    def _read_side(self, endpoint: str) -> None:
        """Numbers of the elasticity or dielectric endpoint, by the cheaper way."""
        columns = self.query.columns(endpoint)
        fields = ["material_id", *top_level(columns)]
        ids = [i for i in self.pages.known() if i not in self.pages.withdrawn()]
        documents: list[dict[str, Any]] = []
        if len(ids) <= 10 * IDS_IN_A_REQUEST:
            for some in chunks(ids):
                documents += self._by_ids(endpoint, some, {}, fields, some=True)
        else:
            documents = self._collect_all(endpoint, fields)
        names = [normalise(document["material_id"]) for document in documents]
        table = pa.table({"material_id": pa.array(names, pa.string()), **read_columns(documents, columns)})
        self.pages.write_side(f"{endpoint}.parquet", table)

    def _collect_all(self, endpoint: str, fields: Sequence[str]) -> list[dict[str, Any]]:
        last: set[str] = set()
        for _ in range(TRIES):
            documents, total = self._collect(endpoint, {}, fields)
            names = [normalise(document["material_id"]) for document in documents]
            if len(set(names)) == len(names) and (len(names) == total or (total is None and set(names) == last)):
                return documents
            last = set(names)
        raise SourceUnavailableError(
            f"the {endpoint} endpoint of the Materials Project gave another list with each request, {TRIES} times. "
            "Pages that came are kept: run the same command again later"
        )

    def _refuse_nothing(self) -> None:
        raise SourceError(f"no entry of the Materials Project matches {self.query.told()}: loosen the query")


def _check_ids(reply: Reply) -> None:
    for document in reply.documents:
        try:
            normalise(document.get("material_id"))
        except ValueError as error:
            raise DoubtfulReplyError(str(error)) from None
