"""Features of many structures as a network takes them: gathered block by block, merged, cut into batches, predicted.

Nothing here ever holds the features of all sites: blocks (of a batch in memory, or shards) come in one after the other,
equivalent sites are merged within each structure, and only what is left is kept.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from atomsets_core.models.networks.set_network import AtomSetsNetwork, SetBatch
from atomsets_core.parents import Features
from atomsets_core.structures import IntArray

BLOCK = 1024
"""Structures worked on at once where the result doesn't depend on it."""

GATHERED = 16_384
"""Sites gathered from all over the data at once, for as many steps as they last."""

IN_MEMORY = 4 << 30
"""Bytes of site features above which they lie in a temporary file that the system pages in and out."""

Float32Array = npt.NDArray[np.float32]


class Blocks(Protocol):
    """n structures whose features come in blocks: `Features`, or `StoredFeatures` that read one shard after another."""

    @property
    def n_atoms(self) -> IntArray:
        """(n,) int64, sites of each structure."""
        ...

    def __len__(self) -> int: ...

    def blocks(self) -> Iterator[tuple[IntArray, Features]]:
        """(k,) int64 row numbers and features of each block; every row comes in exactly one block."""
        ...


@dataclass(frozen=True)
class TrainingData:
    """Features of n structures, ready to be cut into batches.

    Attributes:
        sites: (n_sites, width) float32 CPU tensor.
        weights: (n_sites,) float32 CPU tensor.
        structure: (n, width) float32 CPU tensor.
        offsets: (m + 1,) int64: item k has the sites offsets[k]:offsets[k + 1].
        item: (n,) item of each structure; without it structure i is item i.
    """

    sites: Tensor
    weights: Tensor
    structure: Tensor
    offsets: IntArray
    item: IntArray | None = None

    def __len__(self) -> int:
        return len(self.structure)

    @classmethod
    def merged(
        cls,
        sites: Float32Array,
        structure: Float32Array,
        offsets: IntArray,
        weights: Float32Array | None = None,
        widths: Sequence[int] | None = None,
    ) -> TrainingData:
        """Features with symmetry-equivalent sites merged into one that weighs as much as they did.

        Equivalent sites have equal features, so every weighted pooling gives the same result from a quarter of the work
        (measured on the embedded elastic tensors: 14,675 sites become 3,446).

        Args:
            sites: (n_sites, width), structure after structure.
            structure: (n, width).
            offsets: (n + 1,) of the sites.
            weights: (n_sites,) of the sites; 1 each without.
            widths: of the levels, which have scales of their own; without it all columns are one level.
        """
        first, together, offsets = merge_equal(sites, offsets, weights, widths)
        return cls(torch.from_numpy(sites[first]), torch.from_numpy(together), torch.from_numpy(structure), offsets)

    @classmethod
    def gathered(
        cls,
        features: Blocks,
        on_sites: Callable[[Features], Float32Array],
        on_structures: Callable[[Features], Float32Array],
        in_memory: int = IN_MEMORY,
        *,
        widths: Callable[[Features], Sequence[int]] | None = None,
        merge: bool = True,
    ) -> TrainingData:
        """The merged features of these levels, block by block: a block and what is left of the others is all there is.

        The result doesn't depend on how the structures are cut into blocks.

        Args:
            features: of n structures.
            on_sites: (n_sites, width) from a block, the site levels to learn from side by side.
            on_structures: (n, width) from a block, the structure levels.
            in_memory: bytes of merged sites that may stay in memory; more go to a temporary file.
            widths: of the site levels, which have scales of their own; without it all columns are one level.
            merge: False keeps every site by itself, which matters where weights don't enter as they are: two sites that
                weigh w each and one that weighs 2 w are the same in a mean, but not after w is raised to a power.
        """
        n, most = len(features), int(features.n_atoms.sum())
        sites: Float32Array | None = None
        weights = np.empty(most, dtype=np.float32)
        structure: Float32Array | None = None
        item, lengths, done, filled = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64), 0, 0
        for rows, block in features.blocks():
            values, on_structure = on_sites(block), on_structures(block)
            if merge:
                levels = None if widths is None else widths(block)
                first, counts, offsets = merge_equal(values, block.offsets, block.weights, levels)
            else:
                first, offsets = np.arange(len(values)), block.offsets
                counts = np.ones(len(values), np.float32) if block.weights is None else block.weights
            if sites is None or structure is None:
                # Pages that are never written to take no memory: room for all sites costs what the merged ones need.
                sites = _room(most, values.shape[1], in_memory)
                structure = np.empty((n, on_structure.shape[1]), dtype=np.float32)
            sites[filled : filled + len(first)] = values[first]
            weights[filled : filled + len(first)] = counts
            structure[rows] = on_structure
            item[rows] = np.arange(done, done + len(rows))
            lengths[done : done + len(rows)] = np.diff(offsets)
            done, filled = done + len(rows), filled + len(first)
        if sites is None or structure is None:
            sites, structure = np.empty((0, 0), dtype=np.float32), np.empty((n, 0), dtype=np.float32)
        return cls(
            torch.from_numpy(sites[:filled]),
            torch.from_numpy(weights[:filled]),
            torch.from_numpy(structure),
            np.concatenate([[0], np.cumsum(lengths[:done])]).astype(np.int64),
            None if np.array_equal(item, np.arange(n)) else item,
        )

    def lengths(self, rows: IntArray) -> IntArray:
        """(len(rows),) sites of these structures."""
        items = rows if self.item is None else self.item[rows]
        return self.offsets[items + 1] - self.offsets[items]

    def mean_sites(self) -> float:
        """Sites of a structure on average; 0 without structures."""
        return float(self.lengths(np.arange(len(self))).mean()) if len(self) else 0.0

    def batch(self, rows: IntArray, device: torch.device) -> SetBatch:
        """The structures at these rows, in this order, on a device."""
        items = rows if self.item is None else self.item[rows]
        lengths = self.lengths(rows)
        ends = np.cumsum(lengths)
        owner = np.repeat(np.arange(len(rows)), lengths)
        first = self.offsets[items] - (ends - lengths)
        site_rows = torch.from_numpy(np.arange(len(owner), dtype=np.int64) + first[owner])
        return SetBatch(
            self.sites[site_rows].to(device),
            self.weights[site_rows].to(device),
            torch.from_numpy(owner).to(device),
            self.structure[torch.from_numpy(rows)].to(device),
        )

    def runs(self, rows: IntArray, size: int, sites: int = GATHERED) -> Iterator[IntArray]:
        """Stretches (k,) int64 of `rows` of about so many sites, each but the last a multiple of `size` structures."""
        start, ends = 0, np.cumsum(self.lengths(rows))
        while start < len(rows):
            used = ends[start - 1] if start else 0
            fits = int(np.searchsorted(ends, used + sites, side="right")) - start
            stop = start + max(1, fits // size) * size
            yield rows[start:stop]
            start = stop

    def pooled(self) -> Float32Array:
        """(n, 2 width + structure width): mean and standard deviation over the sites, then the structure's own levels.

        The plain vector in which distances between structures are measured; `Features.pooled` from merged sites.
        """
        width = self.sites.shape[1]
        out = np.empty((len(self), 2 * width + self.structure.shape[1]), dtype=np.float32)
        out[:, 2 * width :] = self.structure.numpy()
        for rows in self.runs(np.arange(len(self)), 1) if width else ():
            batch = self.batch(rows, torch.device("cpu"))
            weights, start = batch.weights.double().numpy()[:, None], np.flatnonzero(np.diff(batch.owner, prepend=-1))
            values, owner = batch.sites.double().numpy(), batch.owner.numpy()
            total = np.add.reduceat(weights, start)
            mean = np.add.reduceat(values * weights, start) / total
            values -= mean[owner]
            out[rows, :width] = mean
            out[rows, width : 2 * width] = np.sqrt(np.add.reduceat(values**2 * weights, start) / total)
        return out


@dataclass(frozen=True)
class Cut:
    """A batch on its device that can be cut into smaller ones without copying.

    Attributes:
        whole: the batch.
        ends: (n + 1,) its sites up to each structure.
    """

    whole: SetBatch
    ends: IntArray

    @classmethod
    def at(cls, data: TrainingData, rows: IntArray, device: torch.device) -> Cut:
        """The structures at these rows."""
        return cls(data.batch(rows, device), np.concatenate([[0], np.cumsum(data.lengths(rows))]))

    def part(self, start: int, stop: int) -> SetBatch:
        """Structures start to stop."""
        whole, sites = self.whole, slice(int(self.ends[start]), int(self.ends[stop]))
        owner = whole.owner[sites] - start if start else whole.owner[sites]
        return SetBatch(whole.sites[sites], whole.weights[sites], owner, whole.structure[start:stop])


@torch.inference_mode()
def apply(network: AtomSetsNetwork, data: TrainingData, sites: int = GATHERED) -> npt.NDArray[np.float64]:
    """(members, n, outputs) predictions in the units the network was trained on.

    Args:
        network: trained.
        data: (n) structures.
        sites: worked on at once; every member has hidden numbers for each.
    """
    device = network.out.weight.device
    found = np.empty((network.members, len(data), network.out.bias.shape[2]))
    for rows in data.runs(np.arange(len(data)), 1, sites):
        found[:, rows] = network.predict(data.batch(rows, device)).cpu().double().numpy()
    return found


def merge_equal(
    sites: Float32Array,
    offsets: IntArray,
    weights: Float32Array | None = None,
    widths: Sequence[int] | None = None,
) -> tuple[IntArray, Float32Array, IntArray]:
    """First site of each set of equal ones within a structure, what they weigh together, and the new offsets.

    Sites count as equal when, of each level, four random projections of their features agree to a three-hundredth of
    the root mean square of the level in the structure (on 51,149 Materials Project structures no site moves by more
    than 0.01 standard deviations). A structure is judged by itself, so that it is merged alike in whatever company it
    comes.

    Args:
        sites: (n_sites, width), structure after structure.
        offsets: (n + 1,) of the sites.
        weights: (n_sites,) of the sites; 1 each without.
        widths: of the levels, which have scales of their own and add up to the width; without it there is one level.

    Returns:
        (n_merged,) ascending row numbers, (n_merged,) weights, (n + 1,) offsets.
    """
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    own = np.ones(len(sites), dtype=np.float32) if weights is None else weights
    if not sites.shape[1] or not len(sites):
        return np.arange(len(sites)), own, offsets
    # One random linear number for structure and keys: 64 bits don't meet by chance.
    levels = [sites.shape[1]] if widths is None else widths
    factors = 2 * np.random.default_rng(1).integers(-(2**62), 2**62, size=4 * len(levels) + 1) + 1
    number = owner * factors[0]
    for level, (start, stop) in enumerate(pairwise(np.cumsum([0, *levels]))):
        number += _keys(sites[:, start:stop], owner, offsets) @ factors[4 * level + 1 : 4 * level + 5]
    _, first, inverse = np.unique(number, return_index=True, return_inverse=True)
    order = np.argsort(first)
    total = np.bincount(inverse, own, minlength=len(first)).astype(np.float32)
    first = first[order]
    return first, total[order], np.searchsorted(owner[first], np.arange(len(offsets)))


def _keys(values: Float32Array, owner: IntArray, offsets: IntArray) -> IntArray:
    """(n_sites, 4) whole numbers, equal for sites whose values are equal within the structure's tolerance."""
    directions = np.random.default_rng(0).normal(size=(values.shape[1], 4))
    directions /= np.linalg.norm(directions, axis=0)
    square = np.bincount(owner, np.einsum("ij,ij->i", values, values, dtype=np.float64), minlength=len(offsets) - 1)
    scale = np.sqrt(square / np.maximum(np.diff(offsets) * values.shape[1], 1))
    scale[~(scale > 1e-12)] = 1.0
    # In double precision, so that the last digit of a product, which depends on how it is blocked, decides nothing.
    return np.round((values.astype(np.float64) @ directions) / scale[owner, None] * 300).astype(np.int64)


def _room(n_sites: int, width: int, in_memory: int) -> Float32Array:
    """Uninitialised (n_sites, width), in memory or in a temporary file without a name."""
    if n_sites * width * 4 <= in_memory:
        return np.empty((n_sites, width), dtype=np.float32)
    # The map keeps the file alive after it is closed here.
    with tempfile.TemporaryFile(prefix="atomsets-") as file:
        return np.memmap(file, dtype=np.float32, mode="w+", shape=(n_sites, width))
