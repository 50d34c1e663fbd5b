"""The wheel holds everything and nothing else, and what it installs works away from the repository."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from scripts import house

ROOT = Path(__file__).resolve().parents[1]
INSTALLED = {"atomsets_core": "atomsets_core", "tasks": "atomsets_tasks", "flows": "atomsets_flows"}
"""Folder -> name it is installed by, see docs/decisions/names.md."""
LICENCES = {"LICENSE", "NOTICE", "3Dmol.LICENSE", "plotly-basic.LICENSE"}


def run(*command: str, cwd: Path, **variables: str) -> str:
    found = subprocess.run(
        command, cwd=cwd, env={**os.environ, **variables}, capture_output=True, text=True, timeout=240, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, so that nothing is left in the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    skipped = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in (*INSTALLED, "deployments"):
        shutil.copytree(ROOT / name, folder / "copy" / name, ignore=skipped)
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, folder / "copy" / name)
    options = ("--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--wheel-dir", str(folder))
    run(sys.executable, "-m", "pip", "wheel", *options, ".", cwd=folder / "copy")
    return next(folder.glob("*.whl"))


def test_every_file_of_the_packages_is_in_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    wanted = {
        "/".join((name, *path.relative_to(ROOT / folder).parts))
        for folder, name in INSTALLED.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    about = {name for name in names if ".dist-info/" in name}
    assert wanted - names == set()
    assert {name for name in names - wanted - about if not name.startswith("atomsets_deployments/")} == set()
    assert {Path(name).name for name in about if "/licenses/" in name} == LICENCES
    assert wheel.stat().st_size < 5_000_000


def test_the_version_is_the_same_everywhere(wheel):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.findall(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(), re.M)[0] == version
    assert re.findall(r"^version: (\S+)", (ROOT / "CITATION.cff").read_text(), re.M) == [version]
    assert wheel.name.startswith(f"atomsets_screening-{version}-")


def test_a_campaign_runs_from_the_installed_wheel(wheel, elastic, tmp_path):
    site, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    run(
        sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "--target",
        str(site), str(wheel), cwd=work,
    )  # fmt: skip
    table = elastic.to_arrow().select(["material_id", "lattice", "Z", "frac", "K_VRH"])
    pq.write_table(table.slice(0, 60), work / "known.parquet")
    pq.write_table(table.slice(60, 30).drop_columns(["K_VRH"]), work / "candidates.parquet")
    (work / "mine.toml").write_text("""
        name = "mine"
        [training]
        source = "known.parquet"
        target = "K_VRH"
        [candidates]
        source = "candidates.parquet"
        exclude_seen = false
        [features]
        levels = ["V0"]  # the kernels of the deeper levels would be compiled anew for this copy, which takes minutes
        [objective]
        shortlist = 3
        [model]
        members = 2
        folds = 2
        epochs = 2
        [discovery]
        seeds = 1
        [cluster]
        workers = 1
    """)
    # what people call their own files; the working directory comes first for `python -c` and `python -m`
    for name in ("tasks", "flows", "deployments"):
        (work / f"{name}.py").write_text(f"MINE = {name!r}\n")
    code = f"import tasks, flows, deployments, {', '.join(house.FLOOR)}; print(tasks.MINE, atomsets_flows.cli.__file__)"
    mine, where = run(sys.executable, "-c", code, cwd=work, PYTHONPATH=str(site)).split()
    assert mine == "tasks"
    assert Path(where).is_relative_to(site)
    code = "from atomsets_flows.server import read; print(len(read()))"
    assert int(run(sys.executable, "-c", code, cwd=work, PYTHONPATH=str(site))) >= 5
    told = run(str(site / "bin" / "atomsets"), "screen", "mine.toml", "--json", cwd=work, PYTHONPATH=str(site))
    summary = json.loads(told.splitlines()[-1])
    assert summary["counts"]["candidates"]["ranked"] == 30
    assert np.isfinite(summary["model"]["mae"])
    assert (work / "campaigns" / "mine" / "report.html").stat().st_size > 1_500_000
