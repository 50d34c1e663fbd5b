"""The formats of structure files: one reader function for each, and `FORMATS`, the table of them all.

A new format is a reader function and an entry in `FORMATS`: which files are of it, what messages say is read, and how a
damaged file is taken all follow from there.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pymatgen.core import Element, Structure

from atomsets_core.sources.base import (
    Crystal,
    Entry,
    Pulled,
    SourceError,
    StructureFile,
    default_id,
    pulled_from_arrow,
    pulled_from_entries,
    reason_of,
)
from atomsets_core.sources.columns import CORRECTION, ENERGY, read_columns, with_energies, with_notes
from atomsets_core.sources.files.ase_formats import ase_rows, read_ase_database, read_ase_lmdb, read_xyz
from atomsets_core.sources.files.calculation_outputs import reader_of
from atomsets_core.sources.files.cell_formats import (
    cif_of_shelx,
    read_aims,
    read_castep_cell,
    read_phonopy,
    read_xsf,
)
from atomsets_core.sources.files.cif import read_cif
from atomsets_core.sources.files.poscar import read_poscar, read_xdatcar
from atomsets_core.sources.files.records import (
    dict_from_text,
    is_nomad,
    is_other_structure,
    other_structure,
    plain_record,
    poscar_from_text,
    structure_key,
    unwrapped,
    with_structure_columns,
)
from atomsets_core.sources.files.spreadsheets import read_spreadsheet
from atomsets_core.sources.files.text_tables import FILE_COLUMNS, FORMULA_NAMES, PLAIN_TEXT, TextTable, read_text_table
from atomsets_core.sources.identifiers import id_columns, identifier, key_of, lacking, row_ids, spelled, split_id
from atomsets_core.storage import COMPRESSED, check_arrays, probe_content, probe_file, read_parquet
from atomsets_core.structures import LARGEST_ATOMIC_NUMBER, Refusal

Item = tuple[str | None, Any, Mapping[str, Any]]
"""Identifier (None: unnamed), structure as it stands in the file, columns beside it."""

Reader = Callable[[StructureFile, str], Pulled | Iterator[Entry | Refusal]]
"""From a file and the name of its column of identifiers to a batch, or to entries one by one."""


class NoSuchColumnError(ValueError):
    """A column of identifiers was asked for that a table doesn't have."""


@dataclass(frozen=True)
class Format:
    """A format of structure files.

    Attributes:
        name: what people are told it is called.
        suffixes: ends of the names of its files, in lower case; a suffix belongs to one format.
        read: its reader. Raises where nothing, or nothing more, of the file can be read.
        prefixes: beginnings of the names of its files, in upper case, for names without such an end.
        compressed: files with .gz, .bz2 or .xz behind their names are read too.
        single: a file holds one structure as a rule, so that a damaged one is a row of the failure ledger even where
            it was asked for by itself, and not an error of the whole source.
        shared: end of a name that other programs use as well; such a file is of this format where it bears `sign`.
        sign: words in the first `HEAD` bytes of such a file, in lower case.
    """

    name: str
    suffixes: tuple[str, ...]
    read: Reader
    prefixes: tuple[str, ...] = ()
    compressed: bool = True
    single: bool = False
    shared: str = ""
    sign: bytes = b""


HEAD = 65_536
"""Bytes at the beginning of a file in which its sign is looked for."""

ZIP = "zip"
"""The kind of an archive: what is in it is read, see `atomsets_core.sources.files.reading.list_zip`."""


def kind_and_stem(name: str) -> tuple[str, str]:
    """Name of the format of a file, or `ZIP` ("" where unknown), and the file's name without what says so."""
    packed = next((end for end in COMPRESSED if name.lower().endswith(end)), "")
    compressed, plain = bool(packed), name[: len(name) - len(packed)]
    path = PurePosixPath(plain)
    if path.suffix.lower() == f".{ZIP}" and not compressed:
        return ZIP, plain[: -len(path.suffix)]
    for known in FORMATS:
        if path.suffix.lower() in known.suffixes and (known.compressed or not compressed):
            return known.name, plain[: -len(path.suffix)]
    for known in FORMATS:
        if known.prefixes and path.name.upper().startswith(known.prefixes):
            return known.name, plain
    for known in FORMATS:
        if known.shared and path.suffix.lower() == known.shared and not compressed:
            return known.name, plain[: -len(known.shared)]
    return "", name


