"""Readers of extended XYZ and of ASE databases, through ASE, which is an optional dependency.

ASE databases in LMDB (fairchem's .aselmdb) are read without it: see `lmdb_values`.
"""

from __future__ import annotations

import importlib
import io
import json
import mmap
import re
import sqlite3
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from atomsets_core.sources.base import Crystal, Entry, SourceError, StructureFile, default_id, reason_of
from atomsets_core.sources.identifiers import id_columns, split_id
from atomsets_core.storage import check_arrays
from atomsets_core.structures import Refusal

GPA = 160.21766208
"""GPa in an eV / Angstrom^3."""

VOIGT = ("xx", "yy", "zz", "yz", "xz", "xy")


def installed_ase(module: str) -> Any:
    """A module of ASE.

    Raises:
        SourceError: ASE isn't installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SourceError(
            "extended XYZ, ASE databases and outputs of calculations are read with ASE: pip install ase"
        ) from error


def crystal_from_atoms(atoms: Any) -> Crystal:
    """The crystal of ASE's atoms.

    Raises:
        ValueError: they are none.
    """
    if not all(atoms.pbc):
        raise ValueError("not periodic in all three directions: a crystal needs a cell (Lattice=... and pbc=T T T)")
    cell = np.array(atoms.cell.array, dtype=np.float64)
    if not np.isfinite(cell).all() or abs(np.linalg.det(cell)) < 1e-12:
        raise ValueError("its cell has no volume")
    if "occupancy" in atoms.info:  # how ASE keeps what it read of a disordered crystal
        raise ValueError("it has partial occupancies: only ordered structures have a graph")
    return Crystal(cell, np.array(atoms.numbers, dtype=np.int64), atoms.positions @ np.linalg.inv(cell))


def read_xyz(file: StructureFile, id_column: str) -> Iterator[Entry | Refusal]:
    """The frames of an extended XYZ file, with their info and results as columns.

    Raises:
        SourceError: ASE isn't installed.
        ValueError: the file can't be read.
    """
    return _xyz_entries(installed_ase("ase.io.extxyz").read_xyz, file, id_column)


def _xyz_entries(read_xyz: Any, file: StructureFile, id_column: str) -> Iterator[Entry | Refusal]:
    frames = list(_xyz_frames(file.text()))
    if not frames:
        yield Refusal(file.stem, "parse", "the file is empty")
    for position, frame in enumerate(frames):
        material_id = default_id(None, file.stem, position, len(frames))
        try:
            _check_frame(frame)
            atoms = next(read_xyz(io.StringIO(frame), index=0))
            columns = _atoms_columns(atoms)
            # as it is written: ASE makes a number of 0012345678, and infinity of 12345e6789
            written = _texts(frame) if set(id_columns(columns, id_column)) else {}
            inside, columns = split_id(
                {
                    name: written.get(name, value) if name in id_columns(columns, id_column) else value
                    for name, value in columns.items()
                },
                id_column,
            )
            material_id = inside or material_id
            yield Entry(material_id, crystal_from_atoms(atoms), columns)
        except Exception as error:
            yield Refusal(material_id, "parse", reason_of(error))


_PAIR = re.compile(r"""(?:^|\s)(?P<key>[^\s="']+|"[^"]*")\s*=\s*(?P<value>"(?:\\.|[^"\\])*"|'[^']*'|[^\s"'{\[(]\S*)""")


def _texts(frame: str) -> dict[str, str]:
    """The values of a frame's comment line as they are written, by their keys; lists and tables left out."""
    lines = frame.split("\n", 2)
    found: dict[str, str] = {}
    for pair in _PAIR.finditer(lines[1] if len(lines) > 1 else ""):
        key, value = pair["key"].strip('"'), pair["value"]
        found.setdefault(key, value[1:-1] if value[:1] in ('"', "'") and value[-1:] == value[:1] else value)
    return found


def _check_frame(frame: str) -> None:
    """Raise ValueError where a frame announces more than it has, columns or atoms: ASE makes them all, however many."""
    lines = frame.splitlines()
    header = lines[0].strip() if lines else ""
    if header.isdecimal() and int(header) > len(lines) - 2:
        raise ValueError(f"{int(header)} atoms are announced, {max(len(lines) - 2, 0)} lines follow")
    if len(lines) > 2:
        # by ASE's own reading of the line: quotes, repeated keys and numbers have more forms than one thinks of
        stated = installed_ase("ase.io.extxyz").key_val_str_to_dict(lines[1].strip()).get("Properties", "")
        widths = [int(part) for part in str(stated).split(":")[2::3]]
        if sum(widths) > len(lines[2].split()) or min(widths, default=1) < 1:
            raise ValueError(f"{sum(widths):.3g} columns are announced, a line of it has {len(lines[2].split())}")


def _xyz_frames(text: str) -> Iterator[str]:
    """The frames one by one, so that a broken one doesn't take the others with it."""
    lines = text.rstrip().splitlines(keepends=True)
    start = 0
    while start < len(lines):
        header = lines[start].strip()
        n_lines = int(header) + 2 if header.isdecimal() and len(header) < 10 else len(lines)
        yield "".join(lines[start : start + n_lines])
        start += n_lines


def _atoms_columns(atoms: Any) -> dict[str, Any]:
    results = getattr(atoms.calc, "results", {})
    columns = {**results, **atoms.info}
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in columns.items()}


