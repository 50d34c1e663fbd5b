"""Put the results of the embedded campaign of formulas into the README and into benchmarks/results/formulas.json.

rm -rf campaigns/formulas
.venv/bin/atomsets screen formulas
.venv/bin/python scripts/readme_formulas.py

Beside what the campaign says of itself, its predictions are held against the bulk moduli of compositions that it did
not learn from: those of the 1,181 elastic tensors whose most stable crystal has none.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from atomsets_core.campaigns import RANKING, SUMMARY
from atomsets_core.models import mean_absolute_error, spearman
from atomsets_core.report import scale_name
from atomsets_core.sources import load_elastic

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "formulas.json"


def main() -> None:
    """Read, compare, store, rewrite."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--campaign", type=Path, default=ROOT / "campaigns" / "formulas")
    folder = parser.parse_args().campaign
    summary = json.loads((folder / SUMMARY).read_text())
    ranking = pd.read_parquet(folder / RANKING)
    result = {
        "command": "atomsets screen formulas",
        "seed": summary["settings"]["model"]["seed"],
        **{name: summary[name] for name in ("finished", "machine", "versions", "counts", "model", "unit", "transform")},
        "discovery": [{k: v for k, v in row.items() if k != "hits"} for row in summary["discovery"]["heads"]],
        "elsewhere_known": elsewhere_known(ranking),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    readme = ROOT / "README.md"
    text, n = re.subn(
        r"(?s)(<!-- formulas -->\n).*?(<!-- end of formulas -->)",
        lambda match: f"{match[1]}{block(result, summary, ranking)}\n{match[2]}",
        readme.read_text(),
    )
    if n != 1:
        sys.exit("README.md has no place for the results: <!-- formulas --> ... <!-- end of formulas -->")
    readme.write_text(text)


def elsewhere_known(ranking: pd.DataFrame) -> dict[str, Any]:
    """How the ranking did on compositions with an elastic tensor that was not learned from."""
    elastic = load_elastic()
    known = pd.Series(elastic.columns["K_VRH"].to_numpy()).groupby(elastic.structures.formulas).median()
    both = ranking[ranking["formula"].isin(known.index)]
    truth, predicted = np.log10(known[both["formula"]].to_numpy()), np.log10(both["predicted"].to_numpy())
    return {
        "n": len(both),
        "mae": mean_absolute_error(truth, predicted),
        "spearman": spearman(truth, predicted),
    }


def block(result: dict[str, Any], summary: dict[str, Any], ranking: pd.DataFrame) -> str:
    """What stands in the README."""
    counts, model, scale = summary["counts"], summary["model"], scale_name(summary)
    heads = {row["head"]: row for row in summary["discovery"]["heads"]}
    used, known = summary["choice"]["head"], result["elsewhere_known"]
    others = [row for name, row in heads.items() if name not in (used, "random", "oracle")]
    best = max(others, key=lambda row: row["r_precision"])
    first = ranking[ranking["shortlist"]].head(5)
    shortlist = ", ".join(f"{row.formula} ({row.predicted:.0f})" for row in first.itertuples())
    candidates = counts["candidates"]
    same = candidates["failed_by_stage"].get("pull", 0)
    sentences = (
        f"It learned from {counts['training']['learned_from']} formulas and ranked {candidates['ranked']:,} of "
        f"{candidates['pulled']:,} candidates ({candidates['filtered']} filtered, {same} the same composition once "
        f"more, {candidates['failed'] - same} failed).",
        f"The out-of-fold error is {model['mae']:.4f} {scale} (R² {model['r2']:.3f}), and "
        f"{model['coverage_out_of_fold']:.1%} of the values lie inside their 90% interval.",
        f"With the {summary['discovery']['n_hidden']} highest values hidden in a pool of "
        f"{summary['discovery']['n_pool']}, {used} finds {heads[used]['r_precision']:.0%} of them among as many "
        f"({best['head']} {best['r_precision']:.0%}, random {heads['random']['r_precision']:.0%}; mean of "
        f"{len(summary['discovery']['files'])} seeds).",
        f"Of {known['n']} ranked compositions a modulus is known that nobody learned from: the error is "
        f"{known['mae']:.3f} {scale}, the rank correlation {known['spearman']:.2f}.",
        f"First on the shortlist, in GPa: {shortlist}.",
        "Written by `scripts/readme_formulas.py`, kept in "
        "[benchmarks/results/formulas.json](benchmarks/results/formulas.json).",
    )
    return " ".join(sentences)


if __name__ == "__main__":
    main()
