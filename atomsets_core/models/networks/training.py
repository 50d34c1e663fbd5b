"""The training loop of set networks: all members of an ensemble at once, each on its rows, deterministic by seed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from atomsets_core.models.networks.checkpoints import Checkpoint, Progress, pack, signature_of, unpack
from atomsets_core.models.networks.set_network import AtomSetsNetwork, MemberLinear, Standardize
from atomsets_core.models.networks.training_data import BLOCK, Cut, TrainingData
from atomsets_core.structures import IntArray

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

CHECKPOINT_SECONDS = 20.0

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
        mixed_precision: products in bfloat16, for GPUs.
        checkpoint_every: epochs between two checkpoints, where a `Checkpoint` is given, and no more than
            `CHECKPOINT_SECONDS` and an epoch.
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


CACHED_SITES = 1_200
"""Sites a part of a large step on a CPU (measured with 10 members: a fifth less time than 3,456 sites at once)."""

FEW = 2048
"""Training rows up to which the number of steps grows with the rows."""


def automatic_batch_size(rows: int) -> int:
    """Structures a step: 64 up to `FEW` rows, then growing with the square root of their number, in steps of 32."""
    # Few rows need many steps, many rows would have more than they need: the number of steps of an epoch grows with the
    # square root of the rows.
    return 64 if rows <= FEW else 32 * round(2.0 * math.sqrt(rows / FEW))


def set_scales(
    network: AtomSetsNetwork, data: TrainingData, y: npt.NDArray[np.float64], used: Weights, scale_target: bool = True
) -> None:
    """Give every member the means and deviations of its own rows, of nothing else.

    Members that use the same rows (those that leave out the same fold) share the work, and sites are read in stretches.

    Args:
        network: changed in place.
        data: (n) structures.
        y: (n, outputs) targets, NaN where there is none.
        used: (members, n) weights, 0 for rows that a member must not see.
        scale_target: False leaves targets as they are (classes).
    """
    rows, of_member = np.unique(np.asarray(used, dtype=np.float32) > 0, axis=0, return_inverse=True)
    on_sites = _moments(partial(_site_stretches, data, network.alpha), rows, data.sites.shape[1])
    on_structures = _moments(partial(_stretches, data.structure.numpy()), rows, data.structure.shape[1])
    for member, group in enumerate(of_member.reshape(-1)):
        _put(network.site_input, member, *(moment[group] for moment in on_sites))
        _put(network.structure_input, member, *(moment[group] for moment in on_structures))
    if scale_target:
        for output, column in enumerate(y.T):
            known = np.isfinite(column)
            values = np.where(known, column, 0.0)[:, None]
            # Of values in any unit: what is smaller than their rounding is no deviation.
            least = 1e-9 * float(np.abs(values).max(initial=0.0))
            mean, scale = _moments(partial(_stretches, values), rows & known, 1, least)
            network.target.mean[:, 0, output] = torch.from_numpy(mean[of_member.reshape(-1), 0]).float()
            network.target.scale[:, 0, output] = torch.from_numpy(scale[of_member.reshape(-1), 0]).float()


Stretch = tuple[IntArray, IntArray, FloatArray, FloatArray]
"""Row numbers (k,), first value of each row (k,), values (m, width) and their weights (m, 1), row after row."""


def _site_stretches(data: TrainingData, alpha: float) -> Iterator[Stretch]:
    # With the weights that the poolings see: with alpha below 1 minor elements count for more.
    for rows in data.runs(np.arange(len(data)), 1) if data.sites.shape[1] else ():
        batch = data.batch(rows, torch.device("cpu"))
        start = np.flatnonzero(np.diff(batch.owner.numpy(), prepend=-1))
        yield rows, start, batch.sites.double().numpy(), batch.weights.double().numpy()[:, None] ** alpha


def _stretches(values: npt.NDArray[np.floating[Any]]) -> Iterator[Stretch]:
    for start in range(0, len(values) if values.shape[1] else 0, BLOCK):
        block = values[start : start + BLOCK].astype(np.float64)
        one = np.arange(len(block))
        yield one + start, one, block, np.ones((len(block), 1))


def _moments(
    stretches: Callable[[], Iterable[Stretch]], rows: npt.NDArray[np.bool_], width: int, least: float = 1e-6
) -> tuple[FloatArray, FloatArray]:
    """(groups, width) weighted means and deviations over (groups, n) rows; 1 for one that isn't above `least`."""
    total, first = np.zeros((len(rows), 1)), np.zeros((len(rows), width))
    for at, start, values, weights in stretches():
        total += rows[:, at] @ np.add.reduceat(weights, start)
        first += rows[:, at] @ np.add.reduceat(values * weights, start)
    total[total == 0] = 1.0
    mean = first / total
    # Squares around a common point near all means lose no digits to a large offset.
    middle, second = mean.mean(axis=0), np.zeros((len(rows), width))
    for at, start, values, weights in stretches():
        second += rows[:, at] @ np.add.reduceat((values - middle) ** 2 * weights, start)
    # E (x - mean)^2 = E (x - middle)^2 - (mean - middle)^2.
    scale = np.sqrt(np.maximum(second / total - (mean - middle) ** 2, 0.0))
    scale[~(scale > least)] = 1.0
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
        options: epochs, rates, loss, patience and seed.
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
    signature = run.signature() if checkpoint else b""
    if checkpoint and (saved := checkpoint.load()):
        run.restore(saved, signature)
    kept = time.monotonic()
    while run.wants_more():
        loss = run.epoch()
        if not np.isfinite(loss):
            raise ValueError(f"training diverged in epoch {run.done}: the loss is {loss}; lower model.learning_rate")
        if progress:
            progress(run.done, options.epochs, loss)
        due = run.done % options.checkpoint_every == 0 or time.monotonic() - kept > CHECKPOINT_SECONDS
        if checkpoint and due and run.wants_more():
            checkpoint.save(run.state(signature))
            kept = time.monotonic()
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
        if self.validation is not None and validation is not None:
            self.validation = self.validation[:, :, None] * present
            self.watched = np.flatnonzero(validation.any(axis=0))
        self.optimizer = torch.optim.AdamW(
            network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay, fused=True
        )
        self.micro = _fitting(network, data, options.batch_size, self.device)
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
        # For dropout. Two seeds share no state before epoch 100,003; an epoch's is known without those before it.
        torch.manual_seed(options.seed * 100_003 + self.done)
        total, seen = torch.zeros((), device=self.device), 0
        self.network.train()
        for rows in self.data.runs(order, options.batch_size):
            cut, at = Cut.at(self.data, rows, self.device), torch.from_numpy(rows).to(self.device)
            target, weight = self.target[:, at], self.weight[:, at]
            for start in range(0, len(rows), options.batch_size):
                self._set_rate((self.done + seen / len(order)) / options.epochs)
                stop = min(start + options.batch_size, len(rows))
                total += self._step(cut, target, weight, start, stop) * (stop - start)
                seen += stop - start
        self.losses.append(float(total) / (len(order) * self.network.members))
        if self.validation is not None and options.patience is not None:
            self._validate()
        return self.losses[-1]

    def _set_rate(self, progress: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate * _warm_cosine(progress)

    def _step(self, cut: Cut, target: Tensor, weight: Tensor, start: int, stop: int) -> Tensor:
        """One optimizer step; where the memory is short, in as many parts as it takes, with the same gradient."""
        while True:
            try:
                return self._accumulate(cut, target, weight, start, stop)
            except torch.OutOfMemoryError:
                if self.micro == 1:
                    raise
                self.micro = max(1, self.micro // 2)
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()

    def _accumulate(self, cut: Cut, target: Tensor, weight: Tensor, start: int, stop: int) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        scaled = weight[:, start:stop]
        # Sum over members: each is an independent problem, none scaled by the others.
        scaled = scaled / scaled.sum(dim=(1, 2), keepdim=True).clamp(min=1e-12)
        for first in range(start, stop, self.micro):
            last = min(first + self.micro, stop)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.mixed_precision):
                outputs = self.network(cut.part(first, last))
            # Products may be bfloat16; losses and what is added up over a step are float32.
            error = LOSSES[self.options.loss](outputs.float(), target[:, first:last].expand_as(outputs))
            loss = (error * scaled[:, first - start : last - start]).sum()
            loss.backward()
            total += loss.detach()
        self.optimizer.step()
        return total

    @torch.no_grad()
    def _validate(self) -> None:
        """Keep the weights of every member that has never been better on its validation rows."""
        self.network.eval()
        weight = self.validation
        if weight is None:
            return
        error = torch.zeros(self.network.members, device=self.device)
        for rows in self.data.runs(self.watched, 1):
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

    def signature(self) -> bytes:
        """Digest of all that decides how this training ends, see `signature_of`."""
        data = (self.data.sites, self.data.weights, self.data.structure, self.data.offsets)
        return signature_of(self.options, (*data, *self.network.parameters(), self.target, self.weight))

    def state(self, signature: bytes) -> bytes:
        """Everything that another process needs to go on."""
        place = {
            "best": self.best,
            "losses": torch.tensor(self.losses, dtype=torch.float64),
            "best_epoch": torch.tensor(self.best_epoch),
        }
        return pack(dict(self.network.named_parameters()), self.optimizer, self.kept, place, signature)

    def restore(self, saved: bytes, signature: bytes) -> None:
        """Go on from `state`; from the start where it is damaged or of another training."""
        found = unpack(saved, dict(self.network.named_parameters()), self.optimizer, signature)
        if found is not None:
            self.kept, place = found
            self.best, self.best_epoch = place["best"], int(place["best_epoch"])
            self.losses = place["losses"].tolist()


def _fitting(network: AtomSetsNetwork, data: TrainingData, batch_size: int, device: torch.device) -> int:
    """Structures a part of a step: what fits into half of a GPU's free memory, or into a processor's cache."""
    if device.type != "cuda":
        return min(batch_size, max(64, round(CACHED_SITES / max(data.mean_sites(), 1))))
    free, _ = torch.cuda.mem_get_info(device)
    return structures_within(free // 2, network, data, batch_size)


def structures_within(memory: int, network: AtomSetsNetwork, data: TrainingData, most: int) -> int:
    """How many structures of average size a step can take within so many bytes; at least 1, at most `most`.

    Of each layer on sites there are the inputs, the outputs and the gradients of both, for every member.
    """
    # 4 bytes a number; with autograd a layer keeps its inputs, and there are outputs and both gradients.
    widths = sum(cast(MemberLinear, layer).weight.shape[2] for layer in network.phi)
    numbers = data.mean_sites() * (data.sites.shape[1] + 4 * network.members * widths)
    return int(min(most, max(1, memory // max(4 * numbers, 1))))


def _warm_cosine(x: float) -> float:
    if x < 0.1:
        return 0.1 + 0.9 * x / 0.1
    # Half a cosine from 1 to 0 (Loshchilov & Hutter, ICLR 2017), after a tenth of the steps in which AdamW has yet to
    # find the size of the gradients.
    return 0.5 * (1.0 + float(np.cos(np.pi * (x - 0.1) / 0.9)))
