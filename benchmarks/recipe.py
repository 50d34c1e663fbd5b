"""What each choice of the default recipe is worth: error in and out of range, recall of the best, seconds.

    python benchmarks/recipe.py --out benchmarks/results/recipe.json --write-docs

Embedded elastic data, simulated discovery as in a campaign, one thread. One choice is changed at a time. --write-docs
puts the table into docs/how-it-works.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atomsets_core.discovery import AtomSetsHead, Design, Rows, answer, scored, summarize
from atomsets_core.parents import load_parent
from atomsets_core.sources import load_elastic

DOCS = Path(__file__).resolve().parent.parent / "docs" / "how-it-works.md"
CHANGES: dict[str, dict[str, Any]] = {
    "default": {},
    "V0 alone (composition)": {"features": "megnet:V0"},
    "V1 alone": {"features": "megnet:V1"},
    "V2 alone": {"features": "megnet:V2"},
    "V3 alone": {"features": "megnet:V3"},
    "v alone (MLP-v)": {"features": "megnet:v"},
    "V0 to V3 and v": {"features": "megnet:V0+V1+V2+V3+v"},
    "squared error": {"loss": "squared"},
    "SiLU": {"activation": "silu"},
    "linear readout (no layer after pooling)": {"rho": ()},
    "widths 64-64, 64-64 (publication)": {"phi": (64, 64), "rho": (64, 64)},
    "widths 256, 256": {"phi": (256,), "rho": (256,)},
    "mean and max pooling": {"pooling": ("mean", "max")},
    "Set2Set pooling": {"pooling": ("set2set",)},
    "5 members": {"members": 5},
    "20 members": {"members": 20},
}


def main() -> None:
    """Measure, store, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--target", default="K_VRH")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--write-docs", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="No Pauling electronegativity")
    data = load_elastic()
    features = load_parent("megnet").featurize(data.structures)
    values = dict(zip(data.structures.material_id, data.columns[options.target], strict=True))
    y = np.log10([values[name] for name in features.material_id])
    rows = []
    for name, change in CHANGES.items():
        started = time.perf_counter()
        design, head = Design(), AtomSetsHead(change)
        runs = [
            scored({name: answer(head, Rows(features), y, design, seed)}, y, features.formula, design, seed)
            for seed in range(options.seeds)
        ]
        row = {k: v for k, v in summarize(runs)[0].items() if k not in ("hits", "head", "intervals", "acquisition")}
        rows.append(
            {"choice": name, "change": change, **row, "seconds": (time.perf_counter() - started) / options.seeds}
        )
        print(table(rows[-1:]), flush=True)
    result = {
        "command": "python benchmarks/recipe.py",
        "target": f"log10 {options.target} / GPa",
        "seeds": list(range(options.seeds)),
        "machine": platform.platform(),
        "threads": 1,
        "versions": {package: version(package) for package in ("torch", "numpy", "scikit-learn")},
        "rows": rows,
    }
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    if options.write_docs:
        text = DOCS.read_text()
        block = "\n".join([HEAD, table(rows), ""])
        DOCS.write_text(
            re.sub(r"(?s)(<!-- recipe -->\n).*?(<!-- end of recipe -->)", lambda m: m[1] + block + m[2], text)
        )


HEAD = """\
| choice | R-precision | error outside | error inside | bias outside | seconds a simulation |
|---|---|---|---|---|---|"""


def table(rows: list[dict[str, Any]]) -> str:
    """Rows of a Markdown table."""
    return "\n".join(
        f"| {row['choice']} | {row['r_precision']:.3f} | {row['mae_outside']:.4f} | {row['mae_inside']:.4f} "
        f"| {row['bias_outside']:.4f} | {row['seconds']:.1f} |"
        for row in rows
    )


if __name__ == "__main__":
    main()
