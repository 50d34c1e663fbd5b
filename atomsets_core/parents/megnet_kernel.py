"""MEGNet's forward pass as one compiled function a batch.

A tile of bonds goes through the whole chain of a block while it is in the first-level cache; the matrix products and
the softplus are those of `vector_kernel`. Everything is float32, row after row in flat arrays, the rows padded to
multiples of `ROWS`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from atomsets_core.compiled import compiled
from atomsets_core.parents.vector_kernel import (
    LANES,
    ROWS,
    activate,
    activate_sum_64,
    add_32,
    add_64,
    exponential,
    product_32_32,
    product_32_64,
    product_64_32,
    product_64_64,
    product_96_64,
)

TILE = 48
"""Bonds that go through the chain together: two 64-wide buffers of 12 kB each."""

KNOT_WIDTH = 96
"""Columns of the bond table: the initial bond times the first block's bond weights (64), and the bond itself (32)."""


class Layers(NamedTuple):
    """Three dense layers; `weight_i` flat (in x out), with the shift of the softplus before in its bias."""

    weight_0: Any
    bias_0: Any
    weight_1: Any
    bias_1: Any
    weight_2: Any
    bias_2: Any


class Block(NamedTuple):
    """Weights of one block; the four parts of the bond update's first layer apart. `*_pair` are its dense layers."""

    bond_pair: Layers
    atom_pair: Layers
    state_pair: Layers
    centre: Any
    neighbour: Any
    bond: Any
    state: Any
    bias: Any
    bonds: Layers
    atoms: Layers
    states: Layers


class Network(NamedTuple):
    """All weights of the forward pass. Atoms and state before the first block don't depend on the structure."""

    bond_table: Any
    knots_per_angstrom: float
    element: Any
    first_state: Any
    blocks: Any
    memory_weight: Any
    memory_bias: Any
    gate_weight: Any
    gate_bias: Any
    nothing: Any


@compiled
def _activate_all(x: Any, n: int) -> None:
    for i in range(0, n, LANES):
        activate(x, i)


@compiled
def _pair(layers: Any, x: Any, n: int) -> Any:
    """(n, 32): two activated layers 32-64-32, their output without the shift by ln 2."""
    hidden, out = np.zeros(64 * (n + ROWS), np.float32), np.zeros(32 * (n + ROWS), np.float32)
    for r in range(0, n, ROWS):
        product_32_64(x, 32 * r, layers.weight_0, layers.bias_0, hidden, 64 * r)
    _activate_all(hidden, 64 * n)
    for r in range(0, n, ROWS):
        product_64_32(hidden, 64 * r, layers.weight_1, layers.bias_1, out, 32 * r)
    _activate_all(out, 32 * n)
    return out


@compiled
def _update(layers: Any, x: Any, n: int) -> Any:
    """(n, 32): three layers 96-64-64-32, the last one linear."""
    a, b = np.zeros(64 * (n + ROWS), np.float32), np.zeros(64 * (n + ROWS), np.float32)
    out = np.zeros(32 * (n + ROWS), np.float32)
    for r in range(0, n, ROWS):
        product_96_64(x, 96 * r, layers.weight_0, layers.bias_0, a, 64 * r)
    _activate_all(a, 64 * n)
    for r in range(0, n, ROWS):
        product_64_64(a, 64 * r, layers.weight_1, layers.bias_1, b, 64 * r)
    _activate_all(b, 64 * n)
    for r in range(0, n, ROWS):
        product_64_32(b, 64 * r, layers.weight_2, layers.bias_2, out, 32 * r)
    return out


