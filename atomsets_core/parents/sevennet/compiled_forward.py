"""SevenNet's forward pass on a CPU: a compiled loop over the bonds, and the matrix products of atoms by torch.

The layers are those of `torch_forward`; only the convolution is another. A piece of the atoms goes through all of a
layer while its messages are in the cache, so that they need no more memory than a piece.

The radial weights are a function of the length alone, whose two hidden layers a table replaces: values and slopes at
knots, with a cubic between them. From 0.7 Angstrom on its error is below what float32 rounds in the layers
themselves (`tests/atomsets_core/parents/sevennet/test_edge_kernel.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from atomsets_core.compiled import compiled_module
from atomsets_core.parents.sevennet.networks import CUTOFF, N_LAYERS
from atomsets_core.parents.sevennet.plan import CHANNELS, Plan, plan
from atomsets_core.parents.sevennet.torch_forward import DEPTHS, Layer, TorchForward
from atomsets_core.structures import CrystalGraphs

ATOMS = 128
"""Atoms that go through a layer together: their messages, 1.6 or 4 MB, stay in the cache for the next product."""

GROUP = 512
"""Bonds whose radial weights are made together: at most 2 or 4 MB, half of it where every bond has its reverse."""

Float32Array = npt.NDArray[np.float32]


def compiled_forward(plain: TorchForward) -> CompiledForward | None:
    """The forward pass in compiled loops; None without numba, on other devices and for other networks."""
    kernel = compiled_module("parents.sevennet.edge_kernel")
    known = CHANNELS.get(plain.network.lmax) == plain.network.channels
    return CompiledForward(plain, kernel) if kernel and known and plain.device.type == "cpu" else None


class CompiledForward:
    """The forward pass with compiled loops over the bonds.

    Args:
        plain: whose layers are used.
        kernel: the module `edge_kernel`.
    """

    def __init__(self, plain: TorchForward, kernel: Any) -> None:
        self._plain, self._kernel, self._network = plain, kernel, plain.network
        self._convolve = kernel.convolve_2 if plain.network.lmax == 2 else kernel.convolve_3
        self._tables: dict[tuple[int, int], _Constants] = {}

    def __call__(self, graphs: CrystalGraphs, wanted: Sequence[str]) -> dict[str, Tensor]:
        """The levels `wanted` of one batch of graphs, as `TorchForward` gives them."""
        plain, deepest = self._plain, max(DEPTHS[level] for level in wanted)
        species = plain.species[torch.from_numpy(graphs.numbers)]
        atoms = [plain.embedding[species][:, None]]
        out = {"embedding": atoms[0][:, 0]}
        bonds = _Bonds(graphs, self._network.lmax, self._kernel)
        for k in range(deepest + 1):
            atoms = self._interact(k, bonds, atoms, scalars_only=k == deepest)
            out[f"s{k}"] = atoms[0][:, 0]
        if "energy" in wanted:
            n_atoms = torch.from_numpy(graphs.n_atoms)
            structure = torch.arange(len(n_atoms)).repeat_interleave(n_atoms)
            out["energy"] = plain.energy(species, structure, n_atoms, out[f"s{N_LAYERS - 1}"])
        return {level: out[level] for level in wanted}

    def _interact(self, k: int, bonds: _Bonds, atoms: list[Tensor], *, scalars_only: bool) -> list[Tensor]:
        """One interaction layer, piece after piece of the atoms; see `TorchForward`."""
        layer, n = self._plain.layers[k], len(atoms[0])
        highest = 0 if scalars_only else self._network.lmax
        constants = self._constants(k, highest)
        what = constants.plan
        mixed = torch.empty(n * what.atom_size())
        for x, kernel, target in zip(atoms, layer.mix_in, _blocks(mixed, n, what.channels), strict=True):
            torch.mm(x.view(-1, x.shape[2]), kernel, out=target.view(-1, x.shape[2]))
        room = torch.empty(min(n, ATOMS) * what.message_size())
        weights = np.empty(bonds.most * what.columns, dtype=np.float32)
        kind = 2 * (len(atoms) > 1) + (not scalars_only)
        pieces: list[list[Tensor]] = []
        for start, groups in zip(range(0, n, ATOMS), pairwise(bonds.of_piece), strict=True):
            part = slice(start, min(start + ATOMS, n))
            size = part.stop - part.start
            sums = room[: size * what.message_size()].zero_()
            self._convolve(
                kind,
                *groups,
                *bonds.columns,
                constants.couplings,
                what.turns,
                constants.table,
                what.columns,
                mixed.numpy(),
                n,
                sums.numpy(),
                size,
                start,
                weights,
            )
            summed = _blocks(sums, size, what.widths)
            pieces.append(layer.update(summed, [x[part] for x in atoms], scalars_only=scalars_only))
        return [torch.cat(parts) for parts in zip(*pieces, strict=True)]

    def _constants(self, k: int, highest: int) -> _Constants:
        """What the loop reads in layer k; made when it is first needed."""
        if (k, highest) not in self._tables:
            what = plan(self._network.lmax, 0 if k == 0 else self._network.lmax, highest)
            # Slopes are derivatives, which the mode of inference knows nothing of.
            with torch.inference_mode(False):
                table = radial_table(self._plain, self._plain.layers[k], what, self._kernel)
            self._tables[k, highest] = _Constants(what, table.reshape(-1), _couplings(self._plain.layers[k], what))
        return self._tables[k, highest]


@dataclass(frozen=True)
class _Constants:
    """What the loop reads of a layer.

    Attributes:
        plan: where each path stands.
        table: (knots * 2 * columns,) float32.
        couplings: float32, flat, block after block.
    """

    plan: Plan
    table: Float32Array
    couplings: Float32Array


class _Bonds:
    """The bonds of a batch as the loop reads them: in groups, each with its distinct lengths.

    Attributes:
        of_piece: (pieces + 1,) int64, first group of each piece of atoms.
        columns: what `convolve_2` calls bonds, neighbour, centre, slot, distinct, lengths, harmonics.
        most: largest number of distinct lengths in a group.
    """

    def __init__(self, graphs: CrystalGraphs, lmax: int, kernel: Any) -> None:
        if graphs.vector is None:
            raise ValueError("sevennet needs a graph with vectors: graph_batches(..., vectors=True)")
        n_bonds, n_atoms = len(graphs.centre), len(graphs.numbers)
        harmonics = np.zeros((n_bonds + kernel.TILE, (lmax + 1) ** 2), dtype=np.float32)
        kernel.harmonics_of(graphs.vector, lmax, harmonics)
        bounds = np.append(np.arange(0, n_atoms, ATOMS), n_atoms)
        first = np.searchsorted(graphs.centre, bounds)
        groups = -(-np.diff(first) // GROUP)
        self.of_piece = np.concatenate([[0], np.cumsum(groups)])
        within = np.arange(self.of_piece[-1]) - np.repeat(self.of_piece[:-1], groups)
        bonds = np.append(np.repeat(first[:-1], groups) + GROUP * within, n_bonds)
        group = np.repeat(np.arange(len(bonds) - 1), np.diff(bonds))
        # Positive floats keep their order when their bits are read as whole numbers.
        lengths = np.ascontiguousarray(graphs.distance, dtype=np.float32)
        keys, slot = np.unique((group << 32) | lengths.view(np.int32), return_inverse=True)
        distinct = np.searchsorted(keys >> 32, np.arange(len(bonds)))
        slot = slot.reshape(-1) - distinct[group]
        self.most = int(np.diff(distinct).max(initial=0))
        found = (keys & 0xFFFFFFFF).astype(np.int32).view(np.float32)
        self.columns = bonds, graphs.neighbour, graphs.centre, slot, distinct, found, harmonics.reshape(-1)


def radial_table(plain: TorchForward, layer: Layer, what: Plan, kernel: Any) -> Float32Array:
    """(knots, 2, columns): the radial weights of all paths at the knots, and their derivatives in 1/Angstrom."""
    radial = torch.cat([layer.radial[path.l1, path.l2, path.l3] for path in what.paths], dim=1).double()

    def weights(length: Tensor) -> Tensor:
        return layer.radial_hidden(plain.radial_basis(length)) @ radial

    length = torch.from_numpy(knots(kernel))
    values_and_slopes = torch.func.jvp(weights, (length,), (torch.ones_like(length),))
    return torch.stack(values_and_slopes[:2], dim=1).float().numpy()


def knots(kernel: Any) -> npt.NDArray[np.float64]:
    """(n,) Angstrom, ascending: closer together below `BORDER`, where the weights of a bond change fast."""
    fine = np.arange(kernel.FINE_KNOTS) * kernel.FINE
    # At 0 the basis is a quotient of zeros; all of it is even in the length, so that nearby it is as at 0.
    fine[0] = 1e-6
    coarse = kernel.BORDER + kernel.COARSE * np.arange(round((CUTOFF - kernel.BORDER) / kernel.COARSE) + 1)
    return np.concatenate([fine, coarse])


def _couplings(layer: Layer, what: Plan) -> Float32Array:
    """For each block of the plan (2 l2 + 1, size), flat: the couplings of its paths side by side."""
    blocks = {l2: np.zeros((2 * l2 + 1, size), dtype=np.float32) for l2, (_, size) in what.blocks.items()}
    for path in what.paths:
        if path.l2 > 0:
            rows = layer.couplings[path.l1, path.l2, path.l3][path.l2**2 : (path.l2 + 1) ** 2]
            start = path.turn - what.blocks[path.l2][0]
            blocks[path.l2][:, start : start + rows[0].numel()] = rows.reshape(len(rows), -1).numpy()
    return np.concatenate([np.empty(0, dtype=np.float32), *(block.reshape(-1) for block in blocks.values())])


def _blocks(flat: Tensor, n: int, channels: Sequence[int]) -> list[Tensor]:
    """Views (n, 2l + 1, channels) of one degree after the other in a flat tensor."""
    sizes = [n * (2 * degree + 1) * width for degree, width in enumerate(channels)]
    return [
        block.view(n, 2 * degree + 1, width)
        for degree, (block, width) in enumerate(zip(flat.split(sizes), channels, strict=True))
    ]
