"""The command line: exit codes, one JSON line on stdout, messages on stderr, and a run killed in the middle."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from atomsets_flows.cli import app

SMALL = [
    "--set=features.shard_size=48",
    "--set=model.members=4",
    "--set=model.folds=2",
    "--set=model.epochs=2",
    "--set=discovery.seeds=1",
    "--set=discovery.heads=['AtomSets','ridge']",
    "--set=candidates.filters.n_atoms={max=2}",
    "--set=cluster.workers=2",
]


def invoke(*arguments):
    return CliRunner().invoke(app, ["screen", *arguments])


def test_a_wrong_key_ends_with_2_and_says_which(tmp_path):
    result = invoke("--out", str(tmp_path / "out"), "--set", "model.memebers=3")
    assert result.exit_code == 2
    assert "model.memebers: unknown key; did you mean 'members'?" in result.stderr
    assert not result.stdout


def test_a_missing_file_ends_with_2(tmp_path):
    result = invoke(str(tmp_path / "nowhere.toml"))
    assert result.exit_code == 2
    assert "nowhere.toml: there is no such campaign file" in result.stderr


def test_an_unwritable_folder_ends_with_2(tmp_path):
    (tmp_path / "file").write_text("")
    result = invoke("--out", str(tmp_path / "file" / "out"))
    assert result.exit_code == 2
    assert "can't be written" in result.stderr


@pytest.mark.parametrize(("argument", "code"), [("--version", 0), ("nonsense", 2)])
def test_threads_that_libraries_leave_in_compiled_code_don_t_abort_the_process(argument, code):
    program = """
import sys, threading, torch
from flows import cli

def work(matrix=torch.ones(200, 200)):
    while True:
        matrix @ matrix

for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
sys.argv = ["atomsets", sys.argv[1]]
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", program, argument], capture_output=True, text=True, check=False)
    assert (done.returncode, bool(done.stdout)) == (code, code == 0), done.stderr


def test_an_unknown_data_set_ends_with_2(tmp_path):
    result = invoke("--out", str(tmp_path), "--set", "training.source=embedded:gold")
    assert result.exit_code == 2
    assert "no embedded data set 'gold'; there are elastic, dielectric, moduli, flla" in result.stderr


def command(out):
    return [sys.executable, "-m", "atomsets_flows.cli", "screen", "--out", str(out), "--json", *SMALL]


def entries(out):
    return {path: path.stat().st_mtime_ns for path in (out / "features").rglob("*.json")}


