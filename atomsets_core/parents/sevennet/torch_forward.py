"""SevenNet's forward pass in torch: on any device, and on CPUs where the compiled one isn't to be had.

It follows the published architecture, NequIP's (Batzner et al., Nat. Commun. 13, 2453 (2022)), and agrees with the
package to float32 rounding. What differs is the order of the work:

- an atom's vector of degree l is stored as (2l + 1, channels), so that a bond turns it into the messages of all its
  paths by one small matrix made from the spherical harmonics of the bond;
- messages are summed over the bonds before they are sorted by degree, in pieces that stay in the cache;
- bonds of one length have the same radial weights, computed once;
- the deepest layer asked for only computes its scalars, which need a quarter of the paths; there are no gradients.

The layers, with the weights of the convolution apart, are what the compiled pass reads too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import silu

from atomsets_core.parents.sevennet.networks import CUTOFF, LAYER_LEVELS, N_LAYERS, SCALARS, Network
from atomsets_core.parents.sevennet.plan import degrees
from atomsets_core.structures import CrystalGraphs

PIECE = 256
"""Bonds whose messages are made together on a CPU; 1,280 numbers each fit the L2 cache."""

MAX_LENGTHS = 20_000
"""Distinct lengths of bonds whose weights are kept; with more of them weights are made bond by bond."""

SILU_SCALE = 1.6791767923989418
"""The silu of e3nn is scaled to second moment 1 under a normal distribution; it finds the factor with 10^6 samples from
a fixed seed, and the weights were trained with that value."""

DEPTHS = {"embedding": -1, "energy": N_LAYERS - 1, **{level: k for k, level in enumerate(LAYER_LEVELS)}}
"""Level -> number of the last layer that it needs."""


class TorchForward:
    """The forward pass in torch.

    Args:
        weights: by the names of the checkpoint.
        network: which of the two.
        device: where it works.
    """

    def __init__(self, weights: dict[str, np.ndarray], network: Network, device: torch.device) -> None:
        self.network, self.device = network, device
        self._piece = PIECE if device.type == "cpu" else MAX_LENGTHS
        self._w = w = {name: torch.from_numpy(value).to(device) for name, value in weights.items()}
        elements = weights["elements"].astype(np.int64)
        species = np.zeros(elements.max() + 1, dtype=np.int64)
        species[elements] = np.arange(len(elements))
        self.species = torch.from_numpy(species).to(device)
        self.embedding = _linear(w["onehot_to_feature_x.linear.weight"], len(elements), SCALARS)
        self.layers = [Layer(network, w, k) for k in range(N_LAYERS)]

    def __call__(self, graphs: CrystalGraphs, wanted: Sequence[str]) -> dict[str, Tensor]:
        """The levels `wanted` of one batch of graphs; nothing deeper than them is computed.

        Args:
            graphs: with vectors.
            wanted: of SITE_LEVELS and STRUCTURE_LEVELS.

        Returns:
            level -> (n_atoms, 128) for site levels, (n_structures, 1) for the energy, float32.
        """
        deepest = max(DEPTHS[level] for level in wanted)
        graph = _Graph(graphs, self.species, self.network.lmax, self.device)
        radial = self.radial_basis(graph.lengths)
        atoms = [self.embedding[graph.species][:, None]]
        out = {"embedding": atoms[0][:, 0]}
        for k in range(deepest + 1):
            atoms = self._interact(self.layers[k], graph, radial, atoms, scalars_only=k == deepest)
            out[f"s{k}"] = atoms[0][:, 0]
        if "energy" in wanted:
            out["energy"] = self.energy(graph.species, graph.structure, graph.n_atoms, out[f"s{N_LAYERS - 1}"])
        return {level: out[level] for level in wanted}

    def radial_basis(self, length: Tensor) -> Tensor:
        """(n, 8) from lengths (n,) in Angstrom, of their dtype: (2/c) sin(f d) / d, switched off at the cutoff c."""
        scale = self.network.switch(length) * (2 / CUTOFF) / length
        frequency = self._w["edge_embedding.basis_function.coeffs"].to(length.dtype)
        return torch.sin(length[:, None] * frequency) * scale[:, None]

    def _interact(
        self, layer: Layer, graph: _Graph, radial: Tensor, atoms: list[Tensor], *, scalars_only: bool
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
        return layer.update(summed, atoms, scalars_only=scalars_only)

    def _convolve(self, layer: Layer, graph: _Graph, radial: Tensor, atoms: list[Tensor], highest: int) -> list[Tensor]:
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
        by_length = len(hidden) <= MAX_LENGTHS
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

    def energy(self, species: Tensor, structure: Tensor, n_atoms: Tensor, scalars: Tensor) -> Tensor:
        """Energies from the scalars of the last layer.

        Args:
            species: (n_atoms_total,), row in the embedding table.
            structure: (n_atoms_total,), number of the structure.
            n_atoms: (n_structures,), atoms of each.
            scalars: (n_atoms_total, 128).

        Returns:
            (n_structures, 1) float32, eV/atom.
        """
        w = self._w
        hidden = scalars @ _linear(w["reduce_input_to_hidden.linear.weight"], SCALARS, SCALARS // 2)
        energy = hidden @ _linear(w["reduce_hidden_to_energy.linear.weight"], SCALARS // 2, 1)
        scale, shift = (w[f"rescale_atomic_energy.{name}"][species, None] for name in ("scale", "shift"))
        total = torch.zeros(len(n_atoms), 1, dtype=torch.float64, device=self.device)
        # Energies of the elements, several eV an atom, are part of the sum: float64 keeps its last digits.
        total.index_add_(0, structure, (energy * scale + shift).double())
        return (total / n_atoms[:, None]).float()


class Layer:
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
        self.gated = channels[1:] if highest else ()
        outputs = (channels[0] + sum(self.gated), *channels[1:])[: highest + 1]
        paths = degrees(len(inputs) - 1, network.lmax, highest)
        from_paths = [sum(channels[l1] for l1, _, l3 in paths if l3 == degree) for degree in range(highest + 1)]
        self.mix_in = _linears(w[f"{k}_self_interaction_1.linear.weight"], inputs, inputs)
        self.mix_out = _linears(w[f"{k}_self_interaction_2.linear.weight"], tuple(from_paths), outputs)
        self.mix_out = [kernel / w[f"{k}_convolution.denominator"] for kernel in self.mix_out]
        self.keep = _linears(w[f"{k}_self_connection_intro.linear.weight"], inputs, outputs)
        columns = self._radial[2].split([channels[l1] for l1, _, _ in paths], dim=1)
        self.radial = {path: kernel / math.sqrt(kernel.shape[0]) for path, kernel in zip(paths, columns, strict=True)}
        self.couplings = {path: _coupling(w, path, network.lmax) for path in paths}
        self.sources = {
            limit: [
                _Source(degree, channels[degree], limit, self.radial, self.couplings) for degree in range(len(inputs))
            ]
            for limit in {0, highest}
        }

    def radial_hidden(self, basis: Tensor) -> Tensor:
        """(n, 64) from (n, 8), of their dtype: the two hidden layers of the radial network."""
        for kernel in self._radial[:2]:
            basis = silu(basis @ (kernel / math.sqrt(len(kernel))).to(basis.dtype)).mul_(SILU_SCALE)
        return basis

    def update(self, summed: list[Tensor], atoms: list[Tensor], *, scalars_only: bool) -> list[Tensor]:
        """What comes after the convolution: mixing, self connection, gate.

        Args:
            summed: for each degree (n_atoms, 2l + 1, channels of all paths).
            atoms: as they came into the layer, for each degree (n_atoms, 2l + 1, channels).
            scalars_only: leave out what only vectors of higher degree need.

        Returns:
            The new atoms, float32, for each degree, or for degree 0 alone.
        """
        width = SCALARS if scalars_only else None
        scalars = (summed[0] @ self.mix_out[0][:, :width]).add_(atoms[0] @ self.keep[0][:, :width])
        new = [silu(scalars[..., :SCALARS]).mul_(SILU_SCALE)]
        if scalars_only:
            return new
        # A vector may only be made longer or shorter: by a scalar of its own, which keeps its direction.
        gates = silu(scalars[..., SCALARS:]).mul_(SILU_SCALE).split(self.gated, dim=-1)
        for degree, gate in enumerate(gates, start=1):
            x = summed[degree] @ self.mix_out[degree]
            if degree < len(atoms):
                x += atoms[degree] @ self.keep[degree]
            new.append(x.mul_(gate))
        return new


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
