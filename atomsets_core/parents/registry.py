"""Which parents there are: those of this package, of installed packages, of this process, and folders of trained ones.

`BUILT_IN` is where a parent of this package is entered. Nothing here reads weights: a package that is missing is only
missed by `load_parent`, and `about_parent` says what a parent is without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from importlib.metadata import PackageNotFoundError, entry_points, version

from atomsets_core.parents import chgnet, composition, element_tables, response
from atomsets_core.parents.about import About, unknown
from atomsets_core.parents.base import Parent
from atomsets_core.parents.megnet import parent as megnet
from atomsets_core.parents.sevennet import parent as sevennet
from atomsets_core.parents.trained import about_folder, is_parent_folder, load_folder
from atomsets_core.storage import StorageError


def _response(name: str, device: str) -> Parent:
    """Stiffness from the energies of a parent."""
    return response.Response(load_parent(name, device), response.SITES_LIKE[name])


Entry = tuple[About, Callable[[str], Parent]]
"""What a parent is, and its loader, which is given the torch device."""

NETWORKS: Mapping[str, Entry] = {
    megnet.NAME: (megnet.ABOUT, megnet.load),
    f"{megnet.NAME}-bf16": (megnet.ABOUT_BF16, megnet.load_bf16),
    chgnet.NAME: (chgnet.ABOUT, chgnet.load),
    sevennet.SEVENNET_0.name: (sevennet.SEVENNET_0.about, sevennet.load),
    sevennet.SEVENNET_L3I5.name: (sevennet.SEVENNET_L3I5.about, sevennet.load_l3i5),
    composition.NAME: (composition.ABOUT, composition.load_composition),
}

BUILT_IN: Mapping[str, Entry] = {
    **NETWORKS,
    **{
        f"{name}-response": (response.about_response(NETWORKS[name][0]), partial(_response, name))
        for name in response.SITES_LIKE
    },
    **element_tables.entries(),
}
"""Every parent that comes with the package, by name."""

ENTRY_POINTS = "atomsets_core.parents"
"""Group in which an installed package names its parents: name = "module:load"."""

_REGISTERED: dict[str, Entry] = {}
"""What was registered in this process."""


def register_parent(name: str, loader: Callable[[str], Parent], about: About | None = None) -> None:
    """Make `load_parent(name)` call `loader(device)`, in this process.

    Workers of a cluster are other processes: for them a package declares its parents as entry points of the group
    `ENTRY_POINTS`, which are found without registering.

    Args:
        name: of the parent.
        loader: gives it on a torch device.
        about: what it is; by default the attribute `about` of the loader, and without that it counts as not known.
    """
    _REGISTERED[name] = (about or _said_by(loader) or unknown(name), loader)
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
    for entries in (_REGISTERED, BUILT_IN):
        if name in entries:
            return entries[name][1](device)
    for entry in entry_points(group=ENTRY_POINTS, name=name):
        return entry.load()(device)
    if is_parent_folder(name):
        return load_folder(name, device)
    raise ValueError(
        f"no parent named {name!r}; there are {', '.join(parent_names())}, and folders made by `atomsets train-parent`"
    )


def parent_names() -> list[str]:
    """The names `load_parent` knows; the package behind one may still be missing."""
    return sorted({*BUILT_IN, *_REGISTERED, *entry_points(group=ENTRY_POINTS).names})


def about_parent(name: str) -> About:
    """What a parent is, without its weights or the package that carries them.

    Of a parent that says nothing of itself, of one that is gone, and of one whose files or package can't be read, it
    says that it is not known: old results can be shown in any case.
    """
    for entries in (_REGISTERED, BUILT_IN):
        if name in entries:
            return entries[name][0]
    for entry in entry_points(group=ENTRY_POINTS, name=name):
        try:
            return _said_by(entry.load()) or unknown(name)
        except (ImportError, AttributeError):
            return unknown(name)
    if is_parent_folder(name):
        try:
            return about_folder(name)
        except StorageError:
            return unknown(name)
    return unknown(name)


def carrier_versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of the installed packages that carry the weights of these parents; each package once."""
    found = {}
    for package in dict.fromkeys(about_parent(name).package for name in names):
        try:
            if package:
                found[package] = version(package)
        except PackageNotFoundError:  # features can be there without the package that made them
            continue
    return found


def _said_by(loader: object) -> About | None:
    """What a loader, often the class of the parent, says in its attribute `about`."""
    said = getattr(loader, "about", None)
    return said if isinstance(said, About) else None
