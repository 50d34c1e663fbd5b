"""Which site of a structure moves its prediction, and how far: integrated gradients.

Sundararajan, Taly, Yan, ICML 2017. All sites of a structure go together along a straight line from the average site of
the training data to what they are; each gradient on the way is shared out among the sites. The shares add up to the
difference between the prediction and the one for a structure of average sites, so nothing is left unexplained.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from atomsets_core.features import FeatureSpec
from atomsets_core.models.networks.set_network import AtomSetsNetwork, MemberLinear, SetBatch
from atomsets_core.parents import Features
from atomsets_core.structures import IntArray

STEPS = 64
"""Points on the line; the shares then add up to about a thousandth of the difference."""

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Contributions:
    """Why n structures are predicted as they are, on the scale the model works on, for one target.

    Attributes:
        base: (n,) prediction for a structure of average sites (and average structure levels).
        sites: (n_sites,) what each site adds, structure after structure.
        structure: (n,) what the structure's own levels add; 0 for a model without them.
    """

    base: FloatArray
    sites: FloatArray
    structure: FloatArray


def contributions(
    network: AtomSetsNetwork, spec: FeatureSpec, features: Features, target: int = 0, steps: int = STEPS
) -> Contributions:
    """Share out the prediction of every structure among its sites, on the average of all members.

    A site's features also tell of its surroundings, the deeper the level the more: its share is that of the site where
    it is, not of the element alone.

    Args:
        network: trained.
        spec: what it sees.
        features: of n structures, every site by itself.
        target: column of the targets.
        steps: points on the line.
    """
    device = network.out.weight.device
    batch = SetBatch(
        torch.from_numpy(spec.site_matrix(features)).to(device),
        torch.from_numpy(
            np.ones(int(features.n_atoms.sum()), np.float32) if features.weights is None else features.weights
        ).to(device),
        torch.from_numpy(np.repeat(np.arange(len(features)), features.n_atoms)).to(device),
        torch.from_numpy(spec.structure_matrix(features)).to(device),
    )
    with torch.no_grad():
        on_sites, on_structure = network.begin(batch)
    # Both are linear in the inputs, so a line between inputs is one here; the average input gives bias and zero.
    site_step = None if on_sites is None else on_sites - cast(MemberLinear, network.phi[0]).bias.detach()
    found_sites, found_structure = np.zeros(int(features.n_atoms.sum())), np.zeros(len(features))
    for step in range(steps):
        # share = (x - x0) * integral of dF/dx over x0 + t (x - x0), t from 0 to 1, by the midpoint rule: t = 1 - left.
        left = 1.0 - (step + 0.5) / steps
        sites = None if on_sites is None or site_step is None else (on_sites - left * site_step).requires_grad_()
        structure = None if on_structure is None else ((1.0 - left) * on_structure).requires_grad_()
        inputs = [x for x in (sites, structure) if x is not None]
        # One pass for all structures and members: each output depends on its own sites alone, so the sum has their
        # gradients side by side.
        gradients = list(torch.autograd.grad(_total(network, sites, structure, batch, target), inputs))
        if site_step is not None:
            found_sites += _share(gradients.pop(0) * site_step)
        if on_structure is not None:
            found_structure += _share(gradients.pop(0) * on_structure)
    with torch.no_grad():
        start = network.finish(
            None if on_sites is None or site_step is None else on_sites - site_step,
            None if on_structure is None else torch.zeros_like(on_structure),
            batch,
        )
        base = (start * network.target.scale + network.target.mean).mean(dim=0)[:, target]
    members = network.members * steps
    shares = _even_out(found_sites / members, spec.site_matrix(features), features.offsets)
    return Contributions(base.cpu().double().numpy(), shares, found_structure / members)


def _even_out(shares: FloatArray, values: npt.NDArray[np.float32], offsets: IntArray) -> FloatArray:
    """The same share for the equal sites of a structure: of several that hold a maximum the gradient knows but one."""
    out = shares.copy()
    for start, stop in pairwise(offsets):
        equal = np.unique(np.round(values[start:stop], 4), axis=0, return_inverse=True)[1].reshape(-1)
        out[start:stop] = (np.bincount(equal, shares[start:stop]) / np.bincount(equal))[equal]
    return out


def _total(
    network: AtomSetsNetwork, sites: Tensor | None, structure: Tensor | None, batch: SetBatch, target: int
) -> Tensor:
    """Sum over structures and members of the target, in its unit."""
    return (network.finish(sites, structure, batch) * network.target.scale)[:, :, target].sum()


def _share(products: Tensor) -> FloatArray:
    """(n,) sums of (members, n, width) over members and columns."""
    found: FloatArray = products.sum(dim=(0, 2)).cpu().double().numpy()
    return found
