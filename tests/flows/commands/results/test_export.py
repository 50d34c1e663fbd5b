"""`atomsets export` writes what is asked for, and names the option that helps where it can't."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from atomsets_flows.cli import app
from tests.atomsets_core.report.test_report import N_SHORTLIST, campaign


@pytest.fixture
def invoke(tmp_path, monkeypatch):
    campaign(np.random.default_rng(0), tmp_path / "done")
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["export", *arguments])


def test_files_lie_here_under_the_name_of_the_campaign(invoke, tmp_path):
    done = invoke("done", "--top", "2", "--json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["n"], told["out"], len(told["files"])) == (2, "done-top-2-cifs", 2)
    assert len(list((tmp_path / "done-top-2-cifs").glob("*.cif"))) == 2
    assert invoke("done/", "--format", "csv").exit_code == 0
    assert len((tmp_path / "done.csv").read_text().splitlines()) == N_SHORTLIST + 1


def test_a_short_shortlist_names_the_option_that_goes_on(invoke):
    assert "--ranking goes on in the whole ranking" in invoke("done", "--top", "30", "--format", "json").stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "holds no finished campaign"),
        (["done", "--format", "vasp"], "there are cif, poscar, xyz, json, csv"),
        (["done", "--out", "done/summary.json/x"], "name another place with --out"),
        (["done", "--top", "0"], "--top"),
    ],
)
def test_what_cannot_be_done_ends_with_2_and_a_sentence(invoke, arguments, said):
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert said in done.stderr
