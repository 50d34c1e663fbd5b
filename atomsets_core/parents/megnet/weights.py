"""Weights of the original MEGNet, and the small things that both of its forward passes need."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from atomsets_core.parents.base import installed_file

Weights = Mapping[str, np.ndarray]

PACKAGE = "maml"
"""That carries the weights; it is always installed."""

CUTOFF = 5.0
"""Angstrom, of the bonds: the published network was trained with it."""

SITE_LEVELS = {"V0": 16, "V1": 32, "V2": 32, "V3": 32}
STRUCTURE_LEVELS = {"v": 96, "f2": 32, "f1": 16, "energy": 1}

DEPTHS = {"V0": 0, "V1": 1, "V2": 2, "V3": 3, **dict.fromkeys(STRUCTURE_LEVELS, 4)}
"""Level -> number of blocks that it needs, 4 for all three and the readout."""

TABLE_STEP = 2.5e-3
"""Angstrom between the knots of the bond table."""

LN2 = math.log(2.0)

BLOCKS = (1, 2, 3)

N_ELEMENTS = 95
"""Rows of the embedding table: atomic numbers 0 to 94."""


def weights_file() -> Path:
    """Where the installed `maml` keeps the weights (found without importing it)."""
    return installed_file(PACKAGE, "describers/data/megnet_models/formation_energy.hdf5", PACKAGE)


@lru_cache(maxsize=1)
def read_weights() -> dict[str, np.ndarray]:
    """All 167,761 parameters as float32, keyed "dense_1/kernel", "meg_net_layer_1/weight_e_0", ...

    Returns:
        Name -> kernels (inputs, outputs), as Keras has them, and biases (outputs,); see `weight_shapes`.
    """
    weights: dict[str, np.ndarray] = {}

    def keep(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            parts = name.removesuffix(":0").split("/")
            weights[f"{parts[1]}/{parts[-1]}"] = item[()]

    with h5py.File(weights_file(), "r") as file:
        file.visititems(keep)
    return weights


def weight_shapes() -> dict[str, tuple[int, ...]]:
    """Name -> shape of every weight, 167,761 numbers in all; the names are those of the published file."""
    out: dict[str, tuple[int, ...]] = {"embedding_1/embeddings": (N_ELEMENTS, 16)}
    # Keras counted the dense layers: 1, 3, 5 begin the pairs of atoms, bonds and state before block 1 (widths of the
    # embedding, the Gaussians and the empty state), 7 to 17 those before blocks 2 and 3.
    pairs = {1: 16, 3: 100, 5: 2, **dict.fromkeys(range(7, 19, 2), 32)}
    for number, width in pairs.items():
        out |= _dense(number, width, 64) | _dense(number + 1, 64, 32)
    for k in BLOCKS:
        for kind, width in (("e", 128), ("v", 96), ("u", 96)):
            # Inputs: two atoms, bond and state for bonds; bond, atom and state for atoms and state; 32 each.
            for i, (inputs, outputs) in enumerate(((width, 64), (64, 64), (64, 32))):
                out[f"meg_net_layer_{k}/weight_{kind}_{i}"] = (inputs, outputs)
                out[f"meg_net_layer_{k}/bias_{kind}_{i}"] = (outputs,)
    for number in (1, 2):
        out[f"set2_set_{number}/x_to_m_weight"], out[f"set2_set_{number}/x_to_m_bias"] = (32, 16), (16,)
        out[f"set2_set_{number}/recurrent_kernel"] = (32, 64)
        out[f"set2_set_{number}/recurrent_bias"] = (64,)
    return out | _dense(19, 96, 32) | _dense(20, 32, 16) | _dense(21, 16, 1)


def _dense(number: int, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"dense_{number}/kernel": (inputs, outputs), f"dense_{number}/bias": (outputs,)}


def shifted_softplus(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(n, width) ln(1 + e^x) - ln 2 of (n, width) numbers: MEGNet's activation, 0 at 0 with a slope of a half."""
    return np.logaddexp(0.0, x) - LN2


def bond_table(weights: Weights) -> npt.NDArray[np.float64]:
    """(knots, 32): the bond vector before the first block, at distances -step, 0, step, ... past the cutoff."""
    knots = int(CUTOFF / TABLE_STEP) + 4
    distance = (np.arange(knots) - 1) * TABLE_STEP
    # Gaussians of width 0.5 at 100 centres from 0 to 6 Angstrom, as in training, then the first two dense layers. Cubic
    # interpolation at step h is off by 3/128 h^4 f'''', far less than float32 rounds.
    x = np.exp(-(((distance[:, None] - np.linspace(0.0, 6.0, 100)) / 0.5) ** 2))
    for number in (3, 4):
        kernel, bias = weights[f"dense_{number}/kernel"], weights[f"dense_{number}/bias"]
        x = shifted_softplus(x @ kernel.astype(np.float64) + bias)
    return x
