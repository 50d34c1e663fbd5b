"""A pull: complete, the same structures, columns from three endpoints, filters as the real client sends them."""

from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from atomsets_core.sources.base import SourceError, pulled_from_arrow
from atomsets_core.sources.materials_project.query import MaterialsQuery
from tests.materials_project_server.running import DATA, KEY, QUICK, Notes


def test_everything_comes_once_and_is_what_the_server_has(server, pull, pulled_table, original):
    watch = Notes()
    file = pull(watch, fields=["energy_above_hull", "nsites", "is_stable"])
    got, had = pulled_from_arrow(pulled_table(), {}), pulled_from_arrow(original, {})
    assert file.structures == len(original) == watch.entries == watch.totals[-1]
    order = np.argsort(had.structures.material_id.astype(str))
    assert list(got.structures.material_id) == list(had.structures.material_id[order])
    assert list(got.structures.hashes) == list(had.structures.hashes[order])
    np.testing.assert_array_equal(got.columns["energy_above_hull"], had.columns["e_above_hull"].to_numpy()[order])
    np.testing.assert_array_equal(got.columns["nsites"], got.structures.n_atoms)
    assert got.columns["is_stable"].sum() == (original["e_above_hull"].to_numpy() <= 1e-8).sum()
    assert file.counts["pages"] == 10
    assert set(server.structures().values()) == {1}
    assert file.provenance["db_version"] == "2026.10.01"
    assert file.provenance["licence"] == "CC BY 4.0, Materials Project"
    assert not file.refused


def test_an_unchanged_database_costs_one_heartbeat(server, pull, tmp_path):
    first = pull(fields=["nsites"])
    before = (tmp_path / "out" / "structures.parquet").stat().st_mtime_ns
    server.forget()
    second = pull(fields=["nsites"])
    assert server.log()["requests"] == []
    assert second.counts == {"fetched": 0, "pages": 0, "requests": 1}
    assert (second.structures, second.provenance) == (first.structures, first.provenance)
    assert (tmp_path / "out" / "structures.parquet").stat().st_mtime_ns == before


def test_a_file_that_was_lost_or_changed_is_made_again_from_its_pages(server, pull, pulled_table, tmp_path):
    pull()
    first = pulled_table()
    file = tmp_path / "out" / "structures.parquet"
    server.forget()
    for change in (file.unlink, lambda: pq.write_table(first.slice(0, 7), file), lambda: file.write_bytes(b"PAR1")):
        change()
        pull()
        assert pulled_table().equals(first)
    assert server.log()["requests"] == []


def test_a_damaged_page_is_fetched_again(server, pull, pulled_table, tmp_path):
    pull()
    first = pulled_table()
    page = next((tmp_path / "out").glob("structures/pages/*/page-000003.parquet"))
    page.write_bytes(page.read_bytes()[:-7])
    server.forget()
    watch = Notes()
    pull(watch)
    assert watch.messages == ["some of what was stored is damaged or gone: it is fetched again"]
    assert len(server.structures()) == 40
    assert sorted(pulled_table()["material_id"].to_pylist()) == first["material_id"].to_pylist()


def test_pages_of_which_nobody_knows_the_version_are_compared_with_the_database(
    server, pull, pulled_table, tmp_path, original
):
    pull()
    changed = original["material_id"].to_pylist()[:3]
    next((tmp_path / "out").glob("structures/pages/*/pull.json")).unlink()
    server.release("2026.11.01", change=changed)
    server.forget()
    pull()
    assert set(server.structures()) == set(changed)
    assert pulled_table().num_rows == 400


@pytest.mark.parametrize(
    "name", ["listing.parquet", "elasticity.parquet", "page-000004.json", "page-000011.parquet", "withdrawn.json"]
)
def test_whatever_is_lost_after_an_update_is_fetched_again(server, pull, pulled_table, tmp_path, original, name):
    options = {"fields": ["energy_above_hull", "elasticity.k_vrh"]}
    pull(**options)
    server.options(shift={"energy_above_hull": 0.01})
    ids = original["material_id"].to_pylist()
    server.release("2026.11.01", change=ids[:10], deprecate=ids[10:12])
    pull(**options)
    expected = sorted(pulled_table().to_pylist(), key=lambda row: row["material_id"])
    next((tmp_path / "out").glob(f"structures/pages/*/{name}")).unlink()
    (tmp_path / "out" / "structures.json").unlink()
    pull(**options)
    assert sorted(pulled_table().to_pylist(), key=lambda row: row["material_id"]) == expected


def elastic_table():
    return {row["material_id"]: row for row in pq.read_table(DATA / "elastic_tensor_2015.parquet").to_pylist()}


@pytest.mark.parametrize("by_ids", [True, False])
def test_labels_of_the_endpoints_stand_beside_their_structures(
    server, pull, pulled_table, dielectric, monkeypatch, by_ids
):
    if not by_ids:
        monkeypatch.setattr("atomsets_core.sources.materials_project.pull.IDS_IN_A_REQUEST", 10)
    file = pull(fields=["k_vrh", "elasticity.g_vrh", "elasticity.homogeneous_poisson", "dielectric.n"])
    table = pulled_table().to_pydict()
    elastic, indices = (
        elastic_table(),
        dict(zip(*pq.read_table(dielectric, columns=["material_id", "n"]).to_pydict().values(), strict=True)),
    )
    n_elastic = 0
    for row, name in enumerate(table["material_id"]):
        known = elastic.get(name)
        n_elastic += known is not None
        assert table["k_vrh"][row] == (known and known["K_VRH"])
        assert table["elasticity.g_vrh"][row] == (known and known["G_VRH"])
        assert table["elasticity.homogeneous_poisson"][row] == (known and known["poisson_ratio"])
        assert table["dielectric.n"][row] == indices.get(name)
    assert n_elastic > 20
    assert file.provenance["units"]["elasticity.g_vrh"] == "GPa"


