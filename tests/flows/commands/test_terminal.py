"""Whatever a command is asked for: an object store that can't be used is one sentence, and exit code 2."""

from __future__ import annotations

import sys

import pytest
from typer.testing import CliRunner

from atomsets_flows.cli import app


@pytest.mark.parametrize(
    "command",
    [
        ["train", "embedded:elastic", "--target", "K_VRH", "--out", "gs://bucket/model"],
        ["predict", "gs://bucket/model", "embedded:flla", "--out", "p.csv"],
        ["pull", "embedded:elastic", "--out", "gs://bucket/pulled"],
        ["featurize", "embedded:elastic", "--out", "gs://bucket/features"],
        ["status", "gs://bucket/campaign"],
        ["verify", "gs://bucket/campaign"],
        ["models", "list", "gs://bucket/campaign"],
        ["models", "rollback", "gs://bucket/campaign"],
    ],
)
def test_a_missing_package_is_named(command, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2, result.output
    said = " ".join(result.stderr.split())
    assert "gs://bucket/" in said
    assert "a package is missing for gs:// addresses" in said
    assert said.count("error:") == 1
