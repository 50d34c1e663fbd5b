"""A campaign of what people have most: identifiers of the Materials Project, and values of their own beside them."""

import json

import pandas as pd
import pyarrow.parquet as pq
import pytest
from emmet.core.mpid import AlphaID
from typer.testing import CliRunner

from atomsets_core.campaigns.layout import LABELLED
from atomsets_flows.cli import app
from tests.materials_project_server.running import DATA, KEY, running

N = 40

CAMPAIGN = """
name = "own-values"
[training]
source = "mp"
labels = "values.csv"
target = "hardness"
[training.query]
page_size = 200
requests_per_second = 500
first_wait = 0.01
[candidates]
source = "mp"
[candidates.query]
nsites = { max = 2 }
page_size = 200
requests_per_second = 500
first_wait = 0.01
[objective]
shortlist = 3
[features]
parent = "megnet"
shard_size = 64
[model]
members = 2
folds = 2
epochs = 2
[discovery]
seeds = 0
[cluster]
workers = 1
"""


@pytest.fixture(scope="module")
def server():
    with (
        running(DATA / "flla_2015.parquet", "--limit", "200") as server,
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("MP_API_KEY", KEY)
        environment.setenv("MP_API_ENDPOINT", server.url)
        yield server


def letters(name: str) -> str:
    """The other spelling: mp-aaaabhvi is mp-22862."""
    return f"mp-{str(AlphaID(name, padlen=8).string).rpartition('-')[2]}"


def test_a_campaign_from_identifiers_in_both_spellings_and_values(server, tmp_path, monkeypatch):
    known = pq.read_table(DATA / "flla_2015.parquet", columns=["material_id"])["material_id"].to_pylist()[:N]
    known = [name for name in known if name.startswith("mp-")]
    values = {name: 5.0 + 0.25 * i for i, name in enumerate(known)}
    rows = [f"{letters(name) if i % 2 else name};{value!r}".replace(".", ",") for i, (name, value) in
            enumerate(values.items())]  # fmt: skip
    rows += [f"{letters(known[0])};15,0", "mp-99999999;7,0", "sample 7;8,0"]
    (tmp_path / "values.csv").write_text("\n".join(["mp-id;hardness (GPa)", *rows]) + "\n")
    (tmp_path / "mine.toml").write_text(CAMPAIGN)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["screen", "mine.toml", "--out", "out", "--json"])
    assert result.exit_code == 0, result.stderr
    out = tmp_path / "out"
    table = pq.read_table(out / "structures/training.parquet").to_pandas().set_index("material_id")
    assert table["hardness (GPa)"].to_dict() == pytest.approx(values)  # each under the spelling that the database shows
    summary = json.loads((out / "summary.json").read_text())
    learned = pq.read_table(out / LABELLED).to_pandas().set_index("material_id")["value"].to_dict()
    # the first comes in both spellings, with two values: their median is learned
    assert learned == pytest.approx({**values, known[0]: (values[known[0]] + 15.0) / 2})
    assert summary["sources"]["training"]["units"]["hardness (GPa)"] == "GPa"
    failures = pq.read_table(out / "failures.parquet").to_pandas().set_index("material_id")
    reasons = failures[failures["dataset"] == "training"]["reason"].to_dict()
    assert "no such entry" in reasons["mp-99999999"]
    assert "is no identifier of the Materials Project" in reasons["sample 7"]
    assert "names it again" in reasons[letters(known[0])]
    ranked = pd.read_csv(out / "ranking.csv")
    assert len(ranked) > 10
    assert not set(ranked["material_id"]) & set(known)
    asked = [request["asked"] for request in server.log()["requests"] if request["endpoint"] == "summary"]
    assert sum("material_ids" in query for query in asked) == 1  # one request for all of the table
