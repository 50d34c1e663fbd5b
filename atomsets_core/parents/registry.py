"""Which parents there are: those of this package, of installed packages, of this process, and folders of trained ones.

Nothing here reads weights: a package that is missing is only missed by `load_parent`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from importlib.metadata import entry_points

from atomsets_core.parents import chgnet, composition, element_tables, response, sevennet
from atomsets_core.parents.base import Parent
from atomsets_core.parents.megnet import parent as megnet
from atomsets_core.parents.trained import is_parent_folder, load_folder


def _response(name: str, device: str) -> Parent:
    """Stiffness from the energies of a parent."""
    return response.Response(load_parent(name, device), response.SITES_LIKE[name])


BUILT_IN: Mapping[str, Callable[[str], Parent]] = {
    megnet.NAME: megnet.load,
    f"{megnet.NAME}-bf16": megnet.load_bf16,
    chgnet.NAME: chgnet.load,
    sevennet.SEVENNET_0.name: sevennet.load,
    sevennet.SEVENNET_L3I5.name: sevennet.load_l3i5,
    composition.NAME: composition.load_composition,
    **{f"{name}-response": partial(_response, name) for name in response.SITES_LIKE},
    **element_tables.loaders(),
}
"""Name -> loader of every parent that comes with the package; a loader is given the torch device."""

ENTRY_POINTS = "atomsets_core.parents"
"""Group in which an installed package names its parents: name = "module:load"."""

_LOADERS: dict[str, Callable[[str], Parent]] = {}
"""What was registered in this process."""


def register_parent(name: str, loader: Callable[[str], Parent]) -> None:
    """Make `load_parent(name)` call `loader(device)`, in this process.

    Workers of a cluster are other processes: for them a package declares its parents as entry points of the group
    `ENTRY_POINTS`, which are found without registering.
    """
    _LOADERS[name] = loader
    load_parent.cache_clear()


def is_parent(name: str) -> bool:
    """Whether `load_parent` knows this name or path; the package behind one may still be missing."""
    return name in parent_names() or is_parent_folder(name)


@lru_cache(maxsize=8)
def load_parent(name: str, device: str = "cpu") -> Parent:
    """The parent of this name (or in this folder), its weights loaded, ready on a torch device; loaded once a process.

    Raises:
        ValueError: no parent has this name; the message lists those there are.
        FileNotFoundError: the package that carries the weights is not installed.
    """
    for loaders in (_LOADERS, BUILT_IN):
        if name in loaders:
            return loaders[name](device)
    for entry in entry_points(group=ENTRY_POINTS, name=name):
        return entry.load()(device)
    if is_parent_folder(name):
        return load_folder(name, device)
    raise ValueError(
        f"no parent named {name!r}; there are {', '.join(parent_names())}, and folders made by `atomsets train-parent`"
    )


def parent_names() -> list[str]:
    """The names `load_parent` knows; the package behind one may still be missing."""
    return sorted({*BUILT_IN, *_LOADERS, *entry_points(group=ENTRY_POINTS).names})
