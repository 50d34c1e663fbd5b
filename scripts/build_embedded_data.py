"""Make the embedded data sets from the source distribution of matminer 0.4.0.

    pip download --no-deps --no-binary :all: matminer==0.4.0 --dest DIR
    python scripts/build_embedded_data.py DIR/matminer-0.4.0.tar.gz

Without an argument the archive is fetched with pip into a temporary folder. Its sha256 is checked; nothing in it is
run. Writes the four files of atomsets_core/data, byte for byte the same each time.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pymatgen.core import Structure

from atomsets_core.structures import as_structures

SHA256 = "1a6bdfb198b36d836bab4fbcdffb2dc4fda8a740c3dc08cbb21ea43b817fec86"
TARGET = Path(__file__).resolve().parent.parent / "atomsets_core" / "data"
ELASTIC_COLUMNS = {
    "space_group": pa.int32(),
    "K_VRH": pa.float64(),
    "G_VRH": pa.float64(),
    "K_Voigt": pa.float64(),
    "K_Reuss": pa.float64(),
    "G_Voigt": pa.float64(),
    "G_Reuss": pa.float64(),
    "elastic_anisotropy": pa.float64(),
    "poisson_ratio": pa.float64(),
}
DIELECTRIC_COLUMNS = {
    "space_group": pa.int32(),
    "band_gap": pa.float64(),
    "n": pa.float64(),
    "poly_electronic": pa.float64(),
    "poly_total": pa.float64(),
}
FLLA_COLUMNS = {"e_above_hull": pa.float64(), "formation_energy_per_atom": pa.float64()}


def main() -> None:
    """Fetch if need be, check, convert all, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", nargs="?", type=Path, help="matminer-0.4.0.tar.gz")
    archive = parser.parse_args().archive
    with tempfile.TemporaryDirectory() as folder:
        data = (archive or fetch(Path(folder))).read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        sys.exit(f"the archive has sha256 {found}, expected {SHA256}")
    TARGET.mkdir(exist_ok=True)
    for name, file, columns, parse in (
        ("elastic_tensor", "elastic_tensor_2015", ELASTIC_COLUMNS, of_poscar),
        ("dielectric_constant", "dielectric_constant_2017", DIELECTRIC_COLUMNS, of_poscar),
        ("flla_2015", "flla_2015", FLLA_COLUMNS, lambda row: Structure.from_dict(ast.literal_eval(row.structure))),
    ):
        table = convert(read_csv(data, name), columns, parse)
        path = TARGET / f"{file}.parquet"
        pq.write_table(table, path, compression="zstd", compression_level=19, use_dictionary=False)
        print(f"{path}: {table.num_rows} rows, {path.stat().st_size:,} bytes")
    moduli = bulk_moduli()
    path = TARGET / "bulk_moduli_of_formulas.csv"
    moduli.to_csv(path, index=False, lineterminator="\n")
    print(f"{path}: {len(moduli)} rows, {path.stat().st_size:,} bytes")


def bulk_moduli() -> pd.DataFrame:
    """A formula each: the bulk modulus of its most stable crystal, where that is among the elastic tensors.

    The most stable is the one with the least energy above hull among the crystals of the formula in flla_2015.
    """
    crystals = pq.read_table(
        TARGET / "flla_2015.parquet", columns=["material_id", "formula", "e_above_hull"]
    ).to_pandas()
    stable = crystals.sort_values(["e_above_hull", "material_id"]).drop_duplicates("formula")
    tensors = pq.read_table(TARGET / "elastic_tensor_2015.parquet", columns=["material_id", "K_VRH"]).to_pandas()
    found = stable.merge(tensors, on="material_id").sort_values("formula")
    return found[["material_id", "formula", "K_VRH", "e_above_hull"]]


def of_poscar(row: Any) -> Structure:
    """The structure of a row with a column poscar."""
    return Structure.from_str(row.poscar, fmt="poscar")


def fetch(folder: Path) -> Path:
    """The source distribution, downloaded by pip."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--dest", str(folder)]
    subprocess.run([*command, "matminer==0.4.0"], check=True)
    return folder / "matminer-0.4.0.tar.gz"


def read_csv(archive: bytes, name: str) -> pd.DataFrame:
    """One CSV of the archive."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        member = tar.extractfile(f"matminer-0.4.0/matminer/datasets/{name}.csv")
        if member is None:
            sys.exit(f"the archive holds no {name}.csv")
        return pd.read_csv(member, comment="#")


def convert(frame: pd.DataFrame, columns: dict[str, pa.DataType], parse) -> pa.Table:
    """Structures and the chosen columns as one Arrow table; every row must parse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structures = as_structures([parse(row) for row in frame.itertuples()], list(frame.material_id))
    table = structures.to_arrow().drop_columns(["structure_hash", "n_atoms"])
    for name, kind in columns.items():
        table = table.append_column(name, pa.array(frame[name], kind))
    return table


if __name__ == "__main__":
    main()