@compiled
def _interpolate(network: Any, distance: float, hidden: Any, h0: int, bonds: Any, b0: int) -> None:
    """Cubic Lagrange interpolation in the bond table: the first layer's bond part, and the bond vector."""
    position = distance * network.knots_per_angstrom
    knot = int(position)
    t = np.float32(position - knot)
    one, two, six, half = np.float32(1), np.float32(2), np.float32(1 / 6), np.float32(0.5)
    w0, w1 = -t * (t - one) * (t - two) * six, (t + one) * (t - one) * (t - two) * half
    w2, w3 = -(t + one) * t * (t - two) * half, (t + one) * t * (t - one) * six
    table = network.bond_table[KNOT_WIDTH * knot : KNOT_WIDTH * (knot + 4)]
    for j in range(64):
        hidden[h0 + j] = w0 * table[j] + w1 * table[j + 96] + w2 * table[j + 192] + w3 * table[j + 288]
    for j in range(32):
        bonds[b0 + j] = w0 * table[j + 64] + w1 * table[j + 160] + w2 * table[j + 256] + w3 * table[j + 352]


@compiled
def _bond_chain(
    network: Any,
    k: int,
    centre: Any,
    neighbour: Any,
    distance: Any,
    from_centre: Any,
    from_neighbour: Any,
    bonds: Any,
    keep: bool,
    remember: bool,
    total: Any,
) -> None:
    """The bond update of block k, summed over the bonds of each atom.

    Args:
        network: weights.
        k: 0, 1 or 2.
        centre: (n_bonds,) int64, atoms.
        neighbour: (n_bonds,) int64.
        distance: (n_bonds,) float32, Angstrom.
        from_centre: (n_atoms, 64) part of the first layer that the centre, the state and the bias give.
        from_neighbour: (n_atoms, 64) part that the neighbour gives.
        bonds: (n_bonds, 32), changed in place; written by the first block.
        keep: whether the bonds are needed after this block.
        remember: whether the updated bonds are replaced by what the readout needs of them.
        total: (n_atoms, 64), filled: the sum of what the last layer gets; it is linear, so the sum is enough.
    """
    block = network.blocks[k]
    a, b = np.zeros(64 * TILE, np.float32), np.zeros(64 * TILE, np.float32)
    spare = np.zeros(32, np.float32)
    for start in range(0, len(centre), TILE):
        rows = min(TILE, len(centre) - start)
        if k == 0:
            for r in range(rows):
                if keep:
                    _interpolate(network, distance[start + r], a, 64 * r, bonds, 32 * (start + r))
                else:
                    _interpolate(network, distance[start + r], a, 64 * r, spare, 0)
        else:
            for r in range(0, rows, ROWS):
                product_32_64(bonds, 32 * (start + r), block.bond_pair.weight_0, block.bond_pair.bias_0, a, 64 * r)
            _activate_all(a, 64 * rows)
            for r in range(0, rows, ROWS):
                product_64_32(a, 64 * r, block.bond_pair.weight_1, block.bond_pair.bias_1, b, 32 * r)
            _activate_all(b, 32 * rows)
            for r in range(0, rows, ROWS):
                product_32_64(b, 32 * r, block.bond, network.nothing, a, 64 * r)
        for r in range(rows):
            activate_sum_64(a, 64 * r, from_centre, 64 * centre[start + r], from_neighbour, 64 * neighbour[start + r])
        for r in range(0, rows, ROWS):
            product_64_64(a, 64 * r, block.bonds.weight_1, block.bonds.bias_1, b, 64 * r)
        _activate_all(b, 64 * rows)
        for r in range(rows):
            add_64(total, 64 * centre[start + r], b, 64 * r)
        if not keep:
            continue
        for r in range(0, rows, ROWS):
            product_64_32(b, 64 * r, block.bonds.weight_2, block.bonds.bias_2, a, 32 * r)
        for r in range(rows):
            add_32(bonds, 32 * (start + r), a, 32 * r)
        if remember:
            for r in range(0, rows, ROWS):
                product_32_32(bonds, 32 * (start + r), network.memory_weight[1], network.memory_bias[1], a, 32 * r)
            bonds[32 * start : 32 * (start + rows)] = a[: 32 * rows]


@compiled
def _mean_of(values: Any, first: int, last: int, weight: float, out: Any, o0: int) -> None:
    """out[o0 : o0 + 32] = weight x the sum of rows first to last of (n, 32)."""
    total = np.zeros(32)
    for r in range(first, last):
        for j in range(32):
            total[j] += values[32 * r + j]
    for j in range(32):
        out[o0 + j] = weight * total[j]


