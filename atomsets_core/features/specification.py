"""Feature specifications: which levels of which parents a model sees, as one line of text.

megnet                                the parent's own choice of levels
megnet:V0+V1+V2+V3                    levels side by side for each site
megnet:V0+V1,chgnet:site,mat2vec      several parents side by side
chgnet:site+crystal                   structure levels are joined after pooling
chgnet:mean(site)+std(site)           statistics of site levels (mean, std, min, max) are structure levels
chgnet:site,megnet:each(v)            a structure level given to each of the sites
megnet:v                              structure levels alone: a plain network (MLP-v, MLP-f2, MLP-f1)
megnet:V0,amount                      for compositions: element vectors and how much there is of each element
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pymatgen.core import Structure

from atomsets_core.features.stored import AnyFeatures, StoredFeatures
from atomsets_core.parents import Features, Float32Array, element_levels, joint_digest, load_parent, split_levels
from atomsets_core.structures import Compositions, Structures, as_compositions, as_structures

STATISTICS = ("mean", "std", "min", "max")
EACH = "each"

FOR_STRUCTURES = "megnet:V0+V1+V2+V3"
"""What models see of structures unless told otherwise."""

FOR_COMPOSITIONS = "megnet:V0,amount"
"""What models see of compositions unless told otherwise."""

_LEVEL = re.compile(r"(?:(?P<function>[a-z]+)\((?P<inner>[^()]+)\)|(?P<plain>[^()]+))")


@dataclass(frozen=True)
class Level:
    """A level, or a function of one.

    Attributes:
        parent: its name.
        name: of the level the parent gives.
        function: "" for the level itself, one of `STATISTICS`, or `EACH`.
        on_sites: whether the result is one vector a site.
    """

    parent: str
    name: str
    function: str
    on_sites: bool

    def __str__(self) -> str:
        return f"{self.function}({self.name})" if self.function else self.name


@dataclass(frozen=True)
class FeatureSpec:
    """What a model sees, in the order of the text. Made by `parse_features`."""

    levels: tuple[Level, ...]

    def __str__(self) -> str:
        by_parent = {name: "+".join(str(x) for x in self.levels if x.parent == name) for name in self.parents}
        return ",".join(f"{name}:{levels}" for name, levels in by_parent.items())

    @property
    def parents(self) -> tuple[str, ...]:
        """Names of the parents."""
        return tuple(dict.fromkeys(level.parent for level in self.levels))

    def needed(self, parent: str) -> tuple[str, ...]:
        """The levels that have to be computed by a parent."""
        return tuple(dict.fromkeys(level.name for level in self.levels if level.parent == parent))

    @property
    def element_only(self) -> bool:
        """Whether no coordinates are needed, so that compositions and disordered structures will do."""
        return all(set(self.needed(name)) <= set(element_levels(load_parent(name))) for name in self.parents)

    def digests(self, features: AnyFeatures) -> dict[str, str]:
        """Parent -> digest for the parents named here, of features that may be of more."""
        joined = {} if isinstance(features, StoredFeatures) else features.parents
        if not joined:
            self._check_single()
            return {self.parents[0]: features.digest}
        self._check_parents(joined)
        return {name: joined[name] for name in self.parents}

    def digest(self, features: AnyFeatures) -> str:
        """One digest of the parents named here."""
        return joint_digest(self.digests(features))

    def featurize(self, batch: Structures | Compositions, device: str = "cpu") -> Features:
        """Every level that is needed; structures that a parent can't take are in `Features.refused`.

        Raises:
            ValueError: levels that need coordinates, of compositions.
        """
        found = {name: load_parent(name, device).featurize(batch, self.needed(name)) for name in self.parents}
        return next(iter(found.values())) if len(found) == 1 else Features.join(found)

    def site_matrix(self, features: Features) -> Float32Array:
        """(n_sites, width) float32: the site levels side by side; width 0 for none."""
        parts = []
        for level in self.levels:
            if level.on_sites and level.function == EACH:
                of_structures = features.structure_matrix([self._key(level, features)])
                parts.append(np.repeat(of_structures, features.n_atoms, axis=0))
            elif level.on_sites:
                parts.append(features.site_matrix([self._key(level, features)]))
        if not parts:
            return np.empty((int(features.n_atoms.sum()), 0), dtype=np.float32)
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def site_widths(self, features: Features) -> list[int]:
        """Widths of the site levels, in the order of `site_matrix`."""
        found = [level for level in self.levels if level.on_sites]
        sources = [features.structure if level.function == EACH else features.sites for level in found]
        return [source[self._key(level, features)].shape[1] for level, source in zip(found, sources, strict=True)]

    def structure_matrix(self, features: Features) -> Float32Array:
        """(n, width) float32: the structure levels and statistics side by side; width 0 for none."""
        parts = [np.empty((len(features), 0), dtype=np.float32)]
        for level in self.levels:
            if not level.on_sites and level.function:
                parts.append(_statistic(level.function, features, features.site_matrix([self._key(level, features)])))
            elif not level.on_sites:
                parts.append(features.structure_matrix([self._key(level, features)]))
        return np.concatenate(parts, axis=1)

    def _key(self, level: Level, features: Features) -> str:
        if not features.parents:
            self._check_single()
            return level.name
        self._check_parents(features.parents)
        return f"{level.parent}:{level.name}"

    def _check_single(self) -> None:
        if len(self.parents) > 1:
            raise ValueError(f"{self} needs features of {len(self.parents)} parents, joined by Features.join")

    def _check_parents(self, there: Mapping[str, str]) -> None:
        missing = [name for name in self.parents if name not in there]
        if missing:
            raise ValueError(f"no features of {missing[0]} among these, which are of {', '.join(there)}")


def _statistic(name: str, features: Features, values: Float32Array) -> Float32Array:
    if name in ("mean", "std"):
        return features.moments(values)[name == "std"]
    return features.extremes(values)[name == "max"]


def parse_features(text: str) -> FeatureSpec:
    """What a specification says.

    Raises:
        ValueError: it can't be read, or a parent or level is unknown; the message lists what there is.
    """
    levels: list[Level] = []
    for part in text.split(","):
        name, colon, rest = (piece.strip() for piece in part.partition(":"))
        if not name or (colon and not rest):
            raise ValueError(f"features {text!r}: write them as parent:level+level,parent:level")
        parent = load_parent(name)
        for item in rest.split("+") if rest else parent.default_levels:
            level = _parse_level(name, item.strip(), text)
            if level in levels:
                raise ValueError(f"features {text!r}: {name}:{level} is there twice")
            levels.append(level)
    return FeatureSpec(tuple(levels))


def _parse_level(name: str, item: str, text: str) -> Level:
    match = _LEVEL.fullmatch(item)
    if match is None:
        raise ValueError(f"features {text!r}: {item!r} is no level; write level or function(level)")
    function, level = match["function"] or "", match["inner"] or match["plain"]
    on_sites = bool(split_levels(load_parent(name), [level])[0])
    if function and function not in (*STATISTICS, EACH):
        raise ValueError(f"features {text!r}: no function {function!r}; there are {', '.join((*STATISTICS, EACH))}")
    if function in STATISTICS and not on_sites:
        raise ValueError(f"features {text!r}: {level} is one vector a structure already; {function} is for site levels")
    if function == EACH and on_sites:
        raise ValueError(f"features {text!r}: {level} is one vector a site already; {EACH} is for structure levels")
    return Level(name, level, function, on_sites if not function else function == EACH)


def default_features(batch: Batch) -> str:
    """The specification for inputs of a kind when none is given."""
    return FOR_COMPOSITIONS if isinstance(batch, Compositions) else FOR_STRUCTURES


Batch = AnyFeatures | Structures | Compositions
"""What the estimators work on."""


def as_batch(items: Any) -> Batch:
    """Structures or compositions from whatever a user has at hand.

    Args:
        items: features or a batch (given back as they are), or an iterable (list, array, pandas column) of pymatgen
            Structures, of pymatgen Compositions, or of formula strings; with a mixture all are taken as compositions.

    Raises:
        ValueError: one of the items can't be used; the message names it by its position.
    """
    if isinstance(items, Batch):
        return items
    if isinstance(items, str | Structure) or not isinstance(items, Iterable):
        raise ValueError(f"give several structures or formulas, not one {type(items).__name__}")
    listed = items.iloc[:, 0].tolist() if isinstance(items, pd.DataFrame) and items.shape[1] == 1 else list(items)
    if any(not isinstance(item, str) and hasattr(item, "lattice") for item in listed):
        every = all(hasattr(item, "lattice") for item in listed)
        return as_structures(listed) if every else as_compositions(listed)
    return as_compositions(listed)
