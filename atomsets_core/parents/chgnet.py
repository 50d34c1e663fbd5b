"""CHGNet 0.3.0 (Deng et al., Nat. Mach. Intell. 5, 1031 (2023)), as a frozen parent.

The weights are those in the `chgnet` wheel; the package itself is not imported. The forward pass follows the published
architecture and agrees with the package to float32 rounding. What differs is the order of the work:

- the first layer of every gated network acts on atoms, bonds and angles side by side, so it is split into one product
  an atom, one a bond and one an angle, of which each message only takes the sum;
- sites, bonds and angles that are alike are computed once and counted (see `merge_sites`), which in crystals leaves a
  third of them;
- bonds and angles go through a layer in pieces that stay in the cache;
- nothing deeper than the levels asked for is computed, and no gradients.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import layer_norm, silu

from atomsets_core.parents.about import MPTRJ, About, Reference, levels_about
from atomsets_core.parents.base import Features, featurize_batches, in_torch, installed_file, weights_digest
from atomsets_core.structures import Compositions, CrystalGraphs, MergedGraph, Structures, graph_batches, merge_alike

NAME = "chgnet"
CODE_VERSION = "1"
"""Part of the digest: raised when the meaning of the numbers below changes."""

WEIGHTS = "pretrained/0.3.0/chgnet_0.3.0_*.pth.tar"

ARCHITECTURE = {
    "n_conv": 4,
    "num_radial": 31,
    "num_angular": 31,
    "atom_graph_cutoff": 6,
    "bond_graph_cutoff": 3,
    "cutoff_coeff": 8,
    "mlp_first": True,
    "is_intensive": True,
    "gMLP_norm": "layer",
    "readout_norm": "layer",
    "non_linearity": "silu",
}
"""What the checkpoint says of itself and the code below takes for granted."""

CUTOFF = 6.0
"""Angstrom, of the bonds."""

ANGLE_CUTOFF = 3.0
"""Angstrom, of the bonds between which angles are taken."""

ENVELOPE = 8
"""Exponent p of the polynomial that takes the radial basis to zero at the cutoff."""

N_ELEMENTS = 95
"""Atomic numbers 1 to 94 have a row in the embedding table."""

UNTRAINED = frozenset({84, 85, 86, 87, 88})
"""Po, At, Rn, Fr, Ra: absent from the training set (MPtrj); their embedding is the random start."""

WIDTH = 64
SITE_LEVELS = {"a0": WIDTH, "a1": WIDTH, "a2": WIDTH, "site": WIDTH, "a4": WIDTH}
STRUCTURE_LEVELS = {"crystal": WIDTH, "energy": 1}
ELEMENT_LEVELS = ("a0",)
DEPTH = {"a0": 0, "a1": 1, "a2": 2, "site": 3, "a4": 4, "crystal": 4, "energy": 4}
"""How many of the four atom convolutions a level needs."""

REFERENCE = Reference(
    key="deng2023",
    citation="B. Deng, P. Zhong, K. Jun, J. Riebesell, K. Han, C. J. Bartel, G. Ceder, CHGNet as a pretrained "
    "universal neural network potential for charge-informed atomistic modelling, Nat. Mach. Intell. 5, 1031 (2023)",
    doi="10.1038/s42256-023-00716-3",
    fields={
        "author": "Deng, Bowen and Zhong, Peichen and Jun, KyuJung and Riebesell, Janosh and Han, Kevin and Bartel, "
        "Christopher J. and Ceder, Gerbrand",
        "title": "CHGNet as a pretrained universal neural network potential for charge-informed atomistic modelling",
        "journal": "Nature Machine Intelligence",
        "volume": "5",
        "pages": "1031--1041",
        "year": "2023",
    },
)

ABOUT = About(
    title="CHGNet",
    described="the pretrained CHGNet 0.3.0 graph network",
    references=(REFERENCE,),
    package="chgnet",
    extra="parents",
    licence="modified BSD (Lawrence Berkeley National Laboratory)",
    trained_on=f"energies, forces, stresses and magnetic moments of {MPTRJ}",
    overlap=f"The CHGNet parent was trained on energies, forces, stresses and magnetic moments of {MPTRJ}. It may have "
    "seen these structures, with their energies, and never saw any other property. Scores for energies would be "
    "flattered by that.",
    takes="neighbours within 6 Å, angles between bonds below 3 Å; elements 1 to 94, of which Po, At, Rn, Fr and Ra are "
    "flagged",
    levels=levels_about(
        SITE_LEVELS,
        STRUCTURE_LEVELS,
        {
            "a0": "the element",
            "a1": "after the first atom convolution",
            "a2": "after the second atom convolution",
            "site": "after the third: what the package calls atom features, from which it reads magnetic moments",
            "a4": "after the last convolution and the layer norm of the readout, from which it reads energies",
            "crystal": "mean of `a4`. The package's crystal feature is the sum, which grows with the cell",
            "energy": "total energy, eV/atom, on the scale of the Materials Project's corrected GGA/GGA+U mix",
        },
        of_elements=ELEMENT_LEVELS,
    ),
)

MAX_BONDS = 50_000
"""Directed bonds and angles in one batch; bounds the memory at about 40 MB."""

PIECE = 2048
"""Bonds or angles that go through a gated network together on a CPU; their 128-wide intermediates fit the L2 cache."""


def load(device: str = "cpu") -> CHGNet:
    """The parent with the published weights, on a torch device.

    Raises:
        FileNotFoundError: the package `chgnet`, which carries the weights, is not installed.
        ValueError: the installed weights are of another architecture.
    """
    return CHGNet(read_weights(), device)


def weights_file() -> Path:
    """Where the installed `chgnet` keeps the weights of version 0.3.0 (found without importing it)."""
    return installed_file(ABOUT.package, WEIGHTS, ABOUT.install)


@lru_cache(maxsize=1)
def read_weights() -> dict[str, np.ndarray]:
    """All 412,525 parameters as float32, by the names of the checkpoint; nothing but tensors is unpickled.

    Returns:
        Name -> kernels (outputs, inputs), as torch has them, and biases (outputs,).
    """
    path = weights_file()
    model = torch.load(path, map_location="cpu", weights_only=True)["model"]
    for key, value in ARCHITECTURE.items():
        if model["model_args"].get(key) != value:
            raise ValueError(f"{path}: {key} is {model['model_args'].get(key)!r}, this code is written for {value!r}")
    return {name: tensor.float().numpy() for name, tensor in model["state_dict"].items()}


class CHGNet:
    """CHGNet 0.3.0 as a parent; `ABOUT` says what its levels are."""

    name = NAME
    site_levels = SITE_LEVELS
    structure_levels = STRUCTURE_LEVELS
    default_levels = ("site",)
    element_levels = ELEMENT_LEVELS

    def __init__(self, weights: dict[str, np.ndarray], device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.digest = weights_digest(NAME, CODE_VERSION, weights)
        self._piece = PIECE if self.device.type == "cpu" else MAX_BONDS
        self._w = w = {name: torch.from_numpy(value).to(self.device) for name, value in weights.items()}
        # Row 0 stands for no element, so that atomic numbers are row numbers.
        self._embedding = torch.cat([torch.zeros(1, WIDTH, device=self.device), w["atom_embedding.embedding.weight"]])
        self._radial_to_weight = w["bond_weights_ag.weight"].T.contiguous()
        bond_embedding = w["bond_embedding.weight"].T
        self._atom_convs = [_Gated(w, f"atom_conv_layers.{k}.twoBody_atom", 3) for k in range(4)]
        self._bond_convs = [_Gated(w, f"bond_conv_layers.{k}.twoBody_bond", 4) for k in range(3)]
        self._angle_updates = [_Gated(w, f"angle_layers.{k}.twoBody_bond", 4) for k in range(2)]
        # A bond without angles stays r E, r its radial basis. The first layer W reads it by one (31, 128) matrix:
        # (r E) W = r (E W).
        self._radial_to_hidden = [bond_embedding @ conv.parts[1] for conv in self._atom_convs]

    @torch.inference_mode()
    def featurize(self, structures: Structures | Compositions, levels: Sequence[str] | None = None) -> Features:
        """See `Parent.featurize`. Refused are atomic numbers above 94, overlapping and isolated atoms.

        An atom without a neighbour in 6 Angstrom would keep its element embedding through all layers, and the package
        warns that its results "will likely go wrong".
        """
        return featurize_batches(
            self,
            structures,
            levels,
            covered=np.arange(N_ELEMENTS) > 0,
            compute=in_torch(
                lambda batch, refused: graph_batches(
                    batch, CUTOFF, MAX_BONDS, refused, vectors=True, angle_cutoff=ANGLE_CUTOFF
                ),
                self.forward,
            ),
            embedding={"a0": self._embedding.cpu().numpy()},
            untrained=UNTRAINED,
        )

    def forward(self, graphs: CrystalGraphs, wanted: Sequence[str]) -> dict[str, Tensor]:
        """The levels `wanted` of one batch of graphs; nothing deeper than them is computed.

        Args:
            graphs: with vectors and images.
            wanted: of SITE_LEVELS and STRUCTURE_LEVELS.

        Returns:
            level -> (n_atoms, 64) for site levels, (n_structures, width) for structure levels, float32.
        """
        depth = max(DEPTH[level] for level in wanted)
        names = {DEPTH[level]: level for level in SITE_LEVELS}
        graph = _Graph(merge_alike(graphs, max(depth, 1), ANGLE_CUTOFF), self.device)
        radial = self._radial_basis(graph.distance, "ag", CUTOFF)
        weight = (radial @ self._radial_to_weight).mul_(graph.count)
        bonds = angles = None
        if graph.n_short:
            bonds = radial[graph.one_of_each] @ self._w["bond_embedding.weight"].T
            short = self._radial_basis(graph.distance[graph.one_of_each], "bg", ANGLE_CUTOFF)
            bond_weight = short @ self._w["bond_weights_bg.weight"].T
            angles = self._angle_basis(graph.angle) @ self._w["angle_embedding.weight"].T
        atoms = self._embedding[graph.numbers]
        out = {"a0": atoms}
        for k in range(depth):
            atoms = self._convolve_atoms(k, graph, radial, weight, atoms, bonds)
            if bonds is not None and angles is not None:
                # The last bonds reach the last atoms, and the last angles the last bonds.
                if k + 1 < depth:
                    bonds = self._convolve_bonds(k, graph, atoms, bonds, bond_weight, angles)
                if k + 2 < depth:
                    angles = self._update_angles(k, graph, atoms, bonds, angles)
            out[names[k + 1]] = atoms
        if depth == 4:
            out["a4"], energy = self._read_out(graph, atoms)
            n_atoms = torch.from_numpy(graphs.n_atoms).to(self.device)
            if "crystal" in wanted:
                out["crystal"] = _mean_over_sites(out["a4"][graph.atom], n_atoms)
            if "energy" in wanted:
                out["energy"] = _mean_over_sites(energy[graph.atom], n_atoms)
        return {level: out[level][graph.atom] if level in SITE_LEVELS else out[level] for level in wanted}

    def _pieces(self, start: int, stop: int) -> Iterator[slice]:
        return (slice(row, min(row + self._piece, stop)) for row in range(start, stop, self._piece))

    def _radial_basis(self, distance: Tensor, kind: str, cutoff: float) -> Tensor:
        """(n, 31) from distances (n,) in Angstrom: sqrt(2/c) sin(f d / c) / d, times the envelope of GemNet.

        The envelope 1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2), x = d/c, ends at zero with two zero
        derivatives (Gasteiger et al., arXiv:2003.03123, eq. 8).
        """
        frequencies = self._w[f"bond_basis_expansion.rbf_expansion_{kind}.frequencies"]
        # Large terms of the envelope cancel near the cutoff, so it has float64.
        d, p = distance.double(), ENVELOPE
        x = d / cutoff
        envelope = 1 - x**p * ((p + 1) * (p + 2) / 2 - p * (p + 2) * x + p * (p + 1) / 2 * x**2)
        scale = (torch.where(x < 1, envelope, 0) / d * math.sqrt(2 / cutoff)).to(distance.dtype)
        return torch.sin(x.to(distance.dtype)[:, None] * frequencies).mul_(scale[:, None])

    def _angle_basis(self, angle: Tensor) -> Tensor:
        """(n, 31) from angles t (n,) in radians: 1/sqrt(2), sin(f t) and cos(f t), over sqrt(pi)."""
        phase = angle[:, None] * self._w["angle_basis_expansion.fourier_expansion.frequencies"]
        constant = torch.full((len(phase), 1), 1 / math.sqrt(2), device=phase.device)
        return torch.cat([constant, torch.sin(phase), torch.cos(phase)], dim=1).mul_(1 / math.sqrt(math.pi))

    def _convolve_atoms(
        self, k: int, graph: _Graph, radial: Tensor, weight: Tensor, atoms: Tensor, bonds: Tensor | None
    ) -> Tensor:
        """(n_atoms, 64): atoms plus the weighted messages of their bonds.

        The inputs of a message are the centre, the bond and the neighbour. Bonds too long to have angles keep their
        initial vectors, a linear function of the radial basis, and need none of their own.

        Args:
            k: 0 to 3.
            graph: the batch.
            radial: (n_bonds, 31).
            weight: (n_bonds, 64), of the messages, times how many there are of each.
            atoms: (n_atoms, 64).
            bonds: (n_undirected, 64), the short bonds; None where there are no angles.
        """
        gated = self._atom_convs[k]
        from_centre = torch.addmm(gated.bias, atoms, gated.parts[0])
        from_neighbour = atoms @ gated.parts[2]
        from_bond = None if bonds is None else bonds @ gated.parts[1]
        # v_i + L sum_j w_ij * phi(v_i, e_ij, v_j), w_ij from the radial basis of the bond, phi gated, L without a bias
        # (Deng et al. 2023, atom convolution). The product with L comes after the sum: one an atom, not one a bond.
        total = torch.zeros_like(atoms)
        for start, stop in ((0, graph.n_short), (graph.n_short, graph.n_bonds)):
            for piece in self._pieces(start, stop):
                if from_bond is not None and stop == graph.n_short:
                    hidden = from_bond.index_select(0, graph.undirected[piece])
                else:
                    hidden = radial[piece] @ self._radial_to_hidden[k]
                hidden += from_centre.index_select(0, graph.centre[piece])
                hidden += from_neighbour.index_select(0, graph.neighbour[piece])
                total.index_add_(0, graph.centre[piece], gated(hidden).mul_(weight[piece]))
        return torch.addmm(atoms, total, self._w[f"atom_conv_layers.{k}.mlp_out.layers.1.weight"].T)

    def _angle_messages(
        self, gated: _Gated, graph: _Graph, atoms: Tensor, bonds: Tensor, angles: Tensor
    ) -> Iterator[tuple[slice, Tensor]]:
        """What a gated network says of every angle, in pieces.

        Its inputs are the first bond, the second bond, the angle and the atom that they share.

        Args:
            gated: of a bond convolution or an angle update.
            graph: the batch.
            atoms: (n_atoms, 64).
            bonds: (n_undirected, 64).
            angles: (n_angles, 64).

        Yields:
            Rows of the angles, and (rows, 64).
        """
        centre = torch.addmm(gated.bias, atoms, gated.parts[3]).index_select(0, graph.centre[: graph.n_short])
        from_first = (bonds @ gated.parts[0]).index_select(0, graph.undirected) + centre
        from_second = (bonds @ gated.parts[1]).index_select(0, graph.undirected)
        for piece in self._pieces(0, len(angles)):
            hidden = angles[piece] @ gated.parts[2]
            hidden += from_first.index_select(0, graph.first[piece])
            hidden += from_second.index_select(0, graph.second[piece])
            yield piece, gated(hidden)

    def _convolve_bonds(
        self, k: int, graph: _Graph, atoms: Tensor, bonds: Tensor, weight: Tensor, angles: Tensor
    ) -> Tensor:
        """(n_undirected, 64): short bonds plus the weighted messages of their angles."""
        # e_ij + L sum_k w_ij * w_ik * phi(e_ij, e_ik, angle, v_i), the weights from a basis that ends at 3 Angstrom, so
        # that an angle comes and goes smoothly with both of its bonds.
        total = torch.zeros_like(bonds)
        for piece, message in self._angle_messages(self._bond_convs[k], graph, atoms, bonds, angles):
            one, other = graph.undirected[graph.first[piece]], graph.undirected[graph.second[piece]]
            message *= weight.index_select(0, one)
            message *= weight.index_select(0, other)
            message *= graph.angle_count[piece]
            total.index_add_(0, one, message)
        return torch.addmm(bonds, total, self._w[f"bond_conv_layers.{k}.mlp_out.layers.1.weight"].T)

    def _update_angles(self, k: int, graph: _Graph, atoms: Tensor, bonds: Tensor, angles: Tensor) -> Tensor:
        """(n_angles, 64): `angles`, changed in place."""
        for piece, message in self._angle_messages(self._angle_updates[k], graph, atoms, bonds, angles):
            angles[piece] += message
        return angles

    def _read_out(self, graph: _Graph, atoms: Tensor) -> tuple[Tensor, Tensor]:
        """Level a4 (n_atoms, 64) from the last atoms, and the energy of each (n_atoms, 1) in eV."""
        w = self._w
        atoms = layer_norm(atoms, (WIDTH,), w["readout_norm.weight"], w["readout_norm.bias"])
        x = atoms
        for layer in (0, 2, 4):
            x = silu(torch.addmm(w[f"mlp.layers.{layer}.bias"], x, w[f"mlp.layers.{layer}.weight"].T))
        # Beside reference energies of the elements, which are linear in the composition, the network gives the rest.
        energy = torch.addmm(w["mlp.layers.7.bias"], x, w["mlp.layers.7.weight"].T)
        return atoms, energy + w["composition_model.fc.weight"][0, graph.numbers - 1, None]


class _Gated:
    """A gated network silu(norm(core(x))) * sigmoid(norm(gate(x))), both of whose first layers are one matrix.

    Attributes:
        parts: for each 64-wide part of the input a (64, 128) matrix: the first layers of core and gate side by side.
        bias: (128,), of the first layers.
    """

    def __init__(self, w: dict[str, Tensor], name: str, n_parts: int) -> None:
        # A network with a hidden layer has it as 0 and its output as 3; one without has its only layer as 1.
        self._two_layers = f"{name}.mlp_core.layers.0.weight" in w
        first = 0 if self._two_layers else 1
        both = [f"{name}.mlp_{half}.layers" for half in ("core", "gate")]
        matrix = torch.cat([w[f"{half}.{first}.weight"] for half in both]).T
        self.parts = [matrix[WIDTH * i : WIDTH * (i + 1)].contiguous() for i in range(n_parts)]
        self.bias = torch.cat([w[f"{half}.{first}.bias"] for half in both])
        if self._two_layers:
            self._out = [(w[f"{half}.3.weight"].T.contiguous(), w[f"{half}.3.bias"]) for half in both]
        self._norms = [(w[f"{name}.bn{i}.weight"], w[f"{name}.bn{i}.bias"]) for i in (1, 2)]

    def __call__(self, hidden: Tensor) -> Tensor:
        """(n, 64) from the sum of the parts, (n, 128), bias included; `hidden` is overwritten."""
        if self._two_layers:
            silu(hidden, inplace=True)
        halves = [hidden[:, :WIDTH], hidden[:, WIDTH:]]
        if self._two_layers:
            halves = [torch.addmm(bias, half, kernel) for half, (kernel, bias) in zip(halves, self._out, strict=True)]
        core, gate = (layer_norm(half, (WIDTH,), *norm) for half, norm in zip(halves, self._norms, strict=True))
        return silu(core, inplace=True).mul_(gate.sigmoid_())


class _Graph:
    """A `MergedGraph` as tensors on a device; its attributes, with counts as columns."""

    def __init__(self, graph: MergedGraph, device: torch.device) -> None:
        def tensor(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values).to(device)

        self.n_bonds, self.n_short = len(graph.centre), graph.n_short
        self.atom, self.numbers = tensor(graph.atom), tensor(graph.numbers)
        self.centre, self.neighbour, self.distance = (
            tensor(values) for values in (graph.centre, graph.neighbour, graph.distance)
        )
        self.count, self.angle_count = tensor(graph.count)[:, None], tensor(graph.angle_count)[:, None]
        self.undirected, self.one_of_each = tensor(graph.undirected), tensor(graph.one_of_each)
        self.first, self.second, self.angle = tensor(graph.first), tensor(graph.second), tensor(graph.angle)


def _mean_over_sites(values: Tensor, n_atoms: Tensor) -> Tensor:
    """(n_structures, width) float32 from (n_atoms, width), summed in float64."""
    # In float64: a float32 sum over a thousand sites can lose three of the seven digits of the mean.
    owner = torch.arange(len(n_atoms), device=values.device).repeat_interleave(n_atoms)
    total = torch.zeros(len(n_atoms), values.shape[1], dtype=torch.float64, device=values.device)
    return (total.index_add_(0, owner, values.double()) / n_atoms[:, None]).float()