def test_only_entries_with_a_calculation(server, pull, pulled_table):
    pull(fields=["elasticity.k_vrh"], has_props=["elasticity"])
    assert pulled_table()["elasticity.k_vrh"].null_count == 0
    assert set(pulled_table()["material_id"].to_pylist()) <= set(elastic_table())


def test_identifiers_in_letters_become_those_with_numbers(server, pull, pulled_table, original):
    server.options(alpha_ids=True)
    pull(fields=["elasticity.k_vrh"])
    assert sorted(pulled_table()["material_id"].to_pylist()) == sorted(original["material_id"].to_pylist())
    assert pulled_table()["elasticity.k_vrh"].null_count < 400
    # the same entries under their other names are no news
    server.options(alpha_ids=False)
    server.release("2026.11.01")
    server.forget()
    pull(fields=["elasticity.k_vrh"])
    assert server.structures() == {}


FILTERS = {
    "all of": ({"elements": ["O"]}, lambda entry: 8 in entry.elements),
    "any of": ({"any_elements": ["O", "S", "Fe"]}, lambda entry: bool({8, 16, 26} & entry.elements)),
    "any of, one of them needed": (
        {"elements": ["S"], "any_elements": ["O", "S", "Fe"]},
        lambda entry: 16 in entry.elements,
    ),
    "excluded": ({"exclude_elements": ["O", "F"]}, lambda entry: not {8, 9} & entry.elements),
    "systems": ({"chemsys": ["Nb-Ga", "O-Si"]}, lambda entry: entry.elements in ({31, 41}, {8, 14})),
    "wildcard": ({"chemsys": ["O-*"]}, lambda entry: 8 in entry.elements and len(entry.elements) == 2),
    "elements": ({"nelements": {"min": 3, "max": 3}}, lambda entry: len(entry.elements) == 3),
    "sites": ({"nsites": {"max": 4}}, lambda entry: entry.sites <= 4),
    "hull": ({"energy_above_hull": {"min": 0.01, "max": 0.05}}, lambda entry: 0.01 <= entry.hull <= 0.05),
    "stable": ({"is_stable": True}, lambda entry: entry.hull <= 1e-8),
    "made": ({"theoretical": False}, lambda entry: entry.row % 3 != 0),
}


@pytest.mark.parametrize("name", FILTERS)
def test_filters(server, pull, pulled_table, original, name):
    options, expected = FILTERS[name]
    records = enumerate(original.to_pylist())
    wanted = [
        record["material_id"]
        for row, record in records
        if expected(
            SimpleNamespace(row=row, elements=set(record["Z"]), sites=len(record["Z"]), hull=record["e_above_hull"])
        )
    ]
    file = pull(**options)
    assert 0 < len(wanted) < 400
    assert sorted(pulled_table()["material_id"].to_pylist()) == sorted(wanted)
    assert len(server.structures()) == file.counts["fetched"] == len(wanted)


def test_gnome_stays_out_unless_wanted_and_its_licence_is_said(server, pull, original):
    server.options(gnome=original["material_id"].to_pylist()[:40])
    assert pull().structures == 360
    watch = Notes()
    file = pull(watch, include_gnome=True)
    assert file.structures == 400
    assert "CC BY-NC" in file.provenance["licence"]
    assert "Merchant" in file.provenance["citation"]
    assert any("forbids commercial use" in message for message in watch.messages)


def test_what_matches_nothing_is_an_error(server, pull):
    with pytest.raises(SourceError, match="no entry of the Materials Project matches .*'elements'.*loosen"):
        pull(elements=["Xe", "He"])


def sent(server):
    """Parameters of the last request, without those of paging."""
    asked = server.log()["requests"][-1]["asked"]
    return {key: value for key, value in asked.items() if not key.startswith("_")}


def test_the_parameters_are_those_of_the_real_client(server, pull):
    from mp_api.client import MPRester

    options = {
        "elements": ["Cu"],
        "exclude_elements": ["F"],
        "chemsys": ["Cu-*"],
        "is_stable": True,
        "theoretical": False,
    }
    query = {
        "nelements": {"min": 2, "max": 2},
        "nsites": {"max": 12},
        "energy_above_hull": {"min": 0, "max": 0.4},
        "has_props": ["elasticity"],
    }
    pull(**options, **query)
    ours = sent(server)
    with MPRester(KEY, endpoint=server.url, use_document_model=False, mute_progress_bars=True) as rester:
        rester.materials.summary.search(
            **options,
            num_elements=(2, 2),
            num_sites=(0, 12),
            energy_above_hull=(0, 0.4),
            has_props=["elasticity"],
            deprecated=False,
            include_gnome=False,
            fields=["material_id"],
        )
    theirs = sent(server)
    assert theirs.pop("nsites_min") == "0"
    assert {key: float(v) if key.endswith(("_min", "_max")) else v for key, v in ours.items()} == {
        key: float(v) if key.endswith(("_min", "_max")) else v for key, v in theirs.items()
    }


def test_options_that_only_say_how_are_no_other_query():
    assert MaterialsQuery(**QUICK).digest("x") == MaterialsQuery().digest("x")
    assert MaterialsQuery(elements=["O"]).digest("x") != MaterialsQuery().digest("x")
