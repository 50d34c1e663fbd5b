"""A few of the faults of `make faults`, as many as the time of a test suite allows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from atomsets_core.campaigns.verification import verify
from atomsets_core.features import specification
from atomsets_core.storage.store import StorageError, Store, units_of
from tests.faults.damage import FILES, KINDS, Damages
from tests.faults.kills import Kills
from tests.faults.mini import differences
from tests.faults.rig import ROOT
from tests.faults.surroundings import CannotMountError, Surroundings

GOLDEN = Path(__file__).resolve().parents[1] / "data" / "golden"


@pytest.mark.slow
@pytest.mark.parametrize(("victim", "seed"), [("flow", 0), ("flow", 3), ("worker", 1)])
def test_a_run_that_was_killed_is_completed_by_a_plain_one(kills: Kills, victim: str, seed: int):
    killed = kills.kill(victim, seed)
    while killed is None:  # it was done before
        seed += 1
        killed = kills.kill(victim, seed)
    assert killed.wrong == []
    assert killed.run == ("killed" if victim == "flow" else "finished")


@pytest.fixture(scope="session")
def damages(kills: Kills, tmp_path_factory: pytest.TempPathFactory) -> Damages:
    return Damages(kills.rig, tmp_path_factory.mktemp("damages"), kills.undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_verify_names_every_damaged_file(damages: Damages, kind: str):
    assert [wrong for file in FILES for wrong in damages.named(kind, file, seed=0)] == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bit flipped", "another campaign's"])
def test_a_plain_run_makes_damaged_files_again(damages: Damages, kind: str):
    assert damages.run(kind, tuple(FILES), seed=0).wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("file", ["predictions", "manifest entry", "checksum"])
def test_a_run_after_a_repair_makes_one_damaged_file_again(damages: Damages, file: str):
    assert damages.run("another campaign's", (file,), seed=1).wrong == []


@pytest.mark.slow
def test_two_runs_at_once_a_full_disk_and_a_read_only_one(kills: Kills, tmp_path: Path):
    surroundings = Surroundings(kills.rig, tmp_path, kills.undisturbed)
    assert surroundings.at_once(0) == []
    try:
        assert surroundings.full_disk(1) == []
        assert surroundings.read_only(1) == []
    except CannotMountError as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_two_workers_give_the_ranking_of_one(kills: Kills):
    kills.rig.n_workers = 2
    try:
        out = kills.place / "two-workers"
        kills.rig.finish(kills.campaign, out)
    finally:
        kills.rig.n_workers = 1
    assert differences(out, kills.undisturbed) == []


@pytest.mark.slow
def test_training_rows_in_another_order_are_the_same_model(kills: Kills, tmp_path: Path):
    from tests.faults.mini import campaign, write_inputs

    write_inputs(tmp_path / "inputs")
    file = tmp_path / "inputs/training.parquet"
    table = pq.read_table(file)
    pq.write_table(table.take(np.random.default_rng(0).permutation(table.num_rows)), file)
    kills.rig.finish(campaign(tmp_path / "inputs"), tmp_path / "out")
    ours, theirs = (json.loads((out / "summary.json").read_text()) for out in (tmp_path / "out", kills.undisturbed))
    assert ours["model"]["folder"] == theirs["model"]["folder"]
    rankings = [pd.read_parquet(out / "ranking.parquet") for out in (tmp_path / "out", kills.undisturbed)]
    assert rankings[0]["material_id"].tolist() == rankings[1]["material_id"].tolist()
    # The training structures were featurised beside others, which moves the last digits.
    np.testing.assert_allclose(rankings[0]["predicted"], rankings[1]["predicted"], rtol=1e-3)


@pytest.mark.slow
def test_the_golden_run(kills: Kills):
    """Kept numbers; other processors and libraries may differ in the last digits, which a training spreads a little."""
    golden = pd.read_csv(GOLDEN / "ranking.csv").set_index("material_id")
    ranking = pd.read_csv(kills.undisturbed / "ranking.csv").set_index("material_id")
    assert set(ranking.index) == set(golden.index)
    ranking = ranking.loc[golden.index]
    for name, tolerance in (("predicted", 0.02), ("lower", 0.05), ("upper", 0.05)):
        np.testing.assert_allclose(ranking[name], golden[name], rtol=tolerance)
    assert np.corrcoef(ranking["rank"], golden["rank"])[0, 1] > 0.99
    assert (ranking["formula"] == golden["formula"]).all()
    counts = json.loads((kills.undisturbed / "summary.json").read_text())["counts"]
    assert counts == json.loads((GOLDEN / "counts.json").read_text())


@pytest.mark.slow
def test_a_unit_stands_beside_every_stored_number(kills: Kills):
    out, without = kills.undisturbed, {"rank", "fold", "in_domain", "shortlist"}
    files = [*out.glob("*.parquet"), *out.glob("structures/*.parquet"), *out.glob("models/*/*.parquet")]
    files += list(out.glob("predictions/*/*.parquet"))
    assert len(files) > 8
    for path in files:
        schema = pq.read_schema(path)
        numbers = [f.name for f in schema if "string" not in str(f.type) and f.name not in without]
        own = {"training.parquet": {"K_VRH"}}.get(path.name, set())  # the source's column, whose unit it doesn't say
        assert set(numbers) - set(units_of(schema)) - own == set(), path
    units = json.loads((out / "summary.json").read_text())["units"]
    assert (units["predicted"], units["std"], units["mae"]) == ("GPa", "GPa", "log10(GPa)")


@pytest.mark.slow
def test_verify_repairs_what_is_damaged_and_nothing_else(kills: Kills, tmp_path: Path):
    import shutil

    out = tmp_path / "out"
    shutil.copytree(kills.undisturbed, out)
    shard = sorted(out.glob("features/*/*.parquet"))[0]
    shard.write_bytes(shard.read_bytes()[:-100])
    (out / "report.html").unlink()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("models/*/*")}

    def verify(*options: str) -> tuple[int, dict]:
        command = [sys.executable, "-m", "atomsets_flows.cli", "verify", str(out), "--json", *options]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode in (0, 1), done.stderr
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout.splitlines()[-1])

    code, found = verify()
    assert code == 1
    assert {finding["file"].rsplit("/", 1)[-1] for finding in found["findings"]} == {shard.name, "report.html"}
    # The campaign was run on a cluster that is named by its address and still there.
    code, found = verify("--repair", "--as-named")
    assert (code, found["whole"], found["repaired"]) == (0, True, 2)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert differences(out, kills.undisturbed) == []
    assert Store(out).exists("report.html")


@pytest.mark.slow
def test_a_parent_that_is_not_here_is_no_damage(kills: Kills, monkeypatch: pytest.MonkeyPatch):
    def unknown(name: str) -> None:
        raise ValueError(f"no parent named {name!r}")

    monkeypatch.setattr(specification, "load_parent", unknown)
    with pytest.raises(StorageError, match="can't be checked on this machine: no parent named 'megnet'"):
        verify(Store(kills.undisturbed))
