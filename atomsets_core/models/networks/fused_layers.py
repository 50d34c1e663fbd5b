"""The steps of a set network that touch every site of every member, written for speed and with their own gradients.

All members see the same sites, so their first layers are one matrix product: sites (n_sites, inputs) times a weight of
(inputs, members * outputs). Each member's standardisation is folded into that weight, and the standardised sites, of
which every member has its own, never exist. What comes out lies site after site, all members of a site beside each
other; a mean over sites is then a sum of whole rows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from atomsets_core.compiled import compiled_module


def standardized_layer(sites: Tensor, mean: Tensor, scale: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """((x - mean) / scale) W + b for each member.

    Args:
        sites: (n_sites, inputs), the same for all members; gets no gradient.
        mean: (members, 1, inputs).
        scale: (members, 1, inputs).
        weight: (members, inputs, outputs).
        bias: (members, 1, outputs).

    Returns:
        (members, n_sites, outputs) float32, bfloat16 under autocast; a view with the members of a site beside each
        other.
    """
    result: Tensor = _StandardizedLayer.apply(sites, mean, scale, weight, bias)
    return result


class _StandardizedLayer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sites: Tensor, mean: Tensor, scale: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        members, inputs, outputs = weight.shape
        device = sites.device.type
        half = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else sites.dtype
        with torch.autocast(device, enabled=False):
            # Standardised for all alike first, so that what is folded into the weights is close to nothing.
            centre, spread = mean.mean(dim=0), scale.mean(dim=0)
            shared = ((sites - centre) / spread).to(half)
            # (x - mean) / scale = shared * factor - offset, so the layer is shared (factor W) + (b - offset W): the
            # first product is common to all members, the second one row a member.
            offset, factor = (mean - centre) / scale, (spread / scale).transpose(1, 2)
            shift = torch.baddbmm(bias, offset, weight, alpha=-1).reshape(-1)
            folded = (weight * factor).transpose(0, 1).reshape(inputs, members * outputs)
            wide = torch.addmm(shift.to(half), shared, folded.to(half))
        ctx.save_for_backward(shared, offset, factor)
        return wide.view(len(sites), members, outputs).transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        shared, offset, factor = ctx.saved_tensors
        members, n, outputs = grad.shape
        wide = grad.transpose(0, 1).reshape(n, members * outputs)
        # dL/dW = factor * shared' g - offset' sum g, and dL/db = sum g, g being the gradient of the outputs.
        by_input = (shared.t() @ wide).to(offset.dtype).view(-1, members, outputs).transpose(0, 1)
        on_bias = wide.sum(dim=0, dtype=offset.dtype).view(members, 1, outputs)
        on_weight = torch.baddbmm(by_input * factor, offset.transpose(1, 2), on_bias, alpha=-1)
        return None, None, None, on_weight, on_bias


def share_of_sites(weights: Tensor, owner: Tensor, n: int) -> Tensor:
    """(n_sites,) float32: weight of each site over the sum of its structure's."""
    total = torch.zeros(n, dtype=weights.dtype, device=weights.device).index_add_(0, owner, weights)
    return weights / total.index_select(0, owner)


def sum_sites(values: Tensor, weights: Tensor, owner: Tensor, n: int) -> Tensor:
    """(members, n, width): sums of w x over the sites of each structure; the same result in every run, also on a GPU.

    Args:
        values: (members, n_sites, width); the sums have their dtype.
        weights: (n_sites,); they get no gradient.
        owner: (n_sites,) structure of each site, ascending.
        n: structures.
    """
    result: Tensor = _SumSites.apply(values, weights, owner, n)
    return result


class _SumSites(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weights: Tensor, owner: Tensor, n: int) -> Tensor:
        ctx.save_for_backward(weights, owner)
        members, n_sites, width = values.shape
        wide = values.transpose(0, 1).reshape(n_sites, members * width)
        # Stretches of rows are summed one after the other. `index_add` uses atomic additions on a GPU, whose order, and
        # so the last digit, changes from run to run.
        start = torch.searchsorted(owner, torch.arange(n, device=owner.device))
        order = torch.arange(n_sites, device=owner.device)
        sums = torch.nn.functional.embedding_bag(
            order, wide, start, mode="sum", per_sample_weights=weights.to(wide.dtype)
        )
        return sums.view(n, members, width).transpose(0, 1).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weights, owner = ctx.saved_tensors
        members, n, width = grad.shape
        wide = grad.transpose(0, 1).reshape(n, members * width)
        on_sites = wide.index_select(0, owner).mul_(weights.to(wide.dtype)[:, None])
        return on_sites.view(-1, members, width).transpose(0, 1), None, None, None


def extreme(values: Tensor, owner: Tensor, n: int, largest: bool) -> Tensor:
    """(members, n, width): largest or smallest entry over the sites of each structure, with the dtype of the values.

    Torch's own reduction took 38 % of a training with both, most of it for the gradient, which it works out for every
    site; only the one that an entry is of has any. Where several are equal, that is the first of them.

    Args:
        values: (members, n_sites, width).
        owner: (n_sites,) structure of each site, ascending.
        n: structures.
        largest: else smallest.
    """
    kernel = compiled_module("models.networks.extreme_kernel")
    if values.device.type == "cpu" and values.dtype == torch.float32 and kernel:
        result: Tensor = _Extreme.apply(values, owner, n, largest, kernel)
        return result
    worst = -math.inf if largest else math.inf
    start = torch.full((len(values), n, values.shape[2]), worst, dtype=values.dtype, device=values.device)
    return start.scatter_reduce(1, owner[None, :, None].expand_as(values), values, "amax" if largest else "amin")


class _Extreme(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, owner: Tensor, n: int, largest: bool, kernel: Any) -> Tensor:
        starts = torch.searchsorted(owner, torch.arange(n + 1)).numpy()
        out = values.new_empty(len(values), n, values.shape[2])
        # Where each entry stands; half the memory of int64, and no batch has 2^31 sites.
        at = torch.empty(out.shape, dtype=torch.int32)
        sign = np.float32(1.0 if largest else -1.0)
        kernel.find(values.contiguous().numpy(), starts, sign, out.numpy(), at.numpy())
        ctx.save_for_backward(at)
        ctx.n_sites, ctx.kernel = values.shape[1], kernel
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (at,) = ctx.saved_tensors
        on_sites = grad.new_zeros(len(grad), ctx.n_sites, grad.shape[2])
        ctx.kernel.spread(grad.contiguous().numpy(), at.numpy(), on_sites.numpy())
        return on_sites, None, None, None, None
