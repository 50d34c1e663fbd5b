"""`atomsets report` writes a report and says where, or what is missing."""

from __future__ import annotations

import numpy as np
from typer.testing import CliRunner

from atomsets_flows.cli import app
from tests.atomsets_core.report.test_report import campaign


def test_it_says_what_was_written_or_what_is_missing(tmp_path):
    campaign(np.random.default_rng(0), tmp_path / "done")
    done = CliRunner().invoke(app, ["report", str(tmp_path / "done")])
    assert done.exit_code == 0, done.stderr
    assert f"written: {tmp_path / 'done' / 'report.html'}" in done.stderr
    assert "<h1>" in (tmp_path / "done" / "report.html").read_text()
    nothing = CliRunner().invoke(app, ["report", str(tmp_path / "nowhere")])
    assert nothing.exit_code == 2
    assert "holds no finished campaign" in nothing.stderr
