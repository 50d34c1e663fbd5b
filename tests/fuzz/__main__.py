"""Fuzzing of every reader: how many damaged files in how many seconds, and what each came to.

    python -m tests.fuzz --seconds 20 --out benchmarks/results/fuzz.json

A file is made from good ones by random changes of bytes, tokens and lines, or taken from the corpus of malformed ones.
Reading it must give rows that are numbers, or an error of the kind that the reader promises; anything else is listed,
and so is a file that takes more than some seconds or a gigabyte.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import random
import resource
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from atomsets_core.features.shards import read_shard, shard_key, write_shard
from atomsets_core.features.stored import FeatureStore
from atomsets_core.models.regressor import AtomSetsRegressor
from atomsets_core.parents.registry import load_parent
from atomsets_core.sources.base import SourceError
from atomsets_core.sources.embedded import load_elastic
from atomsets_core.sources.files.reading import read_path
from atomsets_core.sources.pull import pull
from atomsets_core.sources.selection import label_values, usable_labels
from atomsets_core.sources.units import is_unit
from atomsets_core.storage.memory import peak_mb
from atomsets_core.storage.store import StorageError, Store
from atomsets_flows.campaign.base import CampaignError
from atomsets_flows.campaign.reading import read_campaign
from benchmarks.machine import RESULTS, describe, keep
from tests.fuzz.malformed import GOOD, files, parquet_files, table
from tests.fuzz.more_formats import MORE

TOKENS = [b"0", b"-1", b"nan", b"inf", b"1e999", b"\n", b" ", b"\t", b"'", b'"', b"{", b"}", b"[", b"]", b",",
          b":", b"loop_", b"data_", b"_atom_site_label", b"null", b"true", b"\x00", b"\xff\xfe", b"Fe",
          b"9" * 30]  # fmt: skip

LONGEST = 5.0
"""Seconds that a file of some kilobytes may take."""

MOST = 1000.0
"""MB by which such a file may raise the memory of the process."""

LIMIT = 12 << 30
"""Bytes of address space: what asks for more gets an error instead of ending everything."""

Read = Callable[[bytes], str]
"""Reads a damaged file and says what it came to: "rows" or "refused"; raises what nobody promised."""


def damaged(good: bytes, rng: random.Random) -> bytes:
    """One to eight random changes."""
    content = bytearray(good)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        at = rng.randrange(len(content) + 1)
        kind = rng.randrange(6)
        if kind == 0 and at < len(content):
            content[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            content[at : at + rng.randrange(1, 20)] = b""
        elif kind == 2:
            content[at : at + rng.choice([0, 1, 4])] = rng.choice(TOKENS)
        elif kind == 3:
            del content[at:]
        elif kind == 4:
            start = rng.randrange(len(content) + 1)
            content[at:at] = content[start : start + rng.randrange(200)]
        else:
            lines = content.split(b"\n")
            rng.shuffle(lines)
            content = bytearray(b"\n".join(lines))
    return bytes(content)


def structures_of(place: Path, ending: str) -> Read:
    """A reader of structure files of one ending or name."""

    def read(content: bytes) -> str:
        path = place / (f"x{ending}" if ending.startswith(".") else ending)
        path.write_bytes(content)
        try:
            pulled = read_path(path)
        except SourceError:
            return "refused"
        assert all(refusal.reason and "\n" not in refusal.reason for refusal in pulled.refused)
        assert np.isfinite(pulled.structures.lattice).all()
        assert np.isfinite(pulled.structures.frac).all()
        return "rows" if len(pulled.structures) else "refused"

    return read


def formulas_of(place: Path, ending: str) -> Read:
    """A reader of tables of formulas."""

    def read(content: bytes) -> str:
        path = place / f"f{ending}"
        path.write_bytes(content)
        try:
            pulled = pull(str(path), compositions=True)
        except SourceError:
            return "refused"
        assert all(refusal.reason and "\n" not in refusal.reason for refusal in pulled.refused)
        for name in pulled.columns.select_dtypes("number").columns:
            with suppress(SourceError):
                usable, _ = usable_labels(pulled, name, "none")
                assert np.isfinite(label_values(pulled, name)[usable]).all()
        return "rows" if len(pulled.structures) else "refused"

    return read


def campaign_of(place: Path) -> Read:
    """The reader of campaign files."""

    def read(content: bytes) -> str:
        (place / "c.toml").write_bytes(content)
        try:
            read_campaign(place / "c.toml")
        except CampaignError:
            return "refused"
        return "rows"

    return read


def shards_of(place: Path, ending: str) -> tuple[bytes, Read]:
    """A feature shard or its manifest entry, and the reader of stores."""
    parent = load_parent("megnet")
    features = parent.featurize(load_elastic().structures.take(np.arange(5)), ["V0", "V1"])
    store = Store(place / f"shards{ending}")
    key = shard_key(list(features.structure_hash), features.digest, ["V0", "V1"])
    write_shard(store, "megnet", key, features, ["V0", "V1"])
    path = next(Path(store.root).rglob(f"*{ending}"))

    def read(content: bytes) -> str:
        path.write_bytes(content)
        found = FeatureStore(store, "megnet", features.digest, ()).entries()
        with suppress(StorageError):
            for entry in found:
                values = read_shard(store, entry)
                assert all(np.isfinite(level).all() for level in values.sites.values())
                return "rows"
        return "refused"

    return path.read_bytes(), read


def models_of(place: Path, name: str) -> tuple[bytes, Read]:
    """One file of a saved model, and the reader of models."""
    elastic = load_elastic()
    structures, values = elastic.structures.take(np.arange(24)), elastic.columns["K_VRH"].to_numpy()[:24]
    model = AtomSetsRegressor("megnet:V0", transform="log10", members=2, folds=2, epochs=2, phi=[4], rho=[4])
    store = Store(place / name)
    model.fit(structures, values).save(store, "m")
    path = Path(store.root) / "m" / name

    def read(content: bytes) -> str:
        path.write_bytes(content)
        try:
            loaded = AtomSetsRegressor.load(store, "m")
        except StorageError:
            return "refused"
        assert np.isfinite(loaded.predict(structures)).all()
        return "rows"

    return path.read_bytes(), read


def readers(place: Path) -> dict[str, tuple[Sequence[bytes], Read]]:
    """Name of a reader -> good files, and how a damaged one is read."""
    cif = GOOD["cif"].encode()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.cif", cif)
        packed.writestr("b/c.json", GOOD["json"])
    (place / "a.cif").write_bytes(cif)
    found: dict[str, tuple[Sequence[bytes], Read]] = {
        "CIF": ([cif, *corpus("cif")], structures_of(place, ".cif")),
        "POSCAR": ([GOOD["vasp"].encode(), *corpus("vasp")], structures_of(place, ".vasp")),
        "extended XYZ": ([GOOD["xyz"].encode(), *corpus("xyz")], structures_of(place, ".xyz")),
        "JSON": ([GOOD["json"].encode(), *corpus("json")], structures_of(place, ".json")),
        "Parquet": ([table(), *parquet_files().values()], structures_of(place, ".parquet")),
        "CSV of files": ([b"id,file,gap\n1,a.cif,2.5\n2,a.cif,\n"], structures_of(place, ".csv")),
        "CSV of formulas": (CSV, formulas_of(place, ".csv")),
        "spreadsheet": ([spreadsheet(), spreadsheet(stored=False)], formulas_of(place, ".xlsx")),
        "gzip": ([gzip.compress(cif)], structures_of(place, ".cif.gz")),
        "zip": ([archive.getvalue()], structures_of(place, ".zip")),
        "ASE database": ([ase_database(place)], structures_of(place, ".db")),
        "ASE database in LMDB": ([LMDB.read_bytes()], structures_of(place, ".aselmdb")),
        "campaign": ([CAMPAIGN], campaign_of(place)),
    }
    for name, (file, good_files) in MORE.items():
        found[name] = ([text.encode() for text in good_files], structures_of(place, file))
    for name, ending in (("feature shard", ".parquet"), ("manifest entry", ".json")):
        good, read = shards_of(place, ending)
        found[name] = ([good], read)
    for name in ("model.json", "model.safetensors"):
        good, read = models_of(place, name)
        found[name] = ([good], read)
    return found


LMDB = Path(__file__).parents[1] / "data" / "formats" / "three.aselmdb"

CSV = (
    b"formula,gap\nFe2O3,2.1\nNaCl,8.5\n",
    b"# by hand\nformula;K (GPa);gap\n;;eV\nCuSO4.5H2O;1.234,5;2,1(3)\nNaCl;7,5;<8,5\n",
    b'id,formula,K\n001,MgO,"1,526 GPa"\n1e5,GaAs,"75 GPa"\n"a, b",SiO2,na\n',
    "formula\tgap\nMgO\t7.8 \u00b1 0.1 eV\nGaAs\t1400 meV\n".encode("utf-16"),
)
"""Tables as people write them."""


def spreadsheet(stored: bool = True) -> bytes:
    """A spreadsheet of two rows; else one with merged cells, an error, a formula without its value, uncompressed."""
    from openpyxl import Workbook

    book = Workbook()
    for row in (["formula", "gap", "n"], ["MgO", 7.8, 1], ["GaAs", "1.4(1)", None]):
        book.active.append(row)
    content = io.BytesIO()
    if stored:
        book.save(content)
        return content.getvalue()
    for row in ([None, "#DIV/0!", 2], ["ZnO", "=C4*2", 3]):
        book.active.append(row)
    book.active.merge_cells("A3:A4")
    book.save(content)
    plain = io.BytesIO()
    with zipfile.ZipFile(content) as packed, zipfile.ZipFile(plain, "w") as unpacked:
        for member in packed.namelist():
            unpacked.writestr(member, packed.read(member))
    return plain.getvalue()


CAMPAIGN = b"""name = "x"
[training]
source = "a.parquet"
target = "y"
[candidates]
source = "b.parquet"
[candidates.filters]
n_atoms = { max = 40 }
[objective]
goal = "maximize"
shortlist = 25
[model]
members = 10
"""


def corpus(format_: str) -> list[bytes]:
    """The malformed files of a format, without those of megabytes."""
    return [content for kind, _, content in files() if kind == format_ and 0 < len(content) < 20_000]


def ase_database(place: Path) -> bytes:
    """A database of two rows."""
    from ase import Atoms
    from ase.db import connect

    path = place / "good.db"
    with connect(path) as database:
        for gap in (0.5, 1.5):
            atoms = Atoms("NaCl", [[0, 0, 0], [2.8, 2.8, 2.8]], cell=[5.6] * 3, pbc=True)
            database.write(atoms, key_value_pairs={"gap": gap})
    return path.read_bytes()


def fuzz(good: Sequence[bytes], read: Read, seconds: float, seed: int) -> dict[str, object]:
    """Read damaged files for some seconds."""
    rng, came_to, slowest = random.Random(seed), Counter[str](), 0.0  # noqa: S311
    unexpected: dict[str, str] = {}
    held, end = peak_mb(), time.monotonic() + seconds
    while time.monotonic() < end:
        content = damaged(good[0] if rng.random() < 0.5 else rng.choice(good), rng)
        started = time.monotonic()
        try:
            came_to[read(content)] += 1
        except Exception as error:
            came_to["unexpected"] += 1
            where = traceback.extract_tb(error.__traceback__)[-1]
            unexpected.setdefault(
                f"{type(error).__name__} {Path(where.filename).name}:{where.lineno}", str(error)[:200]
            )
        took, more, held = time.monotonic() - started, peak_mb() - held, peak_mb()
        if took > LONGEST or more > MOST:
            came_to["unexpected"] += 1
            unexpected.setdefault("too much", f"{took:.1f} s, {more:.0f} MB more: {content[:200]!r}")
        slowest = max(slowest, took)
    return {
        "cases": sum(came_to.values()),
        "seconds": seconds,
        **{name: came_to[name] for name in ("rows", "refused", "unexpected")},
        "slowest_s": round(slowest, 2),
        "unexpected_errors": unexpected,
    }


def main() -> None:
    """Fuzz, keep and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="readers, with commas between them")
    parser.add_argument("--out", type=Path, default=RESULTS / "fuzz.json")
    chosen = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, resource.RLIM_INFINITY))
    assert is_unit("eV")  # what it imports takes some seconds, once
    found = json.loads(chosen.out.read_text())["readers"] if chosen.only and chosen.out.exists() else {}
    with tempfile.TemporaryDirectory() as place:
        for name, (good, read) in readers(Path(place)).items():
            if chosen.only and name not in chosen.only.split(","):
                continue
            found[name] = fuzz(good, read, chosen.seconds, chosen.seed)
            print(name, found[name], flush=True)
            packages = ("atomsets-screening", "pymatgen", "ase", "pyarrow", "safetensors")
            command = f"python -m tests.fuzz --seconds {chosen.seconds:g} --seed {chosen.seed}"
            keep(chosen.out, {**describe(command, packages), "readers": found})
    if any(result["unexpected"] for result in found.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