def bears_sign(name: str, kind: str, start: Callable[[], bytes]) -> bool:
    """Whether a file is what its name says; asked only where other programs use such names too.

    Args:
        name: of the file.
        kind: of it, by `kind_and_stem`.
        start: gives its first `HEAD` bytes.
    """
    known = next((known for known in FORMATS if known.name == kind), None)
    if known is None or not known.shared or not name.lower().endswith(known.shared):
        return True
    return known.sign in start()[:HEAD].lower()


def format_called(name: str) -> Format:
    """The format of this name."""
    return {known.name: known for known in FORMATS}[name]


def head_of(path: Path) -> bytes:
    """The first `HEAD` bytes of a file, as far as it can be read."""
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError:
        return b""


def file_on_disk(path: Path, name: str | None = None, *, lone: bool = False) -> StructureFile:
    """A file by its path, called `name` in messages."""
    kind, stem = kind_and_stem(name or path.name)
    if lone and not kind and path.suffix.lower() in PLAIN_TEXT:
        kind, stem = CSV.name, path.stem
    if not bears_sign(name or path.name, kind, lambda: head_of(path)):
        kind, stem = "", name or path.name
    return StructureFile(name or path.name, kind, stem, path, size=path.stat().st_size, lone=lone)


def read_file(file: StructureFile, id_column: str) -> Pulled | Iterator[Entry | Refusal]:
    """Structures and columns of one file of any format but zip.

    Returns:
        A batch, of formats that hold columns; else the entries one by one, raising where the rest can't be read.

    Raises:
        Exception: whatever a parser raises when nothing of the file can be read; `reason_of` puts it into words.
    """
    return format_called(file.kind).read(file, id_column)


def _cif(file: StructureFile, _id_column: str) -> Iterator[Entry | Refusal]:
    return iter(read_cif(file.text(), file.name, file.stem))


def structure_from(value: Any) -> Structure | Crystal:
    """The structure that stands in a table or JSON file: a dict, or the text of a CIF, POSCAR, JSON or Python dict.

    Raises:
        Exception: it is none of those, or can't be parsed.
    """
    if isinstance(value, str) and value.lstrip().startswith("{"):
        value = dict_from_text(value)
    if isinstance(value, str):
        if (poscar := poscar_from_text(value)) is not None:
            return poscar
        if "Full Formula (" in value:
            raise ValueError("what print(structure) shows, which is rounded: write json.dumps(structure.as_dict())")
        found = read_cif(value, "", "")
        if len(found) != 1 or isinstance(found[0], Refusal):
            reason = found[0].reason if isinstance(found[0], Refusal) else f"{len(found)} structures, one is needed"
            raise ValueError(reason)
        return found[0].structure
    if not isinstance(value, dict):
        raise ValueError(f"not a structure but a {type(value).__name__}")
    if is_other_structure(value):
        return other_structure(value)
    if "lattice" not in value or "sites" not in value:
        missing = "lattice" if "lattice" not in value else "sites"
        raise ValueError(f"a {value.get('@class', 'dict')} without {missing!r}, not a crystal structure")
    if (plain := _plain_dict(value)) is not None:
        return plain
    # site properties aren't used, and pymatgen would import the modules they name
    sites = [{"species": site["species"], "abc": site["abc"]} for site in value["sites"]]
    if any("element" not in species for site in sites for species in site["species"]):
        raise ValueError("a site has no element")
    return Structure.from_dict({"lattice": value["lattice"], "sites": sites})


