"""Fetch the JavaScript libraries that the report carries, and write down what they are.

    python scripts/refresh_vendor.py                    # the versions in vendor.json again
    python scripts/refresh_vendor.py 3dmol=2.5.6        # another version of one

The libraries are committed, so that an install needs PyPI alone and two installs of one version give the same report.
npm checks the integrity of what it fetches; the digest of each file stands in vendor.json and is checked by a test.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "atomsets_core" / "report" / "vendor"

LIBRARIES = {
    "3dmol": {"build/3Dmol-min.js": "3Dmol-min.js", "LICENSE": "3Dmol.LICENSE"},
    "plotly.js-basic-dist-min": {"plotly-basic.min.js": "plotly-basic.min.js", "LICENSE": "plotly-basic.LICENSE"},
}
"""npm package -> file in it -> name here."""


def fetch(package: str, version: str, folder: Path) -> dict[str, object]:
    """Unpack the chosen files of a package; its row of vendor.json."""
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("npm is needed: install Node.js")
    told = subprocess.run(
        [npm, "pack", f"{package}@{version}", "--json", "--pack-destination", str(folder)],
        check=True,
        capture_output=True,
        text=True,
    )
    packed = json.loads(told.stdout)[0]
    files = {}
    with tarfile.open(folder / packed["filename"]) as archive:
        for inside, name in LIBRARIES[package].items():
            member = archive.extractfile(f"package/{inside}")
            if member is None:
                raise SystemExit(f"{package} {version} has no {inside}")
            data = member.read()
            (FOLDER / name).write_bytes(data)
            files[name] = hashlib.sha256(data).hexdigest()
        about = archive.extractfile("package/package.json")
        licence = json.load(about)["license"] if about else ""
    return {"version": packed["version"], "licence": licence, "integrity": packed["integrity"], "files": files}


def main() -> None:
    """Fetch all of them."""
    known = json.loads((FOLDER / "vendor.json").read_text()) if (FOLDER / "vendor.json").exists() else {}
    versions = {name: known.get(name, {}).get("version", "latest") for name in LIBRARIES}
    versions |= dict(argument.split("=", 1) for argument in sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        rows = {name: fetch(name, versions[name], Path(folder)) for name in LIBRARIES}
    (FOLDER / "vendor.json").write_text(json.dumps(rows, indent=1) + "\n")
    for name, row in rows.items():
        print(name, row["version"], row["licence"])


if __name__ == "__main__":
    main()
