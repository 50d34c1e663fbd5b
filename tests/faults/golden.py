"""Write the golden run: ranking and counts of the mini campaign, kept in tests/data/golden.

    python -m tests.faults.golden

To be run when training, features or acquisition change their numbers on purpose, and only then.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from tests.faults.mini import campaign, write_inputs
from tests.faults.rig import ROOT, Rig


def main() -> None:
    """Run the campaign once and keep what the test compares."""
    golden = ROOT / "tests" / "data" / "golden"
    golden.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, Rig(Path(place) / "rig") as rig:
        write_inputs(Path(place) / "inputs")
        out = Path(place) / "out"
        rig.finish(campaign(Path(place) / "inputs"), out)
        shutil.copyfile(out / "ranking.csv", golden / "ranking.csv")
        counts = json.loads((out / "summary.json").read_text())["counts"]
        (golden / "counts.json").write_text(json.dumps(counts, indent=1) + "\n")


if __name__ == "__main__":
    main()