def _plain_dict(value: dict[str, Any]) -> Crystal | None:
    """The numbers of an ordered structure's dict, ten times as fast as pymatgen; None where it isn't plain."""
    known = _atomic_numbers()
    try:
        if not all(value["lattice"].get("pbc", (True,))):
            return None
        cell = np.array(value["lattice"]["matrix"], dtype=np.float64)
        numbers = [known[species["element"]] for (species,) in (site["species"] for site in value["sites"])]
        if any(site["species"][0].get("occu") != 1 for site in value["sites"]):
            return None
        frac = np.array([site["abc"] for site in value["sites"]], dtype=np.float64)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    if cell.shape != (3, 3) or frac.shape != (len(numbers), 3) or not numbers:
        return None
    return Crystal(cell, np.array(numbers), frac)


@lru_cache(maxsize=1)
def _atomic_numbers() -> dict[str, int]:
    return {Element.from_Z(z).symbol: z for z in range(1, LARGEST_ATOMIC_NUMBER + 1)}


def read_items(items: Iterable[Item], stem: str, n: int) -> Iterator[Entry | Refusal]:
    """Structures as they stand in a file, one by one; those that can't be parsed are refused.

    Args:
        items: n of them.
        stem: see `default_id`.
        n: how many.
    """
    for position, (name, value, columns) in enumerate(items):
        material_id = default_id(name, stem, position, n)
        try:
            yield Entry(material_id, structure_from(value), columns)
        except Exception as error:
            yield Refusal(material_id, "parse", reason_of(error))


def _parquet(file: StructureFile, id_column: str) -> Pulled | Iterator[Entry | Refusal]:
    try:
        # not read_table: it would take folders named "key=value" for partitions
        if file.member:
            content = file.content()
            probe_content(content)
            table = read_parquet(io.BytesIO(content), len(content))
        else:
            probe_file(file.path)
            table = read_parquet(file.path, file.path.stat().st_size)
    except pa.ArrowException as error:
        raise ValueError(reason_of(error, "not a readable Parquet file")) from error
    table = with_structure_columns(table)
    first = table.slice(0, 1).to_pylist()[0] if table.num_rows else {}
    if "lattice" not in table.column_names and ("structure" in first or structure_key(first) is not None):
        rows = (row for batch in table.to_batches(1000) for row in batch.to_pylist())
        return read_items((_item(row, id_column) for row in rows), file.stem, table.num_rows)
    if file.lone and (wrong := lacking(table.column_names, id_column)):
        raise NoSuchColumnError(wrong)
    used = id_columns(table.column_names, id_column)
    present = row_ids([table[name].to_pylist() for name in used], table.num_rows)
    ids = [str(i if file.lone else f"{file.stem}-{i}") if name is None else name for i, name in enumerate(present)]
    into = used[0] if len(used) == 1 else "material_id"
    columns = {name: table[name] for name in table.column_names} | {into: pa.array(ids, pa.string())}
    try:
        return pulled_from_arrow(pa.table(columns), {}, into)
    except pa.ArrowException as error:
        raise ValueError(reason_of(error, "lattice, Z and frac must be lists of numbers")) from error


def _poscar(file: StructureFile, _id_column: str) -> Iterator[Entry | Refusal]:
    return iter([Entry(file.stem, read_poscar(file.text()))])


def _xdatcar(file: StructureFile, _id_column: str) -> Iterator[Entry | Refusal]:
    return read_xdatcar(file.text(), file.stem)


def _lone(read: Callable[[str], Crystal]) -> Reader:
    """A reader of files of one structure, from what reads their text."""
    return lambda file, _id_column: iter([Entry(file.stem, read(file.text()))])


def _shelx(file: StructureFile, _id_column: str) -> Iterator[Entry | Refusal]:
    found = read_cif(cif_of_shelx(file.text()), file.name, file.stem)
    return iter([replace(item, material_id=file.name) if isinstance(item, Refusal) else item for item in found])


