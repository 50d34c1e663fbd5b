"""features="auto": the one recipe for every task, and the few things it leaves to an inner validation.

The recipe is a set network that sees everything the parents know at once, pooled by mean, maximum and minimum. What is
chosen, on training rows alone, is which parents' levels it sees and on which scale it learns the target:
concatenating a parent that knows little of a property can hurt. The richest candidate comes first and stays unless
another is better by more than one standard error of the difference.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from atomsets_core.features import AnyFeatures, FeatureSpec, as_batch, in_memory, parse_features
from atomsets_core.models.folds import held_out
from atomsets_core.models.networks.set_network import AtomSetsNetwork
from atomsets_core.models.networks.training import TrainingOptions, train
from atomsets_core.models.networks.training_data import TrainingData, apply
from atomsets_core.parents import Features, load_parent
from atomsets_core.structures import Compositions, IntArray, Structures
from atomsets_core.transforms import NONE, TRANSFORMS, find_transform

TRIED = tuple(scale.name for scale in TRANSFORMS.values() if scale.tried)
"""Scales of the target to choose from."""

FloatArray = npt.NDArray[np.float64]

POTENTIALS = "chgnet:a1+site+a4,sevennet:s1+s2,sevennet-l3i5:s1+s2+s3"

FOR_STRUCTURES = {
    f"{POTENTIALS},chgnet-response:spring+elastic,sevennet-response:spring+elastic,"
    "sevennet-l3i5-response:elastic": 3_000,
    f"{POTENTIALS},chgnet-response:elastic,sevennet-response:elastic,sevennet-l3i5-response:elastic": 20_000,
    POTENTIALS: None,
    "megnet:V0+V1+V2+V3": None,
}
"""Candidates, the richest first: hidden vectors of three potentials, and the stiffness their energies have. Those with
a number are for so many structures at most: elasticity takes 0.4 s of a core for a structure of ten atoms, springs
of all atoms twice that."""

FOR_COMPOSITIONS = ("composition:properties,megnet:V0,magpie,oliynyk,amount", "megnet:V0,amount")
"""Candidates for formulas: what crystals of the composition are like, learned and tabulated element vectors, and how
much there is of each element."""

NETWORK: dict[str, Any] = {"phi": (256, 256), "rho": (128,), "pooling": ("mean", "max", "min"), "activation": "silu"}
"""Layers and poolings of every model the recipe makes."""

DROPOUT = 0.5
"""Share of the hidden units that training leaves out of classifiers, which grow too sure of themselves without: then
trees are all that the mixture takes."""

BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY = 64, 3e-3, 1e-4

STEPS = 2000
"""Gradient steps of a training on few rows; on many it is `FEWEST_EPOCHS` passes."""

FEWEST_EPOCHS, MOST_EPOCHS = 15, 120


@dataclass(frozen=True)
class Choice:
    """What was chosen, and from what.

    Attributes:
        features: specification, as `parse_features` reads it.
        parameters: of the estimator.
        report: a row for each candidate: features, transform, error, rows, seconds; or why it was left out.
    """

    features: str
    parameters: dict[str, Any]
    report: list[dict[str, Any]]


def candidates_for(n: int, *, compositions: bool) -> tuple[str, ...]:
    """The candidates for n structures, or formulas."""
    if compositions:
        return FOR_COMPOSITIONS
    return tuple(name for name, most in FOR_STRUCTURES.items() if most is None or n <= most)


def network_for(task: str) -> dict[str, Any]:
    """Options of the networks of "regression" or "classification"."""
    return {**NETWORK, "dropout": DROPOUT} if task == "classification" else dict(NETWORK)


def epochs_for(n: int, batch_size: int = BATCH_SIZE) -> int:
    """Passes over n training rows."""
    return int(np.clip(STEPS / math.ceil(n / batch_size), FEWEST_EPOCHS, MOST_EPOCHS))


def choose(
    inputs: Any,
    y: npt.ArrayLike,
    task: str = "regression",
    seed: int = 0,
    *,
    candidates: Sequence[str] | None = None,
    transforms: Sequence[str] = (NONE.name,),
    rows: int = 1000,
    members: int = 1,
    epochs: int | None = None,
    validation: float = 0.25,
) -> Choice:
    """Choose levels, parents and the scale of the target by inner validation.

    Args:
        inputs: the training rows: structures, compositions, formulas, or their features.
        y: (n,) or (n, targets) values (NaN where one is missing), or (n,) classes.
        task: "regression", compared by the absolute error, or "classification", by the log loss.
        seed: of the inner split and of the networks.
        candidates: specifications in the order of preference; by default those for the kind of inputs.
        transforms: scales of the target to choose from; one that doesn't accept every value is left out. By default
            the values are learned as they are, and the parameters chosen say nothing of a transform.
        rows: at most so many training rows are looked at, picked at random.
        members: networks that stand for a candidate.
        epochs: of these networks; by default half of what `epochs_for` gives.
        validation: share of these rows that the candidates are compared on; rows of one formula stay together.

    Raises:
        ValueError: no candidate can be used on these inputs; too few rows; an unknown task.
    """
    if task not in ("regression", "classification"):
        raise ValueError(f"no task {task!r}; there are regression and classification")
    batch, y = as_batch(inputs), np.asarray(y)
    if len(y) != len(batch):
        raise ValueError(f"{len(batch)} rows and {len(y)} labels")
    rng = np.random.default_rng(seed)
    picked = np.sort(rng.permutation(len(y))[:rows])
    if len(picked) < 8:
        raise ValueError(f"{len(picked)} labelled rows are too few to choose anything on; name the features")
    names = candidates or candidates_for(len(batch), compositions=_of_compositions(batch))
    report: list[dict[str, Any]] = []
    usable = _usable(names, batch, picked, report)
    if not usable:
        raise ValueError(f"no candidate can be used: {report[0]['left_out']}")
    # Compared on the rows that every candidate has.
    common = sorted(set.intersection(*(set(rows_of.tolist()) for _, rows_of, _ in usable)))
    scales = _transforms(y, task, transforms)  # of all rows: what is chosen is learned on all
    epochs, errors = epochs or epochs_for(int(len(common) * (1 - validation))) // 2, []
    for spec, rows_of, features in usable:
        data = gathered(features[np.searchsorted(rows_of, common)], spec)
        held = held_out(features.formula[np.searchsorted(rows_of, common)], validation, seed)
        for transform in scales:
            started = time.process_time()
            errors.append(_errors(data, y[common], held, task, transform, members, epochs, seed))
            report.append(
                {
                    "features": str(spec),
                    "transform": transform,
                    "error": float(errors[-1].mean()),
                    "rows": len(common),
                    "seconds": round(time.process_time() - started, 2),
                }
            )
    tried = [row for row in report if "error" in row]
    best = _prefer(errors)
    tried[best]["chosen"] = True
    parameters = {
        **network_for(task),
        "epochs": epochs_for(len(y)),
        "learning_rate": LEARNING_RATE,
        "batch_size": BATCH_SIZE,
    }
    if task == "regression":
        parameters["loss"] = "absolute"
        if len(transforms) > 1:
            parameters["transform"] = tried[best]["transform"]
    return Choice(tried[best]["features"], parameters, report)


Usable = tuple[FeatureSpec, IntArray, Features]


def _of_compositions(batch: Any) -> bool:
    return isinstance(batch, Compositions) or (isinstance(batch, Features) and batch.weights is not None)


def gathered(features: AnyFeatures, spec: FeatureSpec) -> TrainingData:
    """What a network sees of features, ready for training."""
    return TrainingData.gathered(features, spec.site_matrix, spec.structure_matrix, widths=spec.site_widths)


def _usable(names: Sequence[str], batch: Any, picked: IntArray, report: list[dict[str, Any]]) -> list[Usable]:
    """Candidates with the rows and features they have; the others go to the report."""
    usable: list[Usable] = []
    computed: dict[str, Features] = {}
    given = None if isinstance(batch, Structures | Compositions) else in_memory(batch[picked])
    for name in names:
        try:
            spec = parse_features(name)
            if given is None:
                features = _featurize(spec, batch.take(picked), computed)
            else:
                _require(spec, given)
                features = given
        except (ValueError, KeyError, FileNotFoundError) as error:
            report.append({"features": name, "left_out": str(error)})
            continue
        rows = picked[_positions(batch, picked, features)]
        if len(rows) < max(8, 0.9 * len(picked)):
            report.append({"features": name, "left_out": f"takes only {len(rows)} of {len(picked)} rows"})
            continue
        usable.append((spec, rows, features))
    return usable


def _featurize(spec: FeatureSpec, batch: Structures | Compositions, computed: dict[str, Features]) -> Features:
    """Features of a batch; what a parent has given for one candidate is used again for the next."""
    for parent in spec.parents:
        if parent not in computed or not set(spec.needed(parent)) <= {
            *computed[parent].sites,
            *computed[parent].structure,
        }:
            computed[parent] = load_parent(parent).featurize(batch, spec.needed(parent))
    found = {parent: computed[parent] for parent in spec.parents}
    return next(iter(found.values())) if len(found) == 1 else Features.join(found)


def _require(spec: FeatureSpec, features: Features) -> None:
    """Raise ValueError if these features lack a level of the specification."""
    spec.digest(features)
    if not features.parents and load_parent(spec.parents[0]).digest != features.digest:
        raise ValueError(f"the features given are not of {spec.parents[0]}")
    for parent in spec.parents:
        for level in spec.needed(parent):
            key = f"{parent}:{level}" if features.parents else level
            if key not in features.sites and key not in features.structure:
                raise ValueError(f"the features given lack {parent}:{level}")


def _positions(batch: Any, picked: IntArray, features: Features) -> IntArray:
    """Which of the picked rows have features, which stand in the same order."""
    if not isinstance(batch, Structures | Compositions):
        return np.arange(len(picked))
    hashes, rows, wanted = batch.hashes[picked], [], 0
    for i, key in enumerate(hashes):
        if wanted < len(features) and features.structure_hash[wanted] == key:
            rows.append(i)
            wanted += 1
    return np.array(rows, dtype=np.int64)


def _transforms(y: npt.NDArray[Any], task: str, asked: Sequence[str]) -> list[str]:
    if task == "classification":
        return [NONE.name]
    return [name for name in asked if find_transform(name).accepts(y).all()]


def _errors(
    data: TrainingData,
    y: npt.NDArray[Any],
    held: npt.NDArray[np.bool_],
    task: str,
    transform: str,
    members: int,
    epochs: int,
    seed: int,
) -> FloatArray:
    """(held rows,) absolute errors in the unit of the target, or log losses, of the mean of the members."""
    if task == "regression":
        values = y.reshape(len(y), -1).astype(np.float64)
        target, loss = find_transform(transform).forward(values), "absolute"
    else:
        classes = np.unique(y)
        target, loss = (y[:, None] == classes).astype(np.float64), "cross_entropy"
    torch.manual_seed(seed)
    network = AtomSetsNetwork(
        members, data.sites.shape[1], data.structure.shape[1], outputs=target.shape[1], **network_for(task)
    )
    options = TrainingOptions(epochs, BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY, loss, seed)
    train(network, data, target, np.tile(~held, (members, 1)), options)
    outputs = apply(network, data)[:, held]
    if task == "regression":
        value = outputs.mean(axis=0)
        miss = np.abs(find_transform(transform).inverse(value) - values[held])
        scale = np.nanstd(values, axis=0)
        return np.nanmean(miss / np.where(scale > 0, scale, 1.0), axis=1) if values.shape[1] > 1 else miss[:, 0]
    exp = np.exp(outputs - outputs.max(axis=2, keepdims=True))
    probability = (exp / exp.sum(axis=2, keepdims=True)).mean(axis=0)
    return -np.log(np.clip((probability * target[held]).sum(axis=1), 1e-9, 1.0))


def _prefer(errors: Sequence[FloatArray]) -> int:
    """The first, unless another is better by more than one standard error of the difference."""
    best = int(np.argmin([e.mean() for e in errors]))
    for i, error in enumerate(errors[:best]):
        difference = error - errors[best]
        if difference.mean() <= difference.std() / math.sqrt(len(difference)):
            return i
    return best
