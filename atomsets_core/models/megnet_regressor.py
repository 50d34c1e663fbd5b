"""MEGNet with scikit-learn's API: trained from scratch, or fine-tuned from a parent."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from pymatgen.core import Element, Structure
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import NotFittedError

from atomsets_core.models.file_names import ARRAYS, CONFIG
from atomsets_core.models.folds import drawn
from atomsets_core.models.networks.checkpoints import Checkpoint, Progress
from atomsets_core.models.networks.graph_network import MEGNetNetwork, without_head
from atomsets_core.models.networks.graph_set import RESOLUTION, GraphSet, build_graphs
from atomsets_core.models.networks.graph_training import History, NetworkOptions, apply_network, train_network
from atomsets_core.models.saved_models import read_arrays
from atomsets_core.parents import (
    BLOCKS,
    CUTOFF,
    N_ELEMENTS,
    Weights,
    is_parent_folder,
    read_parent,
    read_weights,
    resolve_device,
)
from atomsets_core.storage import StorageError, Store
from atomsets_core.structures import IntArray, Structures, as_structures
from atomsets_core.transforms import NONE, find_transform, transform_target

FORMAT_VERSION = 1
"""Version of the files of a saved model."""

CHECKPOINT_SECONDS = 60.0
"""Between two checkpoints."""

INITS = ("random", "megnet")
HEADS = ("new", "keep")

FloatArray = npt.NDArray[np.float64]


class MEGNetRegressor(RegressorMixin, BaseEstimator):
    """Regression with MEGNet itself, every weight trained on the target.

    What AtomSets is measured against: from scratch it is the graph network of the publication, and with `init="megnet"`
    the graph network that starts where AtomSets' features come from.

    Args:
        init: "random"; "megnet", the published parent; or the folder of a parent that was trained here.
        head: with a parent, whether its readout is made anew ("new") or goes on as it is ("keep").
        frozen_blocks: with a parent, blocks that keep its weights, 0 to 3, with all layers before them.
        cutoff: neighbour radius, Angstrom; None is 5, or that of the parent.
        resolution: Angstrom to which distances are rounded, so that what is alike is found in spite of rounded
            coordinates; 0 for not at all.
        members: networks, each with its own start, order and validation rows; the prediction is their mean.
        epochs: passes over the training rows.
        batch_size: structures a step.
        max_bonds: bonds (after merging) that go through the network together; bounds the memory, not the result.
        learning_rate: at the top of the schedule.
        body_learning_rate: of all but the readout, where it shall differ; None is the same.
        weight_decay: decoupled (AdamW).
        loss: "absolute", "log_cosh" or "squared" error on the standardised target.
        validation_fraction: share of the training rows that choose the epoch, rows of one reduced formula together;
            0 trains on all rows and keeps the last epoch.
        patience: epochs without improvement after which it stops; None trains to the end.
        transform: one of `transforms.TRANSFORMS`, applied to the target before anything else.
        seed: of initial weights, order and validation rows.
        device: "auto", "cpu", "cuda", ...

    Attributes:
        networks_: the fitted members.
        histories_: how each went.
        target_mean_, target_scale_: of the training rows, on the scale the model works on.
        cutoff_: of the graphs.
        n_train_: training rows, those for validation included.
    """

    def __init__(
        self,
        init: str = "random",
        *,
        head: str = "new",
        frozen_blocks: int = 0,
        cutoff: float | None = None,
        resolution: float = RESOLUTION,
        members: int = 1,
        epochs: int = 100,
        batch_size: int = 32,
        max_bonds: int = 10_000,
        learning_rate: float = 2e-3,
        body_learning_rate: float | None = None,
        weight_decay: float = 1e-4,
        loss: str = "absolute",
        validation_fraction: float = 0.1,
        patience: int | None = None,
        transform: str = NONE.name,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        self.init = init
        self.head = head
        self.frozen_blocks = frozen_blocks
        self.cutoff = cutoff
        self.resolution = resolution
        self.members = members
        self.epochs = epochs
        self.batch_size = batch_size
        self.max_bonds = max_bonds
        self.learning_rate = learning_rate
        self.body_learning_rate = body_learning_rate
        self.weight_decay = weight_decay
        self.loss = loss
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.transform = transform
        self.seed = seed
        self.device = device

    def fit(
        self,
        X: GraphSet | Structures | Sequence[Structure],
        y: npt.ArrayLike,
        progress: Progress | None = None,
        checkpoint: Checkpoint | None = None,
        validation: npt.NDArray[np.bool_] | None = None,
    ) -> Self:
        """Train on structures (or their graphs, for many trainings on the same) and their values.

        Args:
            X: n structures, or what `graphs` made of them.
            y: (n,) values in the unit of the target.
            progress: called after each epoch, numbered through all members.
            checkpoint: where to keep an unfinished training; needs one member.
            validation: (n,) rows that choose the epoch and nothing else, in place of a random part.

        Raises:
            ValueError: a parameter that makes no sense; labels that are not finite or that the transform doesn't
                accept, lengths that differ, too few rows, structures without a graph.
        """
        weights = self._check()
        if checkpoint and self.members > 1:
            raise ValueError(f"a checkpoint keeps one training; there are {self.members} members")
        graphs = self._graphs(X, self.resolved_cutoff())
        target = transform_target(y, self.transform)
        if len(target) != len(graphs):
            raise ValueError(f"{len(graphs)} structures and {len(target)} labels")
        if len(target) < 5:
            raise ValueError(f"{len(target)} labelled structures are too few to learn from; at least 5 are needed")
        self.n_train_ = len(target)
        self.cutoff_ = graphs.cutoff
        learned = target if validation is None else target[~validation]
        if not len(learned):
            raise ValueError("every row is for validation: none is left to train on")
        self.target_mean_ = float(learned.mean())
        self.target_scale_ = float(learned.std()) or 1.0
        standard = (target - self.target_mean_) / self.target_scale_
        self.networks_: list[MEGNetNetwork] = []
        self.histories_: list[History] = []
        for member in range(self.members):
            seed = self.seed + 1009 * member
            network = self._network(weights, seed)
            if validation is None:
                rows, watched = _split(graphs.formula, self.validation_fraction, seed)
            else:
                rows, watched = np.flatnonzero(~validation), np.flatnonzero(validation)

            def tell(epoch: int, of: int, loss: float, before: int = member * self.epochs) -> None:
                if progress:
                    progress(before + epoch, self.members * of, loss)

            options = self._options(seed)
            history = train_network(
                network, graphs, standard, rows, watched, options, progress=tell, checkpoint=checkpoint
            )
            self.networks_.append(network.requires_grad_(False))
            self.histories_.append(history)
        return self

    def predict(
        self, X: GraphSet | Structures | Sequence[Structure], return_std: bool = False
    ) -> FloatArray | tuple[FloatArray, FloatArray]:
        """(n,) predictions in the unit of the target; with `return_std` also the spread of the members in that unit.

        On a scale other than that of the values the prediction is the median, and the spread is to first order that on
        the scale times the slope there, e.g. ln(10) x median x spread in decades.

        Raises:
            NotFittedError: before `fit`.
            ValueError: structures without a graph, or graphs of another cutoff.
        """
        if not hasattr(self, "networks_"):
            raise NotFittedError("fit the regressor before predicting")
        graphs = self._graphs(X, self.cutoff_)
        if graphs.cutoff != self.cutoff_:
            raise ValueError(f"the model was trained on graphs with cutoff {self.cutoff_:g}, not {graphs.cutoff:g}")
        members = np.array([apply_network(network, graphs, np.arange(len(graphs))) for network in self.networks_])
        members = members * self.target_scale_ + self.target_mean_
        mean = members.mean(axis=0)
        scale = find_transform(self.transform)
        value: FloatArray = scale.inverse(mean)
        if not return_std:
            return value
        spread = members.std(axis=0, ddof=1) if len(members) > 1 else np.zeros(len(mean))
        return value, spread * scale.slope(value)

    def graphs(self, X: GraphSet | Structures | Sequence[Structure]) -> GraphSet:
        """Graphs of all structures, for several trainings on them or on parts of them.

        Raises:
            ValueError: a structure has no graph; the message says which and why.
        """
        return self._graphs(X, self.resolved_cutoff())

    def _graphs(self, X: GraphSet | Structures | Sequence[Structure], cutoff: float) -> GraphSet:
        if not isinstance(X, GraphSet):
            X = build_graphs(as_structures(X), cutoff, resolution=self.resolution)
        graphs = X
        if graphs.refused:
            raise ValueError(f"structure {graphs.refused[0].material_id}: {graphs.refused[0].reason}")
        heavy = np.flatnonzero(graphs.numbers >= N_ELEMENTS)
        if len(heavy):
            row = int(np.searchsorted(np.cumsum(graphs.n_atoms), heavy[0], side="right"))
            raise ValueError(
                f"structure {graphs.material_id[row]}: MEGNet does not cover "
                f"{Element.from_Z(int(graphs.numbers[heavy[0]])).symbol} (atomic number {graphs.numbers[heavy[0]]})"
            )
        return graphs

    def _check(self) -> Weights | None:
        """The weights to start from, None for random ones."""
        if self.head not in HEADS:
            raise ValueError(f"no head {self.head!r}; there are {', '.join(HEADS)}")
        for name in ("members", "epochs", "batch_size", "max_bonds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: at least 1 is needed")
        if not 0.0 <= self.validation_fraction < 1.0:
            raise ValueError(f"validation_fraction is {self.validation_fraction}: between 0 and 1 is needed")
        if not 0 <= self.frozen_blocks <= len(BLOCKS):
            raise ValueError(f"frozen_blocks is {self.frozen_blocks}: MEGNet has blocks 1 to {len(BLOCKS)}")
        if self.init == "random":
            if self.frozen_blocks:
                raise ValueError("frozen_blocks needs a parent to start from: random weights that stay learn nothing")
            return None
        weights, cutoff = _start(self.init)
        if self.cutoff not in (None, cutoff):
            raise ValueError(f"{self.init} was trained with cutoff {cutoff:g} Angstrom, not {self.cutoff:g}")
        return weights

    def resolved_cutoff(self) -> float:
        """Neighbour radius of the graphs this model is going to make, Angstrom."""
        if self.cutoff is not None:
            return float(self.cutoff)
        return CUTOFF if self.init == "random" else _start(self.init)[1]

    def _network(self, weights: Weights | None, seed: int) -> MEGNetNetwork:
        generator = torch.Generator().manual_seed(seed)
        if weights is None:
            network = MEGNetNetwork(generator=generator)
        elif self.head == "new":
            network = MEGNetNetwork(without_head(weights), generator)
        else:
            # The readout gives the parent's target; here it has to give a standardised one.
            network = MEGNetNetwork(weights)
            with torch.no_grad():
                network.weights["dense_21/bias"].sub_(self.target_mean_).div_(self.target_scale_)
                network.weights["dense_21/kernel"].div_(self.target_scale_)
        return network.to(resolve_device(self.device))

    def _options(self, seed: int) -> NetworkOptions:
        body = self.learning_rate if self.body_learning_rate is None else self.body_learning_rate
        return NetworkOptions(
            epochs=self.epochs,
            batch_size=self.batch_size,
            max_bonds=self.max_bonds,
            learning_rate=body,
            head_learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            loss=self.loss,
            patience=self.patience,
            frozen_blocks=self.frozen_blocks,
            seed=seed,
            checkpoint_seconds=CHECKPOINT_SECONDS,
        )

    def save(self, store: Store, folder: str, about: dict[str, Any] | None = None) -> None:
        """Write model.safetensors and then model.json into a folder of a store.

        Args:
            store: where.
            folder: within the store.
            about: anything to keep beside it (target, unit, data), JSON.

        Raises:
            StorageError: it can't be written.
        """
        arrays = {
            f"{member}/{name}": value.detach().cpu().contiguous()
            for member, network in enumerate(self.networks_)
            for name, value in network.weights.items()
        }
        config = {
            "format_version": FORMAT_VERSION,
            "kind": type(self).__name__,
            "parameters": self.get_params(),
            "cutoff": self.cutoff_,
            "target_mean": self.target_mean_,
            "target_scale": self.target_scale_,
            "n_train": self.n_train_,
            "best_epochs": [history.best_epoch for history in self.histories_],
            "about": about or {},
        }
        data = safetensors.torch.save(arrays)
        config["tensors"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        store.write(f"{folder}/{ARRAYS}", data)
        store.write_json(f"{folder}/{CONFIG}", config)

    @classmethod
    def load(cls, store: Store, folder: str) -> Self:
        """A saved model, ready to predict.

        Raises:
            StorageError: the files are missing, damaged, of a newer format or of another kind of model.
        """
        config = store.read_json(f"{folder}/{CONFIG}")
        where = store.url(folder)
        if not isinstance(config, dict):
            raise StorageError(f"{where}: {CONFIG} is not a model's")
        version, kind = config.get("format_version"), config.get("kind")
        if version != FORMAT_VERSION or kind != cls.__name__:
            raise StorageError(
                f"{where}: a {kind} of format {version!r} can't be read as a {cls.__name__} of format {FORMAT_VERSION}"
            )
        try:
            data = store.read(f"{folder}/{ARRAYS}")
            if "tensors" in config and hashlib.sha256(data).hexdigest() != config["tensors"]["sha256"]:
                raise ValueError(f"the sha256 of {ARRAYS} is not the one in {CONFIG}")
            arrays = read_arrays(data, where)
            model = cls(**config["parameters"])
            model.cutoff_, model.n_train_ = float(config["cutoff"]), int(config["n_train"])
            model.target_mean_, model.target_scale_ = float(config["target_mean"]), float(config["target_scale"])
            device = resolve_device(model.device)
            model.networks_ = []
            for member in range(model.members):
                network = MEGNetNetwork()
                network.load_state_dict({f"weights.{name}": arrays[f"{member}/{name}"] for name in network.weights})
                model.networks_.append(network.requires_grad_(False).to(device))
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            raise StorageError(f"{where}: the model is damaged ({error}); train it again") from error
        model.histories_ = [History(best_epoch=epoch) for epoch in config["best_epochs"]]
        return model


def _start(init: str) -> tuple[Weights, float]:
    """Weights and cutoff of a parent.

    Raises:
        ValueError: there is none of this name or folder.
    """
    if init == "megnet":
        return read_weights(), CUTOFF
    if is_parent_folder(init):
        weights, card = read_parent(init)
        return weights, float(card["cutoff"])
    raise ValueError(f"no init {init!r}; there are {', '.join(INITS)}, and folders of trained parents")


def _split(formula: npt.NDArray[np.object_], fraction: float, seed: int) -> tuple[IntArray, IntArray]:
    """Training and validation rows, those of one formula on one side."""
    rows = np.arange(len(formula))
    if fraction == 0.0 or len(set(formula)) < 2:
        return rows, rows[:0]
    chosen = drawn(formula, fraction * len(formula), np.random.default_rng([seed, 1]))
    return rows[~chosen], rows[chosen]
