"""The first screen says what the first candidate is, and why to believe it or not."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pytest

from atomsets_core.report.answer import hull_in_words, why, winner
from atomsets_core.report.results import Results, read_results
from atomsets_core.storage.store import Store
from tests.atomsets_core.report.test_report import campaign, page


@pytest.fixture
def store(tmp_path) -> Store:
    return campaign(np.random.default_rng(0), tmp_path)


def with_first(store: Store, **values: object) -> Results:
    """The results, with other values of the first candidate."""
    table = store.read_table("ranking.parquet").to_pandas()
    for name, value in values.items():
        table.loc[0, name] = value
    store.write_table("ranking.parquet", pa.Table.from_pandas(table, preserve_index=False))
    return read_results(store)


def with_neighbours(store: Store, *values: float) -> None:
    content = store.read_json("evidence.json")
    for row in content["candidates"]:
        row["neighbours"] = [
            {"material_id": "x", "formula": f"X{k}", "value": value, "distance": 1.0} for k, value in enumerate(values)
        ]
    store.write_json("evidence.json", content)


def test_a_prediction_is_held_against_what_is_known_near_it(store):
    with_neighbours(store, 90.0, 120.0)
    among = with_first(store, in_domain=True, predicted=100.0)
    assert why(among) == (
        "It can be believed as far as its interval goes: among its nearest known materials X₀ (90.0 GPa) and X₁ "
        "(120 GPa) some have more and some less."
    )
    assert "X₁ (120 GPa) have less." in why(with_first(store, predicted=150.0))
    assert "X₁ (120 GPa) have more." in why(with_first(store, predicted=50.0))


def test_what_is_unlike_all_known_or_better_than_all_known_is_to_be_checked(store):
    with_neighbours(store, 90.0)
    outside = why(with_first(store, in_domain=False))
    assert outside == "Check it first: no known material is much like it (the nearest X₀ (90.0 GPa))."
    beyond = why(with_first(store, in_domain=True, predicted=1e6))
    assert beyond.startswith("Check it first: no known value is as good (of such values, hidden from it, the model ")


def test_a_ranking_no_better_than_blind_is_not_to_be_believed(store):
    content = store.read_json("summary.json")
    content["choice"]["better_than_random"] = False
    store.write_json("summary.json", content)
    assert why(read_results(store)).startswith("Don't believe it yet")


def test_a_model_that_finds_more_is_named_on_the_first_screen(store):
    assert winner(read_results(store)) == ""
    content = store.read_json("summary.json")
    content["discovery"]["heads"][0]["r_precision"] = 0.5
    content["discovery"]["heads"][1]["r_precision"] = 0.6
    content["discovery"]["heads"][2]["r_precision"] = 0.75
    store.write_json("summary.json", content)
    said = (
        "Where the answer is known random forest, composition found more: 75% of the hidden best, AtomSets, which is "
        "used here, 50%."
    )
    assert winner(read_results(store)) == said
    text = page(store).text
    assert text.index(said) < text.index("How far to trust it")
    # It is said once.
    content["choice"]["lost"] = {"to": "random forest, composition", "r_precision": 0.75, "own": 0.5, "by": 0.25,
                                 "used": True}  # fmt: skip
    store.write_json("summary.json", content)
    assert winner(read_results(store)) == ""


def test_the_first_screen_names_the_property_the_crystal_and_its_stability(store):
    content = store.read_json("summary.json") | {"title": "bulk modulus", "symbol": "K"}
    store.write_json("summary.json", content)
    with_first(store, e_above_hull=0.0, matter="layered")
    text = page(store).text
    top = text[: text.index("How far to trust it")]
    assert "Which of 40 candidates have the highest bulk modulus K (GPa)?" in top
    assert "K_VRH" not in top
    assert "(225), cubic; stable: on the convex hull of its source; layered: layers, packed as in graphite." in top
    assert "K (column K_VRH) in GPa" in text
    # Blind picking has one figure on the whole page.
    assert set(re.findall(r"[Bb]lind picking (?:finds )?(\d+)%", text)) == {"33"}
    assert "random 2.0 (33%)" in text.replace("random 2 (33%)", "random 2.0 (33%)")


@pytest.mark.parametrize(
    ("energy", "said"),
    [
        (0.0, "stable: on the convex hull of its source"),
        (0.0634, "0.063 eV/atom above the convex hull of its source"),
        (-0.01, "0.010 eV/atom below the convex hull of its source"),
        (float("nan"), ""),
        (None, ""),
    ],
)
def test_stability_in_words(energy, said):
    assert hull_in_words(energy) == said
