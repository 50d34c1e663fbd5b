"""A later pull: only what is new or changed travels, what left is marked."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from atomsets_core.sources.base import SourceUnavailableError
from atomsets_core.sources.materials_project import pages
from tests.materials_project_server.running import DATA


@pytest.fixture
def later():
    """Identifiers that the server hides at first: 500 of them."""
    return pq.read_table(DATA / "flla_2015.parquet", columns=["material_id"])["material_id"].to_pylist()[400:900]


def test_only_new_and_changed_entries_travel(server, pull, pulled_table, original, later, tmp_path):
    ids = original["material_id"].to_pylist()
    pull(fields=["energy_above_hull"])
    before = {row["material_id"]: row for row in pulled_table().to_pylist()}
    changed, deprecated = ids[100:300], ids[300:350]
    server.release("2026.11.01", show=later, change=changed, deprecate=deprecated)
    server.forget()
    file = pull(fields=["energy_above_hull"])

    assert server.structures() == dict.fromkeys([*later, *changed], 1)
    del file.counts["requests"]
    assert file.counts == {
        "fetched": 700, "pages": 4, "new": 500, "changed": 200, "deprecated": 50, "gone": 0, "outside": 0,
    }  # fmt: skip
    addresses = [request["asked"].get("material_ids", "") for request in server.log()["requests"]]
    assert 1000 < max(map(len, addresses)) < 3000  # longer ones are refused by some servers
    after = {row["material_id"]: row for row in pulled_table().to_pylist()}
    assert set(after) == (set(ids) | set(later)) - set(deprecated)
    assert pulled_table().num_rows == len(after) == file.structures
    for name in set(ids) - set(deprecated):
        if name in changed:
            np.testing.assert_allclose(after[name]["lattice"], 1.01 * np.array(before[name]["lattice"]))
        else:
            assert after[name] == before[name]
    assert {r.material_id: r.reason for r in file.refused} == dict.fromkeys(
        deprecated, "deprecated by the Materials Project, noticed in its version 2026.11.01"
    )
    assert file.provenance["db_version"] == "2026.11.01"

    # the mark keeps the version in which it was noticed
    server.release("2026.12.01")
    server.forget()
    again = pull(fields=["energy_above_hull"])
    assert server.structures() == {}
    assert {r.reason for r in again.refused} == {
        "deprecated by the Materials Project, noticed in its version 2026.11.01"
    }
    assert again.counts["deprecated"] == 0
    withdrawn = json.loads(next((tmp_path / "out").glob("structures/pages/*/withdrawn.json")).read_text())
    assert withdrawn == {name: {"status": "deprecated", "db_version": "2026.11.01"} for name in deprecated}


def test_entries_that_vanish_and_come_back(server, pull, pulled_table, original):
    ids = original["material_id"].to_pylist()
    pull()
    server.release("2026.11.01", hide=ids[:3], deprecate=ids[3:5])
    file = pull()
    assert (file.structures, file.counts["gone"], file.counts["deprecated"]) == (395, 3, 2)
    assert {r.material_id for r in file.refused} == set(ids[:5])
    server.release("2026.12.01", show=ids[:3], restore=ids[3:5])
    server.forget()
    file = pull()
    assert file.structures == 400
    assert not file.refused
    assert set(server.structures()) == set(ids[:5])
    assert sorted(pulled_table()["material_id"].to_pylist()) == sorted(ids)


def test_numbers_are_those_of_the_new_version_though_no_structure_travels(server, pull, pulled_table):
    pull(fields=["energy_above_hull"], energy_above_hull={"max": 0.05})
    n, before = pulled_table().num_rows, pulled_table()["energy_above_hull"].to_numpy()
    server.options(shift={"energy_above_hull": 0.01})
    server.release("2026.11.01")
    server.forget()
    file = pull(fields=["energy_above_hull"], energy_above_hull={"max": 0.05})
    assert server.structures() == {}
    kept = before <= 0.04
    assert 0 < kept.sum() < n
    np.testing.assert_allclose(pulled_table()["energy_above_hull"].to_numpy(), before[kept] + 0.01)
    assert (file.counts["outside"], file.refused) == (n - kept.sum(), [])
    # and those that match again need not travel either
    server.options(shift={"energy_above_hull": -0.01})
    server.release("2026.12.01")
    server.forget()
    assert pull(fields=["energy_above_hull"], energy_above_hull={"max": 0.05}).structures == n
    assert server.structures() == {}


def test_an_interrupted_update_goes_on(server, pull, pulled_table, original, later):
    pull()
    server.release("2026.11.01", show=later)
    # 23 pages of the listing, then chunks of 200 identifiers
    server.faults({"kind": "503", "after": 24, "times": -1})
    with pytest.raises(SourceUnavailableError):
        pull(attempts=2)
    server.faults()
    assert len(server.structures()) == 600
    server.forget()
    file = pull()
    assert len(server.structures()) == 300
    assert all("structure" in request["asked"]["_fields"] for request in server.log()["requests"])
    assert file.structures == 900
    assert pulled_table().num_rows == 900


def test_a_release_meets_a_pull_that_was_stopped(server, pull, pulled_table, original, later):
    ids = sorted(original["material_id"].to_pylist())
    server.faults({"kind": "503", "after": 4, "times": -1})
    with pytest.raises(SourceUnavailableError):
        pull(attempts=1)
    server.faults()
    server.release("2026.11.01", show=later, change=ids[:10])
    server.forget()
    file = pull()
    assert file.structures == 900
    assert set(server.structures()) == (set(ids[160:]) | set(later) | set(ids[:10]))
    assert pulled_table().num_rows == 900


def test_entries_without_a_date_are_fetched_with_each_version(server, pull, monkeypatch):
    server.options(dates=False)
    pull()
    server.release("2026.11.01")
    server.forget()
    assert pull().counts["changed"] == 400
    assert set(server.structures().values()) == {1}


def test_a_page_is_whole_or_does_not_exist(server, pull, tmp_path):
    pull()
    folder = next((tmp_path / "out").glob("structures/pages/*"))
    from atomsets_core.storage.store import Store

    read = lambda: pages.PageStore(Store(folder.parent), folder.name).pages  # noqa: E731
    assert [page.number for page in read()] == list(range(1, 11))
    (folder / "page-000004.json").unlink()
    (folder / "page-000007.parquet").write_bytes(b"PAR1")
    (folder / "page-000009.parquet").unlink()
    assert [page.number for page in read()] == [1, 2, 3, 5, 6, 8, 10]
