"""SevenNet-0 (Park et al., J. Chem. Theory Comput. 20, 4857 (2024)) and SevenNet-l3i5, as frozen parents.

The weights are those in the `sevenn` wheel (SevenNet-0 of 11 July 2024); neither it nor e3nn is imported. The forward
pass is written twice: with compiled loops over the bonds for CPUs (`compiled_forward`), and in torch for accelerators
and for machines without numba (`torch_forward`).

The numbers of degree 1 and higher turn with the crystal, so only the 128 of degree 0 are features.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from atomsets_core.parents.base import Features, Forward, featurize_batches, in_torch, weights_digest
from atomsets_core.parents.sevennet.compiled_forward import compiled_forward
from atomsets_core.parents.sevennet.networks import (
    CUTOFF,
    ELEMENT_LEVELS,
    SEVENNET_0,
    SEVENNET_L3I5,
    SITE_LEVELS,
    STRUCTURE_LEVELS,
    Network,
)
from atomsets_core.parents.sevennet.torch_forward import TorchForward
from atomsets_core.structures import Compositions, Structures, graph_batches

CODE_VERSION = "1"
"""Part of the digest: raised when the meaning of the numbers below changes."""

MAX_BONDS = 20_000
"""Directed bonds in one batch; bounds the memory at about 100 MB, most of it radial weights."""


def load(device: str = "cpu") -> SevenNet:
    """SevenNet-0 with the published weights, on a torch device.

    Raises:
        FileNotFoundError: the package `sevenn`, which carries the weights, is not installed.
        ValueError: the installed weights are of another architecture.
    """
    return SevenNet(read_weights(SEVENNET_0), SEVENNET_0, device)


def load_l3i5(device: str = "cpu") -> SevenNet:
    """SevenNet-l3i5; see `load`."""
    return SevenNet(read_weights(SEVENNET_L3I5), SEVENNET_L3I5, device)


@lru_cache(maxsize=2)
def read_weights(network: Network) -> dict[str, np.ndarray]:
    """The parameters by the names of the checkpoint, and "elements": the atomic numbers in the order of its species.

    Only tensors and plain numpy arrays are unpickled: the training settings in the file hold a few of the latter.

    Returns:
        Name -> float32 weights; those of linear layers are flat, (inputs * outputs,) degree after degree. "elements" is
        (89,), also float32, so that the digest takes it in like a weight.
    """
    path = network.file()
    rebuild_array = np.empty(0).__reduce__()[0]
    float32 = np.dtype(np.float32)
    allowed: list[Any] = [(rebuild_array, "numpy.core.multiarray._reconstruct"), np.ndarray, np.dtype, type(float32)]
    with torch.serialization.safe_globals(allowed):
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    config = checkpoint["config"]
    for key, value in network.architecture.items():
        if config.get(key) != value:
            raise ValueError(f"{path}: {key} is {config.get(key)!r}, this code is written for {value!r}")
    weights = {name: tensor.float().numpy() for name, tensor in checkpoint["model_state_dict"].items()}
    weights["elements"] = np.array(sorted(config["_type_map"], key=config["_type_map"].get), dtype=np.float32)
    return weights


class SevenNet:
    """One of the SevenNet networks as a parent; their `about` says what its levels are."""

    site_levels = SITE_LEVELS
    structure_levels = STRUCTURE_LEVELS
    default_levels = ("s1",)
    element_levels = ELEMENT_LEVELS

    def __init__(
        self, weights: dict[str, np.ndarray], network: Network, device: str = "cpu", *, compiled: bool = True
    ) -> None:
        """Ready on `device`.

        Args:
            weights: by the names of the checkpoint, see `read_weights`.
            network: which of the two.
            device: of torch.
            compiled: allows the compiled forward pass where there is one.
        """
        self.network, self.name = network, network.name
        self.device = torch.device(device)
        self.digest = weights_digest(self.name, CODE_VERSION, weights)
        elements = weights["elements"].astype(np.int64)
        self._covered = np.zeros(elements.max() + 1, dtype=bool)
        self._covered[elements] = True
        plain = TorchForward(weights, network, self.device)
        self._embedding = plain.embedding[plain.species].cpu().numpy()
        fast = compiled_forward(plain) if compiled else None
        self.compiled = fast is not None
        self.forward: Forward = fast or plain

    @torch.inference_mode()
    def featurize(self, structures: Structures | Compositions, levels: Sequence[str] | None = None) -> Features:
        """See `Parent.featurize`. Refused are elements not among the 89, overlapping and isolated atoms.

        An atom without a neighbour in 5 Angstrom would have features of its element alone.
        """
        return featurize_batches(
            self,
            structures,
            levels,
            covered=self._covered,
            compute=in_torch(
                lambda batch, refused: graph_batches(batch, CUTOFF, MAX_BONDS, refused, vectors=True), self.forward
            ),
            embedding={"embedding": self._embedding},
        )
