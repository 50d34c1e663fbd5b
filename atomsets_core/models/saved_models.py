"""Saved models: model.safetensors with every array, model.json with everything else; nothing is ever unpickled.

model.json carries the size and sha256 of model.safetensors and a checksum of itself, and is written last: a folder with
it is complete. Reading checks versions before anything is interpreted, sizes before anything is allocated, and shapes
against the network that the options describe before it is built.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from torch import Tensor

from atomsets_core.models.file_names import ARRAYS, CONFIG
from atomsets_core.models.networks.set_network import AtomSetsNetwork
from atomsets_core.models.recipe import Choice
from atomsets_core.models.trust import Domain
from atomsets_core.storage import StorageError, Store

FORMAT_VERSION = 2
"""Version of the files of a saved model. Version 1 (one target, regression, no checksums) is still read."""

LARGEST_CONFIG = 64 << 20
"""Bytes of a model.json beyond which it is none of ours."""

DOMAIN_ARRAYS = ("mean", "scale", "components", "reference")

Build = Callable[[Mapping[str, Any], int, int, int], AtomSetsNetwork]
"""An untrained network from options, site width, structure width and outputs."""


@dataclass(frozen=True)
class SavedModel:
    """A fitted estimator without its network.

    Attributes:
        kind: class name of the estimator.
        parameters: of its constructor.
        options: the parameters it was trained with.
        features: specification.
        digest: of the parents together.
        parents: parent -> digest.
        weighted: whether it was trained on sites with weights.
        n_train: training rows.
        choice: of features="auto".
        domain: applicability domain.
        state: what the kind keeps besides, JSON.
        arrays: what the kind keeps besides, name -> array: knots (k,) float64 of curves that calibrate classes, or what
            the learners of a head say in `arrays`.
        about: what the user keeps beside it, JSON.
    """

    kind: str
    parameters: dict[str, Any]
    options: dict[str, Any]
    features: str
    digest: str
    parents: dict[str, str]
    weighted: bool
    n_train: int
    choice: Choice | None
    domain: Domain
    state: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)


def write_model(store: Store, folder: str, saved: SavedModel, network: AtomSetsNetwork | None) -> None:
    """Write both files; a model of a kind without networks has none.

    Raises:
        StorageError: they can't be written.
    """
    domain = asdict(saved.domain)
    weights = {} if network is None else network.state_dict()
    tensors = {f"network.{name}": value.cpu().contiguous() for name, value in weights.items()}
    for name in DOMAIN_ARRAYS:
        tensors[f"domain.{name}"] = torch.from_numpy(np.ascontiguousarray(domain.pop(name)))
    for name, array in saved.arrays.items():
        tensors[f"state.{name}"] = torch.from_numpy(np.ascontiguousarray(array))
    data = safetensors.torch.save(tensors)
    config = {
        "format_version": FORMAT_VERSION,
        "kind": saved.kind,
        "features": saved.features,
        "digest": saved.digest,
        "parents": saved.parents,
        "weighted": saved.weighted,
        "n_train": saved.n_train,
        "parameters": saved.parameters,
        "options": saved.options,
        "network": None
        if network is None
        else {
            "site_width": int(network.site_input.mean.shape[2]),
            "structure_width": int(network.structure_input.mean.shape[2]),
            "outputs": int(network.out.bias.shape[2]),
        },
        "choice": asdict(saved.choice) if saved.choice else None,
        "domain": domain,
        "state": saved.state,
        "about": saved.about,
        "tensors": {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()},
    }
    # Once through JSON, so that the checksum is of what will be read.
    config = json.loads(json.dumps(config, allow_nan=False, default=_plain))
    store.write(f"{folder}/{ARRAYS}", data)
    store.write_json(f"{folder}/{CONFIG}", {**config, "checksum": _checksum(config)})


def read_config(store: Store, folder: str) -> dict[str, Any]:
    """model.json, checked against its checksum.

    Raises:
        StorageError: it is missing, damaged, or of a newer format; the message says which.
    """
    name, where = f"{folder}/{CONFIG}", store.url(folder)
    if store.size(name) > LARGEST_CONFIG:
        raise StorageError(f"{where}: {CONFIG} is too large to be a model's")
    config = store.read_json(name)
    version = config.get("format_version") if isinstance(config, dict) else None
    if not isinstance(version, int):
        raise StorageError(f"{where}: {CONFIG} is not a model's: it has no format_version")
    if version > FORMAT_VERSION:
        raise StorageError(
            f"{where}: model format {version} can't be read by this version, which knows up to {FORMAT_VERSION}: "
            "it was written by a newer one. Update atomsets-screening"
        )
    if version >= 2:
        found = config.pop("checksum", None)
        try:
            sound = found == _checksum(config)
        except ValueError:  # a number beyond all numbers, 1e999
            sound = False
        if not sound:
            raise StorageError(f"{where}: {CONFIG} is damaged or was changed: its checksum is wrong; train again")
    return config


def read_model(store: Store, folder: str, kind: str, build: Build) -> tuple[SavedModel, AtomSetsNetwork | None]:
    """A saved model of this kind and its network, None where it has none.

    Raises:
        StorageError: the files are missing, damaged, of a newer format, or of another kind; the message says which.
    """
    config = read_config(store, folder)
    where = store.url(folder)
    if config.get("kind") != kind:
        raise StorageError(f"{where}: holds a model of the kind {config.get('kind')!r}, not {kind}")
    expected = config.get("tensors", {})
    size = store.size(f"{folder}/{ARRAYS}")
    if expected and size != expected["size"]:
        raise StorageError(f"{where}: the model is damaged: {ARRAYS} has {size} bytes instead of {expected['size']}")
    data = store.read(f"{folder}/{ARRAYS}")
    if expected and hashlib.sha256(data).hexdigest() != expected["sha256"]:
        raise StorageError(f"{where}: the model is damaged: the sha256 of {ARRAYS} is not the one in {CONFIG}")
    tensors = read_arrays(data, where)
    try:
        if config["format_version"] == 1:
            config = _from_version_1(config)
        network = _network(config, tensors, build)
        return _saved(config, tensors), network
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{where}: the model is damaged ({error}); train it again") from error


def read_arrays(data: bytes, where: str) -> dict[str, Tensor]:
    """The arrays of a model's safetensors file, each no larger than the bytes of it that are there.

    Args:
        data: the file.
        where: its folder, for the message.

    Returns:
        name -> tensor of the shape, e.g. (n, width), and dtype it was saved with.

    Raises:
        StorageError: the file is damaged: cut off, or its header announces something else than it holds.
    """
    try:
        arrays: dict[str, Tensor] = safetensors.torch.load(data)
    except (safetensors.SafetensorError, RuntimeError, KeyError, ValueError) as error:
        raise StorageError(
            f"{where}: the model is damaged: {ARRAYS} can't be read ({error}); train it again"
        ) from error
    return arrays


def _network(config: Mapping[str, Any], tensors: Mapping[str, Tensor], build: Build) -> AtomSetsNetwork | None:
    own = {name.removeprefix("network."): value for name, value in tensors.items() if name.startswith("network.")}
    sizes = config["network"]
    if sizes is None and not own:
        return None
    # On this device nothing is allocated: options that don't fit the arrays cost no memory.
    with torch.device("meta"):
        network = build(config["options"], sizes["site_width"], sizes["structure_width"], sizes["outputs"])
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    if shapes != {name: tuple(value.shape) for name, value in own.items()}:
        raise ValueError("the arrays are not those of the network that the options describe")
    for name, value in own.items():
        if value.dtype != torch.float32 or not torch.isfinite(value).all():
            raise ValueError(f"{name} holds something that is not a number")
    network.load_state_dict(own, assign=True)
    return network


def _saved(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SavedModel:
    mean, scale, components, reference = (tensors[f"domain.{name}"].numpy() for name in DOMAIN_ARRAYS)
    sizes = config["network"]
    width = len(mean) if sizes is None else 2 * sizes["site_width"] + sizes["structure_width"]
    if mean.shape != (width,) or scale.shape != (width,) or components.shape[1:] != (width,):
        raise ValueError("the domain is not that of the network")
    if reference.shape[1:] != (len(components),):
        raise ValueError("the training structures are not those of the domain")
    choice = config["choice"]
    return SavedModel(
        kind=config["kind"],
        parameters=config["parameters"],
        options=config["options"],
        features=config["features"],
        digest=config["digest"],
        parents=config["parents"],
        weighted=config["weighted"],
        n_train=config["n_train"],
        choice=Choice(**choice) if choice else None,
        domain=Domain(mean, scale, components, reference, **config["domain"]),
        state=config["state"],
        arrays={n.removeprefix("state."): t.numpy() for n, t in tensors.items() if n.startswith("state.")},
        about=config["about"],
    )


def _from_version_1(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same as version 2 would have it."""
    features = config["parameters"]["features"]
    return {
        "kind": config["kind"],
        "parameters": config["parameters"],
        "options": config["parameters"],
        "features": features,
        "digest": config["parent_digest"],
        "parents": {features.partition(":")[0].strip(): config["parent_digest"]},
        "weighted": False,
        "n_train": config["n_train"],
        "choice": None,
        "network": {
            "site_width": config["site_width"],
            "structure_width": config["structure_width"],
            "outputs": 1,
        },
        "domain": config["domain"],
        "state": {
            "targets": None,
            "groups": 1,  # it took the spread of all members
            # On the format's first day far structures had no larger deviation.
            "calibrators": [{"reach": 0.0, **config["calibrator"]}] if config["calibrator"] else None,
            "coverage": [config["coverage_out_of_fold"]],
        },
        "about": config["about"],
    }


def _checksum(config: Mapping[str, Any]) -> str:
    body = {name: value for name, value in config.items() if name != "checksum"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"a model can't keep a {type(value).__name__}: use numbers, texts, lists and dicts")
