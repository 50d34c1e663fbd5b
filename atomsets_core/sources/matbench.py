"""The tasks of `atomsets benchmark`: Matbench v0.1 with its official folds, and two of the mp-2018.6.1 set.

Dunn et al., npj Comput. Mater. 6, 138 (2020); Chen et al., Chem. Mater. 31, 3564 (2019). The data are the user's own,
in a folder; nothing is downloaded. The official folds of Matbench are those of scikit-learn's KFold (StratifiedKFold
for classes) with five folds, shuffled with seed 18012019, over the rows in the official order; `CHECKSUMS` holds the
digests of the folds that the package matbench 0.6 publishes, and a split that differs from them is refused.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq
from pymatgen.core import Structure
from sklearn.model_selection import KFold, StratifiedKFold

from atomsets_core.sources.base import SourceError
from atomsets_core.structures import Structures, from_arrow, from_pymatgen

IntArray = npt.NDArray[np.int64]

FOLD_SEED = 18012019
"""Seed of the folds of Matbench v0.1, as its validation file states it."""

CHECKSUMS = {
    "matbench_steels": "4aadc281c11fa3e87e03a7cc3d5dcf563a01a5e48715ffdc7430510d21e59c39",
    "matbench_expt_gap": "84d70563e7db30b2c889bc162002a1b02470a47d3ba3579d854ffb52529f5bb6",
    "matbench_expt_is_metal": "0de87fd6633d91127a65417eaf97c6ca98a70b0acfdf343f5faac87ff5f6cb78",
    "matbench_glass": "f3d0f042f76b2491f331c4c54c0925906e132be0b197ef8ee34fbdf08baa8e3b",
    "matbench_phonons": "2de0f189fe89e61bc57a5f5b279e23ff49f7d1f75026e0115217a50bb5d88753",
    "matbench_log_kvrh": "3aa5f59fecb9cf0b6e3ba4fa1a35eababbf7569f28827ad7122f9563f1d5c78f",
    "matbench_log_gvrh": "d6fb83ee2973211dad295900e05e9759c831c5c367d950c0adce1e42e6cac9ed",
}
"""SHA-256 of the identifiers of the five test parts: within a part joined by blanks, the parts by line feeds."""


@dataclass(frozen=True)
class Task:
    """A benchmark task.

    Attributes:
        name: as in Matbench, or "mp2018_e_form", "mp2018_gap".
        file: within the folder of the data.
        target: column of the values.
        unit: of the values; "" for classes.
        classes: whether the target is a class, 0 or 1.
        compositions: whether the inputs are formulas; else structures.
        n_official: rows of the published task.
        identifiers: pattern of the official identifiers, counted from 1; or the column that holds them.
        non_negative: whether the quantity cannot be below zero.
    """

    name: str
    file: str
    target: str
    unit: str
    classes: bool
    compositions: bool
    n_official: int
    identifiers: str
    non_negative: bool = True

    @property
    def matbench(self) -> bool:
        """Whether it has Matbench's folds."""
        return self.name.startswith("matbench_")

    @property
    def metric(self) -> str:
        """What the task is scored by."""
        return "ROC-AUC" if self.classes else "MAE"


_COMPOSITIONS = "matbench_composition"
_ELASTIC = "matbench_log_kvrh_gvrh.parquet"
_MP2018 = "mp2018_megnet_eform_gap.parquet"

TASKS = {
    task.name: task
    for task in (
        Task(
            "matbench_steels",
            f"{_COMPOSITIONS}/steels_yield.csv",
            "target",
            "MPa",
            False,
            True,
            312,
            "mb-steels-{:03d}",
        ),
        Task(
            "matbench_expt_gap",
            f"{_COMPOSITIONS}/expt_gap.csv",
            "target",
            "eV",
            False,
            True,
            4604,
            "mb-expt-gap-{:04d}",
        ),
        Task(
            "matbench_expt_is_metal",
            f"{_COMPOSITIONS}/expt_is_metal.csv",
            "target",
            "",
            True,
            True,
            4921,
            "mb-expt-is-metal-{:04d}",
        ),
        Task("matbench_glass", f"{_COMPOSITIONS}/glass.csv", "target", "", True, True, 5680, "mb-glass-{:04d}"),
        Task(
            "matbench_phonons",
            "matbench_phonons.json.gz",
            "last phdos peak",
            "1/cm",
            False,
            False,
            1265,
            "mb-phonons-{:04d}",
        ),
        Task("matbench_log_kvrh", _ELASTIC, "log10_K_VRH", "log10 GPa", False, False, 10987, "mbid"),
        Task("matbench_log_gvrh", _ELASTIC, "log10_G_VRH", "log10 GPa", False, False, 10987, "mbid_g"),
        Task("mp2018_e_form", _MP2018, "e_form", "eV/atom", False, False, 51149, "mp", non_negative=False),
        Task("mp2018_gap", _MP2018, "gap", "eV", False, False, 51149, "mp"),
    )
}


@dataclass(frozen=True)
class Dataset:
    """A task's rows at hand.

    Attributes:
        task: what it is.
        ids: (n,) official identifiers.
        inputs: structures, or (n,) formulas.
        y: (n,) values, or classes 0 and 1.
        folds: (k,) training and (n - k,) test positions among the n rows, of every fold.
        test_ids: the official identifiers of each test part, rows that are missing here included.
        sha256: of the file.
    """

    task: Task
    ids: npt.NDArray[np.object_]
    inputs: Structures | npt.NDArray[np.object_]
    y: npt.NDArray[np.float64]
    folds: tuple[tuple[IntArray, IntArray], ...]
    test_ids: tuple[tuple[str, ...], ...]
    sha256: str

    def __len__(self) -> int:
        return len(self.y)

    @property
    def whole(self) -> bool:
        """Whether every row of the published task is here."""
        return len(self) == self.task.n_official

    def take(self, rows: IntArray) -> Structures | npt.NDArray[np.object_]:
        """The inputs of these rows: structures, or (len(rows),) formulas."""
        return self.inputs.take(rows) if isinstance(self.inputs, Structures) else self.inputs[rows]