@compiled
def _read(memory: Any, first: Any, hidden: Any, read: Any) -> None:
    """One reading of set2set: read[s] = softmax-weighted mean of memory's rows (16 of 32 columns) of structure s."""
    for s in range(len(first) - 1):
        low, n = first[s], first[s + 1] - first[s]
        weight = np.zeros(n + LANES, np.float32)
        top = np.float32(-np.inf)
        for r in range(n):
            energy = np.float32(0)
            for j in range(16):
                energy += memory[32 * (low + r) + j] * hidden[16 * s + j]
            weight[r] = energy
            top = max(top, energy)
        for r in range(n):
            weight[r] -= top
        for r in range(0, n, LANES):
            exponential(weight, r)
        total, mean, part = 0.0, np.zeros(16), np.zeros(16, np.float32)
        for start in range(0, n, 64):
            part[:] = 0
            for r in range(start, min(start + 64, n)):
                total += weight[r]
                for j in range(16):
                    part[j] += weight[r] * memory[32 * (low + r) + j]
            for j in range(16):
                mean[j] += part[j]
        for j in range(16):
            read[16 * s + j] = mean[j] / total


@compiled
def _set2set(network: Any, kind: int, memory: Any, first: Any, out: Any, column: int) -> None:
    """Columns column to column + 32 of out (n, 96): two steps of set2set, the cell state zero in each."""
    n = len(first) - 1
    query = np.zeros(32 * (n + ROWS), np.float32)
    gates = np.zeros(64 * (n + ROWS), np.float32)
    hidden, read = np.zeros(16 * n, np.float32), np.zeros(16 * n, np.float32)
    for _ in range(2):
        for r in range(0, n, ROWS):
            product_32_64(query, 32 * r, network.gate_weight[kind], network.gate_bias[kind], gates, 64 * r)
        for s in range(n):
            for j in range(16):
                gate_in = min(max(0.2 * gates[64 * s + j] + 0.5, 0.0), 1.0)
                gate_out = min(max(0.2 * gates[64 * s + 48 + j] + 0.5, 0.0), 1.0)
                hidden[16 * s + j] = gate_out * math.tanh(gate_in * math.tanh(gates[64 * s + 32 + j]))
        _read(memory, first, hidden, read)
        for s in range(n):
            for j in range(16):
                query[32 * s + j], query[32 * s + 16 + j] = hidden[16 * s + j], read[16 * s + j]
    for s in range(n):
        for j in range(32):
            out[96 * s + column + j] = query[32 * s + j]


