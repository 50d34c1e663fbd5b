"""Status is read from files alone, and says what a run is doing, did, or died of; a dry run does nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from atomsets_core.storage.store import Store
from atomsets_flows.cli import app
from atomsets_flows.commands.status import duration
from atomsets_flows.runs.status import PROGRESS, Record, read_status, recording


def test_a_run_writes_what_it_does_and_how_it_ended(tmp_path):
    store = Store(tmp_path)
    with store.lock(), recording(store):
        from atomsets_flows.runs.progress import _listeners

        _listeners[-1].start("featurize candidates", 4)
        _listeners[-1].advance("featurize candidates", 2)
        found = read_status(store)
        assert found.state == "running"
        # Written at most once a second, so the last steps may not be there yet.
        assert [(row.stage, row.total) for row in found.rows] == [("featurize candidates", 4)]
        _listeners[-1].advance("featurize candidates", 2)
        assert read_status(store).rows[0].done == 4
    assert read_status(store).state == "done"


@pytest.mark.parametrize(("error", "state"), [(KeyboardInterrupt, "stopped"), (ValueError, "failed")])
def test_how_it_ended_is_told(tmp_path, error, state):
    store = Store(tmp_path)
    with pytest.raises(error), recording(store):
        raise error
    assert read_status(store).state == state


def test_a_run_that_was_killed_is_told_from_one_that_runs(tmp_path):
    store = Store(tmp_path)
    Record(store).start("train", 1)
    assert read_status(store).state == "killed"
    with store.lock():
        assert read_status(store).state == "running"


def test_rates_and_time_left(tmp_path):
    store = Store(tmp_path)
    stage = {"done": 20, "total": 50, "started": 100.0, "updated": 109.0}
    finished = {"done": 5, "total": 5, "started": 95.0, "updated": 100.0}
    stages = {"pull": finished, "predict": stage}
    store.write_json(PROGRESS, {"state": "running", "started": 95.0, "updated": 109.0, "stages": stages, "notes": []})
    with store.lock():
        pull, predict = read_status(store, now=110.0).rows
    assert (pull.rate, pull.left) == (1.0, 0.0)
    assert (predict.rate, predict.left) == (2.0, 15.0)
    assert [duration(s) for s in (12, 240, 12_600, 190_000)] == ["12 s", "4 min", "3.5 h", "2.2 days"]


def test_the_command_says_what_to_do_next(tmp_path):
    found = CliRunner().invoke(app, ["status", str(tmp_path)])
    assert found.exit_code == 2
    assert f"{tmp_path}: no campaign ran here. Name the folder" in " ".join(found.stderr.split())
    assert not found.stdout
    Record(Store(tmp_path)).finish("failed")
    assert "run the same command again" in CliRunner().invoke(app, ["status", str(tmp_path)]).stderr
    told = CliRunner().invoke(app, ["status", str(tmp_path), "--json"]).stdout
    assert json.loads(told)["state"] == "failed"


def test_a_campaign_is_told_without_what_computes(tmp_path):
    """Which takes seconds to import; a campaign of some size is asked often."""
    store = Store(tmp_path)
    Record(store).finish("done")
    entries = {"labelled": 10, "learned_from": 10, "pulled": 10, "ranked": 5, "filtered": 4, "failed": 1}
    store.write_json("summary.json", {
        "unit": "K", "transform": "none", "counts": {"training": entries, "candidates": entries},
        "model": {"mae": 1.0, "r2": 0.5, "coverage_out_of_fold": 0.9, "coverage": 0.9},
        "settings": {"discovery": {"choose": True}}, "choice": {"head": "ridge"}, "discovery": None,
    })  # fmt: skip
    heavy = ("torch", "pymatgen", "prefect", "distributed", "sklearn", "pandas", "numba", "scipy")
    code = f"""
