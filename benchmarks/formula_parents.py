"""Which parent suits formulas: out-of-fold errors of AtomSets on under 400 labels, for each that reads formulas alone.

    python -m benchmarks.formula_parents --data DIR

DIR holds expt_gap.csv and steels_yield.csv, the compositions of matbench with columns formula and target; two more sets
are embedded. Each is 390 rows drawn at random (all 312 of the steels), two seeds of folds and weights. Writes
benchmarks/results/formula_parents.json and the table in docs/parents.md.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from atomsets_core.models import AtomSetsRegressor
from atomsets_core.sources import load_dielectric, load_elastic
from atomsets_core.structures import as_compositions
from atomsets_core.transforms import transform_target
from benchmarks.machine import describe

RESULT = Path(__file__).parent / "results" / "formula_parents.json"
PAGE = Path(__file__).parents[1] / "docs" / "parents.md"
SPECIFICATIONS = ("megnet:V0", "megnet:V0,amount", "composition:site", "composition:site+hidden+properties")
ROWS, SEEDS = 390, (0, 1)


def sets(folder: Path) -> Iterator[tuple[str, pd.Series, str, str]]:
    """Name, values by formula, unit and transform of each set."""
    for name, unit in (("expt_gap", "eV"), ("steels_yield", "MPa")):
        table = pd.read_csv(folder / f"{name}.csv")
        yield name, table.set_index("formula")["target"], unit, "none"
    for name, pulled, column, unit, transform in (
        ("bulk modulus", load_elastic(), "K_VRH", "log10(GPa)", "log10"),
        ("refractive index", load_dielectric(), "n", "", "none"),
    ):
        values = pd.Series(pulled.columns[column].to_numpy()).groupby(pulled.structures.formulas).median()
        yield name, values, unit, transform


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    folder = parser.parse_args().data
    about = describe("python -m benchmarks.formula_parents --data DIR", ("torch", "scikit-learn", "numpy"))
    found = {}
    for name, every, unit, transform in sets(folder):
        values = every.sample(min(ROWS, len(every)), random_state=0)
        batch, truth = as_compositions(values.index.tolist()), values.to_numpy()
        errors = {}
        for spec in SPECIFICATIONS:
            started, out = time.process_time(), []
            for seed in SEEDS:
                model = AtomSetsRegressor(spec, transform=transform, seed=seed).fit(batch, truth)
                out.append(float(np.abs(model.oof_.mean - transform_target(truth, transform)).mean()))
            errors[spec] = {"mae": out, "cpu_seconds": round(time.process_time() - started, 1)}
            print(f"{name}, {len(values)} rows, {spec}: {np.mean(out):.4f} {unit}", flush=True)
        found[name] = {"rows": len(values), "unit": unit, "errors": errors}
    RESULT.write_text(json.dumps({**about, "seeds": SEEDS, "sets": found}, indent=1) + "\n")
    inside = r"(?s)(<!-- formula parents -->\n).*?(<!-- end of)"
    PAGE.write_text(re.sub(inside, lambda match: f"{match[1]}{table(found)}{match[2]}", PAGE.read_text()))


def table(found: dict[str, Any]) -> str:
    """The means over the seeds as a table."""
    heading = " | ".join(f"`{spec}`" for spec in SPECIFICATIONS)
    lines = [f"| set | rows | {heading} |", f"|{'---|' * (2 + len(SPECIFICATIONS))}"]
    for name, part in found.items():
        errors = [f"{np.mean(part['errors'][spec]['mae']):.4g}" for spec in SPECIFICATIONS]
        title = f"{name}, {part['unit']}" if part["unit"] else name
        lines.append(f"| {title} | {part['rows']} | {' | '.join(errors)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
