"""AtomSets networks: rho(pool(phi(x_i), w_i)) over the sites of a structure, several independent members at once.

Chen & Ong, npj Comput. Mater. 7, 173 (2021). Every parameter has a leading member dimension, so that an ensemble is
trained and applied as one batched network; members share nothing but the input. Batches are ragged: sites lie one after
another with the number of their structure beside them, so there is no padding that could leak.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from atomsets_core.models.networks.fused_layers import extreme, share_of_sites, standardized_layer, sum_sites

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
