"""Put the results of the embedded campaign into the README and into benchmarks/results/incompressible.json.

rm -rf campaigns/incompressible
time .venv/bin/atomsets screen
time .venv/bin/atomsets screen
.venv/bin/python scripts/readme_results.py --first SECONDS --again SECONDS
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from atomsets_core.campaigns import RANKING, SUMMARY
from atomsets_core.report import discovery_rows, scale_name
from atomsets_flows.runs import headlines

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "incompressible.json"


def main() -> None:
    """Read, store, rewrite."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--campaign", type=Path, default=ROOT / "campaigns" / "incompressible")
    parser.add_argument("--first", type=float, required=True, help="wall seconds of the first `atomsets screen`")
    parser.add_argument("--again", type=float, required=True, help="wall seconds of the second `atomsets screen`")
    options = parser.parse_args()
    summary = json.loads((options.campaign / SUMMARY).read_text())
    ranking = pd.read_parquet(options.campaign / RANKING)
    result = {
        "command": "atomsets screen",
        "wall_seconds_first": options.first,
        "wall_seconds_again": options.again,
        "processor": processor(),
        "seed": summary["settings"]["model"]["seed"],
        **{name: summary[name] for name in ("finished", "machine", "versions", "counts", "model", "unit", "transform")},
        "discovery": [{k: v for k, v in row.items() if k != "hits"} for row in summary["discovery"]["heads"]],
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    readme = ROOT / "README.md"
    text, n = re.subn(
        r"(?s)(<!-- results -->\n).*?(<!-- end of results -->)",
        lambda match: f"{match[1]}{block(result, summary, ranking)}{match[2]}",
        readme.read_text(),
    )
    if n != 1:
        sys.exit("README.md has no place for the results: <!-- results --> ... <!-- end of results -->")
    readme.write_text(text)


def block(result: dict[str, Any], summary: dict[str, Any], ranking: pd.DataFrame) -> str:
    """The README's paragraph and table."""
    model, discovery = summary["model"], summary["discovery"]
    best = ranking[ranking["shortlist"]].head(5)
    first = ", ".join(f"{row.formula} ({row.predicted:.0f})" for row in best.itertuples())
    machine, unit, n = result["machine"], scale_name(summary), discovery["n_hidden"]
    lines = [
        f"On {machine['cores']} cores ({result['processor']}) it takes {result['wall_seconds_first']:.0f} s after "
        f"installation; a second run, with nothing missing, {result['wall_seconds_again']:.0f} s. "
        f"It {headlines(summary)[0]}. The out-of-fold error is {model['mae']:.4f} {unit} (R² {model['r2']:.3f}), and "
        f"{model['coverage_out_of_fold']:.1%} of the values lie inside their {model['coverage']:.0%} interval. "
        f"First on the shortlist, in {summary['unit']}: {first}.",
        "",
        f"Simulated discovery: the {n} highest values hidden in a pool of {discovery['n_pool']}, every model trained "
        f"on what remains, mean of {len(discovery['files'])} seeds, errors in {unit}:",
        "",
        f"| model | found among the first {n} | times random | error outside the training range | error inside "
        "| bias outside | Spearman outside | 90% intervals hold outside | their width |",
        "|---|---|---|---|---|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in discovery_rows(summary)),
        "",
        "These figures are written by `scripts/readme_results.py` from a run and kept in "
        "[benchmarks/results/incompressible.json](benchmarks/results/incompressible.json). " + summary["overlap"],
        "",
    ]
    return "\n".join(lines)


def processor() -> str:
    """Name of the processor, as far as the system tells."""
    try:
        text = Path("/proc/cpuinfo").read_text()
        return re.search(r"model name\s*:\s*(.+)", text)[1].strip()  # type: ignore[index]
    except (OSError, TypeError):
        return platform.processor() or f"{os.cpu_count()} cores"


if __name__ == "__main__":
    main()
