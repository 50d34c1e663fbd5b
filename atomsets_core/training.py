"""The training loop: all members of an ensemble at once, each on its own rows, deterministic by seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from torch import Tensor, nn

from atomsets_core.batches import TrainingData
from atomsets_core.sets import AtomSetsNetwork, Standardize
from atomsets_core.structures import IntArray

Progress = Callable[[int, float], None]
"""Called after each epoch with its number (from 1) and the mean training loss (on the standardised target)."""

FloatArray = npt.NDArray[np.float64]
Weights = npt.NDArray[np.floating[Any]] | npt.NDArray[np.bool_]


def _cross_entropy(outputs: Tensor, target: Tensor) -> Tensor:
    return -target * torch.log_softmax(outputs, dim=-1)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "absolute": lambda outputs, target: torch.abs(outputs - target),
    "squared": lambda outputs, target: torch.square(outputs - target),
    "logistic": partial(nn.functional.binary_cross_entropy_with_logits, reduction="none"),
    "cross_entropy": _cross_entropy,
}
"""Loss of each number predicted; the last two are for classes and leave the target as it is."""

CLASSIFYING = ("logistic", "cross_entropy")


@dataclass(frozen=True)
class TrainingOptions:
    """How long and how fast. The learning rate warms up over the first tenth and falls to zero along a cosine.

    Attributes:
        epochs: passes over the data.
        batch_size: structures a step.
        learning_rate: at the top of the schedule.
        weight_decay: decoupled (AdamW).
        loss: one of `LOSSES`: "absolute" (robust to wrong labels), "squared" (the publication), or for classes.
        seed: of the order and of dropout.
        patience: stop when no member has improved on its validation rows for so many epochs, and give every member its
            best epoch back; None trains to the end and keeps the last.
        mixed_precision: bfloat16 products on a GPU.
        checkpoint_every: epochs between two checkpoints, where a `Checkpoint` is given.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    loss: str
    seed: int
    patience: int | None = None
    mixed_precision: bool = False
    checkpoint_every: int = 10


class Checkpoint(Protocol):
    """Where an unfinished training is kept."""

    def load(self) -> bytes | None:
        """What was saved last, None if nothing was."""

    def save(self, data: bytes) -> None:
        """Replace it, whole or not at all."""


