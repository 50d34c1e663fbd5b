"""MEGNet parents that were trained here: a folder with parent.safetensors and parent.json, found by its path."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from atomsets_core.parents.about import About
from atomsets_core.parents.megnet.parent import LEVELS, REFERENCE, MEGNet
from atomsets_core.parents.megnet.weights import Weights, weight_shapes
from atomsets_core.storage import StorageError, Store

WEIGHTS, CARD = "parent.safetensors", "parent.json"
NEEDED = {"format_version", "kind", "digest", "sha256", "cutoff", "elements"}
"""What a card says at least."""

FORMAT_VERSION = 1
"""Version of the files of a saved parent."""


def save_parent(store: Store, weights: Weights, card: Mapping[str, Any]) -> dict[str, Any]:
    """Write the weights, then the card, which is what makes the folder a parent.

    Args:
        store: the parent's folder.
        weights: as `read_weights` gives them, for a target in eV/atom or another unit.
        card: needs `cutoff` (Angstrom) and `elements` (atomic numbers it was trained on); anything else is for people.

    Returns:
        The card as written, with format, digest and checksum.

    Raises:
        StorageError: it can't be written.
    """
    network = MEGNet(weights, compiled=False, cutoff=card["cutoff"])
    data = safetensors.numpy.save({name: np.ascontiguousarray(w) for name, w in weights.items()})
    whole = {
        **card,
        "format_version": FORMAT_VERSION,
        "kind": "megnet",
        "digest": network.digest,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    store.write(WEIGHTS, data)
    store.write_json(CARD, whole)
    return whole


def read_card(store: Store) -> dict[str, Any]:
    """The card of a saved parent.

    Raises:
        StorageError: there is none, it is damaged, or of a newer format.
    """
    card = store.read_json(CARD)
    where = store.url(CARD)
    if not isinstance(card, dict) or not set(card) >= NEEDED:
        raise StorageError(f"{where} is not the card of a parent")
    if card["format_version"] != FORMAT_VERSION or card["kind"] != "megnet":
        raise StorageError(
            f"{where}: a {card['kind']} parent of format {card['format_version']!r} can't be read by this version, "
            f"which knows megnet parents of format {FORMAT_VERSION}"
        )
    return card


def read_parent(folder: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Weights and card of a saved parent.

    Returns:
        Name -> float32 kernels (inputs, outputs) and biases (outputs,), see `weight_shapes`; and the card.

    Raises:
        StorageError: a file is missing, damaged, or of a newer format; the message says which.
    """
    store = Store(folder)
    card = read_card(store)
    where = store.url(WEIGHTS)
    data = store.read(WEIGHTS)
    if hashlib.sha256(data).hexdigest() != card["sha256"]:
        raise StorageError(f"{where} is damaged: it is not the file that {CARD} describes; train the parent again")
    try:
        weights = safetensors.numpy.load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise StorageError(f"{where} is damaged ({error}); train the parent again") from error
    if {name: value.shape for name, value in weights.items()} != weight_shapes():
        raise StorageError(f"{where} is damaged: it doesn't hold the weights of a MEGNet; train the parent again")
    return weights, card


def load_folder(folder: str, device: str = "cpu", *, name: str | None = None) -> MEGNet:
    """A saved parent, ready on a torch device.

    Args:
        folder: its path.
        device: of torch.
        name: under which it is registered; by default the path, which `load_parent` takes too.

    Raises:
        StorageError: a file is missing, damaged, or of a newer format.
    """
    weights, card = read_parent(folder)
    untrained = frozenset(range(1, 95)) - frozenset(card["elements"])
    return MEGNet(weights, device, name=name or folder, cutoff=float(card["cutoff"]), untrained=untrained)


def is_parent_folder(name: str) -> bool:
    """Whether this is the path of a saved parent."""
    return Path(name, CARD).is_file()


def about_folder(folder: str) -> About:
    """What a saved parent is, by its card.

    Raises:
        StorageError: the card is missing, damaged, or of a newer format.
    """
    card = read_card(Store(folder))
    n, target = card.get("n_train", "some"), card.get("target", "its target")
    source = card.get("data", {})
    data = source.get("name", "its training set")
    licence = f"; the data it learned from: {source['licence']}" if source.get("licence") else ""
    return About(
        title=f"MEGNet trained on {target}",
        described=f"a MEGNet graph network trained on {n} values of {target} ({data})",
        references=(REFERENCE,),
        licence=f"that of whoever trained it{licence}",
        trained_on=f"{n} values of {target} ({data})",
        overlap=f"The parent was trained on {n} values of {target} ({data}). Scores for {target} itself are flattered "
        "where these structures are among them.",
        takes=f"neighbours within {float(card['cutoff']):g} Å; elements 1 to 94, of which those it was never shown are "
        "flagged",
        levels={
            **LEVELS,
            "energy": replace(LEVELS["energy"], meaning=f"{target}, {card.get('unit') or 'in its unit'}"),
        },
    )
