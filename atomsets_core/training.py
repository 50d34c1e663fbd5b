"""The training loop: all members of an ensemble at once, each on its own rows, deterministic by seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from atomsets_core.sets import AtomSetsNetwork, SetBatch
from atomsets_core.structures import IntArray, ragged_rows

Progress = Callable[[int, float], None]
"""Called after each epoch with its number (from 1) and the mean training loss (on the standardised target)."""

LOSSES: dict[str, Callable[[Tensor], Tensor]] = {"absolute": torch.abs, "squared": torch.square}


@dataclass(frozen=True)
class TrainingData:
    """Features of n structures in memory, ready to be cut into batches.

    Attributes:
        sites: (n_sites, width) float32 CPU tensor.
        weights: (n_sites,) float32 CPU tensor.
        structure: (n, width) float32 CPU tensor.
        offsets: (n + 1,) int64: sites of structure i are rows offsets[i]:offsets[i + 1].
    """

    sites: Tensor
    weights: Tensor
    structure: Tensor
    offsets: IntArray

    def __len__(self) -> int:
        return len(self.structure)

    @classmethod
    def merged(
        cls, sites: npt.NDArray[np.float32], structure: npt.NDArray[np.float32], offsets: IntArray
    ) -> TrainingData:
        """Features with symmetry-equivalent sites merged into one that weighs as much as they did.

        Equivalent sites have equal features, so every weighted pooling gives the same result from a quarter of the work
        (measured on the embedded elastic tensors: 14,675 sites become 3,446).

        Args:
            sites: (n_sites, width), structure after structure.
            structure: (n, width).
            offsets: (n + 1,) of the sites.
        """
        first, counts, offsets = _merge_equal(sites, offsets)
        return cls(
            torch.from_numpy(sites[first]),
            torch.from_numpy(counts.astype(np.float32)),
            torch.from_numpy(structure),
            offsets,
        )

    def batch(self, rows: IntArray, device: torch.device) -> SetBatch:
        """The structures at these rows, in this order, on a device."""
        site_rows = torch.from_numpy(ragged_rows(self.offsets, rows))
        lengths = torch.from_numpy(self.offsets[rows + 1] - self.offsets[rows])
        owner = torch.arange(len(rows)).repeat_interleave(lengths)
        return SetBatch(
            self.sites[site_rows].to(device),
            self.weights[site_rows].to(device),
            owner.to(device),
            self.structure[torch.from_numpy(rows)].to(device),
        )


@dataclass(frozen=True)
class TrainingOptions:
    """How long and how fast. The learning rate warms up over the first tenth and falls to zero along a cosine.

    Attributes:
        epochs: passes over the data.
        batch_size: structures a step.
        learning_rate: at the top of the schedule.
        weight_decay: decoupled (AdamW).
        loss: "absolute" (robust to wrong labels) or "squared" (the publication), on the standardised target.
        seed: of the order.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    loss: str
    seed: int


def _merge_equal(sites: npt.NDArray[np.float32], offsets: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """First site of each set of equal ones within a structure, how many they are, and the new offsets.

    Sites count as equal when two random projections of their standardised features agree to 1e-3 of a standard
    deviation.
    """
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    if not sites.shape[1]:
        return np.arange(len(sites)), np.ones(len(sites), dtype=np.int64), offsets
    scale = sites.std(axis=0)
    scale[~(scale > 1e-6)] = 1.0
    directions = np.random.default_rng(0).normal(size=(sites.shape[1], 2))
    directions /= np.linalg.norm(directions, axis=0) * scale[:, None]
    keys = np.round((sites - sites.mean(axis=0)) @ directions * 1e3).astype(np.int64)
    _, first, counts = np.unique(np.column_stack([owner, keys]), axis=0, return_index=True, return_counts=True)
    return first, counts, np.searchsorted(owner[first], np.arange(len(offsets)))


def set_seed(seed: int) -> None:
    """Seed torch's generators, which draw the initial weights."""
    torch.manual_seed(seed)


def resolve_device(device: str) -> torch.device:
    """A torch device; "auto" is the GPU where there is one, else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def set_scales(network: AtomSetsNetwork, data: TrainingData, y: npt.NDArray[np.float64], used: npt.NDArray) -> None:
    """Give every member the means and deviations of its own rows, of nothing else.

    Args:
        network: changed in place.
        data: (n) structures.
        y: (n, outputs) targets.
        used: (members, n) bool, the rows each member is trained on.
    """
    owner = np.repeat(np.arange(len(data)), np.diff(data.offsets))
    sites, weights = data.sites.double().numpy(), data.weights.double().numpy()
    structure, even = data.structure.double().numpy(), np.ones(len(data))
    for member, rows in enumerate(used):
        on_sites = rows[owner]
        for scaler, values, weight in (
            (network.site_input, sites[on_sites], weights[on_sites]),
            (network.structure_input, structure[rows], even[rows]),
            (network.target, y[rows], even[rows]),
        ):
            weight = weight / weight.sum()
            mean = weight @ values
            scale = np.sqrt(weight @ (values - mean) ** 2)
            scale[~(scale > 1e-6)] = 1.0
            scaler.mean[member, 0] = torch.from_numpy(mean).float()
            scaler.scale[member, 0] = torch.from_numpy(scale).float()


def train(
    network: AtomSetsNetwork,
    data: TrainingData,
    y: npt.NDArray[np.float64],
    used: npt.NDArray,
    options: TrainingOptions,
    progress: Progress | None = None,
) -> list[float]:
    """Fit every member to its own rows, by absolute or squared error on its standardised target.

    The members see the same batches; rows that a member must not see have no weight in its loss. Adam works number by
    number, so members don't influence each other.

    Args:
        network: on its device; changed in place.
        data: (n) structures.
        y: (n, outputs) targets, finite.
        used: (members, n) bool, the rows each member is trained on.
        options: see there.
        progress: called after each epoch.

    Returns:
        Mean training loss of each epoch.

    Raises:
        ValueError: a member has no rows, or the loss became NaN.
    """
    if not used.any(axis=1).all():
        raise ValueError("a member of the ensemble has no rows to train on")
    if options.loss not in LOSSES:
        raise ValueError(f"no loss {options.loss!r}; there are {', '.join(LOSSES)}")
    criterion = LOSSES[options.loss]
    set_scales(network, data, y, used)
    device = network.out.weight.device
    target = (torch.from_numpy(y).float().to(device) - network.target.mean) / network.target.scale
    mask = torch.from_numpy(used).float().to(device)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay, foreach=True
    )
    steps = -(-len(data) // options.batch_size) * options.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warm_cosine(step / steps))
    order = np.random.default_rng(options.seed)
    losses = []
    network.train()
    for epoch in range(1, options.epochs + 1):
        permutation = order.permutation(len(data))
        total = torch.zeros((), device=device)
        for start in range(0, len(data), options.batch_size):
            rows = permutation[start : start + options.batch_size]
            picked = torch.from_numpy(rows).to(device)
            weight = mask[:, picked]
            error = criterion(network(data.batch(rows, device)) - target[:, picked])
            # Sum over members: each is an independent problem, none scaled by the others.
            loss = ((error.mean(dim=2) * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach() * len(rows)
        losses.append(float(total) / (len(data) * network.members))
        if not np.isfinite(losses[-1]):
            raise ValueError(f"training diverged in epoch {epoch}: the loss is {losses[-1]}; lower model.learning_rate")
        if progress:
            progress(epoch, losses[-1])
    network.eval()
    return losses


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
