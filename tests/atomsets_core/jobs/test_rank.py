"""The order of a ranking and what may lead it, on predictions made up for the purpose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from atomsets_core.campaigns import RANKING, RANKING_CSV
from atomsets_core.features import FeatureStore, Piece
from atomsets_core.jobs.rank import OUTSIDE, Wish, rank
from atomsets_core.jobs.structures import predict_shard
from atomsets_core.jobs.train import train_model
from atomsets_core.parents import load_parent
from atomsets_core.sources import Catalogue, pull
from atomsets_core.storage.store import Store, units_of
from atomsets_core.structures import Structures

SMALL = {"members": 4, "folds": 2, "epochs": 4, "phi": [16], "rho": [16], "transform": "log10"}
LEVELS = ("V0", "V1", "V2", "V3")


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    """A store with features of 90 crystals, a model of K of 60 of them, and predictions for 30 and two molecules."""
    store = Store(str(tmp_path_factory.mktemp("campaign")))
    pulled = pull("embedded:elastic")
    values = pd.to_numeric(pulled.columns["K_VRH"]).to_numpy()
    rows = np.flatnonzero(values > 0)[:90]
    boxed = in_a_box(2)
    structures = Structures.concat([pulled.structures.take(rows), boxed])
    features = FeatureStore.of(Store(store.url("features")), "megnet", LEVELS)
    entry = features.write(
        features.shard_key(list(structures.hashes)), load_parent("megnet").featurize(structures, LEVELS)
    )
    table = pa.table(
        {
            "material_id": pa.array(structures.material_id[:60]),
            "structure_hash": pa.array(structures.hashes[:60]),
            "formula": pa.array(structures.formulas[:60]),
            "value": values[rows[:60]],
        }
    )
    store.write_table("structures/labelled.parquet", table)
    parameters = {**SMALL, "features": "megnet:V0+V1+V2+V3"}
    about = {"target": "K", "unit": "GPa", "training_source": "embedded:elastic", "training_data_sha256": "0"}
    train_model(store, features, parameters, "models/one", about)
    predict_shard(store, features, Piece(entry), "models/one", "predictions/one.parquet")
    candidates = structures.take(np.arange(60, 92))
    store.write_table("structures/candidates.parquet", listed(candidates))
    return store, features, Catalogue.open(store, "structures/candidates.parquet"), values[rows[:60]]


def listed(structures: Structures) -> pa.Table:
    """As `pull` writes them."""
    return structures.to_arrow()


def in_a_box(n: int) -> Structures:
    """Nitrogen molecules in boxes of 15 Angstrom and more."""
    lattice = np.stack([np.eye(3) * (15.0 + i) for i in range(n)])
    frac = np.concatenate([[[0.5, 0.5, 0.5], [0.5, 0.5, 0.5 + 1.1 / (15 + i)]] for i in range(n)])
    names = np.array([f"boxed-{i}" for i in range(n)], dtype=object)
    return Structures(names, lattice, np.full(n, 2), np.full(2 * n, 7), frac)


def ranked(campaign, edit=None, **wish):
    """The ranking of made-up predictions: `edit` changes the columns of the prediction file."""
    store, features, candidates, values = campaign
    table = store.read_table("predictions/one.parquet").to_pandas()
    if edit is not None:
        edit(table)
    store.write_table("predictions/edited.parquet", pa.Table.from_pandas(table, preserve_index=False))
    asked = {"goal": "maximize", "acquisition": "ucb", "best": float(values.max()), "shortlist": 5, **wish}
    found = rank(
        store, ["predictions/edited.parquet"], candidates, Wish(**asked), "log10", "GPa", features, "models/one"
    )
    return found, store.read_table(RANKING).to_pandas()


def boxed_leads(table: pd.DataFrame) -> None:
    """The molecules are predicted best by far, and known to be far from everything."""
    rows = table.index[-2:]
    table.loc[rows, ["predicted", "upper"]] = [900.0, 9e4]
    table.loc[rows, "mean"] = np.log10(900.0)
    table.loc[rows, "in_domain"] = False


def test_what_is_in_vacuum_comes_last_and_is_not_shortlisted(campaign):
    found, table = ranked(campaign, boxed_leads)
    assert set(table["formula"].tail(2)) == {"N2"}
    assert set(table["matter"].tail(2)) == {"molecule"}
    assert table["remark"].str.contains("vacuum").tail(2).all()
    assert "N2" not in set(found.shortlist["formula"])
    assert found.n_no_bulk == 2
    assert found.first.split()[1] != "N2"


def test_it_can_be_kept_or_dropped(campaign):
    kept, table = ranked(campaign, boxed_leads, outside="keep")
    assert set(table["formula"].head(2)) == {"N2"}
    assert "score alone" in kept.why_first
    dropped, table = ranked(campaign, boxed_leads, outside="drop")
    assert "N2" not in set(table["formula"])
    assert table["in_domain"].all()
    assert dropped.n_ranked + dropped.n_dropped == 32
    with pytest.raises(ValueError, match="mark, drop, keep"):
        Wish("maximize", "mean", 1.0, 5, outside="hide")
    assert OUTSIDE == ("mark", "drop", "keep")


def far_crystal_leads(table: pd.DataFrame) -> None:
    """A crystal outside the domain is predicted best, another one inside second best."""
    table["in_domain"] = True
    for row, value, inside in ((60, 500.0, False), (61, 400.0, True)):
        table.loc[row, ["predicted", "lower", "upper"]] = [value, 0.9 * value, 1.1 * value]
        table.loc[row, "mean"] = np.log10(value)
        table.loc[row, "in_domain"] = inside


def test_a_crystal_outside_the_domain_is_second_at_best(campaign):
    found, table = ranked(campaign, far_crystal_leads, acquisition="mean")
    assert table["in_domain"].head(2).tolist() == [True, False]
    assert table["predicted"].head(2).tolist() == pytest.approx([400.0, 500.0])
    assert found.why_first == ""
    assert table["rank"].tolist() == list(range(1, 33))


def test_where_nothing_is_inside_the_first_line_says_so(campaign):
    found, table = ranked(campaign, lambda table: table.__setitem__("in_domain", False))
    assert not table["in_domain"].any()
    assert found.why_first == "no candidate is inside the domain of the training data"


def test_a_shortlist_holds_nothing_worse_than_the_median_known_value(campaign):
    *_, values = campaign
    _, table = ranked(campaign)
    assert table["shortlist"].sum() == 5
    high = float(np.sort(table["predicted"])[-3])
    found, _ = ranked(campaign, median=high)
    assert len(found.shortlist) <= 3
    assert (found.shortlist["predicted"] >= high - 1e-9).all()
    low, _ = ranked(campaign, goal="minimize", best=float(values.min()), median=float(np.sort(table["predicted"])[2]))
    assert len(low.shortlist) <= 3


def test_intervals_that_reach_beyond_the_best_value_are_as_wide_as_was_found_necessary(campaign):
    *_, values = campaign
    best = float(values.max())

    def one_reaches(table: pd.DataFrame) -> None:
        table["predicted"] = np.minimum(table["predicted"], 0.5 * best)
        table.loc[60, "predicted"] = 0.99 * best
        table["mean"] = np.log10(table["predicted"])
        table["lower"], table["upper"] = table["predicted"] / 1.02, table["predicted"] * 1.02

    _, table = ranked(campaign, one_reaches, reach=0.5)
    # half a decade beyond the prediction
    np.testing.assert_allclose(table["beyond"], table["predicted"] * 10**0.5, rtol=1e-6)
    reaches = table["upper"] >= best
    assert reaches.sum() == 1
    assert (table["upper"] >= table["beyond"] * (1 - 1e-9))[reaches].all()
    assert (table["upper"] < best)[~reaches].all()
    _, without = ranked(campaign, one_reaches)
    assert without["beyond"].isna().all()


def test_numbers_of_a_row_are_in_one_unit_and_files_say_which(campaign):
    store = campaign[0]
    _, table = ranked(campaign)
    units = units_of(store.read_table(RANKING))
    assert {units[name] for name in ("predicted", "std", "lower", "upper", "beyond")} == {"GPa"}
    assert units["std_scale"] == units["score"] == "log10(GPa)"
    np.testing.assert_allclose(table["std"], np.log(10) * table["predicted"] * table["std_scale"], rtol=1e-9)
    assert pd.read_csv(Path(store.root) / RANKING_CSV).columns.tolist() == table.columns.tolist()


def test_the_order_does_not_depend_on_the_unit_of_the_target(campaign):
    found = {}
    for unit in (1.0, 2.0**-40, 2.0**40):

        def scaled(table: pd.DataFrame, unit: float = unit) -> None:
            table[["predicted", "std", "lower", "upper"]] *= unit
            table["mean"] += np.log10(unit)

        best = float(campaign[-1].max()) * unit
        _, table = ranked(campaign, scaled, best=best, acquisition="ei")
        found[unit] = table["material_id"].tolist()
    assert found[1.0] == found[2.0**-40] == found[2.0**40]
