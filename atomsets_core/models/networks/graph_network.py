"""MEGNet with weights that can be trained: the parent's arithmetic (`parents/megnet`) under autograd.

The order of the work is chosen for training. A bond's first layers see its distance alone, and are done once a shell.
The first layer of the bond update is split into centre, neighbour, bond and state parts, of which only the bond part
is done once a bond. The `- ln 2` of the shifted softplus goes into the bias of the layer that follows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from atomsets_core.models.networks.graph_set import Batch
from atomsets_core.parents import BLOCKS, LN2, Weights, weight_shapes

HEAD = ("dense_19", "dense_20", "dense_21")
"""The readout: what belongs to the target."""

GAIN = 1.5
"""Width of random weights over Glorot's. 2 would make up for the activation alone, but the skips add to the signal."""


class MEGNetNetwork(nn.Module):
    """MEGNet with three blocks and one output, on a standardised target.

    Args:
        weights: name -> values as in `weight_shapes`; those that are missing are random, see `_random`.
        generator: of the random ones.

    Raises:
        ValueError: a weight has another shape.
    """

    def __init__(self, weights: Weights | None = None, generator: torch.Generator | None = None) -> None:
        super().__init__()
        given = dict(weights or {})
        values = {}
        for name, shape in weight_shapes().items():
            if name in given and given[name].shape != shape:
                raise ValueError(f"weight {name} has shape {given[name].shape}, {shape} is needed")
            start = _random(name, shape, generator)
            values[name] = nn.Parameter(torch.from_numpy(np.array(given[name])) if name in given else start)
        self.weights = nn.ParameterDict(values)

    def forward(self, batch: Batch) -> Tensor:
        """(n,) outputs on the standardised target, of the dtype of the weights (float32 unless a test doubles it)."""
        return self.levels(batch)["energy"][:, 0]

    def levels(self, batch: Batch) -> dict[str, Tensor]:
        """Every level of the parent, of the dtype of the weights.

        Returns:
            level -> (n_atoms, 16) for V0, (n_atoms, 32) for V1 to V3, the raw outputs of the blocks on the merged atoms
            of the graph; (n, 96) for v, (n, 32) for f2, (n, 16) for f1, (n, 1) for the energy.
        """
        out = {"V0": self.weights["embedding_1/embeddings"][batch.numbers]}
        atoms = self._pair(out["V0"], 1)
        state = self._pair(atoms.new_zeros(1, 2), 5).expand(batch.n, 32)
        bonds = None
        for k in BLOCKS:
            atoms, bonds, state, out[f"V{k}"] = self._block(k, batch, atoms, bonds, state)
        assert bonds is not None  # noqa: S101
        pooled_atoms = self._set2set(atoms, batch.site_share[:, 0], batch.structure, batch.n, 1)
        pooled_bonds = self._set2set(bonds, batch.bond_weight, batch.bond_structure, batch.n, 2)
        out["v"] = torch.cat([pooled_atoms, pooled_bonds, state], dim=1)
        out["f2"] = softplus(self._linear(out["v"], "dense_19")) - LN2
        out["f1"] = softplus(self._linear(out["f2"], "dense_20")) - LN2
        out["energy"] = self._linear(out["f1"], "dense_21")
        return out

    def groups(self, frozen_blocks: int) -> tuple[list[Tensor], list[Tensor]]:
        """Trainable weights of the body (all but the first `frozen_blocks` blocks and what is before them) and head.

        Returns:
            Kernels (inputs, outputs) and biases (outputs,) as in `weight_shapes`, with the dtype of the network.
        """
        frozen = set()
        if frozen_blocks:
            # Layers 1 to 6 come before block 1, six more before each later one.
            frozen = {"embedding_1", *(f"dense_{i}" for i in range(1, 7 + 6 * (frozen_blocks - 1)))}
            frozen |= {f"meg_net_layer_{k}" for k in range(1, frozen_blocks + 1)}
        body: list[Tensor] = []
        head: list[Tensor] = []
        for name, parameter in self.weights.items():
            layer = name.split("/")[0]
            parameter.requires_grad_(layer not in frozen)
            if layer not in frozen:
                (head if layer in HEAD else body).append(parameter)
        return body, head

    def export(self, mean: float, scale: float) -> dict[str, np.ndarray]:
        """The weights as the parent reads them, with the target's mean and scale put into the last layer.

        Args:
            mean: of the target, in its unit.
            scale: of the target, in its unit.

        Returns:
            Name -> float32 kernels (inputs, outputs) and biases (outputs,), see `weight_shapes`.
        """
        out = {name: value.detach().cpu().double().numpy() for name, value in self.weights.items()}
        # scale (h W + b) + mean = h (scale W) + (scale b + mean), in float64.
        out["dense_21/kernel"] = out["dense_21/kernel"] * scale
        out["dense_21/bias"] = out["dense_21/bias"] * scale + mean
        return {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in out.items()}

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return torch.addmm(self.weights[f"{name}/bias"], x, self.weights[f"{name}/kernel"])

    def _pair(self, x: Tensor, number: int) -> Tensor:
        """Two activated dense layers."""
        second = self.weights[f"dense_{number + 1}/kernel"]
        bias = self.weights[f"dense_{number + 1}/bias"] - LN2 * second.sum(0)
        return softplus(torch.addmm(bias, softplus(self._linear(x, f"dense_{number}")), second)) - LN2

    def _block(
        self, k: int, batch: Batch, atoms: Tensor, bonds: Tensor | None, state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Block k with its dense layers in front and its skip; also its raw output on the atoms."""
        w, name = self.weights, f"meg_net_layer_{k}"
        first = 6 * k - 5
        before_atoms, before_state = atoms, state
        # W (v_i, v_j, e, u) = W_c v_i + W_n v_j + W_b e + W_s u, so that only W_b e is done once a bond (once a shell
        # before the first block).
        centre, neighbour, bond, of_state = w[f"{name}/weight_e_0"].split(32)
        if bonds is None:
            # Gaussians of width 0.5 Angstrom around 100 centres, as in `bond_table`, but with gradients and no table.
            x = batch.distance[:, None] - torch.linspace(0.0, 6.0, 100, dtype=atoms.dtype, device=atoms.device)
            shells = self._pair(torch.exp(-torch.square(x * 2.0)), 3)
            from_bond = (shells @ bond).index_select(0, batch.shell)
            before_bonds = shells.index_select(0, batch.shell)
        else:
            atoms, state = self._pair(atoms, first), self._pair(state, first + 4)
            from_bond = self._pair(bonds, first + 2) @ bond
            before_bonds = bonds
        from_state = torch.addmm(w[f"{name}/bias_e_0"], state, of_state)
        from_centre = atoms @ centre + from_state.index_select(0, batch.structure)
        hidden = from_bond + from_centre.index_select(0, batch.centre)
        hidden = hidden + (atoms @ neighbour).index_select(0, batch.neighbour)
        update = self._rest(hidden, name, "e")
        # A merged bond stands for a share of its centre's: the sum of shares is 1, so this is the mean over all of
        # them.
        mean = _sum(update * batch.share, batch.centre, len(atoms))
        x = torch.cat([mean, atoms, state.index_select(0, batch.structure)], dim=1)
        new_atoms = self._rest(torch.addmm(w[f"{name}/bias_v_0"], x, w[f"{name}/weight_v_0"]), name, "v")
        mean_of_bonds = _sum(mean * batch.bond_share, batch.structure, batch.n)
        mean_of_atoms = _sum(new_atoms * batch.site_share, batch.structure, batch.n)
        x = torch.cat([mean_of_bonds, mean_of_atoms, state], dim=1)
        new_state = self._rest(torch.addmm(w[f"{name}/bias_u_0"], x, w[f"{name}/weight_u_0"]), name, "u")
        return before_atoms + new_atoms, before_bonds + update, before_state + new_state, new_atoms

    def _rest(self, hidden: Tensor, name: str, kind: str) -> Tensor:
        """An update from what its first layer gave before activation."""
        for i in (1, 2):
            weight = self.weights[f"{name}/weight_{kind}_{i}"]
            hidden = torch.addmm(
                self.weights[f"{name}/bias_{kind}_{i}"] - LN2 * weight.sum(0), softplus(hidden), weight
            )
        return hidden

    def _set2set(self, x: Tensor, weight: Tensor, owner: Tensor, n: int, number: int) -> Tensor:
        """(n, 32): set2set with two steps of 16 units, each item counted by its weight; see `TorchForward`."""
        w, name = self.weights, f"set2_set_{number}"
        memory = torch.addmm(w[f"{name}/x_to_m_bias"], x, w[f"{name}/x_to_m_weight"])
        query = x.new_zeros(n, 32)
        for _ in range(2):
            gates = torch.addmm(w[f"{name}/recurrent_bias"], query, w[f"{name}/recurrent_kernel"])
            gate_in, _, gate_cell, gate_out = gates.chunk(4, dim=1)
            cell = _hard_sigmoid(gate_in) * torch.tanh(gate_cell)
            hidden = _hard_sigmoid(gate_out) * torch.tanh(cell)
            energy = (memory * hidden.index_select(0, owner)).sum(dim=1)
            # The largest of each structure is taken off: while learning, energies may grow large.
            top = energy.new_full((n,), -math.inf).scatter_reduce(0, owner, energy.detach(), "amax")
            part = weight * torch.exp(energy - top.index_select(0, owner))
            total = energy.new_zeros(n).index_add(0, owner, part)
            share = part / total.index_select(0, owner)
            query = torch.cat([hidden, _sum(memory * share[:, None], owner, n)], dim=1)
        return query


def _sum(values: Tensor, owner: Tensor, n: int) -> Tensor:
    """(n, width) sums over the rows of each owner."""
    return values.new_zeros(n, values.shape[1]).index_add(0, owner, values)


def _hard_sigmoid(x: Tensor) -> Tensor:
    return torch.clamp(0.2 * x + 0.5, 0.0, 1.0)


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    """Zero biases and Glorot uniform weights as in the original, but wider.

    Shifted softplus has a slope of a half at 0, so between Glorot's weights every layer halves what tells one crystal
    from another, and the original's embedding starts within 0.05. From there a training stands on a plateau for
    thousands of steps.
    """
    out = torch.zeros(shape)
    if name == "embedding_1/embeddings":
        return out.uniform_(-1.0, 1.0, generator=generator)
    if len(shape) == 1:
        return out
    if name.endswith("recurrent_kernel"):
        return nn.init.orthogonal_(out, generator=generator)
    # A new readout may be put on a trained body, whose signal is as large as it should be.
    return nn.init.xavier_uniform_(out, 1.0 if name.split("/")[0] in HEAD else GAIN, generator=generator)


def without_head(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All weights but the readout's: name -> float32 kernels (inputs, outputs) and biases (outputs,), not copied."""
    return {name: value for name, value in weights.items() if name.split("/")[0] not in HEAD}