def _json(file: StructureFile, id_column: str) -> Pulled | Iterator[Entry | Refusal]:
    try:
        document = json.loads(file.content())
    except ValueError as error:
        raise ValueError(reason_of(error, "not readable JSON")) from error
    if isinstance(document, dict) and {"ids", "nextid"} <= document.keys():
        check_arrays(document)
        return ase_rows(file, id_column, "json")
    items = _json_items(document, id_column)
    entries = read_items(items, file.stem, len(items))
    if not any(ENERGY in columns and CORRECTION in columns for _, _, columns in items):
        return entries
    pulled = pulled_from_entries(entries)
    return replace(pulled, provenance=with_energies(pulled.provenance, corrected=False))


def _json_lines(file: StructureFile, id_column: str) -> Iterator[Entry | Refusal]:
    """A record a line; one that can't be read is refused by its number, and the others are read."""
    lines = [line for line in file.text().splitlines() if line.strip()]
    return read_items((_line_item(line, id_column) for line in lines), file.stem, len(lines))


def _line_item(line: str, id_column: str) -> Item:
    try:
        return _item(json.loads(line), id_column)
    except (ValueError, RecursionError):
        return None, "{" + line, {}  # no JSON and no dict: refused with the reason where it is read


def _is_structure(value: Any) -> bool:
    return isinstance(value, dict) and "lattice" in value and "sites" in value


def _item(record: Any, id_column: str, name: str | None = None) -> Item:
    """One element of a list, or value of a dict: a structure, or a record with one under "structure"."""
    record = plain_record(record) if isinstance(record, dict) else record
    if not isinstance(record, dict) or "structure" not in record:
        return name, record, {}
    inside, columns = split_id({key: value for key, value in record.items() if key != "structure"}, id_column)
    if str(columns.get("@class", "")).endswith("Entry"):  # pymatgen's: how it was computed is a level further down
        parameters = columns.get("parameters") or {}
        kept = {key: value for key, value in columns.items() if not str(key).startswith("@")}
        run_type = parameters.get("run_type") if isinstance(parameters, dict) else None
        columns = kept | ({"run_type": run_type} if run_type else {})
    columns = {key: value for key, value in columns.items() if not str(key).startswith("@")}
    return spelled(str(name)) if name else inside, record["structure"], columns


def _json_items(document: Any, id_column: str) -> list[Item]:
    """The structures of the layouts listed in `read_path`, in the order of the file."""
    if _is_structure(document):
        return [(None, document, {})]
    if is_nomad(document):
        return [_item(document, id_column)]
    if isinstance(document, dict) and isinstance(document.get("entries"), list):  # as Alexandria writes them
        document = document["entries"]
    if isinstance(document, list):
        return [_item(item, id_column) for item in document]
    if not isinstance(document, dict):
        raise ValueError(f"no structures in it: the JSON is a {type(document).__name__}")
    columns, rows, column = document.get("columns"), document.get("data"), document.get("structure")
    if isinstance(columns, list) and isinstance(rows, list):  # pandas, orient "split": matbench
        if "structure" not in columns:
            raise ValueError(f"no column 'structure', found {columns}")
        records = [dict(zip(columns, row, strict=False)) for row in rows]
        return _named_records(records, document.get("index", []), id_column)
    if is_nomad(rows):  # a reply of NOMAD on one entry
        return [_item(rows, id_column)]
    if isinstance(rows, list):  # pandas, orient "table"; replies of databases
        return _rows_of_table(document, rows, id_column)
    if isinstance(column, str) or _is_structure(column) or is_other_structure(document.get("atoms")):
        return [_item(document, id_column)]
    if is_other_structure(document):
        return [_item({"structure": document}, id_column)]
    if isinstance(column, dict) and "@class" not in column:  # pandas, orient "columns"
        others = {key: values for key, values in document.items() if isinstance(values, dict)}
        records = [{key: values.get(row) for key, values in others.items()} for row in column]
        return _named_records(records, list(column), id_column)
    if not any(
        _is_structure(value) or (isinstance(value, dict) and "structure" in plain_record(value))
        for value in document.values()
    ):
        if (inside := unwrapped(document)) is not None:
            return _json_items(inside, id_column)
        raise ValueError(
            f"no structures in it: the JSON holds {', '.join(sorted(map(str, document))[:5]) or 'nothing'}"
        )
    return [_item(value, id_column, name) for name, value in document.items()]


