"""The best candidates of a campaign as files that other programs read: CIF, POSCAR, extended XYZ, JSON, CSV."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pymatgen.core import Structure
from pymatgen.io.cif import CifWriter
from pymatgen.io.vasp import Poscar

from atomsets_core.campaigns import EVIDENCE, RANKING, structures_name
from atomsets_core.report.candidates.crystals import SYMPREC, structure
from atomsets_core.report.downloads import safe_name
from atomsets_core.storage import StorageError, Store, csv_text
from atomsets_core.structures import from_arrow

FORMATS = {
    "cif": "a folder of CIFs",
    "poscar": "a folder of POSCARs",
    "xyz": "one extended XYZ file",
    "json": "one JSON file of pymatgen structures",
    "csv": "one CSV of what the ranking says",
}
"""What each format makes."""

BATCH = 8192


class ExportError(Exception):
    """What was asked for can't be written; the message says why and what can."""


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        files: every file, best candidate first.
        left_out: identifier -> why its structure could not be written.
        n: candidates that were.
    """

    files: list[Path]
    n: int
    left_out: dict[str, str] = field(default_factory=dict)


def chosen_rows(store: Store, top: int | None, whole_ranking: bool) -> pd.DataFrame:
    """Rows of ranking.parquet, best first: of the shortlist, or of the whole ranking.

    Raises:
        StorageError: there is no ranking, or it is damaged.
    """
    store.size(RANKING)
    parts: list[pa.Table] = []
    n = 0
    try:
        with store.open(RANKING) as file:
            for batch in pq.ParquetFile(file).iter_batches(BATCH, use_threads=False):
                table = pa.Table.from_batches([batch])
                kept = table if whole_ranking else table.filter(pc.field("shortlist"))
                parts.append(kept)
                n += kept.num_rows
                if top is not None and n >= top:
                    break
    except (pa.ArrowException, OSError) as error:
        raise StorageError(f"{store.url(RANKING)} is damaged: {error}. Delete it and run again") from error
    rows: pd.DataFrame = pa.concat_tables(parts).to_pandas() if parts else pd.DataFrame()
    return rows if top is None else rows.iloc[:top]


def structures_of(store: Store, rows: pd.DataFrame) -> dict[str, Structure]:
    """material_id -> structure, as it was ranked; none of formulas.

    Raises:
        StorageError: a file that holds them is damaged.
    """
    found: dict[str, Structure] = {}
    if store.exists(EVIDENCE):
        wanted = set(rows["material_id"])
        for row in store.read_json(EVIDENCE)["candidates"]:
            if row["material_id"] in wanted and "lattice" in row:
                found[row["material_id"]] = structure(row)
    missing = [name for name in rows["material_id"] if name not in found]
    name = structures_name("candidates")
    if missing and store.exists(name):
        asked = pa.array(missing, pa.string())
        with store.open(name) as file:
            parquet = pq.ParquetFile(file)
            if "lattice" in parquet.schema_arrow.names:
                for batch in parquet.iter_batches(BATCH, use_threads=False):
                    part = pa.Table.from_batches([batch])
                    part = part.filter(pc.is_in(part["material_id"].cast(pa.string()), asked))
                    if part.num_rows:
                        read, _, _ = from_arrow(part)
                        found |= dict(zip(read.material_id.tolist(), read.to_pymatgen(), strict=True))
    return found


def export(
    store: Store,
    out: Path,
    kind: str,
    *,
    top: int | None = None,
    whole_ranking: bool = False,
    conventional: bool = False,
) -> Export:
    """Write the best candidates of a finished campaign.

    Args:
        store: of the campaign.
        out: folder for `cif` and `poscar`, file for the others.
        kind: one of `FORMATS`.
        top: how many; all of the shortlist without it.
        whole_ranking: count in the whole ranking, where look-alikes and formulas that are there twice are not skipped.
        conventional: write the conventional cell (CIFs with its symmetry) instead of the cell that was ranked.

    Raises:
        ExportError: there is nothing to write, no structure of it, or no program that writes the format.
        StorageError: a result is missing or damaged.
    """
    if kind not in FORMATS:
        raise ExportError(f"--format {kind}: there are {', '.join(FORMATS)}")
    if not store.exists(RANKING):
        raise ExportError(
            f"{store.root} holds no finished campaign ({RANKING} is missing): name the folder that `atomsets screen` "
            "wrote, or run it first"
        )
    rows = chosen_rows(store, top, whole_ranking)
    if rows.empty:
        raise ExportError(f"{store.root}: no candidate was ranked, so there is nothing to export")
    if kind == "csv":
        return _one(out, csv_text(rows), len(rows))
    found = structures_of(store, rows)
    if not found:
        raise ExportError(
            f"{store.root}: its candidates are formulas, which have no structure to write as {kind}: use --format csv"
        )
    left_out = {str(name): "its structure is not kept" for name in rows["material_id"] if name not in found}
    if conventional:
        found = {name: _conventional(one) for name, one in found.items()}
    records = [row for row in rows.to_dict("records") if row["material_id"] in found]
    if kind == "json":
        told = [{**_plain(row), "structure": found[row["material_id"]].as_dict()} for row in records]
        return _one(out, json.dumps(told, indent=1) + "\n", len(told), left_out)
    if kind == "xyz":
        return _xyz(out, records, found, left_out)
    files = []
    out.mkdir(parents=True, exist_ok=True)
    for row in records:
        one = found[row["material_id"]]
        if kind == "poscar" and not one.is_ordered:
            left_out[row["material_id"]] = "its sites are partly occupied, which a POSCAR can't say: use --format cif"
            continue
        name = f"{int(row['rank']):03d}-{safe_name(row['material_id'])}-{safe_name(row['formula'])}"
        path = out / (f"{name}.cif" if kind == "cif" else f"{name}.vasp")
        path.write_text(_cif(one, conventional) if kind == "cif" else _poscar(one, row))
        files.append(path)
    return Export(files, len(files), left_out)


def _one(out: Path, text: str, n: int, left_out: Mapping[str, str] | None = None) -> Export:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)
    return Export([out], n, dict(left_out or {}))


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON: nothing for what is missing."""
    kept = {name: value for name, value in row.items() if not (isinstance(value, float) and value != value)}
    return {name: value.item() if hasattr(value, "item") else value for name, value in kept.items()}


