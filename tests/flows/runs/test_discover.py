"""`atomsets discover` compares heads, goes on where it was stopped, and says so in files that agree."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pymatgen.core import Lattice, Structure

from atomsets_core.discovery.simulate import CHOSEN
from atomsets_core.jobs import discover as work
from atomsets_core.parents.registry import about_parent
from atomsets_core.report.discovery import write_discovery_report
from atomsets_core.sources.base import SourceError
from atomsets_core.sources.embedded import load_elastic
from atomsets_core.storage.store import Store
from atomsets_core.structures.reading import as_structures
from atomsets_flows.campaign.base import CampaignError
from atomsets_flows.commands.discover import read
from atomsets_flows.runs.discover import Asked, discover, prepare

pytestmark = pytest.mark.usefixtures("forked_workers")

HEADS = ["ridge, all features", "Gaussian process, megnet", "ridge, composition"]
SMALL = {
    "rows": 90,
    "targets": ["K_VRH"],
    "seeds": 2,
    "heads": HEADS,
    "parents": ["megnet"],
    "workers": 1,
    "search": {"seeds": 1, "share": 0.1, "n_start": 20, "batch": 5, "rounds": 2},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("discovery")
    return out, discover(Asked.model_validate(SMALL), str(out))


def test_every_head_and_search_has_its_row(finished):
    out, result = finished
    assert json.loads((out / "discovery.json").read_text()) == result
    told = result["targets"]["K_VRH"]
    assert [row["head"] for row in told["table"]] == [
        CHOSEN,
        *(h for h in order(told) if h in HEADS),
        "random",
        "oracle",
    ]
    assert {row["head"] for row in told["table"]} == {CHOSEN, *HEADS, "random", "oracle"}
    assert all(row["seeds"] == 2 for row in told["table"])
    assert [row["search"] for row in told["search"]["table"]][:3] == ["random", "mean", "ucb"]
    assert told["search"]["n_wanted"] == 9
    assert told["seconds"].keys() == set(HEADS)
    assert result["counts"] == {"seen": 1181, "usable": 1181, "used": 90}
    run = told["runs"][0]
    assert run["n_train"] + run["n_pool"] + run["n_dropped"] == 90


def order(told) -> list[str]:
    return [row["head"] for row in told["table"]]


def test_the_report_says_what_the_numbers_say(finished):
    out, result = finished
    page = (out / "report.html").read_text()
    assert "the 9 highest of 90 values hidden" in page.replace("The 9", "the 9")
    for row in result["targets"]["K_VRH"]["table"]:
        assert f"{row['r_precision']:.3f}" in page
    for name in ("plot-hits-K_VRH", "plot-parity-K_VRH", "plot-search-K_VRH"):
        assert f'id="{name}"' in page
    assert result["asked"]["parents"] == ["megnet"]
    assert about_parent("megnet").overlap in page
    assert about_parent("megnet").references[0].doi in page
    assert "10.1038/s41524-021-00639-w" in page


def test_a_result_that_says_no_parents_has_a_report_too(finished, tmp_path):
    store = Store(tmp_path)
    result = json.loads((finished[0] / "discovery.json").read_text())
    del result["asked"]["parents"]
    store.write_json("discovery.json", result)
    write_discovery_report(store)
    assert "10.1038/s41524-021-00639-w" in (tmp_path / "report.html").read_text()


def test_the_report_of_a_file_that_says_nothing_of_itself(finished, tmp_path):
    store = Store(tmp_path)
    result = json.loads((finished[0] / "discovery.json").read_text())
    store.write_json("discovery.json", {**result, "source": {"name": "mine.parquet", "path": "mine.parquet"}})
    write_discovery_report(store)
    assert "entries of mine.parquet were used" in (tmp_path / "report.html").read_text()


def test_only_what_is_missing_is_done_again(finished):
    out, result = finished
    answers = sorted(out.glob("answers/*/*.json"))
    assert len(answers) == len(HEADS) * 2
    assert len(list(out.glob("searches/*/*.json"))) == 8
    before = {path: path.stat().st_mtime_ns for path in answers}
    content = answers[0].read_text()
    answers[0].unlink()
    again = discover(Asked.model_validate(SMALL), str(out))
    changed = [path for path in answers if path.stat().st_mtime_ns != before[path]]
    assert changed == [answers[0]]
    redone, kept = json.loads(answers[0].read_text()), json.loads(content)
    assert (redone["mean"], redone["inner"]) == (kept["mean"], kept["inner"])
    for now, then in zip(again["targets"]["K_VRH"]["table"], result["targets"]["K_VRH"]["table"], strict=True):
        assert now == then


def test_mistakes_are_named(tmp_path):
    with pytest.raises(SourceError, match="no head 'gpt'; there are "):
        discover(Asked.model_validate({**SMALL, "heads": ["gpt"]}), str(tmp_path))
    with pytest.raises(SourceError, match="no column 'hardness'"):
        discover(Asked.model_validate({**SMALL, "targets": ["hardness"]}), str(tmp_path))
    with pytest.raises(CampaignError, match="quantile: Input should be less than or equal to 0.5"):
        read(None, None, {}, ["quantile=0.9"])
    with pytest.raises(CampaignError, match="write it as key=value"):
        read(None, None, {}, ["quantile"])


def test_a_campaign_file_says_what_is_asked(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\n[training]\nsource = "values.csv"\ntarget = "gap"\nunit = "eV"\n'
        '[candidates]\nsource = "embedded:flla"\n[objective]\ngoal = "minimize"\n[discovery]\nquantile = 0.05\n'
    )
    asked = read(path, None, {"seeds": 3}, ["search.batch=7", "search.seeds=1"])
    assert (asked.name, asked.source, asked.targets, asked.unit) == ("mine", "values.csv", ["gap"], "eV")
    assert (asked.goal, asked.quantile, asked.transform, asked.seeds) == ("minimize", 0.05, "none", 3)
    assert (asked.search.batch, asked.search.seeds) == (7, 1)
    assert read(path, "gap,hull", {}, []).targets == ["gap", "hull"]


def test_what_one_parent_refuses_is_left_out_for_all(tmp_path):
    """MEGNet has no bond of 5 Angstrom here, CHGNet sees one of less than 6: the crystal is refused by one alone."""
    pytest.importorskip("chgnet")
    data = load_elastic()
    structures = data.structures.take(np.arange(60)).to_pymatgen()
    lonely = Structure(Lattice.cubic(5.5), ["Ne"], [[0, 0, 0]])
    values = [*data.columns["K_VRH"][:60], 1.0]
    table = as_structures([*structures, lonely], [f"m-{i}" for i in range(61)]).to_arrow()
    pq.write_table(table.append_column("K_VRH", pa.array(values)), tmp_path / "some.parquet")
    store = Store(str(tmp_path / "out"))
    asked = {**SMALL, "source": str(tmp_path / "some.parquet"), "parents": ["megnet", "chgnet"], "rows": None}
    asked["heads"] = ["ridge, all features"]
    prepare(Asked.model_validate(asked), store)
    assert [work.featurize_rows(store.root, name)["refused"] for name in ("megnet", "chgnet")] == [1, 0]
    rows, y = work.load_rows(store.root)
    assert len(rows) == len(y["K_VRH"]) == 60
    assert "Ne" not in set(rows.formula)
    np.testing.assert_allclose(y["K_VRH"], np.log10(values[:60]))
