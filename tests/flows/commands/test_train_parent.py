"""`atomsets train-parent` makes a parent that the other commands take."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from atomsets_core.sources.embedded import load_flla
from atomsets_flows.campaign.base import CampaignError
from atomsets_flows.campaign.reading import read_campaign
from atomsets_flows.cli import app

TARGET = "formation_energy_per_atom"


@pytest.fixture(scope="module")
def structures(tmp_path_factory):
    data = load_flla()
    rows = np.arange(0, 3900, 78)
    path = tmp_path_factory.mktemp("data") / "some.parquet"
    table = data.structures.take(rows).to_arrow().append_column(TARGET, [data.columns[TARGET].to_numpy()[rows]])
    pq.write_table(table, path)
    return path


def test_a_parent_is_trained_and_used(structures, tmp_path):
    out = tmp_path / "mine"
    done = CliRunner().invoke(
        app,
        [
            "train-parent",
            str(structures),
            "--target",
            TARGET,
            "--out",
            str(out),
            "--epochs",
            "2",
            "--cutoff",
            "4",
            "--batch-size",
            "16",
            "--json",
        ],
    )
    assert done.exit_code == 0, done.output
    card = json.loads(done.stdout.splitlines()[-1])
    assert card["n_train"] + card["n_validation"] + card["n_test"] + card["n_refused"] == 50
    assert card["metrics"]["test"]["mae"] > 0
    assert "test: mean absolute error" in done.stderr
    assert "epoch 2: loss" in done.stderr
    model = tmp_path / "model"
    learn = ["train", str(structures), "--target", TARGET, "--features", f"{out}:V1+V2", "--out", str(model)]
    done = CliRunner().invoke(app, learn)
    assert done.exit_code == 0, done.output
    assert f"{card['n_train']} values of {TARGET} (some.parquet)" in (model / "MODEL.md").read_text()
    campaign = read_campaign(None, [f"features.parent={out}", "features.levels=['V1','V2']"])
    assert campaign.features.spec == f"{out}:V1+V2"
    with pytest.raises(CampaignError, match="has no level 'V9'"):
        read_campaign(None, [f"features.parent={out}", "features.levels=['V9']"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "nothing"], "no column 'nothing'"),
        (["--target", TARGET, "--cutoff", "7"], "5 Angstrom at most"),
        (["--target", TARGET, "--init", "nobody"], "no init 'nobody'"),
        (["--target", TARGET, "--loss", "cubic"], "no loss 'cubic'"),
    ],
)
def test_wrong_requests_say_what_is_wrong(structures, tmp_path, options, message):
    done = CliRunner().invoke(app, ["train-parent", str(structures), "--out", str(tmp_path / "p"), *options])
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.output
