"""`atomsets pull` and campaigns that pull from the Materials Project: killed, resumed, refused, no key in sight."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from atomsets_flows.campaign.base import CampaignError
from atomsets_flows.campaign.reading import read_campaign
from atomsets_flows.campaign.sections import Campaign
from atomsets_flows.cli import app
from atomsets_flows.commands.pull import read_query
from tests.materials_project_server.running import DATA, KEY, running

QUICK = ["--filter=page_size=20", "--filter=requests_per_second=500", "--filter=first_wait=0.01"]


@pytest.fixture(scope="module")
def _server():
    options = ["--elasticity", str(DATA / "elastic_tensor_2015.parquet"), "--limit", "500"]
    with running(DATA / "flla_2015.parquet", *options) as server:
        yield server


@pytest.fixture
def server(_server, monkeypatch):
    _server.reset()
    monkeypatch.setenv("MP_API_KEY", KEY)
    monkeypatch.setenv("MP_API_ENDPOINT", _server.url)
    return _server


def invoke(*arguments):
    return CliRunner().invoke(app, ["pull", *map(str, arguments)])


def everything_in(folder):
    """Every byte of every file, and every text of every table."""
    text = ""
    for path in filter(lambda path: path.is_file(), folder.rglob("*")):
        text += path.read_bytes().decode("latin-1")
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            text += str([table[n].to_pylist() for n in table.column_names if table.schema.field(n).type == "string"])
    return text


def test_killed_twice_and_resumed(server, tmp_path):
    """500 structures in 25 pages: none lost, none twice, at most one page again for each kill."""
    command = [
        sys.executable,
        "-m",
        "atomsets_flows.cli",
        "pull",
        "mp",
        "--out",
        str(tmp_path / "out"),
        "--json",
        *QUICK,
    ]
    server.faults({"kind": "slow", "times": -1, "seconds": 0.1})
    for enough in (6, 14):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("out/pages/*/page-*.json"))) < enough:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "out" / "structures.parquet").exists()
    server.faults()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert (result["structures"], result["refused"]) == (500, 0)
    assert result["fetched"] <= 500 - 14 * 20
    ids = pq.read_table(DATA / "flla_2015.parquet", columns=["material_id"])["material_id"].to_pylist()[:500]
    assert sorted(pq.read_table(tmp_path / "out" / "structures.parquet")["material_id"].to_pylist()) == sorted(ids)
    sent = server.structures()
    assert sum(sent.values()) - len(sent) <= 2 * 20
    assert "structures a second" in done.stderr.replace("\n", " ") or "a second" in done.stderr
    assert KEY not in done.stdout + done.stderr + everything_in(tmp_path)


def test_the_result_is_a_source(server, tmp_path):
    result = invoke(
        "mp", "--out", tmp_path, "--filter", "nelements=2:2", "--field", "energy_above_hull", *QUICK, "--json"
    )
    assert result.exit_code == 0, result.stderr
    counts = json.loads(result.stdout)
    assert 0 < counts["structures"] == counts["fetched"] < 500
    again = invoke(tmp_path / "structures.parquet", "--out", tmp_path / "copy", "--json")
    assert json.loads(again.stdout)["structures"] == counts["structures"]
    copied = pq.read_table(tmp_path / "copy" / "structures.parquet")
    assert copied.equals(pq.read_table(tmp_path / "structures.parquet"))


def test_other_sources(tmp_path):
    result = invoke("embedded:elastic", "--out", tmp_path)
    assert result.exit_code == 0
    assert pq.read_metadata(tmp_path / "structures.parquet").num_rows == 1181
    assert json.loads((tmp_path / "structures.json").read_text())["licence"] == "CC BY 4.0, Materials Project"


def test_a_folder_is_parsed_by_several_processes(tmp_path, elastic):
    (tmp_path / "cifs").mkdir()
    for structure, name in zip(elastic.structures.to_pymatgen()[:6], elastic.structures.material_id, strict=False):
        structure.to(str(tmp_path / "cifs" / f"{name}.cif"))
    (tmp_path / "cifs" / "bad.cif").write_text("data_x")
    result = invoke(tmp_path / "cifs", "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["structures"] == 6
    assert pq.read_table(tmp_path / "out" / "refused.parquet")["material_id"].to_pylist() == ["bad.cif"]
    pulled = pq.read_table(tmp_path / "out" / "structures.parquet")
    assert sorted(pulled["material_id"].to_pylist()) == sorted(elastic.structures.material_id[:6])


WRONG = {
    "no option": (["--filter", "elments=Fe"], "--filter elments: no such option; did you mean 'elements'?"),
    "no value": (["--filter", "elements"], "--filter elements: write it as name=value"),
    "no bounds": (["--filter", "nsites=few"], "--filter nsites: write bounds as min:max"),
    "no element": (["--filter", "elements=Xx"], "--filter elements: 'Xx' is not an element"),
    "no number": (["--field", "bandgap"], "no number 'bandgap'; did you mean band_gap"),
    "a key": (["--filter", f"api_key={KEY}"], "a key never goes here"),
    "a key elsewhere": (["--filter", f"elements={KEY}"], "what looks like a key"),
    "nothing": (["--filter", "elements=Xe,He"], "no entry of the Materials Project matches"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_ends_with_2(server, tmp_path, name):
    arguments, said = WRONG[name]
    result = invoke("mp", "--out", tmp_path, *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert KEY not in result.stderr
    assert "Traceback" not in result.stderr


def test_a_wrong_key_ends_with_2_at_once(server, tmp_path, monkeypatch):
    wrong = "f0" * 16
    monkeypatch.setenv("MP_API_KEY", wrong)
    result = invoke("mp", "--out", tmp_path, "--verbose")
    assert result.exit_code == 2
    assert "doesn't take the key" in result.stderr
    assert len(server.log()["requests"]) == 1
    assert wrong not in result.stderr + result.stdout + everything_in(tmp_path)


def test_no_key_ends_with_2(server, tmp_path, monkeypatch):
    monkeypatch.delenv("MP_API_KEY")
    monkeypatch.setattr("pymatgen.core.SETTINGS", {})
    result = invoke("mp", "--out", tmp_path)
    assert result.exit_code == 2
    assert "no key for the Materials Project" in result.stderr


def test_a_server_that_fails_ends_with_1_and_says_what_is_kept(server, tmp_path):
    server.faults({"kind": "503", "times": -1, "after": 2})
    result = invoke("mp", "--out", tmp_path, "--filter", "attempts=2", "--verbose", *QUICK)
    assert result.exit_code == 1
    assert "page 3 of the summary: status 503" in result.stderr
    assert "Pages that came are kept: run the same command again" in result.stderr
    assert KEY not in result.stderr + result.stdout + everything_in(tmp_path)


def test_options_of_the_command_line_are_those_of_the_file():
    query = read_query(
        ["elements=Fe,O", "energy_above_hull=:0.1", "nsites=2:20", "is_stable=true", "page_size=50", "band_gap=1"],
        ["k_vrh"],
    )
    assert query.model_dump(exclude_defaults=True) == {
        "elements": ["Fe", "O"],
        "energy_above_hull": {"max": 0.1},
        "nsites": {"min": 2, "max": 20},
        "is_stable": True,
        "band_gap": {"min": 1, "max": 1},
        "fields": ["k_vrh"],
        "page_size": 50,
    }


CAMPAIGN = """
name = "from-mp"
[training]
source = "mp"
target = "elasticity.k_vrh"
unit = "GPa"
transform = "log10"
[training.query]
has_props = ["elasticity"]
page_size = 20
requests_per_second = 500
first_wait = 0.01
[candidates]
source = "mp"
[candidates.query]
nsites = { max = 2 }
energy_above_hull = { max = 0.1 }
page_size = 20
requests_per_second = 500
first_wait = 0.01
[candidates.filters]
formation_energy_per_atom = { max = 0.0 }
[objective]
shortlist = 3
[features]
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


