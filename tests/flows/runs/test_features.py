"""Campaigns that rank all by cheap features, and the best part of it by dear ones."""

import numpy as np
import pandas as pd
import pytest

from atomsets_core.campaigns.layout import is_known, is_passing
from atomsets_core.campaigns.verification import verify
from atomsets_core.report.words import funnel_sentences
from atomsets_core.storage.store import Store
from atomsets_flows.runs.screen import screen
from tests.flows.runs.test_screen_parents import SPEC, campaign, inputs  # noqa: F401  # a fixture

pytestmark = pytest.mark.usefixtures("forked_workers")


def funnelled(inputs, name="funnel", more=None, **funnel):  # noqa: F811
    asked = campaign(inputs, SPEC, more=more or {}, model={"epochs": 40, "members": 4}).model_dump()
    section = {"features": "megnet:V0+V1", "first": 5, **funnel}
    return type(campaign(inputs, SPEC)).model_validate({**asked, "name": name, "funnel": section})


@pytest.fixture(scope="module")
def cut(inputs, tmp_path_factory):  # noqa: F811
    """What both campaigns share, and that which looks closely at a quarter."""
    folder = tmp_path_factory.mktemp("funnel")
    store = {"store": str(folder / "features")}
    out = str(folder / "out")
    return folder, store, out, screen(funnelled(inputs, more=store, share=0.25), out)


def test_what_is_not_looked_at_closely_is_counted_and_listed(cut):
    _, _, out, summary = cut
    counts, told = summary["counts"]["candidates"], summary["funnel"]
    assert (counts["pulled"], counts["ranked"], counts["failed"]) == (41, 10, 1)
    assert counts["filtered_by_reason"] == {"cheap features rank it below the first 10 of 40": 30}
    assert (told["n"], told["kept"], told["why"]) == (40, 10, "share")
    table = pd.read_parquet(f"{out}/funnel.parquet")
    assert table["stage"].value_counts().to_dict() == {"not refined": 30, "refined": 10}
    assert table["place"].tolist() == list(range(1, 41))
    assert (np.diff(table["predicted"]) <= 0).all()
    ranking = pd.read_parquet(f"{out}/ranking.parquet")
    assert set(ranking["structure_hash"]) == set(table["structure_hash"][:10])
    assert told["found"]["first"] == 5
    assert told["found"]["deepest"] <= 10
    assert verify(Store(out)).findings == ()
    names = Store(out).all_names(".", hidden=True)
    assert [name for name in names if not is_known(name) and not is_passing(name)] == [".lock"]


def test_the_part_and_the_sample_get_dear_features(cut):
    _, store, _, _ = cut
    rows = {}
    for name in Store(store["store"]).all_names("."):
        if name.endswith(".json"):
            entry = Store(store["store"]).read_json(name)
            rows[entry["parent"]] = rows.get(entry["parent"], 0) + entry["rows"]
    assert rows["amount"] == 90 + 40  # of so few candidates the sample is all
    assert rows["megnet"] >= 90 + 40


def test_those_that_are_looked_at_are_ranked_as_without_a_funnel(cut, inputs):  # noqa: F811
    folder, store, out, _ = cut
    whole = campaign(inputs, SPEC, more=store, model={"epochs": 40, "members": 4})
    screen(whole, str(folder / "whole"))
    part, every = (pd.read_parquet(f"{where}/ranking.parquet") for where in (out, f"{folder}/whole"))
    shared = every[every["structure_hash"].isin(part["structure_hash"])]
    assert shared["structure_hash"].tolist() == part["structure_hash"].tolist()
    np.testing.assert_allclose(shared["predicted"], part["predicted"], rtol=1e-5)


def test_again_is_nothing_new_and_a_lost_list_is_written_again(cut, inputs):  # noqa: F811
    _, store, out, _ = cut
    asked = funnelled(inputs, more=store, share=0.25)
    assert screen(asked, out, return_state=True).name == "Nothing new"
    Store(out).remove("funnel.parquet")
    again = screen(asked, out)
    assert (again["done"]["models_trained"], again["done"]["shards_predicted"]) == (0, 0)
    assert Store(out).exists("funnel.parquet")
    assert verify(Store(out)).findings == ()


def test_discoveries_with_both_rankings_say_how_deep(cut, inputs, tmp_path):  # noqa: F811
    _, store, _, _ = cut
    summary = screen(funnelled(inputs, more=store, keep=0.95), str(tmp_path / "out"))
    told = summary["funnel"]
    assert told["why"] in ("keep", "all")
    assert set(told["shares"]) == set(told["in_discovery"]) == {"0.95", "0.99"}
    assert told["shares"]["0.95"] <= told["shares"]["0.99"]
    assert told["assumed"] <= min(told["correlation"], told["sampled"]["assumed"])
    assert told["kept"] == min(40, max(5, int(np.ceil(told["shares"]["0.95"] * 40))))
    lines = funnel_sentences(told)
    assert f"{told['kept']} of 40 candidates got the dear features" in lines[0]
    assert f"correlation of {told['sampled']['correlation']:.2f}" in lines[1]
    assert f"correlation {told['correlation']:.2f}" in lines[2]


def test_a_budget_cuts_deeper(cut, inputs, tmp_path):  # noqa: F811
    _, store, _, _ = cut
    summary = screen(funnelled(inputs, more=store, share=0.5, cpu_hours=1e-9), str(tmp_path / "out"))
    assert summary["funnel"]["why"] == "budget"
    assert summary["counts"]["candidates"]["ranked"] == 1


def test_without_discoveries_the_sample_tells_how_deep(cut, inputs, tmp_path):  # noqa: F811
    _, store, _, _ = cut
    asked = funnelled(inputs, more=store).model_dump()
    asked["objective"] |= {"goal": "target", "value": 100.0}
    told = screen(type(campaign(inputs, SPEC)).model_validate(asked), str(tmp_path / "out"))["funnel"]
    assert "in_discovery" not in told
    assert told["sampled"]["n"] == 40
    assert told["assumed"] == told["sampled"]["assumed"] < told["sampled"]["correlation"]
