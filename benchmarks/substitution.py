"""How far the volumes of substituted candidates are from computed ones, by several rules.

python benchmarks/substitution.py --out benchmarks/results/substitution.json
python benchmarks/substitution.py --write-docs benchmarks/results/substitution.json

The second form measures nothing and writes the table of docs/sources.md again.

Among the embedded structures many are a substitution of another one: the same crystal with other ions, which was
computed too. For each such pair the volume that a rule gives the substituted prototype is compared with the computed
volume of the crystal it became. The rules are those of `sources/substitution.py` (ionic radii), of pymatgen's
DLSVolumePredictor (usual bond lengths), the ratio of two such predictions, and none.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter, defaultdict
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Element

from atomsets_core.sources import Options, composition_of, contacts_of, load_flla, plan, volume_scale
from atomsets_core.structures import TOLERANCES, KnownCrystals, prepare

DOCS = Path(__file__).parents[1] / "docs" / "sources.md"
BEGIN, END = "<!-- volumes -->\n", "<!-- end of volumes -->"
RULES = {
    "radii": "ratio of ionic radii (used)",
    "relative": "ratio of usual bond lengths (used where a radius is unknown)",
    "bond lengths": "usual bond lengths, as pymatgen's DLSVolumePredictor",
    "none": "the prototype's volume",
}


def main() -> None:
    """Measure, or write the table from what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where the result goes")
    parser.add_argument("--threshold", type=float, default=1e-3, help="least probability of a substitution")
    parser.add_argument("--write-docs", type=Path, metavar="RESULT", help="only write the table from a result")
    options = parser.parse_args()
    if not options.write_docs:
        text = json.dumps(measure(options.threshold), indent=1) + "\n"
        if not options.out:
            print(text)
            return
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text)
    write_docs(json.loads((options.write_docs or options.out).read_text()))


def measure(threshold: float) -> dict[str, Any]:
    """Relative errors of each rule, as the JSON that is stored."""
    structures = load_flla().structures
    of_formula = defaultdict(list)
    for row, formula in enumerate(structures.formulas):
        of_formula[formula].append(row)
    planned = plan(structures, Options(threshold=threshold), Counter())
    errors = defaultdict(list)
    for row, item in planned:
        replaced = dict(zip(item.old, item.new, strict=True))
        table = {Element(old).Z: Element(new).Z for old, new in replaced.items()}
        parent = structures.take([row])
        candidate = replace(parent, numbers=np.array([table.get(z, z) for z in parent.numbers.tolist()]))
        known = KnownCrystals(replace(TOLERANCES, volume_ratio=100.0))  # the volume is what is asked for
        for other in of_formula.get(str(candidate.formulas[0]), []):
            if (crystal := prepare(structures, other)) is not None:
                known.add(crystal)
        prepared = prepare(candidate, 0)
        match = known.find(prepared) if prepared is not None and known._by_space_group else None
        if prepared is None or match is None:
            continue
        found = prepare(structures, match)
        assert found is not None
        contacts = contacts_of(structures, row)
        before = contacts.tightness(contacts.elements)
        after = contacts.tightness([replaced.get(symbol, symbol) for symbol in contacts.elements])
        scales = {
            "radii": volume_scale(contacts, composition_of(structures, row), item),
            "relative": (before / after) ** 3,
            "bond lengths": after**-3,
            "none": 1.0,
        }
        for name, scale in scales.items():
            errors[name].append(abs(prepared.volume * scale / found.volume - 1))
    return {
        "command": f"python benchmarks/substitution.py --threshold {threshold:g}",
        "date": time.strftime("%Y-%m-%d"),
        "versions": {name: version(name) for name in ("pymatgen", "spglib", "numpy")},
        "prototypes": len(structures),
        "substitutions": len(planned),
        "pairs": len(errors["none"]),
        "error": {
            name: {
                "mean": float(np.mean(values)),
                "median": float(np.median(values)),
                "95%": float(np.percentile(values, 95)),
            }
            for name, values in errors.items()
        },
    }


def write_docs(result: dict[str, Any]) -> None:
    """Put the table into docs/sources.md."""
    lines = ["| volume by | mean error | median | 95 % are below |", "|---|---|---|---|"]
    for name, title in RULES.items():
        error = result["error"][name]
        lines.append(f"| {title} | {error['mean']:.1%} | {error['median']:.1%} | {error['95%']:.1%} |")
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    about = (
        f"`{result['command']}`: {result['pairs']:,} of {result['substitutions']:,} substitutions in "
        f"{result['prototypes']:,} prototypes gave a crystal whose volume had been computed; {versions}, "
        f"{result['date']}."
    )
    text = DOCS.read_text()
    before, after = text.index(BEGIN) + len(BEGIN), text.index(END)
    DOCS.write_text(text[:before] + "\n".join([*lines, "", about]) + "\n" + text[after:])


if __name__ == "__main__":
    main()
