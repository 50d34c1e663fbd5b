"""Frozen pretrained networks that features come from, one file each; beside them the tables of element vectors."""

from functools import partial

from atomsets_core.parents import chgnet, composition, element_tables, megnet, response, sevennet, trained
from atomsets_core.parents.base import (
    Parent,
    element_levels,
    featurize_batches,
    in_torch,
    is_parent,
    load_parent,
    parent_names,
    register_finder,
    register_parent,
    split_levels,
    weights_digest,
)

# Registering reads no weights: a package that is missing is only missed by load_parent.
register_parent(megnet.NAME, megnet.load)
register_parent(f"{megnet.NAME}-bf16", megnet.load_bf16)
register_parent(chgnet.NAME, chgnet.load)
register_parent(sevennet.SEVENNET_0.name, sevennet.load)
register_parent(sevennet.SEVENNET_L3I5.name, sevennet.load_l3i5)
register_parent(composition.NAME, composition.load)
for _name in response.SITES_LIKE:
    register_parent(f"{_name}-response", partial(response.load, _name))
for _name, _loader in element_tables.loaders().items():
    register_parent(_name, _loader)
register_finder(trained.is_parent_folder, trained.load_folder)

__all__ = [
    "Parent",
    "element_levels",
    "featurize_batches",
    "in_torch",
    "is_parent",
    "load_parent",
    "parent_names",
    "register_finder",
    "register_parent",
    "split_levels",
    "weights_digest",
]
