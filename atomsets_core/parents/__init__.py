"""Frozen pretrained networks that features come from, one file each."""

from atomsets_core.parents import chgnet, megnet
from atomsets_core.parents.base import Parent, load_parent, parent_names, register_parent, split_levels

register_parent(megnet.NAME, megnet.load)
register_parent(chgnet.NAME, chgnet.load)

__all__ = ["Parent", "load_parent", "parent_names", "register_parent", "split_levels"]