def read_ase_database(file: StructureFile, id_column: str) -> Iterator[Entry | Refusal]:
    """The rows of an ASE database in SQLite.

    Raises:
        SourceError: ASE isn't installed.
        ValueError: the file is no such database.
    """
    installed_ase("ase.db")
    if file.member:
        return ase_rows(file, id_column, "db")
    _check_ase_database(file.path)
    return ase_rows(file, id_column, "db")


def _check_ase_database(path: Path) -> None:
    """Raise ValueError for another SQLite file, into which ASE would write its tables."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        try:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE name = 'systems'").fetchall()
        except sqlite3.DatabaseError as error:
            raise ValueError(reason_of(error, "not an ASE database")) from error
        if not tables:
            raise ValueError("not an ASE database: a SQLite file without a table 'systems'")
        _check_columns(connection)


def _check_columns(connection: sqlite3.Connection) -> None:
    """Raise ValueError where a row announces an array that it doesn't hold, which ASE would allocate."""
    columns = [row[1] for row in connection.execute("PRAGMA table_info(systems)")]
    for column in {"key_value_pairs", "constraints", "calculator_parameters", "data"} & set(columns):
        where = f"typeof({column}) = 'text' AND {column} LIKE '%ndarray__%'"
        for (text,) in connection.execute(f"SELECT {column} FROM systems WHERE {where}"):  # noqa: S608  # names above
            check_arrays(json.loads(text))


def ase_rows(file: StructureFile, id_column: str, kind: str) -> Iterator[Entry | Refusal]:
    """The rows of an ASE database in SQLite or JSON, with its key-value pairs as columns."""
    connect = installed_ase("ase.db").connect
    with ExitStack() as stack:
        path = file.path
        if file.member or path.name.lower().endswith(".gz"):  # ASE opens files only
            path = Path(stack.enter_context(TemporaryDirectory())) / f"database.{kind}"
            path.write_bytes(file.content())
            if kind == "db":
                _check_ase_database(path)
        for row in connect(str(path), type=kind, use_lock_file=False).select():
            material_id = f"{file.stem}-{row.id}"
            try:
                inside, columns = split_id(row.key_value_pairs, id_column)
                material_id = inside or material_id
                if row.get("energy") is not None:
                    columns = {"energy": row.energy, **columns}
                yield Entry(material_id, crystal_from_atoms(row.toatoms()), columns)
            except Exception as error:
                yield Refusal(material_id, "parse", reason_of(error))


# ASE databases in LMDB: https://gitlab.com/ase/ase-db-backends, files of OMat24, OMol25 and fairchem