@pytest.mark.slow
def test_killed_in_the_middle_of_featurisation_it_makes_only_what_is_missing(tmp_path):
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command(tmp_path), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 180
    while len(entries(tmp_path)) < 3:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "no shard within three minutes"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.5)
    before = entries(tmp_path)
    assert not (tmp_path / "summary.json").exists()

    again = subprocess.run(command(tmp_path), env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr[-3000:]
    summary = json.loads(again.stdout.splitlines()[-1])
    after = entries(tmp_path)
    assert {path: after[path] for path in before} == before, "a finished shard was made again"
    assert summary["done"]["shards_made"] == len(after) - len(before) > 0
    candidates = summary["counts"]["candidates"]
    assert candidates["pulled"] == candidates["ranked"] + candidates["filtered"] + candidates["failed"] == 3938
    assert summary["counts"]["training"]["learned_from"] == 1181
    assert re.search(r"AtomSets +\d\.\d+", again.stderr), "the discovery table is printed"
    assert "Traceback" not in again.stderr


def test_train_and_predict(tmp_path, elastic):
    import pandas as pd
    import pyarrow.parquet as pq

    source, model, out = tmp_path / "few.parquet", tmp_path / "model", tmp_path / "predictions.csv"
    pq.write_table(elastic.to_arrow().slice(0, 40), source)
    train = ["train", str(source), "--target", "K_VRH", "--unit", "GPa", "--transform", "log10", "--json"]
    done = CliRunner().invoke(app, [*train, "--out", str(model)])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["n_train"] == 40
    assert {path.name for path in model.iterdir()} == {
        "MODEL.md",
        "failures.parquet",
        "model.json",
        "model.safetensors",
        "out_of_fold.csv",
    }
    card = (model / "MODEL.md").read_text()
    assert "trained on 40 structures" in card
    assert "The MEGNet parent was trained on the formation energies" in card

    done = CliRunner().invoke(app, ["predict", str(model), str(source), "--out", str(out), "--json"])
    assert done.exit_code == 0, done.stderr
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts.pop("peak_memory_mb") > 0
    ledger = str(out.with_name("predictions.failures.parquet"))
    assert counts == {"predicted": 40, "failed": 0, "no_bulk": 0, "out": str(out), "failures": [], "ledger": ledger}
    frame = pd.read_csv(out)
    truth = elastic.columns["K_VRH"].to_numpy()[:40]
    assert abs(frame["predicted"] / truth - 1).median() < 0.2


@pytest.mark.slow
def test_a_killed_training_ends_with_the_model_it_would_have_made(tmp_path, elastic):
    import pyarrow.parquet as pq
    import safetensors.torch

    source, store = tmp_path / "some.parquet", tmp_path / "features"
    pq.write_table(elastic.to_arrow().slice(0, 400), source)

    def arguments(out):
        train = ["train", str(source), "--target", "K_VRH", "--transform", "log10", "--store", str(store)]
        return [*train, "--out", str(tmp_path / out), "--json"]

    # One thread for both: the last digit of a sum depends on how it is split.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "atomsets_flows.cli", *arguments("undisturbed")]
    undisturbed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert undisturbed.returncode == 0, undisturbed.stderr[-3000:]
    command = [sys.executable, "-m", "atomsets_flows.cli", *arguments("killed")]
    made = set(store.rglob("*.parquet"))
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoint = tmp_path / "killed" / "checkpoint.safetensors"
    deadline = time.monotonic() + 180
    while not checkpoint.exists():
        assert process.poll() is None, "the training ended before it could be killed"
        assert time.monotonic() < deadline, "no checkpoint within three minutes"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # behind the tensors stands their sha256
    assert 10 <= len(safetensors.torch.load(checkpoint.read_bytes()[:-32])["losses"]) < 60
    assert not (tmp_path / "killed" / "model.json").exists()

    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr[-3000:]
    assert not checkpoint.exists()
    assert set(store.rglob("*.parquet")) == made, "features were made again"
    files = [(tmp_path / out / "model.safetensors").read_bytes() for out in ("undisturbed", "killed")]
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "{out}", "--out", "{out}/p.csv"], "name the structures, or a feature store"),
        (["train", "embedded:elastic", "--target", "nothing", "--out", "{out}"], "no column 'nothing'"),
        (
            ["train", "embedded:elastic", "--target", "K_VRH", "--out", "{out}", "--features", "megnet:V9"],
            "no level 'V9'",
        ),
        (["predict", "{out}/nowhere", "embedded:flla", "--out", "{out}/p.csv"], "model.json does not exist"),
        (["predict", "{out}", "embedded:flla", "--out", "{out}/p.xls"], "must end in .csv or .parquet"),
    ],
)
def test_wrong_requests_of_train_and_predict_end_with_2(tmp_path, arguments, message):
    result = CliRunner().invoke(app, [argument.format(out=tmp_path) for argument in arguments])
    assert result.exit_code == 2
    assert message in result.stderr


def invoke_ok(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.stderr
    return done, json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}


FEW = ["--set", "members=4", "--set", "folds=2", "--set", "epochs=4", "--set", "phi=8", "--set", "rho=8", "--json"]


def formulas_csv(path):
    rows = [f"Fe{0.9 - x / 100:.3f}Ni0.1C{x / 100:.3f},{x * 10},{'hard' if x > 20 else 'soft'}" for x in range(1, 41)]
    path.write_text("\n".join(["formula,strength,kind", *rows, "nonsense,1,soft", "Fe,,"]) + "\n")
    return path


