"""A campaign over several weeks on a real Prefect server: nothing new, new entries, labels that came, another model."""

import asyncio
import json
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distributed import LocalCluster
from prefect import task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey, FlowRunFilter, FlowRunFilterId
from typer.testing import CliRunner

from atomsets_core.campaigns.last_run import read_changes, read_standing
from atomsets_core.campaigns.layout import CONFRONTED
from atomsets_core.campaigns.model_registry import read_registry
from atomsets_core.storage.store import Store
from atomsets_flows.campaign.sections import Campaign
from atomsets_flows.cli import app
from atomsets_flows.runs import memory
from atomsets_flows.runs.retrain import retrain
from atomsets_flows.runs.screen import screen
from atomsets_flows.runs.states import APPOINTED, KEPT, NOTHING_NEW, PROMOTED, WITH_FAILURES

pytestmark = pytest.mark.usefixtures("forked_workers")

N_LABELLED, SHARD = 60, 16


class World:
    """The two files of a campaign, which change from week to week, and its folder."""

    def __init__(self, folder, table, scheduler):
        self.folder, self.table, self.scheduler = folder, table, scheduler
        self.out = folder / "campaign"
        self.store = Store(self.out)
        self.told = []

    def write(self, labelled, offered):
        """Rows of the elastic data that are labelled, and that are candidates."""
        pq.write_table(self.table.take(pa.array(labelled)), self.folder / "training.parquet")
        pq.write_table(self.table.take(pa.array(offered)).drop_columns(["K_VRH"]), self.folder / "candidates.parquet")

    def campaign(self, **sections):
        raw = {
            "name": "weekly",
            "training": {
                "source": str(self.folder / "training.parquet"),
                "target": "K_VRH",
                "unit": "GPa",
                "transform": "log10",
            },
            "candidates": {"source": str(self.folder / "candidates.parquet")},
            "objective": {"shortlist": 5},
            "features": {"shard_size": SHARD},
            "model": {"members": 4, "folds": 2, "epochs": 4, "phi": [16], "rho": [16]},
            "discovery": {"seeds": 1},
            "cluster": {"address": self.scheduler},
        }
        for name, changes in sections.items():
            raw[name] = {**raw.get(name, {}), **changes}
        return Campaign.model_validate(raw)

    def screen(self, **sections):
        """A run; the name of its state and its result."""
        state = screen(self.campaign(**sections), str(self.out), return_state=True)
        return state, state.result()

    @property
    def latest(self):
        return read_changes(self.store)["latest"]

    @property
    def registry(self):
        return read_registry(self.store)

    def ranking(self):
        return pd.read_parquet(self.out / "ranking.parquet")

    def times(self):
        """When each file was written, but for the lock, what a pull writes, and what a run says of itself."""
        said = (".lock", "progress.json", "campaign.json", "campaign.json.sha256")
        files = (path for path in self.out.rglob("*") if path.is_file() and path.name not in said)
        return {path: path.stat().st_mtime_ns for path in files if "structures" not in path.parts}

    def command(self, *words):
        done = CliRunner().invoke(app, ["models", words[0], str(self.out), *words[1:], "--json"])
        return done, json.loads(done.stdout) if done.exit_code == 0 else None


def task_names(state):
    async def read():
        async with get_client() as client:
            wanted = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
            return [run.name for run in await client.read_task_runs(flow_run_filter=wanted)]

    return asyncio.run(read())


@pytest.fixture(scope="module")
def scheduler():
    """Address of a Dask scheduler with one worker, for all runs."""
    with LocalCluster(1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def world(tmp_path_factory, elastic, scheduler):
    table = elastic.to_arrow().select(["material_id", "lattice", "Z", "frac", "K_VRH"])
    return World(tmp_path_factory.mktemp("weekly"), table, scheduler)


@pytest.fixture(scope="module")
def first(world):
    world.write(range(N_LABELLED), range(N_LABELLED, 110))
    return world.screen()


def test_the_first_run_appoints_its_model(world, first):
    state, summary = first
    assert state.name == "Completed"
    champions = list(world.registry.champions.values())
    assert champions == [summary["model"]["folder"]]
    assert "trained on 60 structures" in (world.out / champions[0] / "MODEL.md").read_text()
    assert world.latest["candidates"] is None
    assert "What changed" not in (world.out / "report.html").read_text()


@pytest.fixture(scope="module")
def idle(world, first):
    before = world.times()
    return before, *world.screen()


def test_nothing_new_ends_at_once_and_says_so(world, first, idle):
    before, state, summary = idle
    assert (state.name, state.type.value) == (NOTHING_NEW, "COMPLETED")
    assert "nothing is new since the run of" in state.message
    assert world.times() == before, "no file was written but what was pulled"
    assert sorted(name.partition(" from ")[0] for name in task_names(state)) == ["pull candidates", "pull training"]
    assert {summary["done"][name] for name in ("shards_made", "models_trained", "shards_predicted")} == {0}
    assert summary["counts"] == first[1]["counts"]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("report.html", None),
        ("ranking.csv", lambda data: data.replace(b"0", b"1", 1)),
        ("failures.parquet", lambda data: data[:-1]),
    ],
)
def test_a_damaged_output_is_something_new(world, idle, name, damage):
    whole = (world.out / name).read_bytes()
    if damage is None:
        (world.out / name).unlink()
    else:
        (world.out / name).write_bytes(damage(whole))
    state, summary = world.screen()
    assert state.name == "Completed"
    assert name in " ".join(world.latest["why"])
    assert not sum(summary["done"][work] for work in ("shards_made", "models_trained", "shards_predicted"))
    assert (world.out / name).is_file()
    if name != "report.html":
        assert (world.out / name).read_bytes() == whole


