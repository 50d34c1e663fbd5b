"""MEGNet pretrained on formation energies (Chen et al., Chem. Mater. 31, 3564 (2019)), as a frozen parent.

The forward pass is that of the original Keras model `formation_energy` (mp-2019.4.1), whose weights the `maml` wheel
carries; the numbers agree with the original to float32 rounding. It is written twice: compiled for CPUs
(`forward_kernel`), and in torch for accelerators and for machines without numba (`torch_forward`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from atomsets_core.compiled import compiled_module
from atomsets_core.parents.about import About, Reference, levels_about
from atomsets_core.parents.base import Features, Levels, featurize_batches, weights_digest
from atomsets_core.parents.batching import Halving, bonds_that_fit, made_ahead
from atomsets_core.parents.megnet.torch_forward import Precision, TorchForward
from atomsets_core.parents.megnet.weights import (
    CUTOFF,
    N_ELEMENTS,
    PACKAGE,
    SITE_LEVELS,
    STRUCTURE_LEVELS,
    Weights,
    read_weights,
)
from atomsets_core.structures import Compositions, CrystalGraphs, IntArray, Refusal, Structures, graph_batches

NAME = "megnet"
CODE_VERSION = "1"
"""Part of the digest: raised when the meaning of the numbers below changes."""

UNTRAINED = frozenset({84, 85, 86, 87, 88})
"""Po, At, Rn, Fr, Ra: elements absent from the training set of the weights: their embedding is the random start."""

ELEMENT_LEVELS = ("V0",)

REFERENCE = Reference(
    key="chen2019",
    citation="C. Chen, W. Ye, Y. Zuo, C. Zheng, S. P. Ong, Graph networks as a universal machine learning framework "
    "for molecules and crystals, Chem. Mater. 31, 3564 (2019)",
    doi="10.1021/acs.chemmater.9b01294",
    fields={
        "author": "Chen, Chi and Ye, Weike and Zuo, Yunxing and Zheng, Chen and Ong, Shyue Ping",
        "title": "Graph networks as a universal machine learning framework for molecules and crystals",
        "journal": "Chemistry of Materials",
        "volume": "31",
        "pages": "3564--3572",
        "year": "2019",
    },
)

LEVELS = levels_about(
    SITE_LEVELS,
    STRUCTURE_LEVELS,
    {
        "V0": "the element",
        "V1": "after the first block, before the skip connection",
        "V2": "after the second block, before the skip connection",
        "V3": "after the third block, before the skip connection",
        "v": "pooled atoms (set2set), pooled bonds (set2set) and state",
        "f2": "the first layer of the readout",
        "f1": "the second layer of the readout",
        "energy": "formation energy, eV/atom",
    },
    of_elements=ELEMENT_LEVELS,
)

ABOUT = About(
    title="MEGNet",
    described="the pretrained MEGNet graph network",
    references=(REFERENCE,),
    package=PACKAGE,
    licence="BSD 3-Clause (Materials Virtual Lab)",
    trained_on="formation energies of 133,420 relaxed Materials Project crystals (mp-2019.4.1)",
    overlap="The MEGNet parent was trained on the formation energies of 133,420 Materials Project structures "
    "(mp-2019.4.1). It may have seen these structures, with their formation energies; it never saw any other "
    "property. Scores for formation energy itself would be flattered by that.",
    takes="neighbours within 5 Å; elements 1 to 94, of which Po, At, Rn, Fr and Ra are flagged",
    levels=LEVELS,
)

ABOUT_BF16 = replace(
    ABOUT,
    title="MEGNet in bfloat16",
    described="the pretrained MEGNet graph network with bfloat16 on the bonds",
)

MAX_BONDS = 200_000
"""Directed bonds in one batch of the torch path on a CPU; bounds its memory at about 60 MB."""

BYTES_A_BOND, BYTES_BESIDES = 600, 400_000_000
"""Memory of the torch path on an accelerator: bonds, indices and the readout; the pieces that are worked on."""

MAX_BONDS_COMPILED = 32_768
"""The same for the compiled path, a thread: its 4 MB of bonds stay in the cache that the cores share."""


class Forward(Protocol):
    """What turns a batch of graphs into levels."""

    def __call__(self, graphs: CrystalGraphs, wanted: Sequence[str]) -> dict[str, npt.NDArray[np.float32]]: ...  # noqa: D102


def load(device: str = "cpu") -> MEGNet:
    """The parent with the published weights, on a torch device.

    Raises:
        FileNotFoundError: the package `maml`, which carries the weights, is not installed.
    """
    return MEGNet(read_weights(), device)


def load_bf16(device: str = "cpu") -> MEGNet:
    """The same with bfloat16 on the bonds: half the memory traffic of an accelerator; slower on CPUs."""
    return MEGNet(read_weights(), device, precision="bf16")


def compiled_forward(weights: Weights) -> Forward | None:
    """The compiled forward pass; None without numba."""
    module = compiled_module("parents.megnet.forward_kernel")
    return module.CompiledForward(weights) if module else None


class MEGNet:
    """MEGNet formation-energy model as a parent; `LEVELS` says what its levels are."""

    site_levels = SITE_LEVELS
    structure_levels = STRUCTURE_LEVELS
    default_levels = ("V0", "V1", "V2", "V3")
    element_levels = ELEMENT_LEVELS

    def __init__(
        self,
        weights: Weights,
        device: str = "cpu",
        *,
        compiled: bool = True,
        name: str = NAME,
        cutoff: float = CUTOFF,
        untrained: frozenset[int] = UNTRAINED,
        precision: Precision = "float32",
    ) -> None:
        """Ready on `device`.

        Args:
            weights: published or trained here.
            device: of torch.
            compiled: allows the compiled forward pass where there is one; it knows float32 only.
            name: under which `load_parent` finds it.
            cutoff: neighbour radius that the weights were trained with, at most `CUTOFF` Angstrom.
            untrained: atomic numbers that the weights never saw.
            precision: of the products and activations on the bonds; everything else is float32 always. Features of
                another precision are other features: they have a name and a digest of their own.
        """
        if not 0.0 < cutoff <= CUTOFF:
            raise ValueError(f"a MEGNet parent sees neighbours within {CUTOFF:g} Angstrom at most, not {cutoff:g}")
        self.name, self.cutoff = name if precision == "float32" else f"{name}-{precision}", cutoff
        self.device = torch.device(device)
        self._untrained = untrained
        # The published weights keep the digest they always had.
        version = CODE_VERSION if cutoff == CUTOFF else f"{CODE_VERSION} cutoff {cutoff!r}"
        low = "" if precision == "float32" else f"-{precision}"
        self.digest = weights_digest(f"{NAME}{low}", version, weights)
        self._embedding = weights["embedding_1/embeddings"]
        fast = None
        if compiled and precision == "float32" and self.device.type == "cpu":
            fast = compiled_forward(weights)
        self.compiled = fast is not None
        in_torch = None if fast else TorchForward(weights, self.device, precision)
        self.forward: Forward = fast or in_torch  # type: ignore[assignment]
        if in_torch:
            self._halving = Halving(in_torch, in_torch.use_less_memory)

    def featurize(self, structures: Structures | Compositions, levels: Sequence[str] | None = None) -> Features:
        """See `Parent.featurize`. Refused are atomic numbers above 94, overlapping and isolated atoms."""
        bonds: list[int] = []
        features = featurize_batches(
            self,
            structures,
            levels,
            covered=np.arange(N_ELEMENTS) > 0,
            compute=partial(self._work_through, bonds),
            embedding={"V0": self._embedding},
            untrained=self._untrained,
        )
        return replace(features, bonds=sum(bonds))

    def _work_through(
        self, bonds: list[int], structures: Structures, wanted: Sequence[str], refused: list[Refusal]
    ) -> Iterator[tuple[IntArray, Levels]]:
        """Levels in order: group after group with the compiled pass, on as many threads as torch has been given."""
        for batches, more, counted in self._groups(structures, wanted):
            refused += more
            bonds.append(counted)
            yield from batches

    def _groups(self, structures: Structures, wanted: Sequence[str]) -> Iterator[_Group]:
        if not self.compiled:
            yield from self._groups_in_torch(structures, wanted)
            return
        threads = torch.get_num_threads()
        limit = min(MAX_BONDS_COMPILED, MAX_BONDS)
        bounds = _cut(structures, self.cutoff, limit, threads)
        work = partial(self._one_group, structures, limit, wanted)
        if threads == 1 or len(bounds) <= 2:
            yield from map(work, bounds[:-1], bounds[1:])
            return
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(work, bounds[:-1], bounds[1:])

    def _one_group(
        self, structures: Structures, max_bonds: int, wanted: Sequence[str], start: int, stop: int
    ) -> _Group:
        refused: list[Refusal] = []
        group = structures if (start, stop) == (0, len(structures)) else structures.take(np.arange(start, stop))
        batches: list[tuple[IntArray, Levels]] = []
        bonds = 0
        for rows, graphs in graph_batches(group, self.cutoff, max_bonds, refused):
            batches.append((rows + start, self.forward(graphs, wanted)))
            bonds += len(graphs.centre)
        return batches, refused, bonds

    def _groups_in_torch(self, structures: Structures, wanted: Sequence[str]) -> Iterator[_Group]:
        """Batch after batch; on an accelerator the next graphs are made while it computes."""
        refused: list[Refusal] = []
        max_bonds = bonds_that_fit(self.device, BYTES_A_BOND, BYTES_BESIDES, MAX_BONDS)
        batches: Iterable[tuple[IntArray, CrystalGraphs]] = graph_batches(structures, self.cutoff, max_bonds, refused)
        for rows, graphs in batches if self.device.type == "cpu" else made_ahead(batches):
            for positions, levels in self._halving(graphs, wanted):
                if levels is not None:
                    yield [(rows[positions], levels)], [], int(graphs.n_bonds[positions].sum())
                    continue
                i, n_bonds = rows[positions[0]], int(graphs.n_bonds[positions[0]])
                reason = f"its {n_bonds:,} bonds need more memory than {self.device} has"
                refused.append(Refusal(str(structures.material_id[i]), "featurize", reason, str(structures.hashes[i])))
        yield [], refused, 0


_Group = tuple[Sequence[tuple[IntArray, Levels]], list[Refusal], int]
"""Rows and levels of each batch of a group, what was refused of it, and its directed bonds."""


def _cut(structures: Structures, cutoff: float, bonds: int, threads: int) -> list[int]:
    """Bounds of groups of about `bonds` bonds as the densities let expect; smaller when there are few a thread."""
    volume = np.maximum(np.abs(np.linalg.det(structures.lattice)), 1e-3)
    in_sphere = 4.0 / 3.0 * np.pi * cutoff**3
    expected = np.cumsum(in_sphere * structures.n_atoms**2 / volume)
    if not len(expected):
        return [0]
    size = min(float(bonds), max(expected[-1] / (2 * threads), 1.0))
    group = np.floor(expected / size)
    return [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), len(structures)]
