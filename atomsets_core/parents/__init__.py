"""Frozen pretrained networks that features come from, one file each."""

from atomsets_core.parents import chgnet, megnet, sevennet
from atomsets_core.parents.base import Parent, load_parent, parent_names, register_parent, split_levels

register_parent(megnet.NAME, megnet.load)
register_parent(chgnet.NAME, chgnet.load)
register_parent(sevennet.NAME, sevennet.load)

__all__ = ["Parent", "load_parent", "parent_names", "register_parent", "split_levels"]
