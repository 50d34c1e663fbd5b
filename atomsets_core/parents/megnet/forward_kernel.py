"""MEGNet's forward pass as one compiled function a batch: weights laid out for it, its answer as named levels.

What a structure can't change is worked out once, in float64: the atoms before the first block and what they give to its
bonds depend on the element alone, the state is constant, and the `- ln 2` of each shifted softplus goes into the bias
of the layer that follows.

A tile of bonds goes through the whole chain of a block while it is in the first-level cache; the matrix products and
the softplus are those of `vector_kernel`. Everything is float32, row after row in flat arrays, the rows padded to
multiples of `ROWS`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from atomsets_core.compiled import compiled
from atomsets_core.parents.megnet.vector_kernel import (
    LANES,
    ROWS,
    TABLE_WIDTH,
    activate,
    activate_sum_64,
    add_32,
    add_64,
    exponential,
    mix_32,
    mix_64,
    product_32_32,
    product_32_64,
    product_64_32,
    product_64_64,
    product_96_64,
)
from atomsets_core.parents.megnet.weights import DEPTHS, LN2, TABLE_STEP, Weights, bond_table, shifted_softplus
from atomsets_core.structures import CrystalGraphs

TILE = 48
"""Bonds that go through the chain together: two 64-wide buffers of 12 kB each."""


def _starts(*sizes: int) -> list[int]:
    return list(accumulate((0, *sizes)))


# A block of MEGNet (Chen et al. 2019) takes bonds e, atoms v and the state u to
#   e' = phi_e(v_centre, v_neighbour, e, u),  v' = phi_v(mean of e' over an atom's bonds, v, u),
#   u' = phi_u(mean of e', mean of v', u),
# inputs joined end to end; dense layers come before it from the second block on, and what came in is added to what goes
# out.
#
# All weights stand in one array, since each array costs seven arguments a call. A weight is followed by its bias.
PAIR = _starts(32 * 64, 64, 64 * 32, 32)[-1]
"""Two dense layers 32-64-32."""

UPDATE = _starts(96 * 64, 64, 64 * 64, 64, 64 * 32, 32)[-1]
"""Three dense layers 96-64-64-32."""

BOND_PAIR, ATOM_PAIR, STATE_PAIR, CENTRE, NEIGHBOUR, BOND, STATE, BIAS, BONDS, ATOMS, STATES, BLOCK = _starts(
    PAIR, PAIR, PAIR, 32 * 64, 32 * 64, 32 * 64, 32 * 64, 64, 64 * 64 + 64 + 64 * 32 + 32, UPDATE, UPDATE
)
"""Within a block: its dense layers, the bond update's first layer in four parts and its last two, the other updates."""

GATES, SET = _starts(32 * 32 + 32, 32 * 64 + 64)[1:]
"""Within a set2set: its memory (16 columns used), its gates."""

SETS, NOTHING, FIRST_STATE, SIZE = _starts(3 * BLOCK, 2 * SET, 64, 32)[1:]
"""After the blocks: set2set of atoms and of bonds, 64 zeros, the state before the first block."""


@compiled
def _activate_all(x: Any, n: int) -> None:
    for i in range(0, n, LANES):
        activate(x, i)


@compiled
def _pair(w: Any, at: int, x: Any, n: int) -> Any:
    """(n, 32): two activated layers 32-64-32, their output without the shift by ln 2."""
    # Offsets count from `at`: 32 x 64 weights, 64 biases (2,112), 64 x 32 weights (4,160), 32 biases.
    hidden, out = np.zeros(64 * (n + ROWS), np.float32), np.zeros(32 * (n + ROWS), np.float32)
    for r in range(0, n, ROWS):
        product_32_64(x, 32 * r, w, at, at + 2048, hidden, 64 * r)
    _activate_all(hidden, 64 * n)
    for r in range(0, n, ROWS):
        product_64_32(hidden, 64 * r, w, at + 2112, at + 4160, out, 32 * r)
    _activate_all(out, 32 * n)
    return out


