"""The protocol of a parent network, and the registry that finds one by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Protocol

from atomsets_core.features import Features
from atomsets_core.structures import Structures


class Parent(Protocol):
    """A frozen pretrained graph network that turns structures into features at every depth.

    Attributes:
        name: as in campaign files, e.g. "megnet".
        digest: 16 hex digits; changes when the weights or the meaning of the featurisation code change.
        site_levels: level -> width of the vector it gives each site.
        structure_levels: level -> width of the vector it gives each structure.
        default_levels: the site levels a model uses unless told otherwise.
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

    def featurize(self, structures: Structures, levels: Sequence[str] | None = None) -> Features:
        """Features of the structures this parent can take, in their order; the others are in `Features.refused`.

        Args:
            structures: the batch; any size, it is worked through in pieces.
            levels: what to return; by default every level.

        Raises:
            ValueError: a level this parent doesn't have.
        """
        ...


_LOADERS: dict[str, Callable[[str], Parent]] = {}


def register_parent(name: str, loader: Callable[[str], Parent]) -> None:
    """Make `load_parent(name)` call `loader(device)`."""
    _LOADERS[name] = loader
    load_parent.cache_clear()


@lru_cache(maxsize=8)
def load_parent(name: str, device: str = "cpu") -> Parent:
    """The parent of this name, its weights loaded, ready on a torch device; loaded once a process.

    Raises:
        ValueError: no parent has this name; the message lists those there are.
        FileNotFoundError: the package that carries the weights is not installed.
    """
    if name not in _LOADERS:
        raise ValueError(f"no parent named {name!r}; there are {', '.join(sorted(_LOADERS))}")
    return _LOADERS[name](device)


def parent_names() -> list[str]:
    """The names `load_parent` knows."""
    return sorted(_LOADERS)


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