def test_a_table_of_formulas_needs_nothing_but_a_target(tmp_path):
    import pandas as pd

    source, model, out = formulas_csv(tmp_path / "steels.csv"), tmp_path / "model", tmp_path / "p.csv"
    done, said = invoke_ok(
        "train", source, "--target", "strength", "--unit", "MPa", "--out", model, *FEW, "--holdout", "0.2"
    )
    assert said["n_train"] == 40
    assert said["features"] == "megnet:V0,amount:fraction+log"
    assert said["held_out"]["n_test"] == 8
    assert said["peak_memory_mb"] > 100
    assert "held out (8 rows)" in done.stderr
    assert "steels-40: not a chemical formula: 'nonsense'" in done.stderr
    assert "steels-41: strength is missing" in done.stderr
    card = (model / "MODEL.md").read_text()
    assert "# strength (MPa)" in card
    assert "Scores on 8 rows held out, after training on the other 32" in card
    _, said = invoke_ok("predict", model, source, "--out", out, "--json")
    assert (said["predicted"], said["failed"]) == (41, 1)
    frame = pd.read_csv(out)
    assert list(frame["material_id"][:2]) == ["steels-0", "steels-1"]
    assert ((frame["lower"] <= frame["predicted"]) & (frame["predicted"] <= frame["upper"])).all()


def test_classes_are_learned_and_predicted(tmp_path):
    import pandas as pd
    import pyarrow.parquet as pq

    source, model, out = formulas_csv(tmp_path / "steels.csv"), tmp_path / "model", tmp_path / "p.parquet"
    done, said = invoke_ok("train", source, "--target", "kind", "--task", "classification", "--out", model, *FEW)
    assert 0 <= said["roc_auc"] <= 1
    assert "out of fold: accuracy" in done.stderr
    assert "- accuracy" in (model / "MODEL.md").read_text()
    assert list(pd.read_csv(model / "out_of_fold.csv"))[2:6] == ["value", "predicted", "p_hard", "p_soft"]
    invoke_ok("predict", model, source, "--out", out)
    frame = pq.read_table(out).to_pandas()
    assert set(frame["predicted"]) <= {"hard", "soft"}
    assert abs(frame["p_hard"] + frame["p_soft"] - 1).max() < 1e-6