@compiled
def forward(
    network: Any, depth: int, numbers: Any, first_atom: Any, first_bond: Any, centre: Any, neighbour: Any, distance: Any
) -> Any:
    """Site levels V1.. up to `depth`, and with depth 4 the readout's input v.

    Args:
        network: weights.
        depth: 1 to 4.
        numbers: (n_atoms,) int64, atomic numbers.
        first_atom: (n + 1,) int64, atoms of structure i are first_atom[i]:first_atom[i + 1].
        first_bond: (n_atoms + 1,) int64, likewise the bonds of each atom.
        centre: (n_bonds,) int64.
        neighbour: (n_bonds,) int64.
        distance: (n_bonds,) float32, Angstrom.

    Returns:
        (3, n_atoms, 32) raw block outputs on the atoms, and (n, 96) v.
    """
    n_atoms, n_bonds, n = len(numbers), len(centre), len(first_atom) - 1
    owner = np.empty(n_atoms, np.int64)
    for s in range(n):
        owner[first_atom[s] : first_atom[s + 1]] = s
    levels = np.zeros((3, n_atoms, 32), np.float32)
    atoms, state = np.zeros(32 * (n_atoms + ROWS), np.float32), np.zeros(32 * (n + ROWS), np.float32)
    for i in range(n_atoms):
        atoms[32 * i : 32 * i + 32] = network.element[32 * numbers[i] : 32 * numbers[i] + 32]
    for s in range(n):
        state[32 * s : 32 * s + 32] = network.first_state
    bonds = np.empty(32 * (n_bonds + TILE if depth > 1 else 1), np.float32)
    bonds[32 * n_bonds :] = 0
    readout = np.zeros((n, 96), np.float32)
    for k in range(min(depth, 3)):
        block, keep = network.blocks[k], depth > k + 1
        atoms_in = atoms if k == 0 else _pair(block.atom_pair, atoms, n_atoms)
        state_in = state if k == 0 else _pair(block.state_pair, state, n)
        from_state = np.zeros(64 * (n + ROWS), np.float32)
        for s in range(0, n, ROWS):
            product_32_64(state_in, 32 * s, block.state, block.bias, from_state, 64 * s)
        from_centre = np.zeros(64 * (n_atoms + ROWS), np.float32)
        from_neighbour = np.zeros(64 * (n_atoms + ROWS), np.float32)
        for i in range(0, n_atoms, ROWS):
            product_32_64(atoms_in, 32 * i, block.centre, network.nothing, from_centre, 64 * i)
            product_32_64(atoms_in, 32 * i, block.neighbour, network.nothing, from_neighbour, 64 * i)
        for i in range(n_atoms):
            add_64(from_centre, 64 * i, from_state, 64 * owner[i])
        total = np.zeros(64 * (n_atoms + ROWS), np.float32)
        _bond_chain(network, k, centre, neighbour, distance, from_centre, from_neighbour, bonds, keep, k == 2, total)
        for i in range(n_atoms):
            share = np.float32(1) / np.float32(first_bond[i + 1] - first_bond[i])
            for j in range(64 * i, 64 * (i + 1)):
                total[j] *= share
        mean = np.zeros(32 * (n_atoms + ROWS), np.float32)
        for i in range(0, n_atoms, ROWS):
            product_64_32(total, 64 * i, block.bonds.weight_2, block.bonds.bias_2, mean, 32 * i)
        x = np.zeros(96 * (n_atoms + ROWS), np.float32)
        for i in range(n_atoms):
            for j in range(32):
                x[96 * i + j], x[96 * i + 32 + j] = mean[32 * i + j], atoms_in[32 * i + j]
                x[96 * i + 64 + j] = state_in[32 * owner[i] + j]
        new = _update(block.atoms, x, n_atoms)
        levels[k] = new[: 32 * n_atoms].reshape((n_atoms, 32))
        if not keep:
            break
        for s in range(n):
            low, high = first_atom[s], first_atom[s + 1]
            # Back from means over the bonds of an atom to the mean over the bonds of the structure.
            for i in range(low, high):
                for j in range(32):
                    mean[32 * i + j] *= np.float32(first_bond[i + 1] - first_bond[i])
            _mean_of(mean, low, high, 1.0 / (first_bond[high] - first_bond[low]), x, 96 * s)
            _mean_of(new, low, high, 1.0 / (high - low), x, 96 * s + 32)
            x[96 * s + 64 : 96 * s + 96] = state_in[32 * s : 32 * s + 32]
        new_state = _update(block.states, x, n)
        for i in range(32 * n_atoms):
            atoms[i] += new[i]
        for i in range(32 * n):
            state[i] += new_state[i]
    if depth == 4:
        flat = readout.reshape(-1)
        memory = np.zeros(32 * (n_atoms + ROWS), np.float32)
        for i in range(0, n_atoms, ROWS):
            product_32_32(atoms, 32 * i, network.memory_weight[0], network.memory_bias[0], memory, 32 * i)
        _set2set(network, 0, memory, first_atom, flat, 0)
        bond_of_structure = first_bond[first_atom]
        _set2set(network, 1, bonds, bond_of_structure, flat, 32)
        for s in range(n):
            readout[s, 64:96] = state[32 * s : 32 * s + 32]
    return levels, readout
