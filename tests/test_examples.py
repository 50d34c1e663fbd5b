"""The numbered examples and the notebooks run, say something, and need nothing but the package."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted((ROOT / "examples").glob("[0-9]*.py"))
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_example_runs(script, tmp_path):
    found = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_is_committed_without_outputs(notebook, tmp_path, monkeypatch):
    from nbclient import NotebookClient

    content = nbformat.read(notebook, as_version=4)
    nbformat.validate(content)
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in content.cells)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    NotebookClient(content, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    shown = [output for cell in content.cells for output in cell.get("outputs", [])]
    assert any(output["output_type"] in ("stream", "execute_result", "display_data") for output in shown)


def test_the_page_of_examples_names_every_one():
    text = (ROOT / "docs" / "examples.md").read_text()
    named = set(re.findall(r"`(\w+\.(?:py|ipynb))`", text))
    assert named == {path.name for path in [*SCRIPTS, *NOTEBOOKS]}
    assert len(SCRIPTS) == 7
    assert len(NOTEBOOKS) == 2
