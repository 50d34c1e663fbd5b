"""The documentation builds without a warning, says what the code says, and can be read by everybody."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.accessibility import faults

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("index.html", "tutorial.html", "decisions/index.html")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    found = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return folder


def test_it_builds_strictly_and_holds_what_is_generated(site):
    commands = (site / "reference" / "cli.html").read_text()
    for name in ("screen", "status", "train", "predict", "discover", "benchmark", "featurize", "pull", "train-parent"):
        assert f"atomsets {name}" in commands
    assert "--dry-run" in commands
    campaign = (site / "reference" / "campaign.html").read_text()
    for key in ("e_above_hull", "pool_share", "shard_timeout", "walltime"):
        assert key in campaign
    assert "predict_distribution" in (site / "reference" / "api.html").read_text()


def test_nothing_is_fetched_from_elsewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text()
        assert not re.findall(r'<(?:script|img)[^>]+src="https?:', text), page
        assert not re.findall(r'<link[^>]+rel="stylesheet"[^>]+href="https?:', text), page


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_fits_a_phone_and_has_no_serious_fault(browser, site, page, dark):
    browser.go((site / page).as_uri(), width=390, dark=dark)
    # What the button in the header does.
    browser.run(f"document.body.setAttribute('data-md-color-scheme', '{'slate' if dark else 'default'}')")
    time.sleep(0.7)  # colours fade into each other
    assert browser.run("document.documentElement.scrollWidth") <= 390
    assert faults(browser) == []


def test_every_import_that_is_shown_runs():
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    shown = {
        line for page in pages for line in re.findall(r"^\s*((?:from|import) atomsets_\w.*)$", page.read_text(), re.M)
    }
    assert len(shown) >= 15
    for line in shown:
        exec(line, {})  # noqa: S102


def test_paths_that_are_named_exist():
    pages = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
    for page in [*pages, *sorted((ROOT / "docs").rglob("*.md"))]:
        for name in re.findall(
            r"`((?:atomsets_core|tasks|flows|tests|benchmarks|scripts|deployments)/[\w./-]*\w)`", page.read_text()
        ):
            assert (ROOT / name).exists(), f"{page.relative_to(ROOT)} names {name}"
