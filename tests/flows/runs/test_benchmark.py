"""`atomsets benchmark` on a real Prefect server and Dask cluster: folds that are done stay done."""

import json

import numpy as np
import pytest

from atomsets_core.sources.base import SourceError
from atomsets_core.sources.matbench import load_dataset
from atomsets_core.storage.store import StorageError
from atomsets_flows.commands.benchmark import tell
from atomsets_flows.runs.benchmark import benchmark

pytestmark = pytest.mark.usefixtures("forked_workers")


@pytest.fixture(scope="module")
def run(shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")

    def call(**options):
        arguments = {"variant": "random-forest", "features": str(folder / "features"), "workers": 1, **options}
        return benchmark("matbench_steels", str(shared / "data"), str(folder / "result.json"), **arguments)

    call.file = folder / "result.json"
    return call


def test_stopped_after_one_fold_it_goes_on_with_the_others(run, shared):
    first = run(folds=[2])
    assert list(first["folds"]) == ["2"]
    assert not first["complete"]
    second = run(folds=[0, 2])
    assert list(second["folds"]) == ["0", "2"]
    assert second["folds"]["2"] == first["folds"]["2"]  # the seconds too: it was not run again
    stored = json.loads(run.file.read_text())
    assert stored["folds"] == second["folds"]
    truth = dict(
        zip(*(load_dataset("matbench_steels", shared / "data").__dict__[k] for k in ("ids", "y")), strict=True)
    )
    predictions = stored["folds"]["0"]["predictions"]
    error = np.mean([abs(truth[name] - value) for name, value in predictions.items()])
    assert stored["folds"]["0"]["scores"]["mae"] == pytest.approx(error)
    assert stored["mean"]["mae"] == pytest.approx(np.mean([f["scores"]["mae"] for f in stored["folds"].values()]))
    assert "2 folds, 312 of 312 rows" in tell(second)[0]


def test_a_result_of_another_seed_is_not_mixed_in(run):
    run(folds=[2])
    with pytest.raises(StorageError, match="is a result of seed 0, not 1: name another file"):
        run(folds=[0], seed=1)


def test_wrong_requests_say_what_there_is(run):
    with pytest.raises(SourceError, match="no variant 'forest'; there are auto"):
        run(variant="forest")
    with pytest.raises(SourceError, match="MLP-v can't be run on matbench_steels"):
        run(variant="MLP-v")
    with pytest.raises(SourceError, match="has no fold 7; it has 0, 1, 2, 3, 4"):
        run(folds=[0, 7])
