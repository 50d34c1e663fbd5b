"""What a new user does first, timed: own formulas, own CIFs, a Materials Project campaign; each as commands.

    python benchmarks/first_minutes.py --folder FOLDER --out benchmarks/results/first_minutes.json --write-docs

The data come from the embedded elastic tensors; the Materials Project is the server of the tests on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from machine import describe

from atomsets_core.sources import load_elastic

ROOT = Path(__file__).resolve().parents[1]
PORT, KEY = 8123, "0123456789abcdef0123456789abcdef"

STIFF = """name = "stiff"
[training]
source = "mine"
target = "G_VRH"
unit = "GPa"
transform = "log10"
[candidates]
source = "embedded:flla"
[candidates.filters]
e_above_hull = { max = 0.05 }
n_atoms = { max = 12 }
"""

STABLE = """name = "stable"
[training]
source = "embedded:elastic"
target = "K_VRH"
unit = "GPa"
transform = "log10"
[candidates]
source = "mp"
[candidates.query]
energy_above_hull = { max = 0.02 }
nsites = { max = 12 }
"""

TRIALS = {
    "fifty labelled formulas": [
        "atomsets train measured.csv --target K_VRH --unit GPa --transform log10 --out models/hard",
        "atomsets predict models/hard wishlist.csv --out predictions.csv",
    ],
    "a folder of CIFs with a CSV": ["atomsets screen stiff.toml"],
    "the Materials Project": ["atomsets screen stable.toml"],
}


def prepare(folder: Path) -> None:
    """Write measured.csv, wishlist.csv, the folder mine and the campaign files."""
    data = load_elastic()
    rows = np.random.default_rng(0).permutation(len(data.structures))
    table = pd.DataFrame({"formula": data.structures.formulas, "K_VRH": data.columns["K_VRH"]}).drop_duplicates(
        "formula"
    )
    known = table.sample(50, random_state=0)
    known.to_csv(folder / "measured.csv", index=False)
    table.drop(known.index)[["formula"]].head(200).to_csv(folder / "wishlist.csv", index=False)
    mine = folder / "mine"
    mine.mkdir(exist_ok=True)
    chosen = data.structures.take(rows[:200])
    for structure, name in zip(chosen.to_pymatgen(), chosen.material_id, strict=True):
        structure.to(mine / f"{name}.cif")
    values = pd.DataFrame({"id": chosen.material_id, "G_VRH": data.columns["G_VRH"].to_numpy()[rows[:200]]})
    values.to_csv(mine / "values.csv", index=False)
    (folder / "stiff.toml").write_text(STIFF)
    (folder / "stable.toml").write_text(STABLE)


def write_docs(result: dict[str, Any]) -> None:
    """Put the table between its marks in the tutorial."""
    lines = ["| what | command | seconds |", "|---|---|---:|"]
    lines += [f"| {row['trial']} | `{row['command']}` | {row['seconds']:.0f} |" for row in result["rows"]]
    lines += [
        "",
        f"{result['date']}, {result['processor']}, {result['cores']} cores, load before {result['load_before']}.",
    ]
    page = ROOT / "docs" / "tutorial.md"
    first, last = "<!-- first minutes -->", "<!-- end of first minutes -->"
    before, _, rest = page.read_text().partition(first)
    after = rest.partition(last)[2]
    page.write_text("\n".join([before + first, *lines, last]) + after)


def main() -> None:
    """Run every command and write down its seconds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="empty folder to work in")
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/tutorial.md")
    given = parser.parse_args()
    about = describe(
        "python benchmarks/first_minutes.py --folder FOLDER --out FILE", ("torch", "prefect", "dask", "numba")
    )
    given.folder.mkdir(parents=True, exist_ok=True)
    prepare(given.folder)
    environment = {**os.environ, "MP_API_KEY": KEY, "MP_API_ENDPOINT": f"http://127.0.0.1:{PORT}/"}
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.materials_project_server", "--port", str(PORT), "--key", KEY,
         "--data", "atomsets_core/data/flla_2015.parquet"],
        cwd=ROOT,
    )  # fmt: skip
    rows = []
    try:
        time.sleep(10.0)
        for trial, commands in TRIALS.items():
            for command in commands:
                start = time.perf_counter()
                program, *arguments = shlex.split(command)
                assert program == "atomsets"
                # The command of the interpreter that runs this, wherever PATH leads.
                done = subprocess.run(
                    [sys.executable, "-m", "atomsets_flows.cli", *arguments],
                    cwd=given.folder,
                    env=environment,
                    check=False,
                )
                seconds = time.perf_counter() - start
                rows.append({"trial": trial, "command": command, "seconds": round(seconds, 1), "exit": done.returncode})
    finally:
        server.terminate()
        server.wait(10)
    result = {
        **about,
        "seed": 0,
        "rows": rows,
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    if given.write_docs:
        write_docs(result)
    for row in rows:
        print(f"{row['seconds']:7.1f} s  exit {row['exit']}  {row['command']}")


if __name__ == "__main__":
    main()
