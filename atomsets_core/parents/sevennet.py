"""SevenNet-0 (Park et al., J. Chem. Theory Comput. 20, 4857 (2024)) and SevenNet-l3i5, as frozen parents.

The weights are those in the `sevenn` wheel (SevenNet-0 of 11 July 2024); neither it nor e3nn is imported. The forward
pass follows the published architecture, NequIP's (Batzner et al., Nat. Commun. 13, 2453 (2022)), and agrees with the
package to float32 rounding. What differs is the order of the work:

- an atom's vector of degree l is stored as (2l + 1, channels), so that a bond turns it into the messages of all its
  paths by one small matrix made from the spherical harmonics of the bond;
- messages are summed over the bonds before they are sorted by degree, in pieces that stay in the cache;
- bonds of one length have the same radial weights, computed once;
- the deepest layer asked for only computes its scalars, which need a quarter of the paths; there are no gradients.

The numbers of degree 1 and 2 turn with the crystal, so only the 128 of degree 0 are features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import silu

from atomsets_core.parents.base import Features, featurize_batches, in_torch, weights_digest
from atomsets_core.parents.sevennet_networks import (
    CUTOFF,
    ELEMENT_LEVELS,
    LAYER_LEVELS,
    N_LAYERS,
    SCALARS,
    SEVENNET_0,
    SEVENNET_L3I5,
    SITE_LEVELS,
    STRUCTURE_LEVELS,
    Network,
)
from atomsets_core.structures import Compositions, CrystalGraphs, Structures, graph_batches

CODE_VERSION = "1"
"""Part of the digest: raised when the meaning of the numbers below changes."""

MAX_BONDS = 20_000
"""Directed bonds in one batch; bounds the memory at about 100 MB, most of it radial weights."""

PIECE = 256
"""Bonds whose messages are made together on a CPU; 1,280 numbers each fit the L2 cache."""

SILU_SCALE = 1.6791767923989418
"""The silu of e3nn is scaled to second moment 1 under a normal distribution; it finds the factor with 10^6 samples from
a fixed seed, and the weights were trained with that value."""


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

    def __init__(self, weights: dict[str, np.ndarray], network: Network, device: str = "cpu") -> None:
        self.network, self.name = network, network.name
        self.device = torch.device(device)
        self.digest = weights_digest(self.name, CODE_VERSION, weights)
        self._piece = PIECE if self.device.type == "cpu" else MAX_BONDS
        self._w = w = {name: torch.from_numpy(value).to(self.device) for name, value in weights.items()}
        elements = weights["elements"].astype(np.int64)
        self._covered = np.zeros(elements.max() + 1, dtype=bool)
        self._covered[elements] = True
        species = np.zeros(elements.max() + 1, dtype=np.int64)
        species[elements] = np.arange(len(elements))
        self._species = torch.from_numpy(species).to(self.device)
        self._embedding = _linear(w["onehot_to_feature_x.linear.weight"], len(elements), SCALARS)
        self._layers = [_Layer(network, w, k) for k in range(N_LAYERS)]

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
            embedding={"embedding": self._embedding[self._species].cpu().numpy()},
        )

    def forward(self, graphs: CrystalGraphs, wanted: Sequence[str]) -> dict[str, Tensor]:
        """The levels `wanted` of one batch of graphs; nothing deeper than them is computed.

        Args:
            graphs: with vectors.
            wanted: of SITE_LEVELS and STRUCTURE_LEVELS.

        Returns:
            level -> (n_atoms, 128) for site levels, (n_structures, 1) for the energy, float32.
        """
        depth = {"embedding": -1, "energy": N_LAYERS - 1, **{level: k for k, level in enumerate(LAYER_LEVELS)}}
        deepest = max(depth[level] for level in wanted)
        graph = _Graph(graphs, self._species, self.network.lmax, self.device)
        radial = self._radial_basis(graph.lengths)
        atoms = [self._embedding[graph.species][:, None]]
        out = {"embedding": atoms[0][:, 0]}
        for k in range(deepest + 1):
            atoms = self._interact(self._layers[k], graph, radial, atoms, scalars_only=k == deepest)
            out[f"s{k}"] = atoms[0][:, 0]
        if "energy" in wanted:
            out["energy"] = self._energy(graph, out[f"s{N_LAYERS - 1}"])
        return {level: out[level] for level in wanted}

    def _radial_basis(self, length: Tensor) -> Tensor:
        """(n, 8) from lengths (n,) in Angstrom: (2/c) sin(f d) / d, switched off towards the cutoff c."""
        scale = self.network.switch(length) * (2 / CUTOFF) / length
        return torch.sin(length[:, None] * self._w["edge_embedding.basis_function.coeffs"]) * scale[:, None]

    def _interact(
        self, layer: _Layer, graph: _Graph, radial: Tensor, atoms: list[Tensor], *, scalars_only: bool
    ) -> list[Tensor]:
        """One interaction layer: convolution over the bonds, self connection, gate.

        Args:
            layer: its weights.
            graph: the batch.
            radial: (n_lengths, 8), basis of every distinct length.
            atoms: for each degree l (n_atoms, 2l + 1, channels).
            scalars_only: leave out what only vectors of higher degree need.

        Returns:
            The new atoms, for each degree, or for degree 0 alone.
        """
        # Channels of one degree mix, components never: only then do degrees turn with the crystal as they should.
        mixed = [x @ kernel for x, kernel in zip(atoms, layer.mix_in, strict=False)]
        summed = self._convolve(layer, graph, radial, mixed, 0 if scalars_only else self.network.lmax)
        width = SCALARS if scalars_only else None
        scalars = (summed[0] @ layer.mix_out[0][:, :width]).add_(atoms[0] @ layer.keep[0][:, :width])
        new = [silu(scalars[..., :SCALARS]).mul_(SILU_SCALE)]
        if scalars_only:
            return new
        # A vector may only be made longer or shorter: by a scalar of its own, which keeps its direction.
        gates = silu(scalars[..., SCALARS:]).mul_(SILU_SCALE).split(self.network.channels[1:], dim=-1)
        for degree, gate in enumerate(gates, start=1):
            x = summed[degree] @ layer.mix_out[degree]
            if degree < len(atoms):
                x += atoms[degree] @ layer.keep[degree]
            new.append(x.mul_(gate))
        return new

    def _convolve(
        self, layer: _Layer, graph: _Graph, radial: Tensor, atoms: list[Tensor], highest: int
    ) -> list[Tensor]:
        """Messages of the neighbours, summed over the bonds of each atom.

        A path takes an atom's vectors of degree l1 and the harmonics of degree l2 of the bond to a message of degree
        l3, times a weight for each channel that depends on the length of the bond.

        Args:
            layer: its weights.
            graph: the batch.
            radial: (n_lengths, 8).
            atoms: for each degree (n_atoms, 2l + 1, channels).
            highest: degree of the messages wanted.

        Returns:
            For each degree l3 up to `highest` (n_atoms, 2l3 + 1, channels of all its paths).
        """
        hidden = layer.radial_hidden(radial)
        sources = [source for source in layer.sources[highest] if source.degree < len(atoms)]
        # A structure larger than a batch could have so many lengths that their weights don't fit the memory.
        by_length = len(hidden) <= MAX_BONDS
        weights = [hidden @ source.radial if by_length else None for source in sources]
        totals = [
            torch.zeros(len(graph.species), source.rows, source.channels, device=self.device) for source in sources
        ]
        for piece in graph.pieces(self._piece):
            centre, neighbour, length = graph.centre[piece], graph.neighbour[piece], graph.length[piece]
            for source, weight, total in zip(sources, weights, totals, strict=True):
                # sum_m1,m2 C(l1 m1, l2 m2; l3 m3) Y_l2,m2(r) as one matrix from m1 to the rows (l3, m3) of all paths.
                turn = (graph.harmonics[piece] @ source.coupling).view(-1, source.rows, 2 * source.degree + 1)
                message = torch.bmm(turn, atoms[source.degree].index_select(0, neighbour))
                if weight is None:
                    weight_of_bond = hidden.index_select(0, length) @ source.radial
                else:
                    weight_of_bond = weight.index_select(0, length)
                by_path = weight_of_bond.view(-1, source.n_paths, source.channels)
                message *= by_path.index_select(1, source.path_of_row)
                total.index_add_(0, centre, message)
        return [
            torch.cat(
                [
                    total[:, rows]
                    for source, total in zip(sources, totals, strict=True)
                    for rows in source.rows_of_degree[degree]
                ],
                dim=2,
            )
            for degree in range(highest + 1)
        ]

    def _energy(self, graph: _Graph, scalars: Tensor) -> Tensor:
        """(n_structures, 1), eV/atom, from the scalars (n_atoms, 128) of the last layer."""
        w = self._w
        hidden = scalars @ _linear(w["reduce_input_to_hidden.linear.weight"], SCALARS, SCALARS // 2)
        energy = hidden @ _linear(w["reduce_hidden_to_energy.linear.weight"], SCALARS // 2, 1)
        scale, shift = (w[f"rescale_atomic_energy.{name}"][graph.species, None] for name in ("scale", "shift"))
        total = torch.zeros(len(graph.n_atoms), 1, dtype=torch.float64, device=self.device)
        # Energies of the elements, several eV an atom, are part of the sum: float64 keeps its last digits.
        total.index_add_(0, graph.structure, (energy * scale + shift).double())
        return (total / graph.n_atoms[:, None]).float()


class _Layer:
    """Weights of one interaction layer.

    Attributes:
        mix_in, mix_out, keep: for each degree a matrix: before the convolution, after it, and of the self connection.
            The constant that the sum over neighbours is divided by is part of mix_out.
        sources: for the highest degree wanted of the messages, 0 or all, one `_Source` for each degree of the atoms.
    """

    def __init__(self, network: Network, w: dict[str, Tensor], k: int) -> None:
        channels = network.channels
        self._radial = [w[f"{k}_convolution.weight_nn.layer{i}.weight"] for i in range(3)]
        # Layer 0 sees scalars only, the last layer makes scalars only.
        inputs = channels if k > 0 else channels[:1]
        highest = network.lmax if k < N_LAYERS - 1 else 0
        gated = sum(channels[1:]) if highest else 0
        outputs = (channels[0] + gated, *channels[1:])[: highest + 1]
        paths = _paths(len(inputs) - 1, network.lmax, highest)
        from_paths = [sum(channels[l1] for l1, _, l3 in paths if l3 == degree) for degree in range(highest + 1)]
        self.mix_in = _linears(w[f"{k}_self_interaction_1.linear.weight"], inputs, inputs)
        self.mix_out = _linears(w[f"{k}_self_interaction_2.linear.weight"], tuple(from_paths), outputs)
        self.mix_out = [kernel / w[f"{k}_convolution.denominator"] for kernel in self.mix_out]
        self.keep = _linears(w[f"{k}_self_connection_intro.linear.weight"], inputs, outputs)
        columns = self._radial[2].split([channels[l1] for l1, _, _ in paths], dim=1)
        radial = {path: kernel / math.sqrt(kernel.shape[0]) for path, kernel in zip(paths, columns, strict=True)}
        couplings = {path: _coupling(w, path, network.lmax) for path in paths}
        self.sources = {
            limit: [_Source(degree, channels[degree], limit, radial, couplings) for degree in range(len(inputs))]
            for limit in {0, highest}
        }

    def radial_hidden(self, basis: Tensor) -> Tensor:
        """(n, 64) from (n, 8): the two hidden layers of the radial network."""
        for kernel in self._radial[:2]:
            basis = silu(basis @ (kernel / math.sqrt(len(kernel)))).mul_(SILU_SCALE)
        return basis


class _Source:
    """All paths that start from atom vectors of one degree, their messages stacked in rows.

    Attributes:
        degree: l1 of the paths; channels, vectors of that degree.
        n_paths, rows: how many paths, and rows of their messages: 2 l3 + 1 each.
        coupling: (harmonics, rows * (2 l1 + 1)), from the harmonics of a bond to the matrix that turns the vectors of
            its neighbour into the rows.
        radial: (64, n_paths * channels), from the hidden layer of the radial network to the weights.
        path_of_row: (rows,), number of the path.
        rows_of_degree: for each degree l3 the slices of its paths' rows.
    """

    def __init__(
        self,
        degree: int,
        channels: int,
        highest: int,
        radial: dict[tuple[int, int, int], Tensor],
        couplings: dict[tuple[int, int, int], Tensor],
    ) -> None:
        paths = [path for path in radial if path[0] == degree and path[2] <= highest]
        self.degree, self.channels, self.n_paths = degree, channels, len(paths)
        self.radial = torch.cat([radial[path] for path in paths], dim=1)
        stacked = torch.cat([couplings[path] for path in paths], dim=1)
        self.rows = stacked.shape[1]
        self.coupling = stacked.reshape(stacked.shape[0], -1)
        sizes = [2 * l3 + 1 for _, _, l3 in paths]
        ends = np.cumsum(sizes).tolist()
        slices = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        self.path_of_row = torch.from_numpy(np.repeat(np.arange(self.n_paths), sizes)).to(stacked.device)
        self.rows_of_degree = [
            [rows for rows, path in zip(slices, paths, strict=True) if path[2] == l3] for l3 in range(highest + 1)
        ]


class _Graph:
    """A `CrystalGraphs` as tensors on a device.

    Attributes:
        species: (n_atoms,), row in the embedding table.
        structure: (n_atoms,), number of the structure; n_atoms (n_structures,) its atoms.
        centre, neighbour: (n_bonds,).
        length: (n_bonds,), which of the distinct `lengths` (Angstrom) a bond has.
        harmonics: (n_bonds, (lmax + 1)^2), of the bond's direction.
    """

    def __init__(self, graphs: CrystalGraphs, species_of_element: Tensor, lmax: int, device: torch.device) -> None:
        if graphs.vector is None:
            raise ValueError("sevennet needs a graph with vectors: graph_batches(..., vectors=True)")
        lengths, length = np.unique(graphs.distance, return_inverse=True)
        direction = graphs.vector / np.linalg.norm(graphs.vector, axis=1, keepdims=True)
        self.lengths, self.length = torch.from_numpy(lengths).to(device), torch.from_numpy(length).to(device)
        self.harmonics = _harmonics(torch.from_numpy(direction.astype(np.float32)).to(device), lmax)
        self.centre = torch.from_numpy(graphs.centre).to(device)
        self.neighbour = torch.from_numpy(graphs.neighbour).to(device)
        self.species = species_of_element[torch.from_numpy(graphs.numbers).to(device)]
        self.n_atoms = torch.from_numpy(graphs.n_atoms).to(device)
        self.structure = torch.arange(len(self.n_atoms), device=device).repeat_interleave(self.n_atoms)

    def pieces(self, size: int) -> Iterator[slice]:
        """The bonds, so many at a time."""
        n = len(self.centre)
        return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _paths(highest_in: int, highest_edge: int, highest_out: int) -> list[tuple[int, int, int]]:
    """(l1, l2, l3) with |l1 - l2| <= l3 <= l1 + l2, in the order of the checkpoint's weights."""
    return [
        (l1, l2, l3)
        for l1 in range(highest_in + 1)
        for l2 in range(highest_edge + 1)
        for l3 in range(abs(l1 - l2), min(l1 + l2, highest_out) + 1)
    ]


