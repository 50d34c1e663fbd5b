"""Benchmark tasks: the folds are the official ones or there are none."""

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import KFold

from atomsets_core.sources.base import SourceError
from atomsets_core.sources.matbench import CHECKSUMS, FOLD_SEED, TASKS, fold_checksum, load_dataset


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "data"


@pytest.mark.parametrize("name", sorted(CHECKSUMS))
def test_folds_are_the_published_ones(name, folder):
    dataset = load_dataset(name, folder)
    assert fold_checksum(dataset.test_ids) == CHECKSUMS[name]
    for train, test in dataset.folds:
        assert not set(train) & set(test)
        assert len(train) + len(test) == len(dataset)
    here = set(dataset.ids)
    for (_, test), official in zip(dataset.folds, dataset.test_ids, strict=True):
        assert [name for name in official if name in here] == dataset.ids[test].tolist()


@pytest.mark.parametrize("name", [n for n, task in TASKS.items() if task.matbench and not task.classes])
def test_checksums_belong_to_the_stated_rule(name):
    # Without any data: for values the published folds depend on the number of rows alone.
    width = {"mbid": 5, "mbid_g": 5}.get(TASKS[name].identifiers)
    prefix = "mb-" + name.removeprefix("matbench_").replace("_", "-")
    pattern = TASKS[name].identifiers if width is None else prefix + "-{:05d}"
    n = TASKS[name].n_official
    parts = KFold(5, shuffle=True, random_state=FOLD_SEED).split(np.arange(n))
    assert fold_checksum(tuple(tuple(pattern.format(i + 1) for i in test) for _, test in parts)) == CHECKSUMS[name]


def test_missing_rows_are_counted(folder):
    dataset = load_dataset("matbench_log_kvrh", folder)
    assert (len(dataset), dataset.task.n_official, dataset.whole) == (10828, 10987, False)
    assert sum(len(part) for part in dataset.test_ids) == 10987


def test_own_split_is_that_of_the_published_parent(folder):
    dataset = load_dataset("mp2018_e_form", folder)
    ((train, test),) = dataset.folds
    assert len(train) + len(test) == 51149
    assert dataset.ids[test].tolist() == list(dataset.test_ids[0])


def copied(folder, tmp_path, change):
    frame = change(pd.read_csv(folder / TASKS["matbench_glass"].file))
    target = tmp_path / TASKS["matbench_glass"].file
    target.parent.mkdir()
    frame.to_csv(target, index=False)
    return tmp_path


def test_rows_in_another_order_are_refused(folder, tmp_path):
    where = copied(folder, tmp_path, lambda frame: frame.sort_values("target"))
    with pytest.raises(SourceError, match="folds made of these rows are not the official ones"):
        load_dataset("matbench_glass", where)


def test_a_wrong_number_of_rows_is_refused(folder, tmp_path):
    where = copied(folder, tmp_path, lambda frame: pd.concat([frame, frame.head(1)]))
    with pytest.raises(SourceError, match="5681 rows are not those of matbench_glass"):
        load_dataset("matbench_glass", where)


def test_unknown_task_and_missing_file_say_what_to_do(tmp_path):
    with pytest.raises(SourceError, match="no task 'matbench_glas'; there are matbench_steels"):
        load_dataset("matbench_glas", tmp_path)
    with pytest.raises(SourceError, match="--data names the folder that holds matbench_phonons"):
        load_dataset("matbench_phonons", tmp_path)
