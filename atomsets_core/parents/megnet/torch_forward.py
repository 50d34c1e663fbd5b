"""MEGNet's forward pass in torch: on any device, and on CPUs where the compiled one isn't to be had.

What differs from the original is the order of the work, because a crystal has a hundred times more bonds than atoms
and all the time goes into them:

- the first layer of the bond update is split into atom, neighbour, bond and state parts, so that only the 32-wide bond
  part is done once a bond;
- the `- ln 2` of the shifted softplus is folded into the bias of the layer that follows;
- the initial bond vector depends on one number, the distance: it is read from a fine table by cubic interpolation
  (error below 1e-6) instead of being computed through 100 Gaussians and two layers;
- bonds go through the whole chain of a block in pieces that stay in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import softplus

from atomsets_core.parents.megnet.weights import DEPTHS, LN2, TABLE_STEP, Weights, bond_table
from atomsets_core.structures import CrystalGraphs

PIECE = 4096
"""Bonds that go through a block's chain together on a CPU; their 64-wide intermediates fit the L2 cache."""

PIECE_ON_DEVICE = 200_000
"""The same on an accelerator, where few large steps are better."""

Precision = Literal["float32", "bf16"]
"""Number format of products and activations on the bonds."""


class TorchForward:
    """The forward pass on a torch device."""

    def __init__(self, weights: Weights, device: torch.device, precision: Precision = "float32") -> None:
        self.device = device
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._w = {name: torch.from_numpy(value).to(device) for name, value in weights.items()}
        self._piece = PIECE if device.type == "cpu" else PIECE_ON_DEVICE
        with torch.inference_mode():
            self._blocks = [_Block(self._w, k, self._dtype) for k in (1, 2, 3)]
            self._table = torch.from_numpy(bond_table(weights)).float().to(device)

    def use_less_memory(self) -> bool:
        """Halve the pieces that bonds are worked through in; False when they are small already."""
        if self._piece <= PIECE:
            return False
        self._piece //= 2
        return True

    @torch.inference_mode()
    def __call__(self, graphs: CrystalGraphs, wanted: Sequence[str]) -> dict[str, npt.NDArray[np.float32]]:
        """The levels `wanted` of one batch of graphs; nothing deeper than them is computed.

        Returns:
            level -> (n_atoms, width) for site levels, (n_structures, width) for structure levels, float32.
        """
        out: dict[str, Tensor] = {}
        graph = _Graph(graphs, self.device)
        depth = max(DEPTHS[level] for level in wanted)
        atoms = self._w["embedding_1/embeddings"][graph.numbers]
        out["V0"] = atoms
        atoms = self._pair(atoms, 1)
        state = self._pair(torch.zeros(graph.n_structures, 2, device=self.device), 5)
        bonds = None
        for k in range(1, min(depth, 3) + 1):
            # The bond update of the last block is only needed by the readout.
            atoms, bonds, state, out[f"V{k}"] = self._block(k, graph, atoms, bonds, state, keep_bonds=k < depth)
        if depth == 4 and bonds is not None:
            pooled_atoms = self._set2set(atoms, graph.atom_structure, graph.n_structures, 1)
            pooled_bonds = self._set2set(bonds, graph.bond_structure, graph.n_structures, 2)
            out["v"] = torch.cat([pooled_atoms, pooled_bonds, state], dim=1)
            out["f2"] = self._dense(out["v"], 19)
            out["f1"] = self._dense(out["f2"], 20)
            out["energy"] = out["f1"] @ self._w["dense_21/kernel"] + self._w["dense_21/bias"]
        return {level: out[level].cpu().numpy() for level in wanted}

    def _dense(self, x: Tensor, number: int) -> Tensor:
        return softplus(torch.addmm(self._w[f"dense_{number}/bias"], x, self._w[f"dense_{number}/kernel"])) - LN2

    def _pair(self, x: Tensor, number: int) -> Tensor:
        return self._dense(self._dense(x, number), number + 1)

    def _initial_bonds(self, distance: Tensor) -> Tensor:
        """(bonds, 32) from distances (bonds,) in Angstrom: four-point Lagrange interpolation in the table."""
        # Float32 would leave the share of a step to four digits.
        position = distance.double() / TABLE_STEP
        knot = position.long()
        t = (position - knot).float()[:, None]
        table, knot = self._table, knot + 1
        # Weights of the knots at -1, 0, 1 and 2 steps from the one below.
        out = table[knot - 1] * (-t * (t - 1) * (t - 2) / 6)
        out += table[knot] * ((t + 1) * (t - 1) * (t - 2) / 2)
        out += table[knot + 1] * (-(t + 1) * t * (t - 2) / 2)
        out += table[knot + 2] * ((t + 1) * t * (t - 1) / 6)
        return out

    def _block(
        self, k: int, graph: _Graph, atoms: Tensor, bonds: Tensor | None, state: Tensor, *, keep_bonds: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Block k with its dense layers in front and its skip.

        Args:
            k: 1, 2 or 3.
            graph: the batch.
            atoms: (n_atoms, 32).
            bonds: (n_bonds, 32), changed in place; None before the first block.
            state: (n_structures, 32).
            keep_bonds: whether the updated bonds are needed by anything after this block.

        Returns:
            atoms, bonds and state after the skip, and the block's raw output on the atoms, (n_atoms, 32).
        """
        block = self._blocks[k - 1]
        if k == 1:
            atoms_in, state_in = atoms, state
        else:
            first = 6 * k - 5
            atoms_in, state_in = self._pair(atoms, first), self._pair(state, first + 4)
        # W (v_i, v_j, e, u) = W_c v_i + W_n v_j + W_b e + W_s u, of which only W_b e is done once a bond.
        from_centre = atoms_in @ block.centre + (state_in @ block.state + block.bias_0)[graph.atom_structure]
        from_centre, from_neighbour = from_centre.to(self._dtype), (atoms_in @ block.neighbour).to(self._dtype)
        bond_sum = torch.zeros(len(atoms), 32, device=self.device)
        if bonds is None:
            bonds = torch.empty(graph.n_bonds, 32, device=self.device)
        for start in range(0, graph.n_bonds, self._piece):
            piece = slice(start, min(start + self._piece, graph.n_bonds))
            centre, neighbour = graph.centre[piece], graph.neighbour[piece]
            if k == 1:
                bonds[piece] = self._initial_bonds(graph.distance[piece])
                hidden = bonds[piece].to(self._dtype) @ block.bond
            else:
                hidden = softplus(torch.addmm(block.ff_bias_0, bonds[piece].to(self._dtype), block.ff_0))
                hidden = softplus(torch.addmm(block.ff_bias_1, hidden, block.ff_1)) @ block.bond
            hidden += from_centre.index_select(0, centre)
            hidden += from_neighbour.index_select(0, neighbour)
            hidden = softplus(hidden)
            hidden = softplus(torch.addmm(block.bias_1, hidden, block.hidden))
            # Sums over tens of bonds are float32 also where the products are bfloat16, which has 8 bits.
            update = torch.addmm(block.bias_2, hidden, block.out).float()
            bond_sum.index_add_(0, centre, update)
            if keep_bonds:
                bonds[piece] += update
        bond_mean = bond_sum / graph.bonds_of_atom
        state_bonds = graph.sum_atoms(bond_sum) / graph.bonds_of_structure
        x = torch.cat([bond_mean, atoms_in, state_in[graph.atom_structure]], dim=1)
        new_atoms = self._mlp(x, k, "v")
        state_atoms = graph.sum_atoms(new_atoms) / graph.atoms_of_structure
        new_state = self._mlp(torch.cat([state_bonds, state_atoms, state_in], dim=1), k, "u")
        return atoms + new_atoms, bonds, state + new_state, new_atoms

    def _mlp(self, x: Tensor, k: int, kind: str) -> Tensor:
        for layer in (0, 1, 2):
            weight = self._w[f"meg_net_layer_{k}/weight_{kind}_{layer}"]
            x = torch.addmm(self._w[f"meg_net_layer_{k}/bias_{kind}_{layer}"], x, weight)
            if layer < 2:
                x = softplus(x) - LN2
        return x

    def _set2set(self, x: Tensor, owner: Tensor, n: int, number: int) -> Tensor:
        """(n, 32): the original's set2set with two steps of 16 units, its cell state zero in every step."""
        w, name = self._w, f"set2_set_{number}"
        memory = torch.addmm(w[f"{name}/x_to_m_bias"], x, w[f"{name}/x_to_m_weight"])
        query = torch.zeros(n, 32, device=x.device)
        for _ in range(2):
            gates = torch.addmm(w[f"{name}/recurrent_bias"], query, w[f"{name}/recurrent_kernel"])
            # Keras' order: input, forget, cell, output. With a cell state of zero the forget gate has nothing to keep.
            gate_in, _, gate_cell, gate_out = gates.chunk(4, dim=1)
            cell = _hard_sigmoid(gate_in) * torch.tanh(gate_cell)
            hidden = _hard_sigmoid(gate_out) * torch.tanh(cell)
            energy = (memory * hidden.index_select(0, owner)).sum(dim=1)
            # exp in float64 needs no shift by the maximum: |energy| stays far below 700.
            weight = torch.exp(energy.double())
            total = torch.zeros(n, dtype=torch.float64, device=x.device).index_add_(0, owner, weight)
            share = (weight / total.index_select(0, owner)).float()
            read = torch.zeros(n, 16, device=x.device).index_add_(0, owner, memory * share[:, None])
            query = torch.cat([hidden, read], dim=1)
        return query


class _Block:
    """Weights of one block's bond chain, split and with ln 2 folded into the biases.

    What is done once a bond is of the type `dtype`; the parts that atoms and states give are float32.
    """

    def __init__(self, w: dict[str, Tensor], k: int, dtype: torch.dtype) -> None:
        name = f"meg_net_layer_{k}"
        first = w[f"{name}/weight_e_0"]
        self.centre, self.neighbour, self.bond, self.state = (first[i : i + 32].contiguous() for i in (0, 32, 64, 96))
        self.bias_0 = w[f"{name}/bias_e_0"]
        if k > 1:
            number = 6 * k - 3
            self.ff_0, self.ff_bias_0 = w[f"dense_{number}/kernel"], w[f"dense_{number}/bias"]
            self.ff_1 = w[f"dense_{number + 1}/kernel"]
            self.ff_bias_1 = w[f"dense_{number + 1}/bias"] - LN2 * self.ff_1.sum(0)
            self.bias_0 = self.bias_0 - LN2 * self.bond.sum(0)
        self.hidden = w[f"{name}/weight_e_1"]
        self.bias_1 = w[f"{name}/bias_e_1"] - LN2 * self.hidden.sum(0)
        self.out = w[f"{name}/weight_e_2"]
        self.bias_2 = w[f"{name}/bias_e_2"] - LN2 * self.out.sum(0)
        on_bonds = ("bond", "ff_0", "ff_bias_0", "ff_1", "ff_bias_1", "hidden", "bias_1", "out", "bias_2")
        for part in on_bonds if k > 1 else ("bond", *on_bonds[5:]):
            setattr(self, part, getattr(self, part).to(dtype))


class _Graph:
    """A `CrystalGraphs` as tensors on a device, with the index vectors that the blocks share."""

    def __init__(self, graphs: CrystalGraphs, device: torch.device) -> None:
        def tensor(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values).to(device)

        self.numbers, self.centre = tensor(graphs.numbers), tensor(graphs.centre)
        self.neighbour, self.distance = tensor(graphs.neighbour), tensor(graphs.distance)
        self.n_structures, self.n_bonds = len(graphs.n_atoms), len(graphs.centre)
        n_atoms, n_bonds = tensor(graphs.n_atoms), tensor(graphs.n_bonds)
        structure = torch.arange(self.n_structures, device=device)
        self.atom_structure = structure.repeat_interleave(n_atoms)
        self.bond_structure = structure.repeat_interleave(n_bonds)
        self.bonds_of_atom = torch.bincount(self.centre, minlength=len(graphs.numbers)).float()[:, None]
        self.atoms_of_structure = n_atoms.float()[:, None]
        self.bonds_of_structure = n_bonds.float()[:, None]

    def sum_atoms(self, values: Tensor) -> Tensor:
        out = torch.zeros(self.n_structures, values.shape[1], device=values.device)
        return out.index_add_(0, self.atom_structure, values)


def _hard_sigmoid(x: Tensor) -> Tensor:
    return torch.clamp(0.2 * x + 0.5, 0.0, 1.0)
