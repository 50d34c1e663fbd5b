"""The protocol of a parent network, and what all share: elements and occupancies refused, batches, levels by element.

A network of your own needs only the protocol; the functions at the end of the file save it the book-keeping.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from pymatgen.core import Element
from torch import Tensor

from atomsets_core.parents.features import Features
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