def test_several_targets_parents_and_a_simulated_discovery(tmp_path, elastic):
    import pandas as pd
    import pyarrow.parquet as pq

    source, model = tmp_path / "few.parquet", tmp_path / "model"
    pq.write_table(elastic.to_arrow().slice(0, 60), source)
    _, said = invoke_ok(
        "train", source, "--target", "K_VRH", "--target", "G_VRH", "--transform", "log10", "--out", model, *FEW,
        "--features", "megnet:V0+V1,amount:fraction", "--store", tmp_path / "features",
    )  # fmt: skip
    assert set(said["targets"]) == {"K_VRH", "G_VRH"}
    assert len(list((tmp_path / "features").rglob("*.parquet"))) == 2
    for arguments in ([source], []):
        out = tmp_path / "p.csv"
        invoke_ok("predict", model, *arguments, "--store", tmp_path / "features", "--out", out)
        frame = pd.read_csv(out)
        assert len(frame) == 60
        assert {"predicted_K_VRH", "upper_G_VRH", "in_domain"} <= set(frame)
    single = tmp_path / "single"
    _, said = invoke_ok(
        "train", source, "--target", "K_VRH", "--transform", "log10", "--out", single, *FEW, "--discovery", "2"
    )
    assert said["discovery"]["heads"][0]["head"] == "AtomSets"
    assert said["discovery"]["n_hidden"] == 6
    card = (single / "MODEL.md").read_text()
    assert "Beyond the training range: simulated discovery, mean of 2 seeds" in card
    assert "| AtomSets | 0." in card or "| AtomSets | 1." in card


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "ranking"], "there are regression, classification"),
        (["--target", "kind"], "none of the 41 values of 'kind' can be learned from"),
        (["--target", "strength", "--features", "megnet:V1"], "megnet:V1 needs coordinates; from compositions alone"),
        (["--target", "strength", "--set", "membres=3"], "write it as name=value; there are"),
        (["--target", "kind", "--task", "classification", "--discovery", "1"], "--discovery is for regression"),
        (["--target", "strength", "--holdout", "1.5"], "a share of 1.5 of 40 rows can't be held out"),
    ],
)
def test_wrong_requests_for_formulas_end_with_2(tmp_path, arguments, message):
    few = ["--set", "members=2", "--set", "folds=2", "--set", "epochs=1"]
    target = [] if "--target" in arguments else ["--target", "strength"]
    source = str(formulas_csv(tmp_path / "steels.csv"))
    result = CliRunner().invoke(app, ["train", source, "--out", str(tmp_path / "m"), *few, *target, *arguments])
    assert result.exit_code == 2, result.output
    assert message in result.stderr


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    """A model of formulas, trained from a table as a spreadsheet exports it."""
    place = tmp_path_factory.mktemp("small")
    metals = ("Li", "Na", "K", "Mg", "Ca", "Sr", "Ba", "Zn", "Cd", "Al", "Ga", "In")
    rows = [
        f"{metal}{other};{i},{j}(1) eV;x" for i, metal in enumerate(metals) for j, other in enumerate(("O", "S"), 1)
    ]
    table = place / "gaps.csv"
    table.write_text("\n".join(["# 2021", "chemical formula;gap;set", *rows, "MgSe;~3 eV;x"]) + "\n")
    options = ["--set=members=2", "--set=folds=2", "--set=epochs=2", "--features=amount"]
    result = CliRunner().invoke(app, ["train", str(table), "--target=gap", f"--out={place / 'model'}", *options])
    assert result.exit_code == 0, result.stderr
    return place, result


def test_training_says_how_a_table_was_read_and_keeps_its_unit(small_model):
    place, result = small_model
    for said in ("semicolons between columns", "1 comment line passed over", "gap: read with decimal commas"):
        assert said in result.stderr
    assert "learned from 24 of 25 entries" in result.stderr
    assert "gap is not a number: '~3 eV' (row 27)" in result.stderr
    assert json.loads((place / "model" / "model.json").read_text())["about"]["unit"] == "eV"


def test_what_has_no_prediction_is_in_a_ledger_and_listed(small_model):
    import pyarrow.parquet as pq

    place, _ = small_model
    new = place / "new.csv"
    new.write_text("formula\nMgO\nCuSO4.5H2O\nLa1-xSrxMnO3\nNaN\n")
    out = place / "predictions.csv"
    result = CliRunner().invoke(app, ["predict", str(place / "model"), str(new), f"--out={out}", "--json"])
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert (told["predicted"], told["failed"]) == (2, 2)
    assert [failure["material_id"] for failure in told["failures"]] == ["new-2", "new-3"]
    ledger = pq.read_table(told["ledger"]).to_pylist()
    assert [row["material_id"] for row in ledger] == ["new-2", "new-3"]
    assert "the cell reads 'NaN'" in ledger[1]["reason"]
    assert str(place / "predictions.failures.parquet") in result.stderr


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--unit=meV"], "gap is in eV in the source, and you say meV"),
        (["--separator=::"], "separator '::'"),
        (["--id-column=name"], "no column 'name' for the identifiers"),
        (["--repeats=first"], "there are median, mean, latest, drop, keep"),
    ],
)
def test_options_that_do_not_fit_the_table_end_with_2(small_model, more, message):
    place, _ = small_model
    table = place / "twice.csv"
    table.write_text("formula;gap\nMgO;7,8 eV\nMgO;4,8 eV\n" + "".join(f"Mg{n}O;{n},5 eV\n" for n in range(2, 12)))
    arguments = ["train", str(table), "--target=gap", f"--out={place / 'other'}", "--features=amount", *more]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert message in result.stderr
