"""Small files of other programs for tests/data/formats, by the programs themselves.

    pip install phonopy jarvis-tools ase-db-backends nomad-lab nomad-parser-plugins-electronic
    apt-get install quantum-espresso quantum-espresso-data
    python scripts/build_format_files.py tests/data/formats

Each holds the crystal below, so that tests know what they must read; the archive of NOMAD that of the VASP output it
was made from, one of ASE's test data; the outputs of pw.x silicon with one atom out of its place, as it is and relaxed
with its cell. `versions.json` beside them says what wrote which file. These programs are no dependencies of this
package.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

CELL = [[4.1, 0.0, 0.3], [-1.2, 5.0, 0.9], [0.0, 0.4, 6.3]]
SYMBOLS = ["Fe", "O", "O"]
FRACTIONAL = [[0.0, 0.0, 0.0], [0.4, 0.5, 0.6], [0.9, 0.3, 0.2]]

PSEUDOPOTENTIAL = Path("/usr/share/doc/quantum-espresso/examples/EPW/sic/pp/Si.pz-vbc.UPF.gz")
"""Of silicon, from Debian's package quantum-espresso-data."""

PW_INPUT = """
&CONTROL
  calculation = '{calculation}', pseudo_dir = '.', outdir = 'scratch', tprnfor = .true., tstress = .true.
/
&SYSTEM
  ibrav = 0, nat = 2, ntyp = 1, ecutwfc = 12.0
/
&ELECTRONS
/
&IONS
/
&CELL
/
ATOMIC_SPECIES
Si 28.0855 Si.UPF
K_POINTS automatic
2 2 2 0 0 0
CELL_PARAMETERS angstrom
0.0 2.7 2.7
2.7 0.0 2.7
2.7 2.7 0.1
ATOMIC_POSITIONS crystal
Si 0.0 0.0 0.0
Si 0.26 0.25 0.25
"""
"""The cell has no symmetry, and cutoff and k-points are too few for anything but a small output."""


def main() -> None:
    """Write all files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "versions.json"
    written: dict[str, str] = json.loads(kept.read_text()) if kept.exists() else {}
    for package, write in (
        ("phonopy", phonopy),
        ("jarvis-tools", jarvis),
        ("ase-db-backends", lmdb),
        ("nomad-lab", nomad),
    ):
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # its files stay as they are
        for name in write(folder):
            written[name] = f"{package} {version}"
    if shutil.which("pw.x") and PSEUDOPOTENTIAL.exists():
        written |= espresso(folder)
    kept.write_text(json.dumps(written, indent=1, sort_keys=True) + "\n")


def phonopy(folder: Path) -> list[str]:
    """phonopy.yaml in Angstrom, and in atomic units as its interface to pw.x has them."""
    from phonopy import Phonopy
    from phonopy.physical_units import get_physical_units
    from phonopy.structure.atoms import PhonopyAtoms

    bohr = get_physical_units().Bohr
    for name, calculator, length in (("phonopy.yaml", None, 1.0), ("phonopy_disp.yaml", "qe", bohr)):
        cell = PhonopyAtoms(symbols=SYMBOLS, cell=np.array(CELL) / length, scaled_positions=FRACTIONAL)
        phonons = Phonopy(cell, supercell_matrix=np.diag([2, 1, 1]), primitive_matrix="P", calculator=calculator)
        phonons.generate_displacements(distance=0.01)
        phonons.save(folder / name)
    return ["phonopy.yaml", "phonopy_disp.yaml"]


def jarvis(folder: Path) -> list[str]:
    """Records as figshare's files of JARVIS-DFT have them, in a zip as they are there."""
    from jarvis.core.atoms import Atoms

    atoms = Atoms(lattice_mat=CELL, coords=FRACTIONAL, elements=SYMBOLS, cartesian=False)
    moved = Atoms(lattice_mat=CELL, coords=np.array(FRACTIONAL) @ CELL, elements=SYMBOLS, cartesian=True)
    rows = [
        {
            "jid": f"JVASP-{number}",
            "formula": "FeO2",
            "atoms": one.to_dict(),
            "bulk_modulus_kv": 150.5,
            "mbj_bandgap": "na",
        }
        for number, one in ((1002, atoms), (1067, moved))
    ]
    with zipfile.ZipFile(folder / "jdft_3d.json.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("jdft_3d.json", json.dumps(rows))
    return ["jdft_3d.json.zip"]


def lmdb(folder: Path) -> list[str]:
    """An ASE database in LMDB of three rows, one of them in pages of its own, one deleted."""
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.db import connect

    place = folder / "three.aselmdb"
    place.unlink(missing_ok=True)
    with connect(place, type="aselmdb") as database:
        for number, more in enumerate(([0.0], list(range(3000)), [0.0], [0.0])):
            atoms = Atoms(SYMBOLS, scaled_positions=FRACTIONAL, cell=CELL, pbc=True)
            results: dict[str, Any] = {"energy": -20.0 - number, "forces": [[0, 0, 0.3], [0, 0.4, 0], [0, 0, 0]]}
            atoms.calc = SinglePointCalculator(atoms, **results, stress=np.arange(6) * 0.01)
            database.write(atoms, key_value_pairs={"gap": 0.5 + number}, data={"sid": f"omat-{number}", "more": more})
        database.delete([3])
    (folder / "three.aselmdb-lock").unlink(missing_ok=True)
    return [place.name]


def nomad(folder: Path) -> list[str]:
    """What `nomad parse` says of a vasprun.xml, without methods, eigenvalues and densities of states."""
    import ase.test

    source = Path(ase.test.__file__).parent / "testdata" / "vasp" / "vasprun_pstress.xml"
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / "vasprun.xml"
        place.write_bytes(source.read_bytes())
        command = [str(Path(sys.executable).with_name("nomad")), "parse", str(place), "--show-archive"]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    archive = json.loads(told)
    runs = [
        {
            "program": run["program"],
            "system": run["system"],
            "calculation": [
                {name: value for name, value in step.items() if name in ("system_ref", "energy", "forces", "stress")}
                for step in run["calculation"]
            ],
        }
        for run in archive["run"]
    ]
    (folder / "nomad.archive.json").write_text(json.dumps({"run": runs}, indent=1) + "\n")
    return ["nomad.archive.json"]


def espresso(folder: Path) -> dict[str, str]:
    """Outputs of pw.x: one calculation with forces and stress, and a relaxation of cell and positions."""
    written = {}
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, "Si.UPF").write_bytes(gzip.decompress(PSEUDOPOTENTIAL.read_bytes()))
        for calculation in ("scf", "vc-relax"):
            Path(scratch, "pw.in").write_text(PW_INPUT.format(calculation=calculation))
            command = [str(shutil.which("pw.x")), "-in", "pw.in"]
            told = subprocess.run(command, cwd=scratch, check=True, capture_output=True, text=True)
            version = re.search(r"Program PWSCF v\.(\S+)", told.stdout)
            name = f"{calculation}.pwo.gz"
            (folder / name).write_bytes(gzip.compress(told.stdout.encode(), mtime=0))
            written[name] = f"Quantum ESPRESSO {version[1] if version else ''}"
    return written


if __name__ == "__main__":
    main()
