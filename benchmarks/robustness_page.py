"""Write the tables of docs/robustness.md from the results that are kept.

python benchmarks/robustness_page.py
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from machine import RESULTS  # noqa: E402

from tests.faults.__main__ import table as fault_table  # noqa: E402

PROCESSES = ("command with scheduler", "largest worker", "Prefect server")

STAGES = ("pull", "predict", "rank")

PAGE = ROOT / "docs" / "robustness.md"


def main() -> None:
    """Replace each table whose result is there."""
    text = PAGE.read_text()
    for name, make in (("faults", faults), ("fuzz", fuzz), ("load", load)):
        path = RESULTS / f"{name}.json"
        if path.exists():
            block = make(json.loads(path.read_text()))
            text = re.sub(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", rf"\g<1>{block}\n\g<2>", text, flags=re.S)
    PAGE.write_text(text)


def faults(result: dict[str, Any]) -> str:
    """The table that `make faults` prints, and on what it ran."""
    rows = "\n".join("| " + " | ".join(row) + " |" for row in fault_table(result["cases"]))
    killed = sum("SIGKILL" in row[0] for row in fault_table(result["cases"]))
    kills = sum(int(row[1]) for row in fault_table(result["cases"]) if "SIGKILL" in row[0])
    return f"{kills} kills of {killed} kinds; {where(result)}.\n\n{rows}"


def fuzz(result: dict[str, Any]) -> str:
    """Cases and outcome of each reader."""
    lines = [
        "| reader | cases | seconds | gave rows | refused | anything else | slowest, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in result["readers"].items():
        cells = (row["cases"], f"{row['seconds']:g}", row["rows"], row["refused"], row["unexpected"], row["slowest_s"])
        lines.append(f"| {name} | " + " | ".join(map(str, cells)) + " |")
    cases = sum(row["cases"] for row in result["readers"].values())
    return f"{cases:,} cases, `{result['command']}`; {where(result)}.\n\n" + "\n".join(lines)


def load(result: dict[str, Any]) -> str:
    """Time and memory of both sizes."""
    lines = [
        "| candidates | seconds | pull | predict | rank | peak MB: run, worker, server |",
        "|---|---|---|---|---|---|",
    ]
    for n, row in result["runs"].items():
        stages, peaks = row["stages"], row["peak_mb"]
        memory = ", ".join(str(peaks.get(name, "")) for name in PROCESSES)
        seconds = " | ".join(f"{value:.0f}" for value in (row["seconds"], *(stages[name] for name in STAGES)))
        lines.append(f"| {int(n):,} | {seconds} | {memory} |")
    last = next(reversed(result["runs"].values()))
    return f"`{last['command']}`; {where(last)}.\n\n" + "\n".join(lines)


def where(result: dict[str, Any]) -> str:
    """Date, machine and versions."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    shared = ", other work on the machine" if result["shared_machine"] else ""
    return f"{result['date']}, {result['cores']} cores of {result['processor']}{shared}; {versions}"


if __name__ == "__main__":
    main()
