"""Outputs of calculations, read with ASE: the last step, with its energy, largest force and stress as columns.

Columns are `energy` (eV, of the whole cell; where smearing was used extrapolated to none), `free_energy` (eV),
`max_force` (eV / Angstrom, the longest force on an atom), `stress_xx` to `stress_xy` (GPa, positive where the cell is
pulled) and `magnetisation` (Bohr magnetons), as far as the file holds them. Earlier steps are left out.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from atomsets_core.sources.base import Entry, StructureFile
from atomsets_core.sources.files.ase_formats import GPA, VOIGT, crystal_from_atoms, installed_ase
from atomsets_core.structures import Refusal


class _Text(io.StringIO):
    """Text with a name in a folder that isn't there: beside an OUTCAR, ASE looks for constraints."""

    name = "no such folder/OUTCAR"


def reader_of(module: str, function: str, **options: Any) -> Callable[[StructureFile, str], Iterator[Entry | Refusal]]:
    """A reader of files of one structure for the table of formats.

    Args:
        module: of ASE, such as "ase.io.vasp".
        function: in it, that reads text.
        options: of that function.
    """

    def read(file: StructureFile, _id_column: str) -> Iterator[Entry | Refusal]:
        text = file.text()
        parse = getattr(installed_ase(module), function)
        try:
            found = parse(_Text(text), **options)
            steps = [found] if hasattr(found, "cell") else list(found)
        except (AttributeError, TypeError, UnboundLocalError) as error:  # what ASE stumbles over
            raise ValueError("a part of it is missing or damaged") from error
        except ValueError as error:
            if "ibrav" in str(error):
                raise ValueError("its cell is given by ibrav: write ibrav = 0 and CELL_PARAMETERS") from error
            raise
        if not steps:
            raise ValueError("it holds no step with a structure")
        atoms = steps[-1]
        return iter([Entry(file.stem, crystal_from_atoms(atoms), results_of(atoms))])

    return read


def results_of(atoms: Any) -> dict[str, float]:
    """What was computed of ASE's atoms, as columns."""
    results = getattr(atoms.calc, "results", {}) or {}
    columns = {name: float(results[name]) for name in ("energy", "free_energy") if results.get(name) is not None}
    forces = results.get("forces")
    if forces is not None and len(forces) == len(atoms):
        columns["max_force"] = float(np.linalg.norm(np.asarray(forces, dtype=np.float64), axis=1).max())
    stress = results.get("stress")
    if stress is not None and np.shape(stress) == (6,):
        columns |= {f"stress_{axes}": GPA * float(value) for axes, value in zip(VOIGT, stress, strict=True)}
    if isinstance(results.get("magmom"), (int, float, np.floating)):
        columns["magnetisation"] = float(results["magmom"])
    return {name: value for name, value in columns.items() if np.isfinite(value)}