def resolve_device(device: str) -> torch.device:
    """A torch device; "auto" is the GPU where there is one, else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def set_scales(
    network: AtomSetsNetwork, data: TrainingData, y: npt.NDArray[np.float64], used: Weights, scale_target: bool = True
) -> None:
    """Give every member the means and deviations of its own rows, of nothing else.

    Args:
        network: changed in place.
        data: (n) structures.
        y: (n, outputs) targets, NaN where there is none.
        used: (members, n) weights, 0 for rows that a member must not see.
        scale_target: False leaves targets as they are (classes).
    """
    owner = np.repeat(np.arange(len(data)), np.diff(data.offsets))
    # The weights that the poolings see: with alpha below 1 minor elements count for more.
    sites, weights = data.sites.double().numpy(), data.weights.double().numpy() ** network.alpha
    structure = data.structure.double().numpy()
    for member, row_weights in enumerate(used):
        rows = row_weights > 0
        on_sites = rows[owner]
        _put(network.site_input, member, *_moments(sites[on_sites], weights[on_sites]))
        _put(network.structure_input, member, *_moments(structure[rows], np.ones(rows.sum())))
        if scale_target:
            columns = [column[np.isfinite(column)] for column in y[rows].T]
            moments = [_moments(column[:, None], np.ones(len(column))) for column in columns]
            mean, scale = (np.concatenate([m[i] for m in moments]) for i in (0, 1))
            _put(network.target, member, mean, scale)


def _moments(values: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]) -> tuple[FloatArray, FloatArray]:
    """Weighted mean and deviation of each column; a constant column has deviation 1."""
    if not len(values):
        return np.zeros(values.shape[1]), np.ones(values.shape[1])
    share = weights / weights.sum()
    mean = share @ values
    scale = np.sqrt(share @ (values - mean) ** 2)
    scale[~(scale > 1e-6)] = 1.0
    return mean, scale


def _put(scaler: Standardize, member: int, mean: FloatArray, scale: FloatArray) -> None:
    scaler.mean[member, 0] = torch.from_numpy(mean).float()
    scaler.scale[member, 0] = torch.from_numpy(scale).float()


def train(
    network: AtomSetsNetwork,
    data: TrainingData,
    y: npt.NDArray[np.float64],
    used: Weights,
    options: TrainingOptions,
    *,
    validation: npt.NDArray[np.bool_] | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> list[float]:
    """Fit every member to its own rows.

    The members see the same batches; a row that a member must not see has no weight in its loss. Adam works number by
    number, so members don't influence each other. The order of an epoch depends on the seed and its number alone, so a
    training that goes on from a checkpoint ends where it would have ended.

    Args:
        network: on its device; changed in place.
        data: (n) structures.
        y: (n, outputs) targets; NaN where a target is missing.
        used: (members, n) weight of each row for each member (bool or number), 0 for rows it must not see.
        options: see there.
        validation: (members, n) rows that choose each member's best epoch, needed with `options.patience`.
        progress: called after each epoch.
        checkpoint: where to keep an unfinished training.

    Returns:
        Mean training loss of each epoch.

    Raises:
        ValueError: a member has no rows, the loss is unknown or became NaN.
    """
    used = np.asarray(used, dtype=np.float32)
    if not (used > 0).any(axis=1).all():
        raise ValueError("a member of the ensemble has no rows to train on")
    if options.loss not in LOSSES:
        raise ValueError(f"no loss {options.loss!r}; there are {', '.join(LOSSES)}")
    set_scales(network, data, y, used, scale_target=options.loss not in CLASSIFYING)
    run = _Training(network, data, y, used, options, validation)
    if checkpoint and (saved := checkpoint.load()):
        run.restore(saved)
    while run.wants_more():
        loss = run.epoch()
        if not np.isfinite(loss):
            raise ValueError(f"training diverged in epoch {run.done}: the loss is {loss}; lower model.learning_rate")
        if progress:
            progress(run.done, loss)
        if checkpoint and run.done % options.checkpoint_every == 0 and run.wants_more():
            checkpoint.save(run.state())
    run.finish()
    return run.losses


class _Training:
    """A training under way: network, optimizer, and how far it is."""

    def __init__(
        self,
        network: AtomSetsNetwork,
        data: TrainingData,
        y: npt.NDArray[np.float64],
        used: npt.NDArray[np.float32],
        options: TrainingOptions,
        validation: npt.NDArray[np.bool_] | None,
    ) -> None:
        self.network, self.data, self.options = network, data, options
        self.device = network.out.weight.device
        present = torch.from_numpy(np.isfinite(y)).float().to(self.device)
        target = torch.from_numpy(np.nan_to_num(y)).float().to(self.device)
        self.target = (target - network.target.mean) / network.target.scale
        self.weight = torch.from_numpy(used).to(self.device)[:, :, None] * present
        # A row trains a member if it has a weight, weights are not all zero, and some target is there.
        self.rows = np.flatnonzero((used > 0).any(axis=0) & np.isfinite(y).any(axis=1))
        if not len(self.rows):
            raise ValueError("no row has a label")
        self.validation = None if validation is None else torch.from_numpy(validation).float().to(self.device)
        if self.validation is not None:
            self.validation = self.validation[:, :, None] * present
        self.optimizer = torch.optim.AdamW(
            network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay, fused=True
        )
        self.micro = options.batch_size
        self.losses: list[float] = []
        self.best = torch.full((network.members,), math.inf, device=self.device)
        self.best_epoch = 0
        self.kept: dict[str, Tensor] = {}

    @property
    def done(self) -> int:
        """Epochs finished."""
        return len(self.losses)

    def wants_more(self) -> bool:
        """Whether another epoch is due."""
        patience = self.options.patience
        waited = patience is not None and self.done - self.best_epoch >= patience
        return self.done < self.options.epochs and not waited

    def epoch(self) -> float:
        """One pass over the rows; the mean loss of a member."""
        options = self.options
        order = np.random.default_rng([options.seed, self.done]).permutation(self.rows)
        torch.manual_seed(options.seed * 100_003 + self.done)
        steps = -(-len(order) // options.batch_size)
        total = 0.0
        self.network.train()
        for step in range(steps):
            rate = options.learning_rate * _warm_cosine((self.done + step / steps) / options.epochs)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            rows = order[step * options.batch_size : (step + 1) * options.batch_size]
            total += self._step(rows) * len(rows)
        self.losses.append(total / (len(order) * self.network.members))
        if self.validation is not None and options.patience is not None:
            self._validate()
        return self.losses[-1]

    def _step(self, rows: IntArray) -> float:
        """One optimizer step; where the memory is short, in as many parts as it takes, with the same gradient."""
        while True:
            try:
                return self._accumulate(rows)
            except torch.OutOfMemoryError:
                if self.micro == 1:
                    raise
                self.micro = max(1, self.micro // 2)
                torch.cuda.empty_cache()

    def _accumulate(self, rows: IntArray) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        scale = self.weight[:, rows].sum(dim=(1, 2)).clamp(min=1e-12)
        for start in range(0, len(rows), self.micro):
            part = rows[start : start + self.micro]
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._mixed()):
                outputs = self.network(self.data.batch(part, self.device))
            error = LOSSES[self.options.loss](outputs.float(), self.target[:, part].expand_as(outputs))
            # Sum over members: each is an independent problem, none scaled by the others.
            loss = ((error * self.weight[:, part]).sum(dim=(1, 2)) / scale).sum()
            loss.backward()
            total += float(loss.detach())
        self.optimizer.step()
        return total

    def _mixed(self) -> bool:
        return self.options.mixed_precision and self.device.type == "cuda"

    @torch.no_grad()
    def _validate(self) -> None:
        """Keep the weights of every member that has never been better on its validation rows."""
        self.network.eval()
        weight = self.validation
        if weight is None:
            return
        error = torch.zeros(self.network.members, device=self.device)
        for start in range(0, len(self.data), 4096):
            rows = np.arange(start, min(start + 4096, len(self.data)))
            outputs = self.network(self.data.batch(rows, self.device))
            loss = LOSSES[self.options.loss](outputs, self.target[:, rows].expand_as(outputs))
            error += (loss * weight[:, rows]).sum(dim=(1, 2))
        better = error < self.best
        if not self.kept:
            self.kept = {name: value.detach().clone() for name, value in self.network.named_parameters()}
        for name, value in self.network.named_parameters():
            self.kept[name][better] = value.detach()[better]
        self.best = torch.minimum(self.best, error)
        if better.any():
            self.best_epoch = self.done

    @torch.no_grad()
    def finish(self) -> None:
        """Give every member its best epoch back, if they were watched."""
        if self.kept:
            for name, value in self.network.named_parameters():
                value.copy_(self.kept[name])
        self.network.eval()

    def state(self) -> bytes:
        """Everything that another process needs to go on, as safetensors."""
        tensors = {f"network.{name}": value.detach() for name, value in self.network.named_parameters()}
        for name, parameter in self.network.named_parameters():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{name}.{key}"] = value
        tensors.update({f"kept.{name}": value for name, value in self.kept.items()})
        tensors["best"] = self.best
        tensors["losses"] = torch.tensor(self.losses, dtype=torch.float64)
        tensors["best_epoch"] = torch.tensor(self.best_epoch)
        return safetensors.torch.save({name: value.cpu().contiguous() for name, value in tensors.items()})

    @torch.no_grad()
    def restore(self, saved: bytes) -> None:
        """Go on from `state`; from the start where it is damaged or of another network."""
        try:
            tensors = {name: value.to(self.device) for name, value in safetensors.torch.load(saved).items()}
        except safetensors.SafetensorError:
            return
        fits = all(
            f"network.{name}" in tensors and tensors[f"network.{name}"].shape == parameter.shape
            for name, parameter in self.network.named_parameters()
        )
        if not fits:
            return
        for name, parameter in self.network.named_parameters():
            parameter.copy_(tensors[f"network.{name}"])
            prefix = f"optimizer.{name}."
            self.optimizer.state[parameter] = {
                key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
            }
        self.kept = {k.removeprefix("kept."): value for k, value in tensors.items() if k.startswith("kept.")}
        self.best, self.best_epoch = tensors["best"], int(tensors["best_epoch"])
        self.losses = tensors["losses"].tolist()


def _warm_cosine(x: float) -> float:
    if x < 0.1:
        return 0.1 + 0.9 * x / 0.1
    return 0.5 * (1.0 + float(np.cos(np.pi * (x - 0.1) / 0.9)))


@torch.inference_mode()
def apply(network: AtomSetsNetwork, data: TrainingData, batch_size: int = 4096) -> npt.NDArray[np.float64]:
    """(members, n, outputs) predictions in the units the network was trained on."""
    device = network.out.weight.device
    parts = [
        network.predict(data.batch(np.arange(start, min(start + batch_size, len(data))), device)).cpu()
        for start in range(0, len(data), batch_size)
    ]
    if not parts:
        return np.empty((network.members, 0, network.out.bias.shape[2]))
    return torch.cat(parts, dim=1).double().numpy()