@compiled
def _update(w: Any, at: int, x: Any, n: int) -> Any:
    """(n, 32): three layers 96-64-64-32, the last one linear."""
    # 96 x 64 weights (6,144), 64 biases (6,208), 64 x 64 (10,304), 64 (10,368), 64 x 32 (12,416), 32 biases.
    a, b = np.zeros(64 * (n + ROWS), np.float32), np.zeros(64 * (n + ROWS), np.float32)
    out = np.zeros(32 * (n + ROWS), np.float32)
    for r in range(0, n, ROWS):
        product_96_64(x, 96 * r, w, at, at + 6144, a, 64 * r)
    _activate_all(a, 64 * n)
    for r in range(0, n, ROWS):
        product_64_64(a, 64 * r, w, at + 6208, at + 10304, b, 64 * r)
    _activate_all(b, 64 * n)
    for r in range(0, n, ROWS):
        product_64_32(b, 64 * r, w, at + 10368, at + 12416, out, 32 * r)
    return out


@compiled
def _interpolate(table: Any, knots: float, distance: float, hidden: Any, h0: int, bonds: Any, b0: int) -> None:
    """Cubic Lagrange interpolation in the bond table: the first layer's bond part, and the bond vector."""
    # In float64: of a position near 2,000 float32 would leave the share of a step to four digits.
    position = distance * knots
    knot = int(position)
    t = position - knot
    a, b = np.float32(-t * (t - 1) * (t - 2) / 6), np.float32((t + 1) * (t - 1) * (t - 2) / 2)
    c, d = np.float32(-(t + 1) * t * (t - 2) / 2), np.float32((t + 1) * t * (t - 1) / 6)
    # Row `knot` of the table lies one step before the knot itself, so these are the knots at -1, 0, 1 and 2 steps.
    mix_64(hidden, h0, table, TABLE_WIDTH * knot, a, b, c, d)
    mix_32(bonds, b0, table, TABLE_WIDTH * knot + 64, a, b, c, d)


