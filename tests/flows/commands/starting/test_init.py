"""`atomsets init` asks, looks at the data, and writes a file that `--dry-run` takes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from atomsets_flows.cli import app
from atomsets_flows.commands.starting import init as module
from atomsets_flows.commands.starting.init import name_and_unit


@pytest.fixture
def folder(tmp_path, elastic, monkeypatch) -> Path:
    """Labelled formulas, and candidates that are formulas too."""
    monkeypatch.chdir(tmp_path)
    formulas = [structure.composition.reduced_formula for structure in elastic.structures.to_pymatgen()[:90]]
    frame = pd.DataFrame({"formula": formulas, "K": elastic.columns["K_VRH"][:90], "G": elastic.columns["G_VRH"][:90]})
    frame.head(60).to_csv("known.csv", index=False)
    frame[["formula"]].tail(30).to_csv("new.csv", index=False)
    return tmp_path


def invoke(*arguments: str, answers: str = ""):
    return CliRunner().invoke(app, ["init", *arguments], input=answers)


ALL = ("--training", "known.csv", "--target", "K", "--unit", "GPa", "--candidates", "new.csv", "--goal", "maximize")


@pytest.mark.slow
def test_what_it_writes_passes_a_dry_run(folder):
    done = invoke("mine.toml", *ALL, "--title", "bulk modulus", "--symbol", "K", "--shortlist", "7")
    assert done.exit_code == 0, done.stderr
    assert "known.csv: 60 compositions" in done.stderr
    assert "atomsets screen mine.toml --dry-run" in done.stderr
    text = Path("mine.toml").read_text()
    assert 'title = "bulk modulus"' in text
    assert "shortlist = 7" in text
    dry = CliRunner().invoke(app, ["screen", "mine.toml", "--dry-run"])
    assert dry.exit_code == 0, dry.stderr
    assert "60 of the training entries have a value" in dry.stderr


def test_it_asks_for_what_no_option_says(folder, monkeypatch):
    monkeypatch.setattr(module, "interactive", lambda: True)
    done = invoke(answers="known.csv\nG\nshear modulus G (GPa)\nnew.csv\nexceed 120\n")
    assert done.exit_code == 0, done.stderr
    text = Path("campaign.toml").read_text()
    for line in ('target = "G"', 'title = "shear modulus"', 'symbol = "G"', 'unit = "GPa"', "value = 120.0"):
        assert line in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--training is missing"),
        (ALL[:8], None),
        (("--training", "nowhere", *ALL[2:]), "nowhere: there is no such file or folder"),
        ((*ALL[:2], *ALL[4:]), "name the one to learn with --target"),
        ((*ALL[:3], "gap", *ALL[4:]), "no column 'gap' to learn"),
        (ALL[:6], "--candidates is missing"),
        ((*ALL[:9], "most"), "write one of maximize, minimize, target VALUE"),
        ((*ALL[:9], "window 1"), "write one of maximize"),
        ((*ALL[:9], "window 3 1"), "low the smaller"),
    ],
)
def test_what_is_missing_or_wrong_ends_with_2_and_names_the_option(folder, arguments, said):
    done = invoke("mine.toml", *arguments)
    assert done.exit_code == (0 if said is None else 2), done.stderr
    if said is not None:
        assert said in " ".join(done.stderr.split())
    assert Path("mine.toml").exists() == (said is None)


def test_a_file_that_is_there_is_not_replaced_unasked(folder):
    Path("mine.toml").write_text("mine")
    assert "replace it with --force" in invoke("mine.toml", *ALL).stderr
    assert Path("mine.toml").read_text() == "mine"
    # Nor is it lost where what is asked for can't be.
    assert invoke("mine.toml", *ALL[:9], "window 3 1", "--force").exit_code == 2
    assert Path("mine.toml").read_text() == "mine"
    assert invoke("mine.toml", *ALL, "--force").exit_code == 0
    assert 'name = "mine"' in Path("mine.toml").read_text()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("bulk modulus K (GPa)", ("bulk modulus", "K", "GPa")),
        ("band gap (eV)", ("band gap", "", "eV")),
        ("n", ("", "n", "")),
        ("thermal conductivity [W/(m K)]", ("thermal conductivity", "", "W/(m K)")),
        ("Seebeck coefficient S (uV/(K m))", ("Seebeck coefficient", "S", "uV/(K m)")),
        ("refractive index n", ("refractive index", "n", "")),
    ],
)
def test_a_property_is_read_as_people_write_it(text, found):
    assert name_and_unit(text) == found