def test_a_campaign_learns_from_and_ranks_the_materials_project(server, tmp_path, monkeypatch):
    from atomsets_core.campaigns.layout import PAGES
    from atomsets_core.sources.base import SourceUnavailableError
    from atomsets_core.sources.pull import pull_into
    from atomsets_core.storage.store import Store
    from atomsets_flows.runs.screen import screen

    (tmp_path / "mp.toml").write_text(CAMPAIGN)
    campaign, out = read_campaign(tmp_path / "mp.toml", ["candidates.query.attempts=2"]), tmp_path / "out"
    server.faults({"kind": "500", "times": -1, "after": 5})
    with pytest.raises(SourceUnavailableError, match="run the same command again"):
        screen(campaign, str(out))
    server.faults()
    summary = screen(campaign, str(out))
    sent = server.structures()
    ranked = pq.read_table(out / "ranking.parquet")
    candidates = pq.read_table(out / "structures" / "candidates.parquet").to_pandas().set_index("material_id")
    assert ranked.num_rows > 10
    chosen = candidates.loc[ranked["material_id"].to_pylist()]
    assert (chosen["formation_energy_per_atom"] <= 0).all()
    assert (chosen["n_atoms"] <= 2).all()
    np.testing.assert_array_equal(ranked["e_above_hull"], chosen["energy_above_hull"])
    assert (candidates["formation_energy_per_atom"] > 0).any()
    assert summary["sources"]["candidates"]["db_version"] == "2026.10.01"
    assert summary["sources"]["training"]["units"]["elasticity.k_vrh"] == "GPa"
    page = (out / "report.html").read_text()
    assert "Materials Project, database version 2026.10.01" in page
    assert "APL Mater. 1, 011002 (2013)" in page
    assert "Licence: CC BY 4.0, Materials Project" in page
    # a structure is sent once for each of the two queries, resumed or not
    assert max(sent.values()) <= 2
    server.forget()
    query = campaign.candidates.materials_query()
    again = pull_into(Store(out), "structures/candidates.parquet", "mp", query=query, pages=PAGES)
    assert server.log()["requests"] == []
    assert again.provenance == summary["sources"]["candidates"]
    assert KEY not in everything_in(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("query = { api_key = 'abc' }", "candidates.query.api_key: a key never goes here. Remove it"),
        (f"query = {{ elements = ['{KEY}'] }}", "candidates.query.elements: it holds what looks like a key"),
        ("query = { elments = ['O'] }", "candidates.query.elments: unknown key; did you mean 'elements'?"),
        ("filters = { bandgap = { max = 1 } }", "no number 'bandgap'; did you mean band_gap"),
    ],
)
def test_campaigns_that_can_not_be(tmp_path, text, said):
    path = tmp_path / "c.toml"
    path.write_text(
        f"name='x'\n[training]\nsource='embedded:elastic'\ntarget='K_VRH'\n[candidates]\nsource='mp'\n{text}\n"
    )
    with pytest.raises(CampaignError, match=said.replace("?", r"\?")) as caught:
        read_campaign(path)
    assert KEY not in str(caught.value)


def test_a_key_given_with_set_is_refused_unseen(tmp_path):
    for override in (f"candidates.query.api_key={KEY}", f"candidates.labels={KEY}", f"name.x={KEY}"):
        with pytest.raises(CampaignError, match="--set: .*key") as caught:
            read_campaign(None, [override])
        assert KEY not in str(caught.value)


def test_a_query_needs_its_source():
    with pytest.raises(CampaignError, match="candidates: a query goes with the source 'mp'"):
        read_campaign(None, ["candidates.query.is_stable=true"])


def test_a_key_in_the_parameters_of_a_run_is_refused_unseen():
    raw = {"name": "x", "training": {"source": "embedded:elastic", "target": "K_VRH"}}
    for query in ({"api_key": KEY}, {"elements": [KEY]}, {"api_kay": KEY}):
        with pytest.raises(ValidationError, match="a key never goes here|looks like a key") as caught:
            Campaign.model_validate({**raw, "candidates": {"source": "mp", "query": query}})
        assert KEY not in str(caught.value)