LARGEST_ROW, LARGEST_RATIO = 50_000_000, 250
"""Bytes of JSON of one row, decompressed, and how many times its size they may be (beyond 100 kB)."""

_BRANCH, _LEAF = 0x01, 0x02
_MAGIC, _HEADER, _DEEPEST = 0xBEEFC0DE, 16, 60
_IN_PAGES_OF_ITS_OWN, _OTHER_FLAGS = 0x01, 0x06


def lmdb_values(content: Any) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of an LMDB file, in the order of the keys.

    Its pages are read here, since LMDB's own library believes what a file says of itself and takes the process with it
    where that is wrong; nothing is read beyond the file, and no page twice.

    Args:
        content: bytes or a memory map, of a file that a machine of this byte order with words of 8 bytes wrote.

    Raises:
        ValueError: it is no such file, or damaged.
    """
    try:
        size, root = _lmdb_root(content)
        left = len(content)
        for key, value in _lmdb_page(content, size, root, set(), 0) if root != (1 << 64) - 1 else ():
            left -= len(value)
            if left < 0:
                raise ValueError("a damaged LMDB file: its rows are longer than the file")
            yield key, value
    except struct.error as error:
        raise ValueError("a damaged LMDB file: it is cut short") from error


def _lmdb_root(content: Any) -> tuple[int, int]:
    """Bytes of a page, and the page where the newer of the two states of the file begins."""
    found = []
    for size in (4096, 8192, 16384, 32768, 65536, 1024, 2048, 512):
        for start in (0, size):
            if len(content) < start + 152:
                continue
            magic, version = struct.unpack_from("<II", content, start + _HEADER)
            page_size, root, transaction = (
                struct.unpack_from("<I", content, start + 40)[0],
                *struct.unpack_from("<Q", content, start + 128),
                *struct.unpack_from("<Q", content, start + 144),
            )
            if magic == _MAGIC and version & 0xFFFF == 1 and page_size == size:
                found.append((transaction, size, root))
    if not found:
        raise ValueError("not an LMDB file of rows: its first pages don't say so")
    _, size, root = max(found)
    return size, root


def _lmdb_page(content: Any, size: int, number: int, seen: set[int], depth: int) -> Iterator[tuple[bytes, bytes]]:
    if number in seen or depth > _DEEPEST or (number + 1) * size > len(content):
        raise ValueError("a damaged LMDB file: its pages lead in circles or beyond it")
    seen.add(number)
    start = number * size
    flags, lower, _upper = struct.unpack_from("<HHH", content, start + 10)
    if not flags & (_BRANCH | _LEAF) or not _HEADER <= lower <= size:
        raise ValueError("a damaged LMDB file: a page is of another kind")
    for place in struct.unpack_from(f"<{(lower - _HEADER) // 2}H", content, start + _HEADER):
        if place + 8 > size:
            raise ValueError("a damaged LMDB file: a row lies beyond its page")
        low, high, node_flags, key_size = struct.unpack_from("<HHHH", content, start + place)
        if flags & _BRANCH:
            yield from _lmdb_page(content, size, low | high << 16 | node_flags << 32, seen, depth + 1)
            continue
        if node_flags & _OTHER_FLAGS:
            raise ValueError("an LMDB file of several tables, not an ASE database")
        key_end = start + place + 8 + key_size
        length, at = low | high << 16, key_end
        if node_flags & _IN_PAGES_OF_ITS_OWN:
            page = struct.unpack_from("<Q", content, key_end)[0]
            at = page * size + _HEADER
        if at + length > len(content):
            raise ValueError("a damaged LMDB file: a row lies beyond it")
        yield bytes(content[start + place + 8 : key_end]), bytes(content[at : at + length])


_RESERVED = (b"nextid", b"deleted_ids", b"metadata")


def read_ase_lmdb(file: StructureFile, id_column: str) -> Iterator[Entry | Refusal]:
    """The rows of an ASE database in LMDB: what they hold is JSON, and no ASE is needed.

    Raises:
        ValueError: the file is no such database.
    """
    if file.member or file.path.suffix.lower() not in (".aselmdb", ".lmdb"):
        yield from _lmdb_entries(file.content(), file.stem, id_column)
        return
    with file.path.open("rb") as opened:
        if not file.path.stat().st_size:
            raise ValueError("the file is empty")
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield from _lmdb_entries(content, file.stem, id_column)


def _lmdb_entries(content: Any, stem: str, id_column: str) -> Iterator[Entry | Refusal]:
    for key, value in lmdb_values(content):
        if key in _RESERVED:
            continue
        name = f"{stem}-{key.decode('ascii', errors='replace')}"
        try:
            row = _lmdb_row(value)
            beside = {**_scalars(row.get("data")), **_scalars(row.get("key_value_pairs"))}
            inside, columns = split_id(beside, id_column)
            yield Entry(inside or name, _crystal_of_row(row), {**_row_results(row), **columns})
        except Exception as error:
            yield Refusal(name, "parse", reason_of(error))


def _lmdb_row(value: bytes) -> dict[str, Any]:
    """One row, decompressed within bounds.

    Raises:
        ValueError: it is no JSON.
    """
    if value[:1] == b"\x80":
        raise ValueError("a pickled object, which runs code when it is read: write it as .aselmdb or extended XYZ")
    try:
        unpack = zlib.decompressobj()
        text = unpack.decompress(value, min(LARGEST_ROW, 100_000 + LARGEST_RATIO * len(value)))
        if unpack.unconsumed_tail:
            raise ValueError(
                f"a row decompresses to more than {LARGEST_ROW // 1_000_000} MB, or {LARGEST_RATIO} times its size"
            )
        row = json.loads(text)
    except (zlib.error, UnicodeDecodeError, RecursionError, json.JSONDecodeError) as error:
        raise ValueError("a row that isn't compressed JSON, as ASE databases in LMDB have") from error
    if not isinstance(row, dict):
        raise ValueError("a row that isn't a JSON object")
    return row


def _scalars(value: Any) -> dict[str, Any]:
    return {key: inner for key, inner in value.items() if np.isscalar(inner)} if isinstance(value, Mapping) else {}


def _array_of(value: Any) -> Any:
    """Lists as such, or in ASE's spelling of an array."""
    if isinstance(value, Mapping):
        shape, kind, flat = value["__ndarray__"]
        if int(np.prod(shape, dtype=np.float64)) != len(flat):
            raise ValueError(f"an array announces {shape} numbers and has {len(flat)}")
        return np.array(flat, dtype=np.dtype(kind)).reshape(shape)
    return np.array(value)


