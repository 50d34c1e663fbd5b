"""The one file that a pull makes of its pages, written page by page, and what it says about itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from atomsets_core.sources.base import PulledFile
from atomsets_core.sources.materials_project.pages import PageStore
from atomsets_core.sources.materials_project.query import MaterialsQuery
from atomsets_core.storage import StorageError, Store
from atomsets_core.structures import Refusal, empty_structures

LICENCE = "CC BY 4.0, Materials Project"
GNOME_LICENCE = "CC BY 4.0, Materials Project; its GNoME part CC BY-NC 4.0: not for commercial use"
CITATION = (
    "A. Jain et al., Commentary: The Materials Project: A materials genome approach to accelerating materials "
    "innovation, APL Mater. 1, 011002 (2013)"
)
GNOME_CITATION = "; A. Merchant et al., Scaling deep learning for materials discovery, Nature 624, 80 (2023)"

BIBTEX = {
    "entry": "article",
    "key": "jain2013",
    "author": "Jain, Anubhav and others",
    "title": "Commentary: The Materials Project: A materials genome approach to accelerating materials innovation",
    "journal": "APL Materials",
    "volume": "1",
    "pages": "011002",
    "year": "2013",
}
"""Fields of the BibTeX entry of the Materials Project."""

_WITHDRAWN = {
    "deprecated": "deprecated by the Materials Project, noticed in its version {db_version}",
    "gone": "no longer in the Materials Project, noticed in its version {db_version}",
}


def assemble(
    query: MaterialsQuery, pages: PageStore, store: Store, target: str, version: str, endpoint: str,
    counts: Mapping[str, int],
) -> PulledFile:  # fmt: skip
    """Write the file from complete pages, unless it is there already.

    Args:
        query: that the pages answer.
        pages: complete.
        store: of the file.
        target: its name; the provenance goes beside it as JSON.
        version: of the database.
        endpoint: where the pages came from.
        counts: of this run, handed on.
    """
    refused = _refusals(query, pages)
    digest = pages.digest()
    about = target.removesuffix(".parquet") + ".json"
    before = _provenance_before(store, target, about)
    if before.get("pages_sha256") == digest and before.get("db_version") == version:
        return PulledFile(target, int(before["structures"]), refused, before, dict(counts))
    n, sha256 = _write(query, pages, store, target, version)
    provenance = {
        "name": "mp",
        "title": f"Materials Project, database version {version}",
        "citation": CITATION + (GNOME_CITATION if query.include_gnome else ""),
        "doi": "10.1063/1.4812323",
        **({} if query.include_gnome else {"bibtex": BIBTEX}),
        "licence": GNOME_LICENCE if query.include_gnome else LICENCE,
        "units": {column.name: column.unit for column in query.columns() if not column.is_flag},
        "db_version": version,
        "endpoint": endpoint,
        "query": query.asked(),
        "structures": n,
        "sha256": sha256,
        "pages_sha256": digest,
    }
    store.write_json(about, provenance)
    return PulledFile(target, n, refused, provenance, dict(counts))


def _provenance_before(store: Store, target: str, about: str) -> dict[str, Any]:
    """What stands beside the file, if the file is still the one it was written for."""
    if not (store.exists(target) and store.exists(about)):
        return {}
    try:
        found = store.read_json(about)
    except StorageError:
        return {}
    digest = hashlib.sha256()
    with store.open(target) as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
    return found if isinstance(found, dict) and found.get("sha256") == digest.hexdigest() else {}


def _refusals(query: MaterialsQuery, pages: PageStore) -> list[Refusal]:
    """Entries without a structure in the file, and why, those included that were asked for by name."""
    latest, withdrawn = pages.latest(), pages.withdrawn()
    refused = [
        refusal
        for page in pages.pages
        for refusal in page.refusals()
        if latest[refusal.material_id] == page.number and refusal.material_id not in withdrawn
    ]
    for material_id, about in withdrawn.items():
        if about["status"] in _WITHDRAWN:
            refused.append(Refusal(material_id, "pull", _WITHDRAWN[about["status"]].format(**about)))
    others = set(query.asked()) - {"material_ids", "fields", "include_gnome"}
    why = "the Materials Project has no such entry, or has deprecated it"
    why += "" if query.include_gnome else ", or it is GNoME's (include_gnome)"
    why += f", or {' and '.join(sorted(others))} leave it out" if others else ""
    refused += [Refusal(name, "pull", why) for name in query.material_ids if name not in latest]
    return refused


def _write(query: MaterialsQuery, pages: PageStore, store: Store, target: str, version: str) -> tuple[int, str]:
    latest, withdrawn = pages.latest(), pages.withdrawn()
    listing = pages.listing(version)
    sides = [(listing, [column.name for column in query.columns("summary")])] if listing is not None else []
    for endpoint in query.endpoints():
        side = pages.side(f"{endpoint}.parquet")
        if side is not None:
            sides.append((side, [column.name for column in query.columns(endpoint)]))
    rows_of = [{name: row for row, name in enumerate(side["material_id"].to_pylist())} for side, _ in sides]
    schema = empty_structures().to_arrow().schema
    for column in query.columns():
        schema = schema.append(pa.field(column.name, pa.bool_() if column.is_flag else pa.float64()))
    n, seen = 0, set()
    with store.replacing(target) as file:
        hashing = _Hashing(file)
        with pq.ParquetWriter(hashing, schema, compression="zstd") as writer:
            for page in pages.pages:
                table = pages.table(page)
                names = table["material_id"].to_pylist()
                keep = []
                for name in names:
                    keep.append(latest[name] == page.number and name not in withdrawn and name not in seen)
                    seen.add(name) if keep[-1] else None
                table = table.filter(pa.array(keep, pa.bool_()))
                for (side, columns), rows in zip(sides, rows_of, strict=True):
                    table = _with_columns(table, side, columns, rows)
                if table.num_rows:
                    writer.write_table(table.select(schema.names).cast(schema))
                    n += table.num_rows
        return n, hashing.digest.hexdigest()


def _with_columns(table: pa.Table, side: pa.Table, columns: list[str], rows: Mapping[str, int]) -> pa.Table:
    """The table with the columns of another one, by identifier; they replace its own of the same names."""
    wanted = pa.array([rows.get(name) for name in table["material_id"].to_pylist()], pa.int64())
    for name in columns:
        values = side[name].take(wanted)
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, values)
        else:
            table = table.append_column(name, values)
    return table


class _Hashing:
    """A file to write to that keeps the SHA-256 of what passes."""

    def __init__(self, file: Any) -> None:
        self._file, self.digest, self.closed = file, hashlib.sha256(), False

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self._file.write(data)
        return len(data)

    def flush(self) -> None:
        self._file.flush()

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        self.closed = True
