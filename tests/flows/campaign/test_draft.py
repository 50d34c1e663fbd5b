"""A campaign file is drafted from what the data hold, and says what was found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from atomsets_core.sources import SourceError
from atomsets_flows.campaign import Campaign, read_text
from atomsets_flows.campaign.draft import Draft, look, name_from, pick, warnings_of


@pytest.fixture
def folder(tmp_path, elastic) -> Path:
    """Structures of 30 crystals as CIFs, values of two properties in a spreadsheet, and a class."""
    (tmp_path / "cifs").mkdir()
    names = elastic.structures.material_id[:30]
    for structure, name in zip(elastic.structures.to_pymatgen()[:30], names, strict=False):
        structure.to(str(tmp_path / "cifs" / f"{name}.cif"))
    frame = pd.DataFrame({"id": names, "K (GPa)": [f"{v:.1f}(2)" for v in elastic.columns["K_VRH"][:30]]})
    frame.assign(stiff=["yes", "no", "no"] * 10, space_group=range(30)).to_excel(tmp_path / "v.xlsx", index=False)
    return tmp_path


def drafted(folder: Path, **changes: object) -> Draft:
    known = look(str(folder / "cifs"), str(folder / "v.xlsx"))
    draft = Draft("mine", known, pick(known, "K"), look(str(folder / "cifs"), candidates=True), str(folder / "v.xlsx"))
    return replace(draft, **changes)


def campaign(draft: Draft) -> Campaign:
    found = read_text(draft.toml(), "drafted")
    assert isinstance(found, Campaign)
    return found


def test_columns_are_found_with_units_and_ends_and_what_is_no_property_is_passed_over(folder):
    known = look(str(folder / "cifs"), str(folder / "v.xlsx"))
    assert (known.n, known.kind, known.refused) == (30, "structures", 0)
    assert sorted(column.name for column in known.columns) == ["K (GPa)", "stiff"]
    number, label = pick(known, "K"), pick(known, "stiff")
    assert (number.n, number.unit, number.logarithmic) == (30, "GPa", True)
    assert label.classes == ("no", "yes")
    assert label.told() == "stiff: 30 labels, no, yes"


def test_the_file_is_a_campaign_of_what_was_asked(folder):
    made = campaign(drafted(folder, title="bulk modulus", symbol="K", unit="GPa", goal="exceed", value=200.0))
    assert (made.training.title, made.training.symbol, made.training.unit) == ("bulk modulus", "K", "GPa")
    assert (made.training.target, made.training.transform) == ("K (GPa)", "log10")
    assert (made.objective.goal, made.objective.value) == ("exceed", 200.0)
    window = campaign(drafted(folder, goal="window", window=(1.5, 2.0)))
    assert window.objective.window == (1.5, 2.0)
    assert window.training.title == ""


def test_classes_and_formulas_set_what_goes_with_them(folder):
    known = look(str(folder / "cifs"), str(folder / "v.xlsx"))
    formulas = look("embedded:moduli", candidates=True)
    made = campaign(drafted(folder, column=pick(known, "stiff"), goal="class", value="yes", candidates=formulas))
    assert (made.training.task, made.objective.value, made.training.take) == ("class", "yes", "compositions")
    assert made.candidates.filters["e_above_hull"].max == 0.1
    database = campaign(drafted(folder, candidates=look("mp", candidates=True)))
    assert database.candidates.filters["energy_above_hull"].max == 0.1


def test_any_text_stays_one_value(folder):
    odd = 'a "b"\\ # c\nd = 1'
    made = campaign(drafted(folder, title=odd, unit="µm²"))
    assert (made.training.title, made.training.unit) == (odd, "µm²")


def test_what_cannot_be_picked_names_the_option(folder):
    with pytest.raises(SourceError, match="no column of numbers or classes to learn: name the table .* --labels"):
        pick(look(str(folder / "cifs")), None)
    known = look(str(folder / "cifs"), str(folder / "v.xlsx"))
    with pytest.raises(SourceError, match="name the one to learn with --target"):
        pick(known, None)
    with pytest.raises(SourceError, match="no column 'gap' to learn; there are"):
        pick(known, "gap")
    assert pick(replace(known, columns=known.columns[:1]), None) == known.columns[0]


def test_few_values_and_missing_units_are_said(folder):
    draft = drafted(folder)
    assert any("look at the discovery table" in line for line in warnings_of(draft))
    assert any("--unit" in line for line in warnings_of(draft))
    few = replace(draft, unit="GPa", column=replace(draft.column, n=5))
    assert warnings_of(few) == ["5 values are too few for intervals, which need 9"]


def test_a_name_is_made_from_that_of_the_file():
    assert [name_from(Path(name), ["x.csv"]) for name in ("a/My file.toml", "-n.toml", "ß.toml")] == [
        "My-file",
        "n",
        "x",
    ]