def _coupling(w: dict[str, Tensor], path: tuple[int, int, int], lmax: int) -> Tensor:
    """(harmonics, 2 l3 + 1, 2 l1 + 1): sqrt(2 l3 + 1) times the Wigner 3j symbols of a path, in the rows of l2.

    Where one degree is 0 they are a Kronecker delta; the others come from the checkpoint, so that their signs, which
    changed between versions of e3nn, are those of the training.
    """
    l1, l2, l3 = path
    if l1 == 0:
        block = torch.eye(2 * l2 + 1)[:, :, None]
    elif l2 == 0:
        block = torch.eye(2 * l1 + 1)[None]
    elif l3 == 0:
        block = torch.eye(2 * l1 + 1)[:, None] / math.sqrt(2 * l1 + 1)
    else:
        symbols = w[f"1_convolution.convolution._compiled_main_left_right._w3j_{l1}_{l2}_{l3}"].cpu()
        block = symbols.permute(1, 2, 0) * math.sqrt(2 * l3 + 1)
    coupling = torch.zeros((lmax + 1) ** 2, 2 * l3 + 1, 2 * l1 + 1)
    coupling[l2**2 : (l2 + 1) ** 2] = block
    return coupling.to(w["elements"].device)


def _harmonics(direction: Tensor, lmax: int) -> Tensor:
    """(n, (lmax + 1)^2): spherical harmonics up to degree 2 or 3 of unit vectors (n, 3), each of norm sqrt(2l + 1).

    In e3nn's order: y is the polar axis.
    """
    x, y, z = direction.unbind(1)
    across = x**2 + z**2
    xz, zz = math.sqrt(3) * x * z, math.sqrt(3) / 2 * (z**2 - x**2)
    columns = [torch.ones_like(x), *(math.sqrt(3) * part for part in (x, y, z))]
    second = [xz, math.sqrt(3) * x * y, y**2 - across / 2, math.sqrt(3) * y * z, zz]
    columns += [math.sqrt(5) * part for part in second]
    if lmax == 3:
        third = [
            math.sqrt(5 / 6) * (xz * z + zz * x),
            math.sqrt(5) * xz * y,
            math.sqrt(3 / 8) * (4 * y**2 - across) * x,
            y * (2 * y**2 - 3 * across) / 2,
            math.sqrt(3 / 8) * (4 * y**2 - across) * z,
            math.sqrt(5) * zz * y,
            math.sqrt(5 / 6) * (zz * z - xz * x),
        ]
        columns += [math.sqrt(7) * part for part in third]
    return torch.stack(columns, dim=1)


def _linear(flat: Tensor, n_in: int, n_out: int) -> Tensor:
    """(n_in, n_out) matrix with e3nn's factor 1 / sqrt(n_in)."""
    return flat.reshape(n_in, n_out) / math.sqrt(n_in)


def _linears(flat: Tensor, inputs: Sequence[int], outputs: Sequence[int]) -> list[Tensor]:
    """One matrix for each degree that both sides have, from weights that are stored one after the other."""
    matrices = []
    for n_in, n_out in zip(inputs, outputs, strict=False):
        matrices.append(_linear(flat[: n_in * n_out], n_in, n_out))
        flat = flat[n_in * n_out :]
    if len(flat):
        raise ValueError(f"{len(flat)} weights are left over in a linear layer {tuple(inputs)} -> {tuple(outputs)}")
    return matrices
