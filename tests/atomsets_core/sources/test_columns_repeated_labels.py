"""Several labels of one content that differ are said and settled; those that agree are left alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure

from atomsets_core.sources.columns import settle
from atomsets_core.sources.selection import crystal_keys
from atomsets_core.structures.reading import from_pymatgen

IDS = ["mp-1", "mp-2", "oqmd-1", "mp-3", "oqmd-3", "cod-3", "mp-4", "oqmd-4"]
HASHES = ["a", "b", "a", "c", "c", "c", "d", "d"]
VALUES = np.array([100.0, 50, 130, 10, 12, 80, 20, 20.1])
COLUMNS = pd.DataFrame({
    "functional": ["PBE", "PBE", "SCAN", "PBE", "SCAN", "LDA", "PBE", "SCAN"],
    "year": [2020, 2020, 2010, 2001, 2003, 2002, 2001, 2003],
    "K": VALUES,
})  # fmt: skip
ALL = np.ones(8, dtype=bool)


@pytest.mark.parametrize(
    ("rule", "learned"),
    [
        ("median", {"mp-1": 115, "mp-2": 50, "mp-3": 12, "mp-4": 20, "oqmd-4": 20.1}),
        ("mean", {"mp-1": 115, "mp-2": 50, "mp-3": 34, "mp-4": 20, "oqmd-4": 20.1}),
        ("latest", {"mp-1": 100, "mp-2": 50, "oqmd-3": 12, "mp-4": 20, "oqmd-4": 20.1}),
        ("drop", {"mp-2": 50, "mp-4": 20, "oqmd-4": 20.1}),
        ("keep", dict(zip(IDS, VALUES.tolist(), strict=True))),
    ],
)
def test_each_rule_leaves_one_label_or_none_of_a_content(rule: str, learned: dict[str, float]):
    found = settle(IDS, HASHES, ALL, VALUES, COLUMNS, "K", rule)
    assert {IDS[i]: found.values[i] for i in np.flatnonzero(found.usable)} == pytest.approx(learned)
    assert {refusal.material_id for refusal in found.refused} == set(IDS) - set(learned)
    assert all("labels of the same content, " in refusal.reason for refusal in found.refused)
    (note,) = found.notes
    assert "2 structures or formulas with several values of K that differ by 365 % (up to 700 %)" in note
    assert "the column functional (PBE, SCAN" in note


def test_the_latest_is_the_last_of_the_source_without_a_date():
    found = settle(IDS, HASHES, ALL, VALUES, COLUMNS[["K"]], "K", "latest")
    assert [IDS[i] for i in np.flatnonzero(found.usable)] == ["mp-2", "oqmd-1", "cod-3", "mp-4", "oqmd-4"]
    assert "their identifiers (mp-..., oqmd-..., cod-...)" in found.notes[0]
    dated = COLUMNS[["K"]].assign(date=["2020-05-01", None, "2010-01-01", *["2001-02-03"] * 5])
    assert settle(IDS, HASHES, ALL, VALUES, dated, "K", "latest").usable.tolist()[:3] == [True, True, False]


def test_labels_that_agree_or_are_not_used_are_left_alone():
    usable = np.array([True, True, False, True, False, False, True, True])
    found = settle(IDS, HASHES, usable, VALUES, COLUMNS, "K")
    assert found.usable.tolist() == usable.tolist()
    assert not found.refused
    assert not found.notes
    with pytest.raises(ValueError, match="there are median, mean, latest, drop, keep"):
        settle(IDS, HASHES, usable, VALUES, COLUMNS, "K", "first")


def test_one_crystal_in_two_cells_is_one_question():
    salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    caesium_chloride_type = Structure(Lattice.cubic(3.4), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    cells = [salt, salt.get_primitive_structure(), caesium_chloride_type, salt.get_primitive_structure() * (2, 1, 1)]
    batch, refused = from_pymatgen(cells, ["a", "b", "other phase", "c"])
    assert not refused
    values, usable = np.array([100.0, 130.0, 60.0, 115.0]), np.ones(4, dtype=bool)
    keys = crystal_keys(batch, usable, values)
    assert [name == keys[0] for name in keys] == [True, True, False, True]
    for rule, learned in (
        ("median", [115.0, 60.0]),
        ("mean", [115.0, 60.0]),
        ("latest", [60.0, 115.0]),
        ("drop", [60.0]),
    ):
        found = settle(batch.material_id, batch.hashes, usable, values, pd.DataFrame(index=range(4)), "K", rule, keys)
        assert found.values[found.usable].tolist() == learned
        assert "1 structure or formula with several values of K that differ by 30 %" in found.notes[0]
        assert all("labels of the same crystal, 100 to 130" in refusal.reason for refusal in found.refused)
    # labels that agree need no rule, and nothing is compared for them
    assert list(crystal_keys(batch, usable, np.array([100.0, 101.0, 99.0, 100.0]))) == list(batch.hashes)