def _conventional(one: Structure) -> Structure:
    """The conventional cell; the structure as it is where no symmetry is found."""
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return SpacegroupAnalyzer(one, symprec=SYMPREC).get_refined_structure()
    except Exception:  # spglib and pymatgen raise many kinds of errors where atoms overlap or cells are flat
        return one


def _cif(one: Structure, conventional: bool) -> str:
    if conventional:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return str(CifWriter(one, symprec=SYMPREC))
        except Exception:  # as above
            return str(CifWriter(one))
    return str(CifWriter(one))


def _poscar(one: Structure, row: Mapping[str, Any]) -> str:
    """A POSCAR whose comment names the candidate; its elements together, as VASP wants them."""
    return str(Poscar(one.get_sorted_structure(), comment=f"{row['formula']} {row['material_id']}").get_str())


def _xyz(
    out: Path, records: Sequence[Mapping[str, Any]], found: Mapping[str, Structure], left_out: dict[str, str]
) -> Export:
    """Frames with the ranking's numbers in their comments, written by ASE."""
    try:
        from ase.io import write
        from pymatgen.io.ase import AseAtomsAdaptor
    except ImportError as error:
        raise ExportError("--format xyz is written by ASE, which is not installed: pip install ase") from error
    frames = []
    for row in records:
        one = found[row["material_id"]]
        if not one.is_ordered:
            left_out[row["material_id"]] = "its sites are partly occupied, which XYZ can't say: use --format cif"
            continue
        atoms = AseAtomsAdaptor.get_atoms(one, msonable=False)
        told = {name: value for name, value in _plain(row).items() if isinstance(value, bool | int | float | str)}
        atoms.info = {name: value for name, value in told.items() if value != ""}
        frames.append(atoms)
    text = io.StringIO()
    write(text, frames, format="extxyz")
    return _one(out, text.getvalue(), len(frames), left_out)
