"""The weekly campaign through a worker: first run, nothing new, a new release; and what the API keeps of it."""

import json
import time

import pytest

from atomsets_flows.runs.states import NOTHING_NEW
from tests.materials_project_server.running import KEY, QUICK

TINY = {
    "name": "weekly-test",
    "training": {
        "source": "mp", "target": "elasticity.k_vrh", "unit": "GPa", "transform": "log10",
        "query": {"has_props": ["elasticity"], **QUICK},
    },
    "candidates": {"source": "mp", "query": {"energy_above_hull": {"max": 0.05}, **QUICK}},
    "objective": {"shortlist": 5},
    "features": {"shard_size": 64},
    "model": {"members": 2, "folds": 2, "epochs": 5, "phi": [16], "rho": [16]},
    "discovery": {"seeds": 1},
    "cluster": {"workers": 1},
}  # fmt: skip


def run_to_the_end(prefect, name, campaign=TINY, seconds=600):
    """Start a deployment in the server; the flow run when the worker is through with it."""
    with prefect.client() as client:
        deployment = client.read_deployment_by_name(name)
        run = client.create_flow_run_from_deployment(deployment.id, parameters={"campaign": campaign})
        deadline = time.monotonic() + seconds
        while not (run.state and run.state.is_final()):
            assert time.monotonic() < deadline, f"{name} is still {run.state and run.state.name}\n{logs(client, run)}"
            time.sleep(0.3)
            run = client.read_flow_run(run.id)
        assert run.state.is_completed(), f"{run.state}\n{logs(client, run)}"
        return run


def logs(client, run):
    body = {"logs": {"flow_run_id": {"any_": [str(run.id)]}}, "limit": 200, "sort": "TIMESTAMP_ASC"}
    return "\n".join(entry["message"] for entry in client.request("POST", "/logs/filter", json=body).json())


def task_names(client, run):
    body = {"flow_runs": {"id": {"any_": [str(run.id)]}}, "limit": 200}
    return sorted(task["name"] for task in client.request("POST", "/task_runs/filter", json=body).json())


def artifacts(client, run):
    body = {"artifacts": {"flow_run_id": {"any_": [str(run.id)]}}, "limit": 200}
    return {found["key"]: found for found in client.request("POST", "/artifacts/filter", json=body).json()}


def summary_of(prefect):
    return json.loads((prefect.home / "campaigns" / "weekly-test" / "summary.json").read_text())


@pytest.fixture(scope="module")
def first(prefect_with_deployments):
    run = run_to_the_end(prefect_with_deployments, "screen/weekly")
    return run, summary_of(prefect_with_deployments)


def test_the_first_run(prefect_with_deployments, first, materials):
    run, summary = first
    assert run.name.startswith("weekly-test 20")
    assert summary["counts"]["candidates"]["ranked"] > 100
    assert summary["done"]["shards_made"] > 3
    assert summary["sources"]["candidates"]["db_version"] == "2026.10.01"
    with prefect_with_deployments.client() as client:
        names = task_names(client, run)
    for name in ("pull candidates from mp", "featurize shard 1 of", "train models/", "predict shard 1 of", "rank"):
        assert any(found.startswith(name) for found in names), names


def test_artifacts_come_back_through_the_api(prefect_with_deployments, first):
    run, summary = first
    with prefect_with_deployments.client() as client:
        found = artifacts(client, run)
    rows = json.loads(found["weekly-test-shortlist"]["data"])
    assert len(rows) == 5
    assert [row["rank"] for row in rows] == sorted(row["rank"] for row in rows)
    text = found["weekly-test-summary"]["data"]
    assert f"{summary['counts']['candidates']['ranked']} ranked" in text
    assert text.count("data:image/svg+xml;base64,") == 2
    assert found["weekly-test-report"]["data"].endswith("campaigns/weekly-test/report.html)")
    assert float(found["weekly-test-featurize-candidates"]["data"]) == 100.0


def test_the_key_from_the_block_is_nowhere_to_be_read(prefect_with_deployments, first):
    run, _ = first
    with prefect_with_deployments.client() as client:
        told = logs(client, run) + json.dumps(artifacts(client, run)) + client.read_flow_run(run.id).model_dump_json()
    files = [path for path in prefect_with_deployments.folder.rglob("*") if path.is_file() and path.suffix != ".db"]
    assert len(files) > 20
    assert KEY not in told
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_with_nothing_new_it_ends_quickly_and_featurises_nothing(prefect_with_deployments, first, materials):
    before = summary_of(prefect_with_deployments)
    materials.forget()
    started = time.monotonic()
    run = run_to_the_end(prefect_with_deployments, "screen/weekly")
    seconds = time.monotonic() - started
    print(f"a run with nothing new: {seconds:.1f} s from the click to its end")
    assert seconds < 60
    assert not materials.structures()
    with prefect_with_deployments.client() as client:
        names = task_names(client, run)
    assert not [name for name in names if name.startswith(("featurize", "train", "predict"))], names
    assert run.state.name == NOTHING_NEW
    assert "no work was done" in run.state.message
    assert summary_of(prefect_with_deployments) == before


def test_a_new_release_brings_only_what_is_new(prefect_with_deployments, first, materials):
    before = summary_of(prefect_with_deployments)
    hidden = hidden_ids(600, 640)
    materials.forget()
    materials.release("2026.11.01", show=hidden)
    night = run_to_the_end(prefect_with_deployments, "pull/nightly")
    assert night.name.startswith("pull for weekly-test 20")
    sent = materials.structures()
    assert set(sent) <= set(hidden)
    assert len(sent) > 10
    materials.forget()
    run = run_to_the_end(prefect_with_deployments, "screen/weekly")
    # the night brought them: nothing is sent again
    assert not materials.structures()
    after = summary_of(prefect_with_deployments)
    new = after["counts"]["candidates"]["pulled"] - before["counts"]["candidates"]["pulled"]
    assert 10 < new <= len(hidden)
    assert after["sources"]["candidates"]["db_version"] == "2026.11.01"
    with prefect_with_deployments.client() as client:
        shards = [name for name in task_names(client, run) if name.startswith("featurize shard")]
        found = artifacts(client, run)
    assert 1 <= len(shards) <= 2, shards
    assert "weekly-test-changes" in found


def hidden_ids(start, stop):
    import pyarrow.parquet as pq

    from tests.materials_project_server.running import DATA

    ids = pq.read_table(DATA / "flla_2015.parquet", columns=["material_id"])["material_id"].to_pylist()
    return ids[start:stop]
