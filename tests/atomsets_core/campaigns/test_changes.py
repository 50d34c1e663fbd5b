"""Two made-up rankings: who entered, left and moved, why, and what the numbers did."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from atomsets_core.campaigns import changes
from atomsets_core.campaigns.changes import FAILED, GONE, LABELLED, NEW, OVERTAKEN, REVISED, TOP, compare


def ranking(names, shortlist=(), predicted=None, revised=()):
    """Materials in this order, best first."""
    n = len(names)
    values = np.linspace(300.0, 100.0, n) if predicted is None else np.asarray(predicted, dtype=float)
    return pa.table(
        {
            "material_id": pa.array(names, pa.string()),
            "structure_hash": pa.array([f"{name}-{'b' if name in revised else 'a'}" for name in names], pa.string()),
            "formula": pa.array([f"X{i}" for i in range(n)], pa.string()),
            "rank": np.arange(1, n + 1),
            "predicted": values,
            "lower": values / 1.2,
            "upper": values * 1.2,
            "distance": np.full(n, 2.0),
            "n_atoms": np.full(n, 4),
            "in_domain": np.full(n, True),
            "shortlist": np.isin(names, list(shortlist)),
        }
    )


def names(moves):
    return [move["material_id"] for move in moves]


def test_shortlist_entered_left_and_moved():
    before = ranking(["a", "b", "c", "d", "e", "f"], shortlist=["a", "b", "c", "d"])
    now = ranking(["new", "c", "a", "f", "e"], shortlist=["new", "c", "a", "f"])
    found = compare(before, now, known={"b": 250.0}, failed={})["shortlist"]
    assert {m["material_id"]: m["why"] for m in found["entered"]} == {"new": NEW, "f": ""}
    assert {m["material_id"]: m["why"] for m in found["left"]} == {"b": LABELLED, "d": GONE}
    by_name = {move["material_id"]: move for move in found["moved"]}
    assert {name: (move["rank_before"], move["rank"]) for name, move in by_name.items()} == {"a": (1, 3), "c": (3, 2)}
    # the one that moved most stands first
    assert names(found["moved"]) == ["a", "c"]
    assert found["counts"] == {"size": 4, "entered": 2, "left": 2, "moved": 2}


@pytest.mark.parametrize(
    ("known", "failed", "still", "why"),
    [
        ({"b": 1.0}, {}, False, LABELLED),
        ({}, {"b": "isolated atom"}, False, f"{FAILED}: isolated atom"),
        ({}, {}, False, GONE),
        ({}, {}, True, OVERTAKEN),
    ],
)
def test_why_one_left(known, failed, still, why):
    now = ranking(["a", "c", *(["b"] if still else [])], shortlist=["a", "c"])
    found = compare(ranking(["a", "b"], shortlist=["a", "b"]), now, known, failed)
    (left,) = found["shortlist"]["left"]
    assert (left["material_id"], left["why"], left["rank_before"]) == ("b", why, 2)
    assert left["rank"] == (3 if still else None)


def test_candidates_are_counted():
    before, now = ranking(list("abcdef")), ranking(list("cdefgh"), revised=["c"])
    found = compare(before, now, {}, {})
    assert found["candidates"] == {"before": 6, "now": 6, "new": 2, "gone": 2, "revised": 1}
    # c has another structure: what is said of it is compared with nothing
    assert found["predictions"]["compared"] == 3
    assert np.flatnonzero(changes.newcomers(before, now)).tolist() == [0, 4, 5]
    entered = compare(ranking(["a", "b"], shortlist=["a"]), ranking(["b", "a"], shortlist=["b"], revised=["b"]), {}, {})
    assert [m["why"] for m in entered["shortlist"]["entered"]] == [REVISED]


def test_shift_of_predictions_is_on_the_scale_of_the_model():
    before = ranking(list("abcd"), predicted=[800.0, 400.0, 200.0, 100.0])
    now = ranking(list("abcd"), predicted=[1600.0, 800.0, 400.0, 200.0])
    found = compare(before, now, {}, {}, on_scale=np.log10)["predictions"]
    assert found["mean_shift"] == pytest.approx(np.log10(2))
    assert found["spearman"] == pytest.approx(1.0)
    assert compare(ranking(["a"]), ranking(["b"]), {}, {})["predictions"]["mean_shift"] is None


def test_nothing_changed():
    same = ranking(list("abcdef"), shortlist=["a", "c"])
    found = compare(same, same, {}, {})
    for name in ("shortlist", "top"):
        assert found[name]["counts"] == {"size": {"shortlist": 2, "top": 6}[name], "entered": 0, "left": 0, "moved": 0}
    assert found["predictions"]["mean_absolute_shift"] == 0.0
    assert not changes.newcomers(same, same).any()


def test_entered_top_is_told_once_and_never_of_a_first_run():
    before = ranking([f"m{i}" for i in range(20)])
    now = ranking(["new", *(f"m{i}" for i in range(20))])
    assert changes.entered_top(None, now) == []
    assert names(changes.entered_top(before, now)) == ["new"]
    assert changes.entered_top(now, now) == []
    # the last of the top is pushed out, the one below it can't come in by itself
    left = compare(before, now, {}, {})["top"]["left"]
    assert names(left) == [f"m{TOP - 1}"]
    assert left[0]["why"] == OVERTAKEN


def test_half_a_million_rows_are_compared_without_becoming_objects():
    """Lists are short whatever the size; the work is in Arrow."""
    n = 500_000
    before = ranking([f"m{i}" for i in range(n)], shortlist=["m0", "m1"])
    now = ranking([f"m{i}" for i in range(100, n + 100)], shortlist=["m100", "m101"])
    found = compare(before, now, {}, {})
    assert found["candidates"] == {"before": n, "now": n, "new": 100, "gone": 100, "revised": 0}
    assert names(found["shortlist"]["left"]) == ["m0", "m1"]
