"""What counts as nothing new: every part of the content, no accident of the file."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from atomsets_core.campaigns import fingerprint, last_run
from atomsets_core.campaigns.last_run import Standing
from atomsets_core.storage.store import StorageError, Store
from atomsets_core.structures.batch import Refusal


def content(**changes):
    columns = {
        "material_id": [f"m{i}" for i in range(10)],
        "structure_hash": [f"h{i}" for i in range(10)],
        "lattice": [[float(i)] * 9 for i in range(10)],
        "e_above_hull": [None if i == 3 else i / 7 for i in range(10)],
        "theoretical": [i % 3 == 0 for i in range(10)],
    }
    return pa.table({**columns, **changes})


def digest_of(store, table, name="a.parquet", **options):
    store.write_table(name, table, **options)
    return fingerprint.table_digest(store, name)


def test_the_digest_is_of_the_content_alone(tmp_path):
    store = Store(tmp_path)
    first = digest_of(store, content())
    assert digest_of(store, content(), compression="snappy", row_group_size=3) == first
    reordered = content().select(["theoretical", "lattice", "structure_hash", "material_id", "e_above_hull"])
    assert digest_of(store, reordered) == first
    # the hash stands for the structure
    assert digest_of(store, content(lattice=[[0.0] * 9] * 10)) == first


@pytest.mark.parametrize(
    "changes",
    [
        {"material_id": [f"m{i}" for i in range(9)] + ["other"]},
        {"structure_hash": [f"h{i}" for i in range(9)] + ["other"]},
        {"e_above_hull": [None if i == 3 else i / 7 + (i == 9) * 1e-12 for i in range(10)]},
        {"e_above_hull": [None if i == 4 else i / 7 for i in range(10)]},
        {"theoretical": [False] * 10},
        {"material_id": [f"m{i}" for i in (1, 0, *range(2, 10))]},
        {"another": [0.0] * 10},
    ],
)
def test_any_other_content_has_another_digest(tmp_path, changes):
    store = Store(tmp_path)
    assert digest_of(store, content()) != digest_of(store, content(**changes))


def test_names_that_run_together_are_told_apart(tmp_path):
    store = Store(tmp_path)
    a, b = pa.table({"x": ["ab", "c"]}), pa.table({"x": ["a", "bc"]})
    assert digest_of(store, a) != digest_of(store, b)


def test_a_damaged_or_missing_table_is_named(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(StorageError, match=r"gone\.parquet does not exist"):
        fingerprint.table_digest(store, "gone.parquet")
    store.write("bad.parquet", b"PAR1 no")
    with pytest.raises(StorageError, match=r"bad\.parquet is damaged"):
        fingerprint.table_digest(store, "bad.parquet")


def test_refusals_count():
    one, other = Refusal("m1", "parse", "broken", "h"), Refusal("m1", "parse", "isolated atom", "h")
    assert fingerprint.refusals_digest([one]) == fingerprint.refusals_digest([one])
    assert len({fingerprint.refusals_digest(r) for r in ([], [one], [other], [one, other])}) == 4


@pytest.fixture
def remembered(tmp_path):
    """A store with what a run left, and the feature store."""
    store, features = Store(tmp_path / "campaign"), Store(tmp_path / "features")
    store.write("ranking.csv", b"first")
    features.write("p/one.parquet", b"12345")
    outputs = last_run.recorded(store, ["ranking.csv"])
    sizes = features.sizes("p")
    parts = {"campaign": "a", "candidates": "b"}
    standing = Standing(1, "2026-01-01T00:00:00+00:00", parts, outputs, sizes, "history/ranking-00001.parquet", "m")
    last_run.remember(store, standing)
    return store, features, last_run.read_standing(store)


def test_nothing_new(remembered):
    store, features, standing = remembered
    assert standing.news(store, features, {"campaign": "a", "candidates": "b"}) == []


def test_everything_that_makes_a_run_needed(remembered):
    store, features, standing = remembered
    same = {"campaign": "a", "candidates": "b"}
    assert standing.news(store, features, {**same, "candidates": "c"}) == ["candidates changed"]
    assert standing.news(store, features, {**same, "model": "x"}) == ["model changed"]
    assert standing.news(store, features, {"campaign": "a"}) == ["candidates changed"]
    store.write("ranking.csv", b"First")  # as long, but another
    assert standing.news(store, features, same) == ["ranking.csv is not what the last run left"]
    store.remove("ranking.csv")
    assert standing.news(store, features, same) == ["ranking.csv is gone"]
    store.write("ranking.csv", b"first")
    features.write("p/one.parquet", b"1234")
    assert standing.news(store, features, same) == ["p/one.parquet has another size"]
    features.remove("p/one.parquet")
    assert standing.news(store, features, same) == ["p/one.parquet is gone"]


def test_shards_of_other_campaigns_are_no_news(remembered):
    store, features, standing = remembered
    features.write("p/two.parquet", b"of somebody else")
    assert standing.news(store, features, standing.parts) == []


def test_a_run_with_failures_is_tried_again(remembered):
    store, features, standing = remembered
    failed = Standing(**{**standing.__dict__, "whole": False})
    assert failed.news(store, features, failed.parts) == ["some work failed in the last run"]


@pytest.mark.parametrize("text", [b"{}", b"no json", b'{"run": 1}', b"[]"])
def test_a_memory_that_cannot_be_read_is_none(remembered, text):
    store, _, _ = remembered
    store.write(last_run.STANDING, text)
    assert last_run.read_standing(store) is None


def test_the_history_is_bounded_and_a_run_made_again_replaces_its_line(tmp_path, monkeypatch):
    monkeypatch.setattr(last_run, "KEPT_RUNS", 3)
    monkeypatch.setattr(last_run, "KEPT_LINES", 4)
    store = Store(tmp_path)
    for run in (1, 2, 3, 4, 5, 5, 6):
        store.write(last_run.ranking_name(run), b"x")
        last_run.write_changes(store, {"run": run}, {"run": run})
        last_run.remember(store, Standing(run, "", {}, {}, {}, last_run.ranking_name(run), "m"))
    assert [line["run"] for line in last_run.read_changes(store)["history"]] == [3, 4, 5, 6]
    assert store.names("history", ".json") == [f"history/run-0000{run}.json" for run in (4, 5, 6)]
    assert store.names("history", ".parquet") == ["history/ranking-00006.parquet"]


def test_the_ranking_is_kept_in_its_order(tmp_path):
    store = Store(tmp_path)
    n = 100
    table = pa.table(
        {
            "rank": np.arange(1, n + 1),
            "material_id": [f"m{i}" for i in range(n)],
            "formula": ["NaCl"] * n,
            "predicted": np.linspace(9, 1, n),
            "std": np.ones(n),
            "lower": np.zeros(n),
            "upper": np.ones(n),
            "distance": np.ones(n),
            "in_domain": np.full(n, True),
            "score": np.ones(n),
            "shortlist": np.full(n, False),
            "n_atoms": np.full(n, 2),
            "structure_hash": [f"h{i}" for i in range(n)],
        }
    )
    shuffled = table.take(pa.array(np.random.default_rng(0).permutation(n)))
    store.write_table("ranking.parquet", shuffled, row_group_size=7)
    name = last_run.keep_ranking(store, 4)
    assert name == "history/ranking-00004.parquet"
    kept = last_run.read_ranking(store, name)
    assert kept.column_names == list(last_run.RANKED)
    assert kept.equals(table.select(list(last_run.RANKED)))
