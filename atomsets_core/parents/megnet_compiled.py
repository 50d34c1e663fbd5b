"""MEGNet's compiled forward pass: its weights laid out for `megnet_kernel`, and its answer as named levels.

What a structure can't change is worked out here once, in float64: the atoms before the first block and what they give
to its bonds depend on the element alone, the state is constant, and the `- ln 2` of each shifted softplus goes into the
bias of the layer that follows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from atomsets_core.graphs import CrystalGraphs
from atomsets_core.parents.megnet_kernel import Block, Layers, Network, forward
from atomsets_core.parents.megnet_weights import LN2, TABLE_STEP, Weights, bond_table, depth_of, shifted_softplus

Float64Array = npt.NDArray[np.float64]


class CompiledForward:
    """The forward pass on a CPU; safe to call from several threads."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._network = pack(weights)
        self._embedding = weights["embedding_1/embeddings"]

    def __call__(self, graphs: CrystalGraphs, wanted: Sequence[str]) -> dict[str, npt.NDArray[np.float32]]:
        """The levels `wanted` of one batch of graphs; nothing deeper than them is computed.

        Returns:
            level -> (n_atoms, width) for site levels, (n_structures, width) for structure levels, float32.
        """
        depth = depth_of(wanted)
        first_atom = np.concatenate([[0], np.cumsum(graphs.n_atoms)])
        first_bond = np.searchsorted(graphs.centre, np.arange(len(graphs.numbers) + 1))
        levels, v = forward(
            self._network,
            depth,
            graphs.numbers,
            first_atom,
            first_bond,
            graphs.centre,
            graphs.neighbour,
            graphs.distance,
        )
        out = {"V0": self._embedding[graphs.numbers], "V1": levels[0], "V2": levels[1], "V3": levels[2], "v": v}
        if depth == 4:
            out["f2"], out["f1"], out["energy"] = self._read_out(v)
        return {level: out[level] for level in wanted}

    def _read_out(self, v: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        out, x = [], v.astype(np.float64)
        for number in (19, 20, 21):
            x = x @ self._weights[f"dense_{number}/kernel"] + self._weights[f"dense_{number}/bias"]
            if number < 21:
                x = shifted_softplus(x)
            out.append(x.astype(np.float32))
        return out


def pack(weights: Weights) -> Network:
    """The weights as the kernel reads them."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    element = _activated(w, w["embedding_1/embeddings"], 1)
    table = bond_table(weights)
    table = np.concatenate([table @ w["meg_net_layer_1/weight_e_0"][64:96], table], axis=1)
    sets = [_set(w, number) for number in (1, 2)]
    return Network(
        bond_table=_flat(table),
        knots_per_angstrom=1.0 / TABLE_STEP,
        element=_flat(element),
        first_state=_flat(_activated(w, np.zeros((1, 2)), 5)),
        blocks=tuple(_block(w, k) for k in (1, 2, 3)),
        memory_weight=tuple(s[0] for s in sets),
        memory_bias=tuple(s[1] for s in sets),
        gate_weight=tuple(s[2] for s in sets),
        gate_bias=tuple(s[3] for s in sets),
        nothing=np.zeros(64, dtype=np.float32),
    )


def _flat(values: Float64Array) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(values, dtype=np.float32).reshape(-1)


def _activated(w: dict[str, Float64Array], x: Float64Array, number: int) -> Float64Array:
    """Two activated dense layers."""
    for i in (number, number + 1):
        x = shifted_softplus(x @ w[f"dense_{i}/kernel"] + w[f"dense_{i}/bias"])
    return x


def _layers(weights: list[Float64Array], biases: list[Float64Array], shifted_rows: slice) -> Layers:
    """Dense layers; inputs `shifted_rows` of the first come without their - ln 2, as do all those of the later ones."""
    out = []
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        rows = shifted_rows if i == 0 else slice(None)
        out += [_flat(weight), _flat(bias - LN2 * weight[rows].sum(0))]
    return Layers(*out, *[_flat(np.zeros(0))] * (6 - len(out)))


def _dense_pair(w: dict[str, Float64Array], number: int) -> Layers:
    numbers = (number, number + 1)
    return _layers([w[f"dense_{i}/kernel"] for i in numbers], [w[f"dense_{i}/bias"] for i in numbers], slice(0))


def _block(w: dict[str, Float64Array], k: int) -> Block:
    name = f"meg_net_layer_{k}"

    def three(kind: str, shifted_rows: slice) -> Layers:
        layers = [w[f"{name}/weight_{kind}_{i}"] for i in range(3)]
        return _layers(layers, [w[f"{name}/bias_{kind}_{i}"] for i in range(3)], shifted_rows)

    first = w[f"{name}/weight_e_0"]
    centre, neighbour, bond, state = (first[i : i + 32] for i in (0, 32, 64, 96))
    later = k > 1
    # Before the first block atoms, bonds and state come with their shift; later ones from `*_pair`, without.
    bias = w[f"{name}/bias_e_0"] - (LN2 * first.sum(0) if later else 0.0)
    pairs = [_dense_pair(w, 6 * k - 3 + 2 * i if later else 1) for i in (0, -1, 1)]
    return Block(
        bond_pair=pairs[0],
        atom_pair=pairs[1],
        state_pair=pairs[2],
        centre=_flat(centre),
        neighbour=_flat(neighbour),
        bond=_flat(bond),
        state=_flat(state),
        bias=_flat(bias),
        bonds=three("e", slice(0)),
        atoms=three("v", slice(32, 96) if later else slice(0)),
        states=three("u", slice(64, 96) if later else slice(0)),
    )


def _set(w: dict[str, Float64Array], number: int) -> list[npt.NDArray[np.float32]]:
    """Memory weight and bias (padded from 16 to 32 columns), gate weight and bias of one set2set."""
    name = f"set2_set_{number}"
    memory = np.pad(w[f"{name}/x_to_m_weight"], ((0, 0), (0, 16)))
    bias = np.pad(w[f"{name}/x_to_m_bias"], (0, 16))
    return [_flat(memory), _flat(bias), _flat(w[f"{name}/recurrent_kernel"]), _flat(w[f"{name}/recurrent_bias"])]
