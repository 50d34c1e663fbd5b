"""`atomsets featurize`: what came adds up, and killed workers and runs leave the same shards."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from atomsets_core.features.shards import read_shard
from atomsets_core.features.stored import FeatureStore
from atomsets_core.sources.embedded import load_flla
from atomsets_core.storage.store import Store
from atomsets_flows.cli import app

SIZE = ["--shard-size=64", "--json"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """1,200 embedded structures, some twice, one that the parent can't take, one without sites."""
    table = load_flla().structures.take(np.arange(1200)).to_arrow().select(["material_id", "lattice", "Z", "frac"])
    twice = table.slice(100, 5).set_column(0, "material_id", pa.array([f"again-{i}" for i in range(5)]))
    odd = table.slice(0, 2).set_column(0, "material_id", pa.array(["heavy", "empty"]))
    odd = odd.set_column(2, "Z", pa.array([[95] * len(odd["Z"][0]), []], odd["Z"].type))
    path = tmp_path_factory.mktemp("source") / "structures.parquet"
    pq.write_table(pa.concat_tables([table.slice(0, 600), odd, table.slice(600), twice]), path)
    return path


def command(source, out, workers=1):
    return [
        sys.executable,
        "-m",
        "atomsets_flows.cli",
        "featurize",
        str(source),
        "--out",
        str(out),
        f"--workers={workers}",
        *SIZE,
    ]


def manifest(out):
    return sorted((Path(out) / "megnet-1089ce43edb1ef5e").glob("*.json"))


@pytest.fixture(scope="module")
def undisturbed(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    done = subprocess.run(command(source, out), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return out, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_every_entry_is_accounted_for(undisturbed, source):
    out, summary = undisturbed
    failures = pd.read_parquet(out / "failures.parquet").set_index("material_id")["reason"]
    assert summary["seen"] == 1207 == summary["featurized"] + summary["refused"] + summary["duplicates"]
    assert summary["duplicates"] == 5
    assert failures["empty"] == "it has no sites"
    assert failures["heavy"] == "megnet does not cover Am (atomic number 95)"
    assert len(failures) == summary["refused"]
    assert summary["shards"] == summary["shards_made"] == 19
    index = pd.read_parquet(out / "structures.parquet")
    assert len(index) == 1206
    entries = list(FeatureStore(Store(out), "megnet", summary["digest"], ()).entries())
    held = {h for entry in entries for h in entry.hashes}
    without = index.set_index("material_id").loc[failures.index.drop("empty"), "structure_hash"]
    assert set(index["structure_hash"]) - held == set(without)
    assert summary["bytes"] == sum(path.stat().st_size for path in out.rglob("megnet-*/*.parquet"))
    assert not list((out / "queue").iterdir())
    assert len(summary["peak_memory_mb"]) == 2
    assert all(50 < peak < 3000 for peak in summary["peak_memory_mb"].values())


@pytest.mark.slow
def test_the_features_are_the_parents(undisturbed, megnet):
    out, summary = undisturbed
    entry = next(FeatureStore(Store(out), "megnet", summary["digest"], ()).entries())
    found = read_shard(Store(out), entry)
    structures = load_flla().structures
    row = {h: i for i, h in enumerate(structures.hashes)}
    expected = megnet.featurize(structures.take([row[h] for h in found.structure_hash]), entry.levels)
    assert set(found.sites) == {"V0", "V1", "V2", "V3"}
    for level, values in found.sites.items():
        np.testing.assert_array_equal(values, expected.sites[level])
    assert entry.bonds == expected.bonds > 0


@pytest.mark.slow
def test_killed_workers_and_a_killed_run_leave_the_same_shards(undisturbed, source, tmp_path):
    _, expected = undisturbed
    process = subprocess.Popen(
        command(source, tmp_path, workers=2),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for(lambda: len(manifest(tmp_path)) >= 2, process)
    children = [p for p in psutil.Process(process.pid).children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]
    workers = [p for p in children if "spawn_main" in " ".join(p.cmdline())]
    workers[0].kill()
    reached = len(manifest(tmp_path))
    wait_for(lambda: len(manifest(tmp_path)) >= reached + 2, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.5)
    before = {path: path.stat().st_mtime_ns for path in manifest(tmp_path)}
    assert len(before) >= 4
    assert not (tmp_path / "summary.json").exists()
    again = subprocess.run(command(source, tmp_path), capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr[-3000:]
    summary = json.loads(again.stdout.splitlines()[-1])
    assert summary["manifest_sha256"] == expected["manifest_sha256"]
    assert summary["shards_made"] == 19 - len(before)
    assert {path: path.stat().st_mtime_ns for path in before} == before, "a finished shard was made again"
    for name in ("seen", "featurized", "refused", "duplicates", "sites", "bonds", "bytes"):
        assert summary[name] == expected[name], name


def wait_for(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "the run ended before it could be disturbed"
        assert time.monotonic() < deadline, "nothing happened within two minutes"
        time.sleep(0.01)


@pytest.mark.slow
def test_a_second_run_starts_no_cluster(undisturbed, source, monkeypatch):
    out, expected = undisturbed
    monkeypatch.setattr("atomsets_tasks.clusters.LocalCluster", lambda *_, **__: pytest.fail("a cluster was started"))
    done = CliRunner().invoke(app, ["featurize", str(source), "--out", str(out), *SIZE])
    assert done.exit_code == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["shards_made"] == 0
    assert summary["manifest_sha256"] == expected["manifest_sha256"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.parquet"], "nowhere.parquet"),
        (["embedded:flla", "--parent=gpt"], "no parent named 'gpt'"),
        (["embedded:flla", "--levels=V0+V9"], "no level 'V9'; it has V0, V1, V2, V3"),
        (["embedded:flla", "--campaign=nowhere.toml"], "nowhere.toml: there is no such campaign file"),
    ],
)
def test_wrong_requests_end_with_2(tmp_path, arguments, message):
    done = CliRunner().invoke(app, ["featurize", *arguments, "--out", str(tmp_path)])
    assert done.exit_code == 2, done.stderr
    assert message in done.stderr.replace("\n", " ")