@compiled
def _bond_chain(
    w: Any,
    at: int,
    table: Any,
    knots: float,
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
        w: all weights.
        at: where those of the block begin; at 0 the bonds are read from the table.
        table: the bond table.
        knots: of the table, per Angstrom.
        centre: (n_bonds,) int64, atoms.
        neighbour: (n_bonds,) int64.
        distance: (n_bonds,) float32, Angstrom.
        from_centre: (n_atoms, 64) part of the first layer that the centre, the state and the bias give.
        from_neighbour: (n_atoms, 64) part that the neighbour gives.
        bonds: (n_bonds, 32), changed in place; written by the first block (without `keep`, any TILE rows).
        keep: whether the bonds are needed after this block.
        remember: whether the updated bonds are replaced by what the readout needs of them.
        total: (n_atoms, 64), filled: the sum of what the last layer gets; it is linear, so the sum is enough.
    """
    a, b = np.zeros(64 * TILE, np.float32), np.zeros(64 * TILE, np.float32)
    for start in range(0, len(centre), TILE):
        rows = min(TILE, len(centre) - start)
        if at == 0:
            for r in range(rows):
                bond = 32 * (start + r) if keep else 32 * r
                _interpolate(table, knots, distance[start + r], a, 64 * r, bonds, bond)
        else:
            for r in range(0, rows, ROWS):
                product_32_64(bonds, 32 * (start + r), w, at + BOND_PAIR, at + BOND_PAIR + 2048, a, 64 * r)
            _activate_all(a, 64 * rows)
            for r in range(0, rows, ROWS):
                product_64_32(a, 64 * r, w, at + BOND_PAIR + 2112, at + BOND_PAIR + 4160, b, 32 * r)
            _activate_all(b, 32 * rows)
            for r in range(0, rows, ROWS):
                product_32_64(b, 32 * r, w, at + BOND, NOTHING, a, 64 * r)
        for r in range(rows):
            # W (v_i, v_j, e, u) = W_c v_i + W_n v_j + W_b e + W_s u: only W_b e is done once a bond, the rest once an
            # atom or a structure, of which there are tens of times fewer.
            activate_sum_64(a, 64 * r, from_centre, 64 * centre[start + r], from_neighbour, 64 * neighbour[start + r])
        for r in range(0, rows, ROWS):
            product_64_64(a, 64 * r, w, at + BONDS, at + BONDS + 4096, b, 64 * r)
        _activate_all(b, 64 * rows)
        for r in range(rows):
            # mean(W h + b) = W mean(h) + b: the last layer is applied once an atom, in `_mean_update`.
            add_64(total, 64 * centre[start + r], b, 64 * r)
        if not keep:
            continue
        for r in range(0, rows, ROWS):
            product_64_32(b, 64 * r, w, at + BONDS + 4160, at + BONDS + 6208, a, 32 * r)
        for r in range(rows):
            add_32(bonds, 32 * (start + r), a, 32 * r)
        if remember:
            for r in range(0, rows, ROWS):
                product_32_32(bonds, 32 * (start + r), w, SETS + SET, SETS + SET + 1024, a, 32 * r)
            for j in range(32 * rows):
                bonds[32 * start + j] = a[j]


@compiled
def _read(memory: Any, first: Any, hidden: Any, read: Any) -> None:
    """One reading of set2set: read[s] = softmax-weighted mean of memory's rows (16 of 32 columns) of structure s."""
    for s in range(len(first) - 1):
        low, n = first[s], first[s + 1] - first[s]
        # softmax(m . q) with the largest taken off, so that no exponential overflows.
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
        # 64 rows in float32, their sums in float64: the error doesn't grow with the number of bonds, be it 10^5.
        for start in range(0, n, 64):
            for j in range(16):
                part[j] = 0
            for r in range(start, min(start + 64, n)):
                total += weight[r]
                for j in range(16):
                    part[j] += weight[r] * memory[32 * (low + r) + j]
            for j in range(16):
                mean[j] += part[j]
        for j in range(16):
            read[16 * s + j] = mean[j] / total


@compiled
def _set2set(w: Any, at: int, memory: Any, first: Any, out: Any, column: int) -> None:
    """Columns column to column + 32 of out (n, 96): two steps of set2set, the cell state zero in each."""
    n = len(first) - 1
    query = np.zeros(32 * (n + ROWS), np.float32)
    gates = np.zeros(64 * (n + ROWS), np.float32)
    hidden, read = np.zeros(16 * n, np.float32), np.zeros(16 * n, np.float32)
    for _ in range(2):
        for r in range(0, n, ROWS):
            product_32_64(query, 32 * r, w, at + GATES, at + GATES + 2048, gates, 64 * r)
        for s in range(n):
            for j in range(16):
                # Keras' LSTM: gates in the order input, forget, cell, output, hard sigmoid clip(0.2 x + 0.5, 0, 1).
                # MEGNet starts every step with a cell state of zero, so the forget gate has nothing to keep.
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
def _gather(owner: Any, mean: Any, atoms_in: Any, state_in: Any, x: Any) -> None:
    """Input of the atoms' update: x (n_atoms, 96) = mean of the bonds' updates, the atom, its structure's state."""
    for i in range(len(owner)):
        for j in range(32):
            x[96 * i + j] = mean[32 * i + j]
            x[96 * i + 32 + j] = atoms_in[32 * i + j]
            x[96 * i + 64 + j] = state_in[32 * owner[i] + j]


@compiled
def _gather_state(first_atom: Any, first_bond: Any, mean: Any, new: Any, state_in: Any, x: Any) -> None:
    """Input of the states' update: x (n, 96) = means of the updates over a structure's bonds and atoms, its state."""
    bonds, atoms = np.zeros(32), np.zeros(32)
    for s in range(len(first_atom) - 1):
        low, high = first_atom[s], first_atom[s + 1]
        for j in range(32):
            bonds[j], atoms[j] = 0.0, 0.0
        for i in range(low, high):
            # The mean over a structure's bonds, from the means over those of its atoms.
            share = float(first_bond[i + 1] - first_bond[i]) / float(first_bond[high] - first_bond[low])
            for j in range(32):
                bonds[j] += share * mean[32 * i + j]
                atoms[j] += new[32 * i + j]
        for j in range(32):
            x[96 * s + j] = bonds[j]
            x[96 * s + 32 + j] = atoms[j] / (high - low)
            x[96 * s + 64 + j] = state_in[32 * s + j]


@compiled
def _first_layer(w: Any, at: int, owner: Any, n: int, atoms_in: Any, state_in: Any, centre: Any, others: Any) -> None:
    """Parts (n_atoms, 64) of the bond update's first layer that the centre (with state and bias) and neighbour give."""
    state = np.zeros(64 * (n + ROWS), np.float32)
    for s in range(0, n, ROWS):
        product_32_64(state_in, 32 * s, w, at + STATE, at + BIAS, state, 64 * s)
    for i in range(0, len(owner), ROWS):
        product_32_64(atoms_in, 32 * i, w, at + CENTRE, NOTHING, centre, 64 * i)
        product_32_64(atoms_in, 32 * i, w, at + NEIGHBOUR, NOTHING, others, 64 * i)
    for i in range(len(owner)):
        add_64(centre, 64 * i, state, 64 * owner[i])


@compiled
def _mean_update(w: Any, at: int, first_bond: Any, total: Any, mean: Any) -> None:
    """Fill mean (n_atoms, 32): the update's last layer, applied to the mean over the bonds of each atom."""
    for i in range(len(first_bond) - 1):
        share = np.float32(1.0 / (first_bond[i + 1] - first_bond[i]))
        for j in range(64 * i, 64 * (i + 1)):
            total[j] *= share
    for i in range(0, len(first_bond) - 1, ROWS):
        product_64_32(total, 64 * i, w, at + BONDS + 4160, at + BONDS + 6208, mean, 32 * i)


@compiled
def forward(
    w: Any,
    table: Any,
    knots: float,
    element: Any,
    depth: int,
    numbers: Any,
    first_atom: Any,
    first_bond: Any,
    centre: Any,
    neighbour: Any,
    distance: Any,
    levels: Any,
    readout: Any,
) -> None:
    """Site levels V1.. up to `depth`, and with depth 4 the readout's input v.

    Args:
        w: all weights.
        table: (knots, 96) bond table.
        knots: of the table, per Angstrom.
        element: (95, 32) atoms before the first block.
        depth: 1 to 4.
        numbers: (n_atoms,) int64, atomic numbers.
        first_atom: (n + 1,) int64, atoms of structure i are first_atom[i]:first_atom[i + 1].
        first_bond: (n_atoms + 1,) int64, likewise the bonds of each atom.
        centre: (n_bonds,) int64.
        neighbour: (n_bonds,) int64.
        distance: (n_bonds,) float32, Angstrom.
        levels: (3, n_atoms, 32) float32, filled: raw block outputs on the atoms.
        readout: (n, 96) float32, flat, filled: v.
    """
    n_atoms, n_bonds, n = len(numbers), len(centre), len(first_atom) - 1
    owner = np.empty(n_atoms, np.int64)
    atoms, state = np.zeros(32 * (n_atoms + ROWS), np.float32), np.zeros(32 * (n + ROWS), np.float32)
    for s in range(n):
        for i in range(first_atom[s], first_atom[s + 1]):
            owner[i] = s
            add_32(atoms, 32 * i, element, 32 * numbers[i])
        add_32(state, 32 * s, w, FIRST_STATE)
    bonds = np.empty(32 * (n_bonds + TILE if depth > 1 else TILE), np.float32)
    # The last tile reads rows beyond the last bond: whatever they give is left, but it must be finite.
    for j in range(max(len(bonds) - 32 * TILE, 0), len(bonds)):
        bonds[j] = 0
    padded = n_atoms + ROWS
    x, mean = np.zeros(96 * padded, np.float32), np.zeros(32 * padded, np.float32)
    from_centre, from_neighbour = np.zeros(64 * padded, np.float32), np.zeros(64 * padded, np.float32)
    for k in range(min(depth, 3)):
        # Bonds after the last block are for the readout alone; without it the chain ends at the sum over them.
        at, keep = k * BLOCK, depth > k + 1
        atoms_in = atoms if k == 0 else _pair(w, at + ATOM_PAIR, atoms, n_atoms)
        state_in = state if k == 0 else _pair(w, at + STATE_PAIR, state, n)
        _first_layer(w, at, owner, n, atoms_in, state_in, from_centre, from_neighbour)
        total = np.zeros(64 * padded, np.float32)
        _bond_chain(
            w,
            at,
            table,
            knots,
            centre,
            neighbour,
            distance,
            from_centre,
            from_neighbour,
            bonds,
            keep,
            k == 2,
            total,
        )
        _mean_update(w, at, first_bond, total, mean)
        _gather(owner, mean, atoms_in, state_in, x)
        new = _update(w, at + ATOMS, x, n_atoms)
        for i in range(n_atoms):
            for j in range(32):
                levels[k, i, j] = new[32 * i + j]
        if not keep:
            return
        _gather_state(first_atom, first_bond, mean, new, state_in, x)
        new_state = _update(w, at + STATES, x, n)
        for i in range(n_atoms):
            add_32(atoms, 32 * i, new, 32 * i)
        for s in range(n):
            add_32(state, 32 * s, new_state, 32 * s)
    for i in range(0, n_atoms, ROWS):
        product_32_32(atoms, 32 * i, w, SETS, SETS + 1024, mean, 32 * i)
    bond_of_structure = np.empty(n + 1, np.int64)
    for s in range(n + 1):
        bond_of_structure[s] = first_bond[first_atom[s]]
    for kind in range(2):
        memory, first = (mean, first_atom) if kind == 0 else (bonds, bond_of_structure)
        _set2set(w, SETS + kind * SET, memory, first, readout, 32 * kind)
    for s in range(n):
        for j in range(32):
            readout[96 * s + 64 + j] = state[32 * s + j]


Float32Array = npt.NDArray[np.float32]

Float64Array = npt.NDArray[np.float64]


class CompiledForward:
    """The forward pass on a CPU; safe to call from several threads."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._packed = pack(weights)
        self._embedding = weights["embedding_1/embeddings"]

    def __call__(self, graphs: CrystalGraphs, wanted: Sequence[str]) -> dict[str, Float32Array]:
        """The levels `wanted` of one batch of graphs; no block that they don't need is computed.

        Returns:
            level -> (n_atoms, width) for site levels, (n_structures, width) for structure levels, float32.
        """
        depth = max(DEPTHS[level] for level in wanted)
        first_atom = np.concatenate([[0], np.cumsum(graphs.n_atoms)])
        first_bond = np.searchsorted(graphs.centre, np.arange(len(graphs.numbers) + 1))
        levels = np.empty((3, len(graphs.numbers), 32), dtype=np.float32)
        v = np.empty((len(graphs.n_atoms), 96), dtype=np.float32)
        bonds = graphs.centre, graphs.neighbour, graphs.distance
        forward(*self._packed, depth, graphs.numbers, first_atom, first_bond, *bonds, levels, v.reshape(-1))
        out = {"V0": self._embedding[graphs.numbers], "V1": levels[0], "V2": levels[1], "V3": levels[2], "v": v}
        if depth == 4:
            out["f2"], out["f1"], out["energy"] = self._read_out(v)
        return {level: out[level] for level in wanted}

    def _read_out(self, v: Float32Array) -> list[Float32Array]:
        out, x = [], v.astype(np.float64)
        for number in (19, 20, 21):
            x = x @ self._weights[f"dense_{number}/kernel"] + self._weights[f"dense_{number}/bias"]
            if number < 21:
                x = shifted_softplus(x)
            out.append(x.astype(np.float32))
        return out


def pack(weights: Weights) -> tuple[Float32Array, Float32Array, float, Float32Array]:
    """Weights, bond table, its knots per Angstrom and atoms before the first block, as the kernel reads them.

    Returns:
        (SIZE,) float32 weights, (knots * 96,) float32 table, knots per Angstrom, (95 * 32,) float32 atoms; the arrays
        are flat, row after row.
    """
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    parts = [part for k in (1, 2, 3) for part in _block(w, k)]
    parts += [part for number in (1, 2) for part in _set(w, number)]
    parts += [np.zeros(64), _activated(w, np.zeros((1, 2)), 5)]
    packed = _flat(np.concatenate([part.reshape(-1) for part in parts]))
    if len(packed) != SIZE:
        raise ValueError(f"the MEGNet weights fill {len(packed)} numbers where the kernel expects {SIZE}")
    table = bond_table(weights)
    # Rows 64:96 of the first layer read the bond. A product with a table is a table, so the first block has it ready.
    table = np.concatenate([table @ w["meg_net_layer_1/weight_e_0"][64:96], table], axis=1)
    element = _activated(w, w["embedding_1/embeddings"], 1)
    return packed, _flat(table), 1.0 / TABLE_STEP, _flat(element)


def _flat(values: Float64Array) -> Float32Array:
    return np.ascontiguousarray(values, dtype=np.float32).reshape(-1)


def _activated(w: dict[str, Float64Array], x: Float64Array, number: int) -> Float64Array:
    """Two activated dense layers."""
    for i in (number, number + 1):
        x = shifted_softplus(x @ w[f"dense_{i}/kernel"] + w[f"dense_{i}/bias"])
    return x


def _layers(weights: list[Float64Array], biases: list[Float64Array], shifted_rows: slice) -> list[Float64Array]:
    """Dense layers; inputs `shifted_rows` of the first come without their - ln 2, as do all those of the later ones."""
    out = []
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        # W (s - ln 2) + b = W s + (b - ln 2 sum W), summed over the inputs that come without their shift; in float64,
        # so that what is folded adds no rounding.
        rows = shifted_rows if i == 0 else slice(None)
        out += [weight, bias - LN2 * weight[rows].sum(0)]
    return out


def _block(w: dict[str, Float64Array], k: int) -> list[Float64Array]:
    """The parts of block k in the kernel's order."""
    name = f"meg_net_layer_{k}"
    # Before the first block atoms, bonds and state come with their shift; later from dense layers, without.
    later = k > 1

    def update(kind: str, shifted_rows: slice) -> list[Float64Array]:
        layers = [w[f"{name}/weight_{kind}_{i}"] for i in range(3)]
        return _layers(layers, [w[f"{name}/bias_{kind}_{i}"] for i in range(3)], shifted_rows if later else slice(0))

    def dense_pair(number: int) -> list[Float64Array]:
        numbers = (number, number + 1)
        return _layers([w[f"dense_{i}/kernel"] for i in numbers], [w[f"dense_{i}/bias"] for i in numbers], slice(0))

    # Keras counted the dense layers: block k has 6k - 5 for atoms, 6k - 3 for bonds, 6k - 1 for the state.
    pairs = [*dense_pair(6 * k - 3), *dense_pair(6 * k - 5), *dense_pair(6 * k - 1)] if later else [np.zeros(3 * PAIR)]
    bonds, atoms, states = update("e", slice(0, 128)), update("v", slice(32, 96)), update("u", slice(64, 96))
    return [*pairs, *bonds, *atoms, *states]


def _set(w: dict[str, Float64Array], number: int) -> list[Float64Array]:
    """Memory weight and bias (padded from 16 to 32 columns), gate weight and bias of one set2set."""
    name = f"set2_set_{number}"
    memory = np.pad(w[f"{name}/x_to_m_weight"], ((0, 0), (0, 16)))
    bias = np.pad(w[f"{name}/x_to_m_bias"], (0, 16))
    return [memory, bias, w[f"{name}/recurrent_kernel"], w[f"{name}/recurrent_bias"]]