@pytest.fixture(scope="module")
def second(world, idle):
    """30 new candidates, 3 withdrawn, and values for the first twelve of the last ranking."""
    before = world.ranking()
    names = world.table["material_id"].to_pylist()
    found = [names.index(name) for name in before["material_id"][:12]]
    gone = [names.index(name) for name in before["material_id"][20:23]]
    offered = [row for row in range(N_LABELLED, 140) if row not in gone]
    world.write([*range(N_LABELLED), *found], offered)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(memory, "entered_top_ten", lambda name, rows, **_: world.told.append((name, rows)))
        return before, *world.screen()


def test_only_what_is_new_is_worked_on(world, first, second):
    _, state, summary = second
    assert state.name == "Completed"
    new = 30
    assert summary["done"]["shards_made"] == -(-new // SHARD)
    assert summary["done"]["shards_predicted"] == -(-new // SHARD)
    assert summary["done"]["models_trained"] == summary["done"]["discoveries_simulated"] == 0
    assert summary["model"]["folder"] == first[1]["model"]["folder"], "new labels don't swap the model by themselves"
    training = summary["counts"]["training"]
    assert (training["pulled"], training["labelled"], training["learned_from"]) == (72, 72, 60)
    before = first[1]["counts"]["candidates"]["ranked"]
    assert summary["counts"]["candidates"]["ranked"] == before + new - 12 - 3


def test_what_changed(world, second):
    before, _, _ = second
    record, after, n = world.latest, world.ranking(), len(before)
    assert record["candidates"] == {"before": n, "now": n + 15, "new": 30, "gone": 15, "revised": 0}
    assert record["labels"] == {"now": 72, "learned_from": 60, "new": 12, "changed": 0, "withdrawn": 0}
    assert set(record["why"]) >= {"the training data changed", "the candidates changed"}
    # everything on the old shortlist that became known left it for that reason
    known = set(before["material_id"][:12])
    old = set(before[before["shortlist"]]["material_id"])
    why = {move["material_id"]: move["why"] for move in record["shortlist"]["left"]}
    assert {name for name, reason in why.items() if reason == "its value is now known"} == known & old
    entered = {move["material_id"] for move in record["shortlist"]["entered"]}
    assert entered == set(after[after["shortlist"]]["material_id"]) - old
    # the same model said the same of what was there before
    assert record["predictions"]["compared"] == n - 15
    assert record["predictions"]["mean_absolute_shift"] == pytest.approx(0.0, abs=1e-9)
    assert record["drift"]["n_new"] == 30


def test_predictions_are_held_against_values_that_came_later(world, second):
    before, _, _ = second
    found = world.latest["confronted"]
    truth = dict(zip(world.table["material_id"].to_pylist(), world.table["K_VRH"].to_pylist(), strict=True))
    assert [row["material_id"] for row in found["rows"]] == list(before["material_id"][:12])
    for row, (_, said) in zip(found["rows"], before[:12].iterrows(), strict=True):
        assert (row["value"], row["predicted"]) == (truth[row["material_id"]], said["predicted"])
        assert row["inside"] == (said["lower"] <= row["value"] <= said["upper"])
        assert row["error"] == pytest.approx(np.log10(said["predicted"] / row["value"]))
    assert found["now"]["n"] == found["all"]["n"] == 12
    assert found["now"]["coverage"] == pytest.approx(np.mean([row["inside"] for row in found["rows"]]))


def test_it_is_told_in_the_report_and_in_an_artifact(world, second):
    page = (world.out / "report.html").read_text()
    assert 'id="changes"' in page
    assert "Values that became known" in page

    async def read():
        async with get_client() as client:
            wanted = ArtifactFilter(key=ArtifactFilterKey(any_=["weekly-changes"]))
            found = await client.read_artifacts(artifact_filter=wanted)
            return max(found, key=lambda artifact: artifact.created).data

    text = asyncio.run(read())
    assert "what changed in run" in text
    assert "30 new candidates, 15 gone" in text
    assert "No longer on the shortlist" in text
    line = read_changes(world.store)["history"][-1]
    assert (line["new"], line["confronted_all"]) == (30, 12)


def test_new_ones_among_the_first_ten_are_announced(world, second):
    before, _, _ = second
    new = world.ranking()[:10]
    new = new[~new["material_id"].isin(before["material_id"][:10])]
    ((name, rows),) = world.told
    assert name == "weekly"
    assert [row["material_id"] for row in rows] == list(new["material_id"])
    assert len(rows) == 10, "all of the old top ten have values now"


def test_a_run_that_is_cut_off_at_its_end_is_made_again_and_counts_once(world, second):
    line, confronted = read_changes(world.store)["history"][-1], world.store.read(CONFRONTED)
    (world.out / "ranking.csv").unlink()

    def cut_off(*_):
        raise RuntimeError("the machine was switched off")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(memory, "remember", cut_off)
        with pytest.raises(RuntimeError, match="switched off"):
            world.screen()
    assert read_standing(world.store).run == line["run"]
    state, _ = world.screen()
    assert state.name == "Completed"
    history = read_changes(world.store)["history"]
    assert [entry["run"] for entry in history[-2:]] == [line["run"], line["run"] + 1]
    assert world.latest["candidates"]["new"] == world.latest["confronted"]["now"]["n"] == 0
    assert world.store.read(CONFRONTED) == confronted
    assert world.screen()[0].name == NOTHING_NEW


@pytest.fixture(scope="module")
def challenged(world, second):
    state = retrain(world.campaign(), str(world.out), return_state=True)
    return state, state.result()


def test_a_challenger_is_judged_twice_and_both_cards_are_kept(world, first, challenged):
    state, result = challenged
    champion, challenger = first[1]["model"]["folder"], result["challenger"]
    assert state.name == result["outcome"]
    assert challenger != champion
    entry = world.registry.entries[challenger]
    duel = world.store.read_json(entry.duel)
    assert duel["promote"] == (duel["folds"]["better"] and duel["discovery"]["better"])
    assert state.name == (PROMOTED if duel["promote"] else KEPT)
    assert result["champion"] == (challenger if duel["promote"] else champion)
    assert duel["folds"]["n"] == 72
    assert "Against the champion" in (world.out / challenger / "MODEL.md").read_text()
    assert (world.out / champion / "MODEL.md").is_file()


def test_old_rows_keep_their_folds(world, first, challenged):
    old = pd.read_parquet(world.out / first[1]["model"]["folder"] / "out_of_fold.parquet").set_index("structure_hash")
    new = pd.read_parquet(world.out / challenged[1]["challenger"] / "out_of_fold.parquet").set_index("structure_hash")
    assert len(new) == len(old) + 12
    pd.testing.assert_series_equal(new.loc[old.index, "fold"], old["fold"])


def test_the_frozen_folds_compare_what_neither_model_saw(world, first, challenged):
    """The champion's error on its own rows is its out-of-fold error, not the smaller one on what it has seen."""
    old = pd.read_parquet(world.out / first[1]["model"]["folder"] / "out_of_fold.parquet")
    duel = world.store.read_json(world.registry.entries[challenged[1]["challenger"]].duel)["folds"]
    own = np.abs(old["mean"] - np.log10(old["value"]))
    new = pd.read_parquet(world.out / challenged[1]["challenger"] / "out_of_fold.parquet")
    assert duel["mae_challenger"] == pytest.approx(np.abs(new["mean"] - np.log10(new["value"])).mean(), rel=1e-5)
    # 60 of the 72 rows are known exactly; the others can't have an error below 0
    assert duel["mae_champion"] * 72 > own.sum() * (1 - 1e-5)


def test_retraining_on_the_same_labels_is_nothing_new(world, challenged):
    state = retrain(world.campaign(), str(world.out), return_state=True)
    assert state.name == NOTHING_NEW
    assert len(world.registry.entries) == 2


@pytest.fixture(scope="module")
def by_hand(world, first, challenged):
    """The challenger is champion, whatever the comparison said."""
    challenger = challenged[1]["challenger"]
    if challenged[1]["champion"] != challenger:
        done, told = world.command("promote", challenger.removeprefix("models/")[:6])
        assert done.exit_code == 0, done.output
        assert told == {"champion": challenger, "instead_of": first[1]["model"]["folder"]}
    return world.ranking(), *world.screen()


def test_the_screening_uses_the_champion(world, challenged, by_hand):
    _, state, summary = by_hand
    assert state.name == "Completed"
    assert summary["model"]["folder"] == challenged[1]["challenger"]
    assert summary["counts"]["training"]["learned_from"] == 72
    assert world.latest["why"] == ["the model changed"]
    assert world.latest["predictions"]["mean_absolute_shift"] > 0


def test_going_back_is_one_command(world, first, by_hand):
    before, _, _ = by_hand
    done, told = world.command("rollback")
    assert done.exit_code == 0, done.output
    assert told["champion"] == first[1]["model"]["folder"]
    _, summary = world.screen()
    assert summary["done"]["shards_predicted"] == 0
    pd.testing.assert_frame_equal(world.ranking(), before)
    # who was gone back from doesn't come back by himself
    state = retrain(world.campaign(), str(world.out), return_state=True)
    assert state.result()["champion"] == told["champion"]
    assert "set aside by hand" in state.message
    done, _ = world.command("rollback")
    assert done.exit_code == 2
    assert "is the first champion" in done.output
    done, told = world.command("list")
    assert {model["folder"] for model in told["models"]} == set(world.registry.entries)


def test_a_campaign_that_is_defined_anew_starts_anew_and_back(world, first, by_hand):
    old = first[1]["model"]["folder"]
    state, summary = world.screen(discovery={"seeds": 0})
    assert state.name == "Completed"
    assert summary["model"]["folder"] != old
    assert summary["counts"]["training"]["learned_from"] == 72
    assert len(world.registry.champions) == 2
    _, summary = world.screen()
    assert summary["model"]["folder"] == old
    assert summary["done"]["models_trained"] == 0


def test_new_labels_replace_the_model_where_the_campaign_says_so(world, by_hand):
    asked = {"standing": {"new_labels": "replace"}, "discovery": {"seeds": 0}}
    world.write(range(N_LABELLED + 5), range(N_LABELLED, 110))
    before = len(world.registry.entries)
    state, summary = world.screen(**asked)
    assert state.name == "Completed"
    assert len(world.registry.entries) == before + 1
    assert summary["counts"]["training"]["learned_from"] == N_LABELLED + 5
    assert world.latest["duel"]["promote"]
    assert world.screen(**asked)[0].name == NOTHING_NEW


def test_new_labels_challenge_the_model_where_the_campaign_says_so(world, by_hand):
    asked = {"standing": {"new_labels": "challenge"}, "discovery": {"seeds": 0}}
    champion = world.screen(**asked)[1]["model"]["folder"]
    world.write(range(N_LABELLED + 20), range(N_LABELLED + 20, 110))
    state, summary = world.screen(**asked)
    assert state.name == "Completed"
    duel = world.latest["duel"]
    assert duel["champion"] == champion
    assert summary["model"]["folder"] == duel["challenger" if duel["promote"] else "champion"]
    decisions = len(world.registry.log)
    (world.out / "report.html").unlink()
    world.screen(**asked)
    assert len(world.registry.log) == decisions, "a challenger is judged once"


def test_failures_have_a_state_of_their_own_and_are_mended_by_the_next_run(world, by_hand, monkeypatch):
    @task
    def breaks(number, total, job):
        raise RuntimeError("the rack lost its power")

    world.write(range(N_LABELLED), range(N_LABELLED, 150))
    with monkeypatch.context() as patched:
        patched.setattr(sys.modules[screen.fn.__module__], "featurize_shard", breaks)
        state, summary = world.screen()
    assert (state.name, state.type.value) == (WITH_FAILURES, "COMPLETED")
    assert "1 of 1 shards of the candidates could not be made" in state.message
    assert not read_standing(world.store).whole
    assert summary["counts"]["candidates"]["failed_by_stage"] == {"featurize": 10}
    state, again = world.screen()
    assert state.name == "Completed"
    assert "some work failed in the last run" in world.latest["why"]
    assert again["counts"]["candidates"]["ranked"] == summary["counts"]["candidates"]["ranked"] + 10
    assert world.screen()[0].name == NOTHING_NEW


def test_retraining_without_a_campaign_appoints(world, by_hand, tmp_path):
    shared = {"store": str(world.out / "features")}
    asked = world.campaign(features=shared, discovery={"seeds": 0})
    state = retrain(asked, str(tmp_path), return_state=True)
    assert state.name == APPOINTED
    assert state.result()["champion"] == read_registry(Store(tmp_path)).log[-1].model
    assert not (tmp_path / "ranking.parquet").exists()
