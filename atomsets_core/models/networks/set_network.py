"""AtomSets networks and their poolings: rho(pool(phi(x_i), w_i)) over sites, several independent members at once.

Chen & Ong, npj Comput. Mater. 7, 173 (2021). Every parameter has a leading member dimension, so that an ensemble is
trained and applied as one batched network; members share nothing but the input. Batches are ragged: sites lie one after
another with the number of their structure beside them, so there is no padding that could leak.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from atomsets_core.compiled import compiled_module

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "silu": nn.functional.silu}

POOLINGS = ("mean", "set2set", "attention", "sum", "max", "min", "std")


@dataclass(frozen=True)
class SetBatch:
    """Structures as one ragged batch.

    Attributes:
        sites: (n_sites, site_width) float32.
        weights: (n_sites,) float32, weight of each site in its structure (1 for crystals, amounts for compositions).
        owner: (n_sites,) int64, structure of each site, ascending from 0.
        structure: (n_structures, structure_width) float32, width 0 where there is none.
    """

    sites: Tensor
    weights: Tensor
    owner: Tensor
    structure: Tensor

    @property
    def n_structures(self) -> int:
        """Structures in the batch."""
        return len(self.structure)


def segment_sum(values: Tensor, owner: Tensor, n: int) -> Tensor:
    """(members, n, width): sums of (members, n_sites, width) over the sites of each structure, with their dtype."""
    out = torch.zeros(values.shape[0], n, values.shape[2], dtype=values.dtype, device=values.device)
    return out.index_add(1, owner, values)


def weighted_mean(values: Tensor, weights: Tensor, owner: Tensor, n: int, alpha: float = 1.0) -> Tensor:
    """(members, n, width): sum w^alpha x / sum w^alpha over the sites of each structure, with the dtype of x.

    With alpha other than 1 and unequal weights the result changes when every site is listed several times with its
    weight divided among the copies; with weights of 1 (crystals) any alpha gives the plain mean.
    """
    # 0 < alpha < 1 lets minor elements of a composition count for more than their amount.
    w = weights if alpha == 1.0 else weights**alpha
    return sum_sites(values, share_of_sites(w, owner, n), owner, n)


class MemberLinear(nn.Module):
    """A dense layer for each member: (members, n, inputs) or (n, inputs) -> (members, n, outputs)."""

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        # Small starts generalise better here than Glorot's: out-of-range error 0.046 against 0.052 decades.
        bound = 1.0 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """(members, n, outputs) x W + b of each member, with the dtype of x (bfloat16 under autocast)."""
        if x.dim() == 2:
            x = x.expand(len(self.weight), *x.shape)
        return torch.baddbmm(self.bias, x, self.weight)


class Standardize(nn.Module):
    """(n, width) -> (members, n, width), shifted and scaled by each member's own mean and deviation."""

    mean: Tensor
    scale: Tensor

    def __init__(self, members: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(members, 1, width))
        self.register_buffer("scale", torch.ones(members, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        """(members, n, width) float32 (x - mean) / scale of each member."""
        return (x - self.mean) / self.scale


class WeightedSet2Set(nn.Module):
    """Set2Set (Vinyals et al. 2016) whose attention is multiplied by the site weights, as AtomSets has it.

    a_i = w_i exp(e_i) / sum_j w_j exp(e_j). The cell state is zero in every step and the recurrent activation is
    clip(0.2 x + 0.5, 0, 1), as in the networks of the publication.
    """

    def __init__(self, members: int, inputs: int, steps: int = 3, hidden: int = 16) -> None:
        super().__init__()
        self.steps, self.hidden = steps, hidden
        self.to_memory = MemberLinear(members, inputs, hidden)
        self.recurrent = MemberLinear(members, 2 * hidden, 4 * hidden)

    def forward(self, x: Tensor, weights: Tensor, owner: Tensor, n: int) -> Tensor:
        """(members, n_sites, inputs) -> (members, n, 2 hidden), float32; under autocast products are bfloat16."""
        memory = self.to_memory(x)
        query = x.new_zeros(x.shape[0], n, 2 * self.hidden)
        for _ in range(self.steps):
            gate_in, _, gate_cell, gate_out = self.recurrent(query).chunk(4, dim=2)
            cell = _hard_sigmoid(gate_in) * torch.tanh(gate_cell)
            hidden = _hard_sigmoid(gate_out) * torch.tanh(cell)
            # Vinyals et al., arXiv:1511.06391, eq. 3 to 7: energies m_i . q, attention over the sites, read = sum a_i
            # m_i, and the next query from (q, read).
            energy = (memory * hidden.index_select(1, owner)).sum(dim=2, keepdim=True)
            highest = extreme(energy.detach(), owner, n, largest=True)
            attention = weights[None, :, None] * torch.exp(energy - highest.index_select(1, owner))
            total = segment_sum(attention, owner, n)
            read = segment_sum(attention * memory, owner, n) / total
            query = torch.cat([hidden, read], dim=2)
        return query


class WeightedAttention(nn.Module):
    """Attention with one learned query a head; the site weights enter as log w beside the energies.

    a_ih = w_i exp(e_ih) / sum_j w_j exp(e_jh), and head h averages its own share of the columns.
    """

    def __init__(self, members: int, inputs: int, heads: int) -> None:
        super().__init__()
        if inputs % heads:
            raise ValueError(f"{inputs} columns can't be shared by {heads} attention heads")
        self.heads = heads
        self.energy = MemberLinear(members, inputs, heads)

    def forward(self, x: Tensor, weights: Tensor, owner: Tensor, n: int) -> Tensor:
        """(members, n_sites, inputs) -> (members, n, inputs), float32; under autocast products are bfloat16."""
        # w exp(e) = exp(e + log w): n copies of a site with w / n each give the same, whatever is learned.
        energy = self.energy(x)
        highest = extreme(energy.detach(), owner, n, largest=True)
        attention = weights[None, :, None] * torch.exp(energy - highest.index_select(1, owner))
        total = segment_sum(attention, owner, n)
        by_head = x.reshape(*x.shape[:2], self.heads, -1) * attention[..., None]
        pooled = segment_sum(by_head.flatten(2), owner, n).reshape(*total.shape, -1)
        return (pooled / total[..., None]).flatten(2)


def _hard_sigmoid(x: Tensor) -> Tensor:
    return torch.clamp(0.2 * x + 0.5, 0.0, 1.0)


class AtomSetsNetwork(nn.Module):
    """`members` independent networks rho([pool_1, pool_2, ..., s]) with pool_k = pool(phi(x_i), w_i).

    Args:
        members: number of independent networks.
        site_width: inputs a site; 0 for a plain network on structure levels (MLP-v, MLP-f2, MLP-f1).
        structure_width: inputs a structure, joined to the pooled vector; 0 for none.
        phi: widths of the layers on each site.
        rho: widths of the layers after pooling.
        pooling: any of `POOLINGS`, joined.
        alpha: exponent of the weights in the mean.
        activation: "relu" (the publication) or "silu".
        outputs: numbers predicted a structure.
        set2set_steps: attention steps.
        set2set_hidden: units of the attention.
        heads: of the pooling "attention".
        dropout: share of the hidden units left out at random in training.
    """

    def __init__(
        self,
        members: int,
        site_width: int,
        structure_width: int = 0,
        *,
        phi: Sequence[int] = (64, 64),
        rho: Sequence[int] = (64, 64),
        pooling: Sequence[str] = ("mean",),
        alpha: float = 1.0,
        activation: str = "relu",
        outputs: int = 1,
        set2set_steps: int = 3,
        set2set_hidden: int = 16,
        heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        unknown = [name for name in pooling if name not in POOLINGS]
        if unknown:
            raise ValueError(f"no pooling {unknown[0]!r}; there are {', '.join(POOLINGS)}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"no activation {activation!r}; there are {', '.join(ACTIVATIONS)}")
        if site_width + structure_width == 0:
            raise ValueError("a network needs at least one site level or structure level")
        self.members, self.pooling, self.alpha = members, tuple(pooling), alpha
        self.activation, self.dropout = ACTIVATIONS[activation], nn.Dropout(dropout)
        self.site_input = Standardize(members, site_width)
        self.structure_input = Standardize(members, structure_width)
        self.target = Standardize(members, outputs)
        self.phi = nn.ModuleList()
        self.set2set: WeightedSet2Set | None = None
        self.attention: WeightedAttention | None = None
        # Structure levels are joined after the pooling as they are, standardised: they have no sites to go through.
        width = structure_width
        if site_width:
            widths = [site_width, *phi]
            self.phi.extend(MemberLinear(members, a, b) for a, b in pairwise(widths))
            if "set2set" in pooling:
                self.set2set = WeightedSet2Set(members, widths[-1], set2set_steps, set2set_hidden)
            if "attention" in pooling:
                self.attention = WeightedAttention(members, widths[-1], heads)
            width += sum(2 * set2set_hidden if name == "set2set" else widths[-1] for name in pooling)
        widths = [width, *rho]
        self.rho = nn.ModuleList(MemberLinear(members, a, b) for a, b in pairwise(widths))
        self.out = MemberLinear(members, widths[-1], outputs)

    def forward(self, batch: SetBatch) -> Tensor:
        """(members, n_structures, outputs) float32, in units of the standardised target (bfloat16 under autocast)."""
        return self.finish(*self.begin(batch), batch)

    def begin(self, batch: SetBatch) -> tuple[Tensor | None, Tensor | None]:
        """What is linear in the inputs: the first layer on each site, and the standardised structure levels.

        Returns:
            (members, n_sites, width) before the activation, and (members, n_structures, structure_width), both float32;
            None where the network has no such input.
        """
        on_sites = self._first_layer(batch.sites) if len(self.phi) else None
        return on_sites, self.structure_input(batch.structure) if batch.structure.shape[1] else None

    def finish(self, on_sites: Tensor | None, on_structure: Tensor | None, batch: SetBatch) -> Tensor:
        """(members, n_structures, outputs) float32: the rest of `forward`, from what `begin` gave.

        Of the batch only the weights, the owners and the number of structures are used.
        """
        parts = []
        if on_sites is not None:
            x = on_sites
            for layer in self.phi[1:]:
                x = layer(self.dropout(self.activation(x)))
            x = self.dropout(self.activation(x))
            parts = [self._pool(name, x, batch) for name in self.pooling]
        if on_structure is not None:
            parts.append(on_structure)
        x = torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]
        for layer in self.rho:
            x = self.dropout(self.activation(layer(x)))
        result: Tensor = self.out(x)
        return result

    def predict(self, batch: SetBatch) -> Tensor:
        """(members, n_structures, outputs) float32, in the units of the target the network was trained on."""
        return self.forward(batch) * self.target.scale + self.target.mean

    def _first_layer(self, sites: Tensor) -> Tensor:
        first, scaler = cast(MemberLinear, self.phi[0]), self.site_input
        return standardized_layer(sites, scaler.mean, scaler.scale, first.weight, first.bias)

    def _pool(self, name: str, x: Tensor, batch: SetBatch) -> Tensor:
        weights, owner, n = batch.weights, batch.owner, batch.n_structures
        if name == "mean":
            return weighted_mean(x, weights, owner, n, self.alpha)
        if name == "sum":
            return segment_sum(x * weights[None, :, None], owner, n)
        if name == "std":
            mean = weighted_mean(x, weights, owner, n, self.alpha)
            square = weighted_mean((x - mean.index_select(1, owner)) ** 2, weights, owner, n, self.alpha)
            # The derivative of a root is infinite at 0, where all sites are alike.
            return torch.sqrt(square + 1e-12)
        if name == "set2set" and self.set2set is not None:
            pooled: Tensor = self.set2set(x, weights, owner, n)
            return pooled
        if name == "attention" and self.attention is not None:
            attended: Tensor = self.attention(x, weights, owner, n)
            return attended
        return extreme(x, owner, n, largest=name == "max")

    def n_parameters(self) -> int:
        """Trainable parameters of one member."""
        return sum(p.numel() for p in self.parameters()) // self.members


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
