"""A report that is written anew is taken for the one that the run wrote."""

from __future__ import annotations

import numpy as np
import pytest

from atomsets_core.campaigns import Standing, read_standing, recorded, remember
from atomsets_core.report.again import write_again
from atomsets_core.storage.store import StorageError, Store, fault, seal
from tests.atomsets_core.report.test_report import campaign


def test_it_is_sealed_and_the_next_run_finds_it_as_it_was_left(tmp_path):
    store = campaign(np.random.default_rng(0), tmp_path)
    store.write("report.html", b"old")
    seal(store, "report.html")
    left = recorded(store, ["report.html", "summary.json"])
    remember(store, Standing(1, "2026-01-01", {"the campaign": "x"}, left, {}, "history/ranking-00001.parquet", "m"))
    assert write_again(store) == [store.url("report.html")]
    assert b"<h1>" in store.read("report.html")
    assert fault(store, "report.html") == ""
    standing = read_standing(store)
    assert standing is not None
    assert standing.news(store, store, {"the campaign": "x"}) == []
    assert standing.outputs["summary.json"] == left["summary.json"]


def test_a_folder_without_results_is_left_as_it_is(tmp_path):
    with pytest.raises(StorageError, match="holds no finished campaign"):
        write_again(Store(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()


def test_no_report_is_written_while_a_run_is_at_work(tmp_path):
    store = campaign(np.random.default_rng(0), tmp_path)
    with store.lock(), pytest.raises(StorageError, match="another run"):
        write_again(Store(tmp_path))
