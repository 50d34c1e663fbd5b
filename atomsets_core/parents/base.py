"""The protocol of a parent network, the features it gives, and what all share: refusals, batches, devices.

Crystals and compositions are the same thing in `Features`: a composition has its elements for sites, each weighing its
fraction. A network of your own needs only the protocol; the functions at the end of the file save it the book-keeping.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from pymatgen.core import Element
from torch import Tensor

from atomsets_core.structures import Compositions, CrystalGraphs, IntArray, Refusal, Structures, ragged_rows

Levels = Mapping[str, npt.NDArray[np.float32]]
"""Level -> values of one batch: (n_atoms, width) on sites, (n_structures, width) on structures."""

Compute = Callable[[Any, Sequence[str], list[Refusal]], Iterator[tuple[IntArray, Levels]]]
"""A network at work: from structures (compositions, where it needs no more) and the levels asked for to the rows and
levels of batch after batch, in any order; the list gets the refused."""

GraphBatches = Callable[[Structures, list[Refusal]], Iterator[tuple[IntArray, CrystalGraphs]]]
"""Graphs of the structures in batches, as `graphs.graph_batches` gives them; the list gets the refused."""

Forward = Callable[[CrystalGraphs, Sequence[str]], Mapping[str, Tensor]]
"""A network in torch: the levels asked for of one batch of graphs."""


@dataclass(frozen=True)
class Features:
    """Features of n structures from one parent (or several, joined).

    Attributes:
        material_id: (n,) object array of str.
        structure_hash: (n,) object array of str, `Structures.hashes`.
        formula: (n,) object array of str, reduced formulas.
        n_atoms: (n,) int64, sites of each structure.
        sites: level -> (n_atoms.sum(), width) float32, structure after structure.
        structure: level -> (n, width) float32.
        digest: of the parent that made them, or `joint_digest` of several.
        weights: (n_atoms.sum(),) float32, weight of each site in its structure; None where all are 1. Fractions for
            compositions, occupancies for disordered structures.
        parents: parent -> digest where several are joined, the levels being called "parent:level"; else empty.
        refused: structures of the request that the parent can't take, with the reason; they have no row above.
        flagged: structure_hash -> remark on a row that is here but should be trusted less.
        bonds: directed bonds of all structures, where the parent counts them: its amount of work.
    """

    material_id: npt.NDArray[np.object_]
    structure_hash: npt.NDArray[np.object_]
    formula: npt.NDArray[np.object_]
    n_atoms: IntArray
    sites: dict[str, Float32Array]
    structure: dict[str, Float32Array]
    digest: str
    weights: Float32Array | None = None
    parents: dict[str, str] = field(default_factory=dict)
    refused: tuple[Refusal, ...] = ()
    flagged: dict[str, str] = field(default_factory=dict)
    bonds: int = 0

    def __post_init__(self) -> None:
        total = int(self.n_atoms.sum())
        for level, values in self.sites.items():
            if len(values) != total:
                raise ValueError(f"site level {level}: {len(values)} rows for {total} sites")
        if self.weights is not None and self.weights.shape != (total,):
            raise ValueError(f"{len(self.weights)} weights for {total} sites")
        for level, values in self.structure.items():
            if len(values) != len(self):
                raise ValueError(f"structure level {level}: {len(values)} rows for {len(self)} structures")

    def __len__(self) -> int:
        return len(self.n_atoms)

    @property
    def shape(self) -> tuple[int]:
        """(n,), so that scikit-learn's splitters can count the rows."""
        return (len(self),)

    @cached_property
    def offsets(self) -> IntArray:
        """(n + 1,) int64: sites of structure i are rows offsets[i]:offsets[i + 1]."""
        return np.concatenate([[0], np.cumsum(self.n_atoms)]).astype(np.int64)

    def __getitem__(self, indices: IntArray | Sequence[int] | slice) -> Features:
        """The rows at these positions, in this order (positions, a boolean mask or a slice)."""
        rows = np.arange(len(self))[indices]
        if rows.ndim != 1:
            raise TypeError("select rows with a list, a mask or a slice, not with one number")
        site_rows = ragged_rows(self.offsets, rows)
        hashes = self.structure_hash[rows]
        return replace(
            self,
            material_id=self.material_id[rows],
            structure_hash=hashes,
            formula=self.formula[rows],
            n_atoms=self.n_atoms[rows],
            sites={level: values[site_rows] for level, values in self.sites.items()},
            structure={level: values[rows] for level, values in self.structure.items()},
            weights=None if self.weights is None else self.weights[site_rows],
            refused=(),
            bonds=0,
            flagged={h: self.flagged[h] for h in hashes if h in self.flagged},
        )

    def blocks(self, size: int = 1024) -> Iterator[tuple[IntArray, Features]]:
        """(k,) int64 row numbers and features of `size` structures after another."""
        for start in range(0, len(self), size):
            rows = np.arange(start, min(start + size, len(self)))
            yield rows, self[rows]

    def site_matrix(self, levels: Sequence[str]) -> Float32Array:
        """(n_atoms.sum(), width) float32: these site levels side by side; width 0 for no level.

        Raises:
            KeyError: a level is not among `sites`.
        """
        if not levels:
            return np.empty((int(self.n_atoms.sum()), 0), dtype=np.float32)
        return np.concatenate([self._level(self.sites, level, "site") for level in levels], axis=1)

    def structure_matrix(self, levels: Sequence[str]) -> Float32Array:
        """(n, width) float32: these structure levels side by side; width 0 for no level."""
        if not levels:
            return np.empty((len(self), 0), dtype=np.float32)
        return np.concatenate([self._level(self.structure, level, "structure") for level in levels], axis=1)

    def _level(self, levels: dict[str, Float32Array], level: str, kind: str) -> Float32Array:
        if level not in levels:
            raise KeyError(f"no {kind} level {level!r} in these features; there are {sorted(levels) or 'none'}")
        return levels[level]

    def pooled(self, levels: Sequence[str]) -> Float32Array:
        """(n, 2 width) float32: weighted mean and standard deviation over the sites of these levels.

        The plain vector for ridge, neighbours, distances and diversity. Levels of the structure itself are
        appended as they are.
        """
        on_sites = [level for level in levels if level in self.sites]
        on_structures = [level for level in levels if level not in self.sites]
        parts = [self.structure_matrix(on_structures)]
        if on_sites and len(self):
            mean, deviation = self.moments(self.site_matrix(on_sites))
            parts = [mean, deviation, *parts]
        return np.concatenate(parts, axis=1)

    def moments(self, values: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Weighted mean and standard deviation over the sites of each structure, (n, width) float32 both.

        Args:
            values: (n_atoms.sum(), width).
        """
        if not len(self):
            return np.empty((0, values.shape[1]), np.float32), np.empty((0, values.shape[1]), np.float32)
        exact, starts = values.astype(np.float64), self.offsets[:-1]
        weights = np.ones(len(exact)) if self.weights is None else self.weights.astype(np.float64)
        total = np.add.reduceat(weights, starts)[:, None]
        mean = np.add.reduceat(exact * weights[:, None], starts, axis=0) / total
        exact -= np.repeat(mean, self.n_atoms, axis=0)
        variance = np.add.reduceat(exact**2 * weights[:, None], starts, axis=0) / total
        return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)

    def extremes(self, values: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Smallest and largest entries over the sites of each structure, (n, width) float32 both."""
        if not len(self):
            return np.empty((0, values.shape[1]), np.float32), np.empty((0, values.shape[1]), np.float32)
        starts = self.offsets[:-1]
        return np.minimum.reduceat(values, starts, axis=0), np.maximum.reduceat(values, starts, axis=0)

    @staticmethod
    def join(parts: Mapping[str, Features]) -> Features:
        """Features of the same structures from several parents, side by side; levels become "parent:level".

        Structures that one of the parents refused are refused.

        Args:
            parts: parent -> features, all of one request; none of them joined already.

        Raises:
            ValueError: there is none, or they are not of the same structures.
        """
        if not parts:
            raise ValueError("no features to join")
        refused = {r.material_id or r.structure_hash: r for part in parts.values() for r in reversed(part.refused)}
        aligned = _aligned(parts)
        first = next(iter(aligned.values()))
        flagged: dict[str, str] = {}
        for part in aligned.values():
            for key, remark in part.flagged.items():
                flagged[key] = f"{flagged[key]}; {remark}" if key in flagged else remark
        digests = {name: part.digest for name, part in parts.items()}
        return Features(
            material_id=first.material_id,
            structure_hash=first.structure_hash,
            formula=first.formula,
            n_atoms=first.n_atoms,
            sites={f"{name}:{level}": values for name, part in aligned.items() for level, values in part.sites.items()},
            structure={
                f"{name}:{level}": values for name, part in aligned.items() for level, values in part.structure.items()
            },
            digest=joint_digest(digests),
            weights=first.weights,
            parents=digests,
            refused=tuple(refused.values()),
            flagged=flagged,
        )

    @staticmethod
    def concat(parts: Sequence[Features]) -> Features:
        """One batch after the other; all must come from the same parent and have the same levels.

        Raises:
            ValueError: there is none, or digests or levels differ.
        """
        if not parts:
            raise ValueError("no features to join")
        first = parts[0]
        for part in parts[1:]:
            if part.digest != first.digest:
                raise ValueError(f"features of two parents can't be joined row by row: {first.digest}, {part.digest}")
            if (set(part.sites), set(part.structure)) != (set(first.sites), set(first.structure)):
                raise ValueError("features with different levels can't be joined row by row")
        return Features(
            material_id=np.concatenate([part.material_id for part in parts]),
            structure_hash=np.concatenate([part.structure_hash for part in parts]),
            formula=np.concatenate([part.formula for part in parts]),
            n_atoms=np.concatenate([part.n_atoms for part in parts]),
            sites={level: np.concatenate([part.sites[level] for part in parts]) for level in first.sites},
            structure={level: np.concatenate([part.structure[level] for part in parts]) for level in first.structure},
            digest=first.digest,
            weights=None
            if all(part.weights is None for part in parts)
            else np.concatenate(
                [
                    np.ones(int(part.n_atoms.sum()), np.float32) if part.weights is None else part.weights
                    for part in parts
                ]
            ),
            parents=first.parents,
            refused=tuple(refusal for part in parts for refusal in part.refused),
            flagged={key: value for part in parts for key, value in part.flagged.items()},
            bonds=sum(part.bonds for part in parts),
        )


def joint_digest(digests: Mapping[str, str]) -> str:
    """16 hex digits from the digests of several parents, whatever their order; of one parent its own."""
    if len(digests) == 1:
        return next(iter(digests.values()))
    text = ",".join(f"{name}={digests[name]}" for name in sorted(digests))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _aligned(parts: Mapping[str, Features]) -> dict[str, Features]:
    """The rows that all parts have, in the order of the first."""
    names, first = list(parts), next(iter(parts.values()))
    if not all(np.array_equal(part.structure_hash, first.structure_hash) for part in parts.values()):
        keys = {name: list(zip(part.material_id, part.structure_hash, strict=True)) for name, part in parts.items()}
        rows = {name: {key: row for row, key in enumerate(found)} for name, found in keys.items()}
        for name, found in rows.items():
            if len(found) != len(parts[name]):
                raise ValueError(
                    f"features of {name} hold a structure twice: they can't be matched with those of others"
                )
        refused = {key for part in parts.values() for r in part.refused for key in (r.material_id, r.structure_hash)}
        kept = [key for key in keys[names[0]] if all(key in found for found in rows.values())]
        everywhere = set(kept)
        lost = [key for found in keys.values() for key in found if key not in everywhere]
        if any(key[0] not in refused and key[1] not in refused for key in lost):
            raise ValueError(f"features of {' and '.join(names)} are not of the same structures")
        parts = {name: part[[rows[name][key] for key in kept]] for name, part in parts.items()}
        first = parts[names[0]]
    for name, part in parts.items():
        same_weights = (part.weights is None) == (first.weights is None) and (
            part.weights is None or first.weights is None or np.allclose(part.weights, first.weights)
        )
        if not np.array_equal(part.n_atoms, first.n_atoms) or not same_weights:
            raise ValueError(f"features of {name} and {names[0]} differ in their sites: they are of other structures")
    return dict(parts)


class Parent(Protocol):
    """A frozen pretrained graph network that turns structures into features at every depth.

    Attributes:
        name: as in campaign files, e.g. "megnet".
        digest: 16 hex digits; changes when the weights or the meaning of the featurisation code change.
        site_levels: level -> width of the vector it gives each site.
        structure_levels: level -> width of the vector it gives each structure.
        default_levels: the site levels a model uses unless told otherwise.
        element_levels: levels that need no coordinates, and so can be had for compositions and disordered structures
            too; a parent without the attribute has none.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def digest(self) -> str: ...  # noqa: D102
    @property
    def site_levels(self) -> Mapping[str, int]: ...  # noqa: D102
    @property
    def structure_levels(self) -> Mapping[str, int]: ...  # noqa: D102
    @property
    def default_levels(self) -> tuple[str, ...]: ...  # noqa: D102

    def featurize(self, structures: Any, levels: Sequence[str] | None = None) -> Features:
        """Features of the structures this parent can take, in their order; the others are in `Features.refused`.

        Args:
            structures: `Structures`, any number, they are worked through in pieces; also `Compositions`, by a parent
                with `element_levels`.
            levels: what to return; by default every level.

        Raises:
            ValueError: a level this parent doesn't have.
        """
        ...


def split_levels(parent: Parent, levels: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Site levels and structure levels among `levels`.

    Raises:
        ValueError: a level this parent doesn't have; the message lists those it has.
    """
    for level in levels:
        if level not in parent.site_levels and level not in parent.structure_levels:
            known = ", ".join([*parent.site_levels, *parent.structure_levels])
            raise ValueError(f"parent {parent.name} has no level {level!r}; it has {known}")
    return (
        tuple(level for level in levels if level in parent.site_levels),
        tuple(level for level in levels if level in parent.structure_levels),
    )


def element_levels(parent: Parent) -> tuple[str, ...]:
    """The levels of a parent that need no coordinates."""
    return tuple(getattr(parent, "element_levels", ()))


def featurize_batches(
    parent: Parent,
    structures: Structures | Compositions,
    levels: Sequence[str] | None,
    *,
    covered: npt.NDArray[np.bool_],
    compute: Compute | None = None,
    embedding: Mapping[str, npt.NDArray[np.float32]] | None = None,
    of_rows: Mapping[str, npt.NDArray[np.float32]] | None = None,
    needs_coordinates: bool = True,
    untrained: frozenset[int] = frozenset(),
) -> Features:
    """What `Parent.featurize` has to do around a network: refusals, batches, and the arrays put together.

    Args:
        parent: whose name, digest and levels are used.
        structures: the request.
        levels: the request; None for every level.
        covered: covered[z] is True where the network has the element with atomic number z; shorter is padded False.
        compute: the network; None where there is none, every level being in one of the following.
        embedding: site level -> (n, width) table by atomic number. If no other level is asked for, no graph is made,
            and no structure is refused for its geometry; compositions will do.
        of_rows: the same for levels that are already known: site level -> (n_atoms.sum(), width) of the request.
        needs_coordinates: False for a network that reads compositions; `compute` is given what was given here then.
        untrained: atomic numbers that the network takes but was not trained on; structures with one are flagged.

    Raises:
        ValueError: a level this parent doesn't have, or that compositions can't have.
    """
    wanted = list(dict.fromkeys(levels)) if levels is not None else [*parent.site_levels, *parent.structure_levels]
    on_sites, on_structures = split_levels(parent, wanted)
    tables, known = embedding or {}, of_rows or {}
    refused, accepted = _refuse_elements(parent.name, structures, covered)
    parts: dict[str, list[npt.NDArray[np.float32]]] = {level: [] for level in wanted}
    rows: list[IntArray] = []
    if set(wanted) <= {*tables, *known}:
        rows.append(accepted)
        chosen = ragged_rows(structures.offsets, accepted)
        for level in wanted:
            values = known[level][chosen] if level in known else tables[level][structures.numbers[chosen]]
            parts[level].append(np.asarray(values, dtype=np.float32))
    elif compute is None or (needs_coordinates and isinstance(structures, Compositions)):
        geometric = next(level for level in wanted if level not in tables and level not in known)
        can = ", ".join([*tables, *known]) or "none of its levels can"
        raise ValueError(f"{parent.name}:{geometric} needs coordinates; from compositions alone can be had: {can}")
    else:
        for batch, found in compute(structures.take(accepted), wanted, refused):
            rows.append(accepted[batch])
            for level in wanted:
                parts[level].append(found[level])
    kept = structures.take(np.concatenate(rows) if rows else np.empty(0, dtype=np.int64))
    widths = {**parent.site_levels, **parent.structure_levels}
    arrays = {
        level: np.concatenate(values) if values else np.empty((0, widths[level]), dtype=np.float32)
        for level, values in parts.items()
    }
    return Features(
        material_id=kept.material_id,
        structure_hash=kept.hashes,
        formula=kept.formulas,
        n_atoms=kept.n_atoms,
        weights=kept.weights,
        sites={level: arrays[level] for level in on_sites},
        structure={level: arrays[level] for level in on_structures},
        digest=parent.digest,
        refused=tuple(refused),
        flagged=_flag_elements(parent.name, kept, untrained),
    )


def in_torch(batches: GraphBatches, forward: Forward) -> Compute:
    """A `Compute` that makes graphs and runs them through a network in torch, one batch after the other."""

    def compute(
        structures: Structures, wanted: Sequence[str], refused: list[Refusal]
    ) -> Iterator[tuple[IntArray, Levels]]:
        for rows, graphs in batches(structures, refused):
            yield rows, {level: values.cpu().numpy() for level, values in forward(graphs, wanted).items()}

    return compute


def _refuse_elements(
    name: str, structures: Structures | Compositions, covered: npt.NDArray[np.bool_]
) -> tuple[list[Refusal], IntArray]:
    """A refusal for each structure with an element the network doesn't have, and the rows of the others."""
    # Beyond the last atomic number there is one more entry, always False, for anything larger.
    known = np.append(covered, False)[np.clip(structures.numbers, 0, len(covered))]
    owner = np.repeat(np.arange(len(structures)), structures.n_atoms)
    hopeless = np.unique(owner[~known])
    refused = []
    for i in hopeless:
        sites = slice(structures.offsets[i], structures.offsets[i + 1])
        z = int(structures.numbers[sites][~known[sites]].max())
        reason = f"{name} does not cover {Element.from_Z(z).symbol} (atomic number {z})"
        refused.append(Refusal(str(structures.material_id[i]), "featurize", reason, str(structures.hashes[i])))
    return refused, np.setdiff1d(np.arange(len(structures)), hopeless)


def _flag_elements(name: str, structures: Structures | Compositions, untrained: frozenset[int]) -> dict[str, str]:
    """structure_hash -> remark, for structures with elements that the network takes but never saw in training."""
    owner = np.repeat(np.arange(len(structures)), structures.n_atoms)
    hit = np.isin(structures.numbers, list(untrained))
    found: dict[str, set[str]] = {}
    for i, z in zip(owner[hit], structures.numbers[hit], strict=True):
        found.setdefault(str(structures.hashes[i]), set()).add(Element.from_Z(int(z)).symbol)
    return {key: f"{name} never saw {', '.join(sorted(elements))} in training" for key, elements in found.items()}


def weights_digest(name: str, code_version: str, weights: Mapping[str, npt.NDArray[np.floating]]) -> str:
    """16 hex digits over a parent's name, the version of its code and every weight: a `Parent.digest`."""
    digest = hashlib.sha256(f"{name} {code_version}".encode())
    for key in sorted(weights):
        digest.update(key.encode())
        digest.update(np.ascontiguousarray(weights[key]).tobytes())
    return digest.hexdigest()[:16]


def installed_file(package: str, path: str, install: str) -> Path:
    """A file of an installed package, found without importing the package.

    Args:
        package: top-level import name.
        path: of the file inside the package; may have wildcards.
        install: what to pip install when it is missing.

    Raises:
        FileNotFoundError: the package is not installed, or doesn't have the file.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.origin:
        raise FileNotFoundError(
            f"these weights come with the package {package}, which is not installed: pip install {install}"
        )
    folder = Path(spec.origin).parent
    found = sorted(folder.glob(path))
    if not found:
        raise FileNotFoundError(f"the installed {package} carries no weights at {folder / path}")
    return found[0]


def resolve_device(device: str) -> torch.device:
    """A torch device; "auto" is the GPU where there is one, else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


Float32Array = npt.NDArray[np.float32]
