"""One of each: which entries are the same, which is kept, and that nothing goes without a row."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure

from atomsets_core.sources.base import Entry, Pulled, SourceError, pulled_from_entries
from atomsets_core.sources.selection import deduplicate, same_content
from atomsets_core.structures.batch import Structures
from atomsets_core.structures.same_crystal import Tolerances, same_crystal


def rock_salt(a: float) -> Structure:
    corners = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    return Structure(Lattice.cubic(a), ["Mg"] * 4 + ["O"] * 4, [*corners, *((corners + np.array([0.5, 0, 0])) % 1)])


def caesium_chloride(a: float) -> Structure:
    return Structure(Lattice.cubic(a), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])


@pytest.fixture
def pulled() -> Pulled:
    shifted = rock_salt(4.21)
    shifted.translate_sites(list(range(8)), [0.1, 0.2, 0.3])
    crystals = {
        "first": rock_salt(4.21),
        "copy": rock_salt(4.21),
        "primitive": rock_salt(4.21).get_primitive_structure(),
        "large": rock_salt(4.21) * [2, 1, 1],
        "shifted": shifted,
        "relaxed": rock_salt(4.25),
        "compressed": rock_salt(3.7),
        "other": caesium_chloride(2.6),
    }
    made = pulled_from_entries([Entry(name, crystal) for name, crystal in crystals.items()])
    return replace(made, columns=pd.DataFrame({"e": [5.0, 4.0, 3.0, np.nan, 2.0, 1.0, 0.0, 0.0]}))


def rows(pulled: Pulled) -> dict[str, str]:
    return {refusal.material_id: refusal.reason for refusal in pulled.refused}


def test_content_means_the_same_numbers(pulled):
    kept = deduplicate(pulled, ["content"])
    assert rows(kept) == {"copy": "duplicate of first, which comes first: the same content"}
    assert list(kept.columns["e"]) == [5.0, 3.0, pytest.approx(np.nan, nan_ok=True), 2.0, 1.0, 0.0, 0.0]


def test_structure_means_the_same_crystal_in_any_cell_but_no_other_phase_or_pressure(pulled):
    kept = deduplicate(pulled, ["id", "content", "structure"])
    assert list(kept.structures.material_id) == ["first", "compressed", "other"]
    assert set(rows(kept)) == {"copy", "primitive", "large", "shifted", "relaxed"}
    assert "the same crystal" in rows(kept)["large"]
    assert kept.n_seen == pulled.n_seen
    assert len(kept.columns) == 3


def test_the_lowest_of_a_column_can_be_kept_and_the_reason_says_so(pulled):
    kept = deduplicate(pulled, ["structure"], prefer="e")
    assert list(kept.structures.material_id) == ["relaxed", "compressed", "other"]
    assert rows(kept)["first"] == "duplicate of relaxed, which has the lower e: the same crystal"
    assert "large" in rows(kept)  # a missing value comes last


def test_nothing_asked_changes_nothing_and_wrong_requests_are_named(pulled):
    assert deduplicate(pulled, []) is pulled
    with pytest.raises(SourceError, match="unknown 'formula'"):
        deduplicate(pulled, ["formula"])
    with pytest.raises(SourceError, match="no column 'energy'"):
        deduplicate(pulled, ["id"], prefer="energy")


def test_repeated_identifiers_keep_the_first(pulled):
    names = pulled.structures.material_id.copy()
    names[7] = "first"
    kept = deduplicate(replace(pulled, structures=replace(pulled.structures, material_id=names)), ["id"])
    assert len(kept.structures) == 7
    assert "duplicate id" in kept.refused[0].reason


def test_when_time_is_up_the_rest_stays_and_is_counted(pulled):
    kept = deduplicate(pulled, ["structure"], seconds=0)
    assert len(kept.structures) == len(pulled.structures)
    assert kept.provenance["not_compared"] == len(pulled.structures)


def test_too_large_cells_are_left_alone(pulled):
    found = same_crystal(pulled.structures, tolerances=Tolerances(most_atoms=1))
    assert list(found.of) == list(range(8))
    assert found.not_compared == tuple(range(8))


def test_real_duplicates_hidden_in_a_data_set_are_found(elastic):
    rng = np.random.default_rng(0)
    chosen = elastic.structures.take(rng.choice(len(elastic.structures), 40, replace=False))
    again = []
    for crystal in chosen.to_pymatgen():
        other = crystal.copy()
        other.scale_lattice(crystal.volume * 1.02)
        other.translate_sites(list(range(len(other))), rng.random(3))
        again.append(other.get_reduced_structure())
    hidden = pulled_from_entries([Entry(f"again-{i}", crystal) for i, crystal in enumerate(again)]).structures
    both = Structures.concat([chosen, hidden])
    found = same_crystal(both)
    assert list(found.of[:40]) == list(range(40))
    assert list(found.of[40:]) == list(range(40))


def test_content_of_a_hundred_and_fifty_thousand_takes_seconds(elastic):
    many = elastic.structures.take(np.tile(np.arange(len(elastic.structures)), 132)[:155_000])
    start = time.perf_counter()
    same = same_content(many)
    seconds = time.perf_counter() - start
    assert np.array_equal(same, np.arange(155_000) % len(elastic.structures))
    assert seconds < 60