def load_dataset(name: str, folder: Path) -> Dataset:
    """A task's rows and folds.

    Args:
        name: one of `TASKS`.
        folder: holds the files named in `TASKS`.

    Raises:
        SourceError: there is no such task or file, or the file is not what it should be.
    """
    if name not in TASKS:
        raise SourceError(f"no task {name!r}; there are {', '.join(TASKS)}")
    task, path = TASKS[name], folder / TASKS[name].file
    if not path.is_file():
        raise SourceError(f"{path}: no such file. --data names the folder that holds {task.file}")
    try:
        ids, inputs, y = _READERS[path.suffix](task, path)
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise SourceError(f"{path}: not the file of {name}: {error}") from error
    official = _official_ids(task, ids)
    if len(official) != task.n_official or (unknown := set(ids) - set(official)):
        raise SourceError(
            f"{path}: {len(ids)} rows are not those of {name}, which has {task.n_official}"
            + (f"; {sorted(unknown)[0]} is none of them" if len(official) == task.n_official else "")
        )
    folds, test_ids = _own_split(path) if not task.matbench else _matbench_split(task, official, ids, y)
    if task.matbench and (found := fold_checksum(test_ids)) != CHECKSUMS[name]:
        raise SourceError(
            f"{path}: the folds made of these rows are not the official ones of {name} (digest {found[:12]}, "
            f"should be {CHECKSUMS[name][:12]}): the rows or their order differ from the published task"
        )
    return Dataset(task, ids, inputs, y, folds, test_ids, hashlib.sha256(path.read_bytes()).hexdigest())


def fold_checksum(test_ids: tuple[tuple[str, ...], ...]) -> str:
    """The digest that `CHECKSUMS` holds."""
    return hashlib.sha256("\n".join(" ".join(part) for part in test_ids).encode()).hexdigest()


def _official_ids(task: Task, ids: npt.NDArray[np.object_]) -> list[str]:
    """Every identifier of the published task, in its order."""
    if "{" in task.identifiers:
        return [task.identifiers.format(i + 1) for i in range(task.n_official)]
    if task.matbench:
        prefix, width = str(ids[0]).rsplit("-", 1)[0], len(str(ids[0]).rsplit("-", 1)[1])
        return [f"{prefix}-{i + 1:0{width}d}" for i in range(task.n_official)]
    return [str(name) for name in ids]


def _matbench_split(
    task: Task, official: list[str], ids: npt.NDArray[np.object_], y: npt.NDArray[np.float64]
) -> tuple[tuple[tuple[IntArray, IntArray], ...], tuple[tuple[str, ...], ...]]:
    splitter = (StratifiedKFold if task.classes else KFold)(n_splits=5, shuffle=True, random_state=FOLD_SEED)
    # Classes decide a stratified split, so those tasks must be whole; `load_dataset` compares the digest.
    splits = list(splitter.split(np.arange(len(official)), y > 0.5 if task.classes else None))
    position = {name: row for row, name in enumerate(ids)}
    here = np.array([position.get(name, -1) for name in official])
    folds = tuple((_present(here[train]), _present(here[test])) for train, test in splits)
    return folds, tuple(tuple(official[i] for i in test) for _, test in splits)


def _present(rows: IntArray) -> IntArray:
    return rows[rows >= 0]


def _own_split(path: Path) -> tuple[tuple[tuple[IntArray, IntArray], ...], tuple[tuple[str, ...], ...]]:
    """The split of the published MEGNet: its validation rows are training rows here, its test rows are the test."""
    table = pq.read_table(path, columns=["mp", "split"]).to_pandas()
    test = np.flatnonzero(table["split"] == "test")
    train = np.flatnonzero(table["split"] != "test")
    return ((train, test),), (tuple(table["mp"].iloc[test]),)


Read = tuple[npt.NDArray[np.object_], Structures | npt.NDArray[np.object_], npt.NDArray[np.float64]]


def _read_csv(task: Task, path: Path) -> Read:
    frame = pd.read_csv(path)
    ids = np.array([task.identifiers.format(i + 1) for i in range(len(frame))], dtype=object)
    return ids, frame["formula"].to_numpy(dtype=object), frame[task.target].to_numpy(dtype=np.float64)


def _read_json(task: Task, path: Path) -> Read:
    with gzip.open(path) as file:
        content = json.load(file)
    column = content["columns"].index(task.target)
    names = [task.identifiers.format(i + 1) for i in content["index"]]
    structures, refused = from_pymatgen([Structure.from_dict(row[0]) for row in content["data"]], names)
    if refused:
        raise ValueError(f"{refused[0].material_id}: {refused[0].reason}")
    return structures.material_id, structures, np.array([row[column] for row in content["data"]], dtype=np.float64)


def _read_parquet(task: Task, path: Path) -> Read:
    table = pq.read_table(path)
    structures, rows, refused = from_arrow(table, task.identifiers)
    if refused:
        raise ValueError(f"{refused[0].material_id}: {refused[0].reason}")
    return structures.material_id, structures, table[task.target].to_numpy()[rows].astype(np.float64)


_READERS: dict[str, Callable[[Task, Path], Read]] = {".csv": _read_csv, ".gz": _read_json, ".parquet": _read_parquet}