def _rows_of_table(document: dict[str, Any], rows: list[Any], id_column: str) -> list[Item]:
    """Rows of a table of pandas, named by its index; of another list of records by what they hold."""
    schema = document.get("schema")
    keys = schema.get("primaryKey") if isinstance(schema, dict) else None
    keys = [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []
    if not keys or not all(isinstance(row, dict) for row in rows):
        return [_item(row, id_column) for row in rows]
    index = [identifier(row.get(key) for key in keys) for row in rows]
    return _named_records([{k: v for k, v in row.items() if k not in keys} for row in rows], index, id_column)


def _named_records(records: list[dict[str, Any]], index: list[Any], id_column: str) -> list[Item]:
    """Records named by the column of identifiers, else by the index unless that only counts the rows."""
    counts = len(index) != len(records) or all(str(name) == str(i) for i, name in enumerate(index))
    items = [_item(record, id_column) for record in records]
    if counts:
        return items
    return [(name or identifier((index[i],)), *rest) for i, (name, *rest) in enumerate(items)]  # type: ignore[misc]


def read_table_file(file: StructureFile) -> TextTable:
    """The cells of a CSV or spreadsheet.

    Raises:
        ValueError: it is empty or no table; the message says what to change.
    """
    read = read_spreadsheet if file.kind == SPREADSHEET.name else read_text_table
    return read(file.content(), file.table, file.name)


def _table(file: StructureFile, id_column: str) -> Pulled:
    """A table whose rows name a structure file each, or hold the text of a CIF."""
    table = read_table_file(file)
    names = {key_of(name): name for name in reversed(table.frame.columns)}
    column = next((names[key] for key in map(key_of, FILE_COLUMNS) if key in names), None)
    if column is None:
        wanted = f"a structure is needed: a column {', '.join(FILE_COLUMNS)} that names a structure file"
        if set(map(key_of, FORMULA_NAMES)) & set(names):
            wanted += " (compositions alone have none; campaigns, atomsets train and predict take them)"
        else:
            wanted += "; for compositions alone, a column called formula"
        raise SourceError(f"{wanted}; found {', '.join(table.frame.columns)}")
    if file.lone and (wrong := lacking(table.frame.columns, id_column)):
        raise NoSuchColumnError(wrong)
    used = id_columns([name for name in table.frame.columns if name != column], id_column)
    beside = table.frame.drop(columns=[column, *(used if len(used) == 1 else ())])
    read = read_columns(beside, table.mark, table.rows, table.units)
    ids = row_ids([table.frame[name].tolist() for name in used], len(table.frame))
    pulled = pulled_from_entries(_table_entries(table.frame[column].tolist(), ids, read.frame, file), convert=False)
    short = [Refusal(f"{file.name}, row {row}", "parse", reason) for row, reason in table.refused]
    return replace(
        pulled,
        columns=read_columns(pulled.columns).frame,
        refused=[*pulled.refused, *short],
        provenance=with_notes(read.told({}), table.notes),
    )


def _table_entries(
    values: list[Any], ids: list[str | None], columns: pd.DataFrame, file: StructureFile
) -> Iterator[Entry | Refusal]:
    records: list[dict[Any, Any]] = columns.to_dict("records") if len(columns.columns) else [{} for _ in values]
    for position, (value, name, record) in enumerate(zip(values, ids, records, strict=True)):
        reference = None if pd.isna(value) else str(value).strip()
        own_name = kind_and_stem(reference)[1] if reference and not _is_text(reference) else None
        material_id = default_id(name or own_name, file.stem, position, len(values))
        try:
            yield Entry(material_id, _referenced(reference, file), record)
        except Exception as error:
            yield Refusal(material_id, "parse", reason_of(error))


def _referenced(reference: str | None, file: StructureFile) -> Structure | Crystal:
    """The one structure a row of a CSV means."""
    if not reference:
        raise ValueError("the row names no structure file")
    if _is_text(reference):
        return structure_from(reference)
    if file.member:
        raise ValueError("a CSV inside a zip can't name files: unpack it first")
    place = file.path.parent / Path(reference).expanduser()
    if not place.is_file():
        raise ValueError(f"there is no file {reference}")
    named = file_on_disk(place, reference)
    if named.kind in ("", ZIP, *TABLES):
        raise ValueError(f"{reference} is of no kind that holds a structure")
    found = read_file(named, "")
    pulled = found if isinstance(found, Pulled) else pulled_from_entries(found)
    if pulled.n_seen != 1:
        raise ValueError(f"{reference} holds {pulled.n_seen} structures, one is needed")
    if pulled.refused:
        raise ValueError(pulled.refused[0].reason)
    only = pulled.structures
    return Crystal(only.lattice[0], np.asarray(only.numbers), np.asarray(only.frac))


def _is_text(reference: str) -> bool:
    """Whether a cell holds a structure itself instead of the name of a file."""
    return "\n" in reference or reference.startswith("{")


PARQUET = Format("Parquet", (".parquet", ".pq"), _parquet, compressed=False)
JSON = Format("pymatgen JSON", (".json",), _json)
JSON_LINES = Format("JSON lines", (".jsonl", ".ndjson"), _json_lines)
CSV = Format("CSV", (".csv", ".tsv"), _table)
SPREADSHEET = Format("spreadsheet", (".xlsx", ".xlsm"), _table, compressed=False)
FROM_ASE = ("extended XYZ", "ASE database", "ASE database in LMDB")
"""Formats whose energies are those of ASE's calculators."""

TABLES = (CSV.name, SPREADSHEET.name)
"""Formats of tables, which hold labels too."""

FORMATS = (
    PARQUET,
    JSON,
    JSON_LINES,
    Format("CIF", (".cif", ".mcif"), _cif, single=True),
    Format("POSCAR", (".vasp", ".poscar", ".contcar"), _poscar, prefixes=("POSCAR", "CONTCAR"), single=True),
    Format("XDATCAR", (), _xdatcar, prefixes=("XDATCAR",), single=True),
    Format("FHI-aims", (), _lone(read_aims), prefixes=("GEOMETRY.IN",), single=True),
    Format("XSF", (".xsf", ".axsf"), _lone(read_xsf), single=True),
    Format("CASTEP", (".cell",), _lone(read_castep_cell), single=True),
    Format("SHELX", (".res", ".ins"), _shelx, single=True),
    Format("phonopy", (), _lone(read_phonopy), prefixes=("PHONOPY",), single=True),
    Format("vasprun", (), reader_of("ase.io.vasp", "read_vasp_xml"), prefixes=("VASPRUN",), single=True),
    Format("OUTCAR", (), reader_of("ase.io.vasp", "read_vasp_out"), prefixes=("OUTCAR",), single=True),
    Format(
        "Quantum ESPRESSO input",
        (".pwi",),
        reader_of("ase.io.espresso", "read_espresso_in"),
        single=True,
        shared=".in",
        sign=b"&system",
    ),
    Format(
        "Quantum ESPRESSO output",
        (".pwo",),
        reader_of("ase.io.espresso", "read_espresso_out"),
        single=True,
        shared=".out",
        sign=b"program pwscf",
    ),
    Format("extended XYZ", (".xyz", ".extxyz"), read_xyz),
    Format("ASE database", (".db",), read_ase_database, compressed=False),
    Format("ASE database in LMDB", (".aselmdb", ".lmdb"), read_ase_lmdb, compressed=False),
    CSV,
    SPREADSHEET,
)
"""All formats; their names stand in messages in this order, and in docs/sources.md."""

KNOWN = f"{', '.join(known.name for known in FORMATS)}, or a folder or zip of those"
"""What messages say is read."""
