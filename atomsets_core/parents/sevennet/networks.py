"""The published SevenNet networks: file, architecture and cutoff function of each, and what they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atomsets_core.parents.about import MPTRJ, About, Reference, levels_about
from atomsets_core.parents.base import installed_file

ARCHITECTURE = {
    "cutoff": 5.0,
    "channel": 128,
    "is_parity": False,
    "num_convolution_layer": 5,
    "radial_basis": {"radial_basis_name": "bessel", "bessel_basis_num": 8},
    "self_connection_type": "linear",
    "_normalize_sph": True,
    "readout_as_fcn": False,
    "act_radial": "silu",
}
"""What all checkpoints say alike."""

CUTOFF = 5.0
"""Angstrom, of the bonds."""

CUTOFF_ON = 4.5
"""Angstrom, where the XPLOR switching function begins to take the bonds to zero."""

POWER = 6
"""Exponent p of the polynomial that takes the bonds to zero in newer networks."""

SCALARS = 128
"""Numbers of degree 0 that an atom has."""

N_LAYERS = 5
LAYER_LEVELS = {f"s{k}": SCALARS for k in range(N_LAYERS)}
SITE_LEVELS = {"embedding": SCALARS, **LAYER_LEVELS}
STRUCTURE_LEVELS = {"energy": 1}
ELEMENT_LEVELS = ("embedding",)

# What the documentation of the package asks to cite for all but its multi-fidelity networks, of which neither is one.
# The network of the publication is an older one, of the architecture of SevenNet-0, which learned from other data.
REFERENCE = Reference(
    key="park2024",
    citation="Y. Park, J. Kim, S. Hwang, S. Han, Scalable parallel algorithm for graph neural network interatomic "
    "potentials in molecular dynamics simulations, J. Chem. Theory Comput. 20, 4857 (2024)",
    doi="10.1021/acs.jctc.4c00190",
    fields={
        "author": "Park, Yutack and Kim, Jaesun and Hwang, Seungwoo and Han, Seungwu",
        "title": "Scalable parallel algorithm for graph neural network interatomic potentials in molecular dynamics "
        "simulations",
        "journal": "Journal of Chemical Theory and Computation",
        "volume": "20",
        "number": "11",
        "pages": "4857--4868",
        "year": "2024",
    },
)


def _about(title: str, degree: int, date: str) -> About:
    """What both networks have in common, of one of them."""
    learned = f"energies, forces and stresses of {MPTRJ}"
    return About(
        title=title,
        described=f"the pretrained {title} graph network ({date})",
        references=(REFERENCE,),
        package="sevenn",
        extra="parents",
        licence="MIT (Yutack Park)",
        trained_on=learned,
        overlap=f"The {title} parent was trained on {learned}. It may have seen these structures, with their energies, "
        "and never saw any other property. Scores for energies would be flattered by that.",
        takes=f"neighbours within 5 Å, directions to degree {degree}; 89 elements: 1 to 94 without Po, At, Rn, Fr, Ra",
        levels=levels_about(
            SITE_LEVELS,
            STRUCTURE_LEVELS,
            {
                "embedding": "the element",
                **{
                    f"s{k}": f"rotation-invariant scalars after interaction layer {k + 1} of {N_LAYERS}"
                    for k in range(N_LAYERS)
                },
                "energy": "total energy, eV/atom, on the scale of uncorrected GGA/GGA+U of the Materials Project",
            },
            of_elements=ELEMENT_LEVELS,
        ),
    )


@dataclass(frozen=True)
class Network:
    """One of the published networks.

    Attributes:
        name: of the parent.
        about: it, for people.
        weights: file in the package.
        channels: vectors of degree 0, 1, ... that an atom has.
        version: that the checkpoint says of itself, and cutoff_function.
        switch: (n,) lengths in Angstrom -> (n,) factors that take the bonds to zero at the cutoff.
    """

    name: str
    about: About = field(hash=False)
    weights: str
    channels: tuple[int, ...]
    version: str
    cutoff_function: dict[str, Any] = field(hash=False)
    switch: Callable[[Tensor], Tensor]

    @property
    def lmax(self) -> int:
        """Highest degree of an atom's vectors, and of the harmonics of a bond."""
        return len(self.channels) - 1

    @property
    def architecture(self) -> dict[str, Any]:
        """What the checkpoint says of itself and the forward pass takes for granted."""
        irreps = "+".join(f"{n}x{degree}e" for degree, n in enumerate(self.channels))
        return {
            **ARCHITECTURE,
            "version": self.version,
            "lmax": self.lmax,
            "irreps_manual": [f"{SCALARS}x0e", *[irreps] * (N_LAYERS - 1), f"{SCALARS}x0e"],
            "cutoff_function": self.cutoff_function,
        }

    def file(self) -> Path:
        """Where the installed package keeps the weights (found without importing it)."""
        return installed_file(self.about.package, self.weights, self.about.install)


def _xplor(length: Tensor) -> Tensor:
    """(c^2 - d^2)^2 (c^2 + 2 d^2 - 3 o^2) / (c^2 - o^2)^3 beyond o = 4.5 A."""
    square, on, off = length**2, CUTOFF_ON**2, CUTOFF**2
    switch = (off - square) ** 2 * (off + 2 * square - 3 * on) / (off - on) ** 3
    return torch.where(length < CUTOFF_ON, 1.0, switch)


def _polynomial(length: Tensor) -> Tensor:
    """1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2) with x = d/c and p = 6 (Gasteiger et al. 2020).

    Written as (1 - x)^3 times the sum of (k+1)(k+2)/2 x^k for k < p, which loses no digits near the cutoff.
    """
    x = length / CUTOFF
    total = torch.zeros_like(x)
    for k in reversed(range(POWER)):
        total = total * x + (k + 1) * (k + 2) / 2
    return (1 - x) ** 3 * total


SEVENNET_0 = Network(
    "sevennet",
    _about("SevenNet-0", 2, "11 July 2024"),
    "pretrained_potentials/SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth",
    (128, 64, 32),
    "0.9.1",
    {"cutoff_function_name": "XPLOR", "cutoff_on": 4.5, "poly_cut_p_value": 6},
    _xplor,
)
SEVENNET_L3I5 = Network(
    "sevennet-l3i5",
    _about("SevenNet-l3i5", 3, "12 December 2024"),
    "pretrained_potentials/SevenNet_l3i5/checkpoint_l3i5.pth",
    (128, 64, 32, 32),
    "0.9.2",
    {"cutoff_function_name": "poly_cut", "poly_cut_p_value": 6},
    _polynomial,
)
