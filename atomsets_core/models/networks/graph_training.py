"""The training loop of a graph network: deterministic by seed, and the same after a kill as without one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from atomsets_core.models.networks.checkpoints import Checkpoint, Progress, pack, signature_of, unpack
from atomsets_core.models.networks.graph_network import MEGNetNetwork
from atomsets_core.models.networks.graph_set import GraphSet
from atomsets_core.structures import IntArray

FloatArray = npt.NDArray[np.float64]


def _log_cosh(error: Tensor) -> Tensor:
    """log(cosh(x)): squared when small, absolute when large, smooth between."""
    # cosh x = e^x (1 + e^(-2x)) / 2, without an exponential that overflows.
    return error + torch.nn.functional.softplus(-2.0 * error) - math.log(2.0)


LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "absolute": torch.abs,
    "squared": torch.square,
    "log_cosh": _log_cosh,
}


@dataclass(frozen=True)
class NetworkOptions:
    """How a graph network is trained. Learning rates warm up over the first twentieth and fall to zero along a cosine.

    Attributes:
        epochs: passes over the training rows.
        batch_size: structures a step.
        max_bonds: bonds that go through the network together; a step with more takes several passes, with the same
            gradient. Bounds the memory at about 5 kB a bond.
        learning_rate: of the body, at the top of the schedule.
        head_learning_rate: of the readout.
        weight_decay: decoupled (AdamW).
        loss: one of `LOSSES`, on the standardised target.
        patience: stop when the validation rows have not improved for so many epochs; None trains to the end. Where
            there are validation rows the best epoch is kept either way.
        frozen_blocks: blocks, counted from the first, that keep their weights, with all that is before them.
        seed: of the order.
        checkpoint_seconds: between two checkpoints.
    """

    epochs: int
    batch_size: int
    max_bonds: int
    learning_rate: float
    head_learning_rate: float
    weight_decay: float
    loss: str
    patience: int | None
    frozen_blocks: int
    seed: int
    checkpoint_seconds: float = 60.0


@dataclass
class History:
    """How a training went.

    Attributes:
        losses: mean training loss of each epoch.
        validation: mean absolute error on the validation rows after each epoch, standardised; empty without them.
        best_epoch: the epoch whose weights were kept, from 1.
        seconds: that it took, with those before an interruption.
    """

    losses: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best_epoch: int = 0
    seconds: float = field(default=0.0, compare=False)


def train_network(
    network: MEGNetNetwork,
    graphs: GraphSet,
    target: FloatArray,
    rows: IntArray,
    validation: IntArray,
    options: NetworkOptions,
    *,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> History:
    """Fit a network, in place, and leave it with its best weights.

    The order of an epoch depends on the seed and its number alone; a training that goes on from a checkpoint, also from
    within an epoch, ends where it would have ended.

    Args:
        network: on its device.
        graphs: (n) structures.
        target: (n,) standardised values.
        rows: to train on.
        validation: rows that choose the epoch; may be empty.
        options: epochs, rates, loss, patience and seed.
        progress: called after each epoch.
        checkpoint: where to keep an unfinished training.

    Raises:
        ValueError: the loss is unknown or became NaN, or there is nothing to train.
    """
    if options.loss not in LOSSES:
        raise ValueError(f"no loss {options.loss!r}; there are {', '.join(LOSSES)}")
    if not len(rows):
        raise ValueError("no rows to train on")
    run = _Run(network, graphs, target, rows, validation, options)
    saved = checkpoint.load() if checkpoint else None
    if saved:
        run.restore(saved)
    kept_at = clock = time.monotonic()
    while run.wants_more():
        run.step()
        before, clock = clock, time.monotonic()
        run.history.seconds += clock - before
        if run.at == 0 and progress:
            progress(len(run.history.losses), options.epochs, run.history.losses[-1])
        if checkpoint and clock - kept_at >= options.checkpoint_seconds and run.wants_more():
            checkpoint.save(run.state())
            kept_at = clock
    run.finish()
    return run.history


class _Run:
    """A training under way: network, optimizer, and how far it is."""

    def __init__(
        self,
        network: MEGNetNetwork,
        graphs: GraphSet,
        target: FloatArray,
        rows: IntArray,
        validation: IntArray,
        options: NetworkOptions,
    ) -> None:
        self.network, self.graphs, self.options = network, graphs, options
        self.rows, self.validation = rows, validation
        parameter = next(network.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.target = torch.from_numpy(target).to(self.device, self.dtype)
        body, head = network.groups(options.frozen_blocks)
        groups = [(body, options.learning_rate), (head, options.head_learning_rate)]
        self.rates = [rate for group, rate in groups if group]
        self.optimizer = torch.optim.AdamW(
            [{"params": group, "lr": rate} for group, rate in groups if group],
            weight_decay=options.weight_decay,
            fused=True,
        )
        self.steps = -(-len(rows) // options.batch_size)
        self.history = History()
        self.at, self.total = 0, 0.0
        self.order: IntArray = np.empty(0, dtype=np.int64)
        self.kept: dict[str, Tensor] = {}
        self.signature = signature_of(
            options, (rows, validation, self.target, *graphs.structure_hash, *network.weights.values())
        )

    def wants_more(self) -> bool:
        """Whether another step is due."""
        done, patience = len(self.history.losses), self.options.patience
        waited = patience is not None and len(self.validation) > 0 and done - self.history.best_epoch >= patience
        return done < self.options.epochs and not waited

    def step(self) -> None:
        """One optimizer step, and the end of the epoch where it was the last."""
        epoch, options = len(self.history.losses), self.options
        if self.at == 0 or not len(self.order):
            self.order = np.random.default_rng([options.seed, epoch]).permutation(self.rows)
        rate = _schedule((epoch + self.at / self.steps) / options.epochs)
        for group, top in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = top * rate
        chosen = self.order[self.at * options.batch_size : (self.at + 1) * options.batch_size]
        self.optimizer.zero_grad(set_to_none=True)
        for piece in self.graphs.pieces(chosen, options.max_bonds):
            output = self.network(self.graphs.batch(piece, self.device, self.dtype))
            # Over all structures of the step, not of the piece: the gradients of the pieces add up to that of the mean.
            loss = LOSSES[options.loss](output - self.target[piece]).sum() / len(chosen)
            loss.backward()
            self.total += float(loss.detach()) * len(chosen)
        self.optimizer.step()
        self.at += 1
        if self.at == self.steps:
            self._end_epoch()

    def _end_epoch(self) -> None:
        loss = self.total / len(self.rows)
        if not math.isfinite(loss):
            raise ValueError(
                f"training diverged in epoch {len(self.history.losses) + 1}: the loss is {loss}; lower learning_rate"
            )
        self.history.losses.append(loss)
        self.at, self.total = 0, 0.0
        if not len(self.validation):
            self.history.best_epoch = len(self.history.losses)
            return
        found = apply_network(self.network, self.graphs, self.validation, self.options.max_bonds)
        error = float(np.abs(found - self.target[self.validation].double().cpu().numpy()).mean())
        if error < min(self.history.validation, default=math.inf):
            self.history.best_epoch = len(self.history.losses)
            self.kept = {name: value.detach().clone() for name, value in self.network.weights.items()}
        self.history.validation.append(error)

    @torch.no_grad()
    def finish(self) -> None:
        """Give the network its best epoch back, if it was watched."""
        for name, value in self.kept.items():
            self.network.weights[name].copy_(value)

    def state(self) -> bytes:
        """Everything that another process needs to go on."""
        place = {
            "losses": torch.tensor(self.history.losses, dtype=torch.float64),
            "validation": torch.tensor(self.history.validation, dtype=torch.float64),
            "epoch": torch.tensor([self.history.best_epoch, self.at]),
            "total": torch.tensor(self.total, dtype=torch.float64),
            "seconds": torch.tensor(self.history.seconds, dtype=torch.float64),
        }
        return pack(dict(self.network.weights.items()), self.optimizer, self.kept, place, self.signature)

    def restore(self, saved: bytes) -> None:
        """Go on from `state`; from the start where it is damaged or of another training."""
        found = unpack(saved, dict(self.network.weights.items()), self.optimizer, self.signature)
        if found is not None:
            self.kept, place = found
            best_epoch, self.at = place["epoch"].tolist()
            self.total = float(place["total"])
            losses, validation = place["losses"].tolist(), place["validation"].tolist()
            self.history = History(losses, validation, best_epoch, float(place["seconds"]))


def _schedule(x: float) -> float:
    """Share of the top learning rate after the share x of the training."""
    if x < 0.05:
        return 0.1 + 0.9 * x / 0.05
    # Half a cosine from 1 to 0 (Loshchilov & Hutter, ICLR 2017).
    return 0.5 * (1.0 + math.cos(math.pi * (x - 0.05) / 0.95))


@torch.inference_mode()
def apply_network(
    network: MEGNetNetwork, graphs: GraphSet, rows: IntArray, max_bonds: int = 100_000
) -> npt.NDArray[np.float64]:
    """(len(rows),) float64 outputs on the standardised target."""
    parameter = next(network.parameters())
    parts = [
        network(graphs.batch(piece, parameter.device, parameter.dtype)).double().cpu().numpy()
        for piece in graphs.pieces(rows, max_bonds)
    ]
    return np.concatenate(parts) if parts else np.empty(0)