def _crystal_of_row(row: Mapping[str, Any]) -> Crystal:
    numbers, positions = _array_of(row["numbers"]), _array_of(row["positions"]).astype(np.float64)
    cell = _array_of(row["cell"]).astype(np.float64)
    if cell.shape != (3, 3) or positions.shape != (len(numbers), 3) or not np.all(_array_of(row["pbc"])):
        raise ValueError("not periodic in all three directions: a crystal needs a cell and a place for each atom")
    if not np.isfinite(cell).all() or abs(np.linalg.det(cell)) < 1e-12:
        raise ValueError("its cell has no volume")
    return Crystal(cell, numbers.astype(np.int64), positions @ np.linalg.inv(cell))


def _row_results(row: Mapping[str, Any]) -> dict[str, Any]:
    """What was computed, as columns; forces as their largest, stress in GPa."""
    found = {name: float(row[name]) for name in ("energy", "free_energy") if isinstance(row.get(name), (int, float))}
    if row.get("forces") is not None:
        forces = _array_of(row["forces"]).astype(np.float64)
        found["max_force"] = float(np.linalg.norm(forces.reshape(-1, 3), axis=1).max(initial=0.0))
    if row.get("stress") is not None:
        stress = GPA * _array_of(row["stress"]).astype(np.float64)
        if stress.shape == (3, 3):
            stress = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        if stress.shape == (6,):
            found |= {f"stress_{axes}": float(value) for axes, value in zip(VOIGT, stress, strict=True)}
    return found