import sys
from atomsets_flows.cli import app
app(["status", {str(tmp_path)!r}], standalone_mode=False)
print([name for name in {heavy!r} if name in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    assert "out-of-fold error 1.0000 K" in found.stderr


def test_a_dry_run_counts_and_estimates_and_writes_nothing(tmp_path, elastic, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = elastic.to_arrow().select(["material_id", "lattice", "Z", "frac", "K_VRH"])
    pq.write_table(table.slice(0, 40), tmp_path / "known.parquet")
    pq.write_table(table.slice(30, 60), tmp_path / "offered.parquet")
    (tmp_path / "mine.toml").write_text("""
        name = "mine"
        [training]
        source = "known.parquet"
        target = "K_VRH"
        [candidates]
        source = "offered.parquet"
        [model]
        members = 2
        folds = 2
        epochs = 6
        [discovery]
        seeds = 2
        [cluster]
        workers = 2
    """)
    before = sorted(tmp_path.iterdir())
    found = CliRunner().invoke(app, ["screen", "mine.toml", "--dry-run", "--json"])
    assert found.exit_code == 0, found.output
    assert sorted(tmp_path.iterdir()) == before
    told = json.loads(found.stdout.splitlines()[-1])
    assert told["pulled"] == {"training": 40, "candidates": 60}
    assert told["labelled"] == 40
    assert told["missing"] == len(np.unique(elastic.structures.hashes[:90].astype(str)))
    assert told["trainings"] == 1 + 2 * 2
    assert told["featurize"] == pytest.approx(told["missing"] / told["rate"] / 2)
    assert 0 < told["train"] < 600
    assert "nothing was written" in found.stderr


def test_the_version_is_that_of_the_package():
    from importlib.metadata import version

    assert CliRunner().invoke(app, ["--version"]).stdout.strip() == version("atomsets-screening")


@pytest.mark.parametrize(
    "changes",
    [
        ["training.target=K"],
        ["training.transform=log10", "training.target=worst"],
        ["candidates.filters.e_hull={max=0.1}"],
        ["candidates.filters.n_atoms={max=0}"],
        ["candidates.exclude_elements=['Xx']"],
        ["candidates.prefer=e_hull"],
    ],
)
def test_a_dry_run_fails_with_the_words_of_the_run(tmp_path, elastic, monkeypatch, changes):
    from atomsets_core.jobs.structures import select
    from atomsets_core.sources.base import SourceError
    from atomsets_core.sources.pull import pull_into
    from atomsets_core.sources.selection import deduplicate_file
    from atomsets_flows.campaign.reading import read_campaign

    monkeypatch.chdir(tmp_path)
    table = elastic.to_arrow().select(["material_id", "lattice", "Z", "frac", "K_VRH"])
    known = table.slice(0, 12)
    pq.write_table(known.append_column("worst", pa.array(np.full(12, -1.0))), "known.parquet")
    pq.write_table(table.slice(30, 12).drop_columns(["K_VRH"]), "offered.parquet")
    text = 'name="m"\n[training]\nsource="known.parquet"\ntarget="K_VRH"\n[candidates]\nsource="offered.parquet"\n'
    (tmp_path / "m.toml").write_text(text)
    campaign = read_campaign(tmp_path / "m.toml", changes)
    store, section, bounds = Store(tmp_path / "run"), campaign.candidates, campaign.candidates.filters
    labelled = pull_into(store, "training.parquet", "known.parquet")

    def run():
        offered = pull_into(store, "candidates.parquet", "offered.parquet")
        offered = deduplicate_file(store, offered, section.deduplicate, prefer=section.prefer)
        select(
            store, labelled, offered, campaign.training.target, campaign.training.transform,
            {name: (limit.min, limit.max) for name, limit in bounds.items()}, section.exclude_elements,
            section.only_elements, section.exclude_seen,
        )  # fmt: skip

    with pytest.raises(SourceError) as of_run:
        run()
    sets = [f"--set={change}" for change in changes]
    found = CliRunner().invoke(app, ["screen", "m.toml", "--dry-run", "--out=out", *sets])
    assert found.exit_code == 2
    assert " ".join(str(of_run.value).split()) in " ".join(found.stderr.split())
    assert not (tmp_path / "out").exists()


def test_a_dry_run_looks_for_the_key_and_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MP_API_KEY", "too-short")
    found = CliRunner().invoke(
        app, ["screen", "--dry-run", "--set=candidates.source=mp", "--set=candidates.filters={}", f"--out={tmp_path}/o"]
    )
    assert found.exit_code == 2
    assert "holds no key of the Materials Project" in " ".join(found.stderr.split())
    (tmp_path / "file").write_text("")
    found = CliRunner().invoke(app, ["screen", "--dry-run", f"--out={tmp_path}/file/o"])
    assert found.exit_code == 2
    assert "can't be written" in found.stderr


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("sample,K\nA1,3\n", "no column holds identifiers of the Materials Project"),
        ("mp-id,hardness\nmp-22862,3\n", "no column 'K' in values.csv; found mp-id, hardness"),
        (None, "this doesn't exist"),
    ],
)
def test_a_dry_run_reads_the_labels_of_a_database(tmp_path, monkeypatch, table, said):
    monkeypatch.setenv("MP_API_KEY", "k" * 32)
    monkeypatch.chdir(tmp_path)
    if table:
        (tmp_path / "values.csv").write_text(table)
    changes = ["source=mp", "labels=values.csv", "target=K"]
    found = CliRunner().invoke(app, ["screen", "--dry-run", *(f"--set=training.{change}" for change in changes)])
    assert found.exit_code == 2
    assert said in " ".join(found.stderr.split())
