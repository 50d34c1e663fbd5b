"""MEGNet's compiled forward pass: its weights laid out for `forward_kernel`, and its answer as named levels.

What a structure can't change is worked out here once, in float64: the atoms before the first block and what they give
to its bonds depend on the element alone, the state is constant, and the `- ln 2` of each shifted softplus goes into the
bias of the layer that follows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from atomsets_core.parents.megnet.forward_kernel import PAIR, SIZE, forward
from atomsets_core.parents.megnet.weights import LN2, TABLE_STEP, Weights, bond_table, depth_of, shifted_softplus
from atomsets_core.structures import CrystalGraphs

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]


class CompiledForward:
    """The forward pass on a CPU; safe to call from several threads."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._packed = pack(weights)
        self._embedding = weights["embedding_1/embeddings"]

    def __call__(self, graphs: CrystalGraphs, wanted: Sequence[str]) -> dict[str, Float32Array]:
        """The levels `wanted` of one batch of graphs; nothing deeper than them is computed.

        Returns:
            level -> (n_atoms, width) for site levels, (n_structures, width) for structure levels, float32.
        """
        depth = depth_of(wanted)
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
