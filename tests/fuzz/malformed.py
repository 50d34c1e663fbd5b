"""Malformed structure files: every kind of mistake that people, programs and disks make, in five formats.

Each is made from a good file by one change with a name, or from nothing; the same names give the same bytes always.
"""

from __future__ import annotations

import io
import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pymatgen.core import Lattice, Structure

SALT = Structure(Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
XYZ = (
    '2\nLattice="5.64 0 0 0 5.64 0 0 0 5.64" Properties=species:S:1:pos:R:3 pbc="T T T" gap=8.5\n'
    "Na 0 0 0\nCl 2.82 2.82 2.82\n"
)
GOOD: dict[str, str] = {
    "cif": SALT.to(fmt="cif"),
    "vasp": SALT.to(fmt="poscar"),
    "xyz": XYZ,
    "json": json.dumps(SALT.as_dict()),
}

Change = Callable[[str], str]

WORDS = ("nan", "inf", "-inf", "1e400", "-1", "0", "", "?", ".", "abc", "1e-320", "0x10", "1,5", "٣", "\x00", "9" * 400)
"""In place of a number."""


def _number(text: str, rng: random.Random, word: str) -> str:
    """The text with one of its numbers replaced."""
    spans = [match.span() for match in re.finditer(r"-?\d+\.\d+|\d+", text)]
    start, end = rng.choice(spans)
    return text[:start] + word + text[end:]


TEXT_CHANGES: dict[str, Change] = {
    "empty": lambda _: "",
    "blank": lambda _: " \n\t\n",
    "first half": lambda text: text[: len(text) // 2],
    "second half": lambda text: text[len(text) // 2 :],
    "last line cut": lambda text: text.rstrip("\n").rpartition("\n")[0],
    "first line gone": lambda text: text.partition("\n")[2],
    "twice": lambda text: text + text,
    "lines sorted": lambda text: "\n".join(sorted(text.split("\n"))),
    "lines reversed": lambda text: "\n".join(reversed(text.split("\n"))),
    "no line ends": lambda text: text.replace("\n", " "),
    "old Mac line ends": lambda text: text.replace("\n", "\r"),
    "Windows line ends": lambda text: text.replace("\n", "\r\n"),
    "tabs": lambda text: text.replace(" ", "\t"),
    "quotes": lambda text: text.replace(" ", "'", 3),
    "null bytes": lambda text: text.replace(" ", "\x00"),
    "byte order mark": lambda text: "\ufeff" + text,
    "upper case": lambda text: text.upper(),
    "lower case": lambda text: text.lower(),
    "no digits": lambda text: "".join(c for c in text if not c.isdigit()),
    "commas for points": lambda text: text.replace(".", ","),
    "minus": lambda text: text.replace(" 5.6", " -5.6").replace("5.64 ", "-5.64 "),
    "unknown element": lambda text: text.replace("Na", "Qq"),
    "element of nothing": lambda text: text.replace("Na", "X"),
    "vacancy": lambda text: text.replace("Na", "Vac"),
    "deuterium": lambda text: text.replace("Na", "D"),
    "element 119": lambda text: text.replace("Na", "Uue"),
    "a page of HTML": lambda _: "<!DOCTYPE html><html><body>404 Not Found</body></html>",
    "a log": lambda _: "srun: error: node17: task 0: Killed\n" * 20,
    "script": lambda text: text.replace("Na", "<script>alert(1)</script>"),
    "a path": lambda _: "../../../../etc/passwd",
    "very long line": lambda text: text.replace("\n", " " * 100_000 + "\n", 1),
    "a million digits": lambda text: text.replace("5.64", "5." + "6" * 1_000_000, 1),
    "many atoms announced": lambda text: text.replace("1 1", "999999999 1").replace("2\n", "999999999\n", 1),
}
"""Name of a change -> the changed text."""

CIF: dict[str, str] = {
    "loop without values": "data_a\n_cell_length_a 4\nloop_\n_atom_site_label\n_atom_site_fract_x\n",
    "endless quote": GOOD["cif"].replace(
        "_symmetry_space_group_name_H-M   'P 1'", "_symmetry_space_group_name_H-M 'P 1"
    ),
    "text field never closed": GOOD["cif"] + "\n;\nthis never ends",
    "symmetry that explodes": GOOD["cif"].replace("  1  'x, y, z'", "  1  'x+1e9999, y, z'"),
    "symmetry as code": GOOD["cif"].replace("  1  'x, y, z'", '  1  \'__import__("os").system("true"), y, z\''),
    "negative occupancy": GOOD["cif"].replace(" 1\n", " -3\n"),
    "occupancy above one": GOOD["cif"].replace(" 1\n", " 7\n"),
    "angles that close no cell": GOOD["cif"].replace("_cell_angle_gamma   90", "_cell_angle_gamma   179.9"),
    "no cell": GOOD["cif"].replace("_cell_length_a", "_cell_was_a"),
    "two atoms in one place": GOOD["cif"].replace("0.50000000  0.50000000  0.50000000", "0.0 0.0 0.0"),
    "save frames": "data_a\nsave_x\n_cell_length_a 4\nsave_\n",
    "blocks without name": "data_\n" * 200 + GOOD["cif"],
    "thousand blocks": "".join(f"data_{i}\n_cell_length_a {i}\n" for i in range(300)),
}

POSCAR: dict[str, str] = {
    "scale zero": GOOD["vasp"].replace("\n1.0\n", "\n0.0\n"),
    "scale a volume": GOOD["vasp"].replace("\n1.0\n", "\n-1e300\n"),
    "no symbols": "\n".join(line for i, line in enumerate(GOOD["vasp"].split("\n")) if i != 5),
    "counts negative": GOOD["vasp"].replace("\n1 1\n", "\n-1 1\n"),
    "counts more than symbols": GOOD["vasp"].replace("\n1 1\n", "\n1 1 1\n"),
    "counts not whole": GOOD["vasp"].replace("\n1 1\n", "\n1.5 1\n"),
    "flat cell": "flat\n1.0\n1 0 0\n2 0 0\n0 0 1\nNa\n1\ndirect\n0 0 0\n",
    "cell of zeros": "zero\n1.0\n0 0 0\n0 0 0\n0 0 0\nNa\n1\ndirect\n0 0 0\n",
    "no mode": GOOD["vasp"].replace("direct\n", ""),
    "selective without flags": GOOD["vasp"].replace("direct\n", "selective\ndirect\n"),
}

EXTENDED_XYZ: dict[str, str] = {
    "no lattice": "1\n\nNa 0 0 0\n",
    "count negative": XYZ.replace("2\n", "-2\n", 1),
    "count too large": XYZ.replace("2\n", "7\n", 1),
    "lattice of eight": XYZ.replace("0 0 5.64", "0 5.64"),
    "lattice of words": XYZ.replace("5.64", "five"),
    "properties unknown": XYZ.replace("pos:R:3", "pos:Q:3"),
    "properties huge": XYZ.replace("pos:R:3", "pos:R:999999999"),
    "properties beyond numbers": XYZ.replace("S:1:", "S:9999999999999999999999999999991:"),
    "properties twice": XYZ.replace(" pbc", " Properties=species:S:1:pos:R:9_999_999_999 pbc"),
    "properties quoted": XYZ.replace("Properties=", 'Prop"erties"=').replace("pos:R:3", "pos:R:+99999999999"),
    "properties negative": XYZ.replace("pos:R:3", "pos:R:-3"),
    "no positions": XYZ.replace(":pos:R:3", ""),
    "no periodicity": XYZ.replace("T T T", "T T F"),
    "quote never closed": XYZ.replace('5.64" Prop', "5.64 Prop"),
    "second frame broken": XYZ + XYZ.replace("2.82 2.82 2.82", "2.82"),
    "array as comment": XYZ.replace("gap=8.5", "gap=[[1,2],[3]]"),
}


def _json(**changes: Any) -> str:
    return json.dumps({**SALT.as_dict(), **changes})


JSON: dict[str, str] = {
    "null": "null",
    "number": "17",
    "list of numbers": "[1, 2, 3]",
    "list of nulls": "[null, null]",
    "deep": "[" * 100_000,
    "deep and closed": "[" * 50_000 + "]" * 50_000,
    "deep dicts": '{"a":' * 5_000 + "1" + "}" * 5_000,
    "NaN": GOOD["json"].replace("5.64", "NaN"),
    "Infinity": GOOD["json"].replace("5.64", "Infinity"),
    "duplicate keys": GOOD["json"][:-1] + ', "sites": []}',
    "no sites": _json(sites=[]),
    "sites null": _json(sites=None),
    "sites a dict": _json(sites={"a": 1}),
    "sites of numbers": _json(sites=[1, 2]),
    "lattice null": _json(lattice=None),
    "lattice of four": _json(lattice={"matrix": [[1, 0, 0, 0]] * 4}),
    "lattice ragged": _json(lattice={"matrix": [[1, 0, 0], [0, 1], [0, 0, 1]]}),
    "lattice of strings": _json(lattice={"matrix": [["a", "b", "c"]] * 3}),
    "molecule": json.dumps({"@module": "pymatgen.core", "@class": "Molecule", "sites": []}),
    "class of os": _json(**{"@module": "os", "@class": "system", "sites": []}),
    "module in a property": _json(sites=[{**s, "properties": {"x": {"@module": "os", "@class": "system"}}}
                                         for s in SALT.as_dict()["sites"]]),
    "numpy object": _json(lattice={"matrix": {"@module": "numpy", "@class": "array", "dtype": "O", "data": ["x"]}}),
    "split without structure": json.dumps({"columns": ["a"], "index": [0], "data": [[1]]}),
    "split ragged": json.dumps({"columns": ["structure", "y"], "index": [0, 1], "data": [[SALT.as_dict()], []]}),
    "columns ragged": json.dumps({"structure": {"0": SALT.as_dict()}, "y": {"7": 1}}),
    "ASE array too large": json.dumps(
        {"ids": [1], "nextid": 2, "1": {"numbers": {"__ndarray__": [[10**12], "int64", [11]]}}}),
    "ASE array of objects": json.dumps(
        {"ids": [1], "nextid": 2, "1": {"numbers": {"__ndarray__": [[1], "object", [11]]}}}),
    "ASE without rows": json.dumps({"ids": [1, 2, 3], "nextid": 9}),
    "occupancy a text": _json(sites=[{"abc": [0, 0, 0], "species": [{"element": "Na", "occu": "many"}]}]),
    "species empty": _json(sites=[{**s, "species": []} for s in SALT.as_dict()["sites"]]),
    "huge number": GOOD["json"].replace("5.64", "9" * 5000),
    "surrogate": GOOD["json"].replace("Na", "\\ud800"),
}  # fmt: skip


def table(**columns: Any) -> bytes:
    """A Parquet file of two good structures, with other columns; None leaves one out."""
    base: dict[str, Any] = {
        "material_id": ["a", "b"],
        "lattice": [[5.64, 0, 0, 0, 5.64, 0, 0, 0, 5.64]] * 2,
        "Z": [[11, 17]] * 2,
        "frac": [[0.0, 0, 0, 0.5, 0.5, 0.5]] * 2,
    }
    sink = io.BytesIO()
    pq.write_table(pa.table({k: v for k, v in {**base, **columns}.items() if v is not None}), sink)
    return sink.getvalue()


def parquet_files() -> dict[str, bytes]:
    """Name -> a Parquet file that holds no usable structures, or only some."""
    good = table()
    rng = random.Random(0)  # noqa: S311
    found = {
        "empty": b"",
        "magic alone": b"PAR1",
        "magic twice": b"PAR1PAR1",
        "no rows": table(material_id=pa.array([], pa.string()), lattice=pa.array([], pa.list_(pa.float64())),
                          Z=pa.array([], pa.list_(pa.int64())), frac=pa.array([], pa.list_(pa.float64()))),
        "footer length huge": good[:-8] + b"\xff\xff\xff\x7f" + good[-4:],
        "footer length negative": good[:-8] + b"\x00\x00\x00\x80" + good[-4:],
        "no lattice": table(lattice=None),
        "no frac": table(frac=None),
        "lattice of eight": table(lattice=[[5.0] * 8] * 2),
        "lattice null": table(lattice=[None, None]),
        "lattice with null": table(lattice=[[None] * 9, [5.64, 0, 0, 0, 5.64, 0, 0, 0, 5.64]]),
        "lattice of strings": table(lattice=[["a"] * 9] * 2),
        "lattice nested": table(lattice=[[[5.64, 0, 0], [0, 5.64, 0], [0, 0, 5.64]]] * 2),
        "lattice infinite": table(lattice=[[np.inf, 0, 0, 0, 1, 0, 0, 0, 1]] * 2),
        "lattice of zeros": table(lattice=[[0.0] * 9] * 2),
        "Z empty": table(Z=[[], []]),
        "Z negative": table(Z=[[-1, 17]] * 2),
        "Z large": table(Z=[[2**40, 17]] * 2),
        "Z fractional": table(Z=[[11.5, 17.0]] * 2),
        "Z null": table(Z=[None, [11, 17]]),
        "Z of symbols": table(Z=[["Na", "Cl"]] * 2),
        "frac short": table(frac=[[0.0]] * 2),
        "frac NaN": table(frac=[[np.nan] * 6] * 2),
        "frac enormous": table(frac=[[1e300] * 6] * 2),
        "occupancy wrong length": table(occupancy=[[1.0]] * 2),
        "occupancy NaN": table(occupancy=[[np.nan, 1.0]] * 2),
        "ids null": table(material_id=[None, None]),
        "ids equal": table(material_id=["a", "a"]),
        "ids numbers": table(material_id=[1, 2]),
        "ids lists": table(material_id=[[1], [2]]),
        "structure column of nothing": table(lattice=None, Z=None, frac=None, structure=["", "{}"]),
        "structure column of numbers": table(lattice=None, Z=None, frac=None, structure=[1, 2]),
    }  # fmt: skip
    for number in range(20):
        damaged = bytearray(good)
        for _ in range(1 + number // 4):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        found[f"bits {number}"] = bytes(damaged)
    for number, at in enumerate(np.linspace(0, len(good) - 1, 12).astype(int)):
        found[f"cut {number}"] = good[:at]
    return found


def files() -> Iterator[tuple[str, str, bytes]]:
    """Format, name of the mistake, content; of every file of the corpus."""
    own = {"cif": CIF, "vasp": POSCAR, "xyz": EXTENDED_XYZ, "json": JSON}
    for format_, text in GOOD.items():
        for name, change in TEXT_CHANGES.items():
            yield format_, name, change(text).encode("utf-8", "surrogatepass")
        for word in WORDS:
            for seed in range(3):
                changed = _number(text, random.Random(f"{word} {seed}"), word)  # noqa: S311
                yield format_, f"number {word[:8]!r} {seed}", changed.encode()
        for name, content in own[format_].items():
            yield format_, name, content.encode()
    for name, binary in parquet_files().items():
        yield "parquet", name, binary
