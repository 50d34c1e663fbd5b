"""An unfinished training: what of it is kept and where, how it goes on, and who is told of its progress."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from atomsets_core.storage import Store

_DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint of a training as a file of a store."""

    store: Store
    name: str

    def load(self) -> bytes | None:
        """What was saved last; nothing where it is damaged."""
        if not self.store.exists(self.name):
            return None
        data = self.store.read(self.name)
        digest, data = data[-_DIGEST:], data[:-_DIGEST]
        return data if hashlib.sha256(data).digest() == digest else None

    def save(self, data: bytes) -> None:
        """Replace it, its sha256 behind it."""
        self.store.write(self.name, data + hashlib.sha256(data).digest())

    def remove(self) -> None:
        """The training is over."""
        self.store.remove(self.name)


Progress = Callable[[int, int, float], None]
"""Called after each epoch with its number (from 1), the epochs there will be, and the mean training loss (on the
standardised target)."""


class Checkpoint(Protocol):
    """Where an unfinished training is kept."""

    def load(self) -> bytes | None:
        """What was saved last, None if nothing was."""

    def save(self, data: bytes) -> None:
        """Replace it, whole or not at all."""


def signature_of(options: object, parts: Iterable[Tensor | npt.NDArray[Any] | str]) -> bytes:
    """Digest of all that decides how a training ends, so that it never goes on from another's checkpoint.

    Args:
        options: whose representation says everything.
        parts: data, targets and first weights.
    """
    digest = hashlib.sha256(repr(options).encode())
    for part in parts:
        if isinstance(part, str):
            digest.update(part.encode())
        else:
            array = part.detach().cpu().numpy() if isinstance(part, Tensor) else part
            digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def pack(
    parameters: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    kept: Mapping[str, Tensor],
    place: Mapping[str, Tensor],
    signature: bytes,
) -> bytes:
    """Everything that another process needs to go on, as safetensors.

    Args:
        parameters: of the network, by name.
        optimizer: of them.
        kept: the best weights so far, by name.
        place: how far the training is; names of its own, without a dot.
        signature: of the training, see `signature_of`.
    """
    tensors = {f"network.{name}": value.detach() for name, value in parameters.items()}
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{name}.{key}"] = value
    tensors |= {f"kept.{name}": value for name, value in kept.items()}
    tensors |= place
    tensors["signature"] = torch.frombuffer(bytearray(signature), dtype=torch.uint8)
    return safetensors.torch.save({name: value.cpu().contiguous() for name, value in tensors.items()})


@torch.no_grad()
def unpack(
    saved: bytes, parameters: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, signature: bytes
) -> tuple[dict[str, Tensor], dict[str, Tensor]] | None:
    """Give network and optimizer back what `pack` took of them.

    Returns:
        `kept` and `place` as they were given, tensors of any shape and dtype, e.g. (n,), on the network's device; None,
        and nothing is changed, where the file is damaged or of another training.
    """
    device = next(iter(parameters.values())).device
    try:
        tensors = {name: value.to(device) for name, value in safetensors.torch.load(saved).items()}
    except safetensors.SafetensorError:
        return None
    if bytes(tensors.pop("signature", torch.empty(0)).cpu().tolist()) != signature:
        return None
    for name, parameter in parameters.items():
        parameter.copy_(tensors[f"network.{name}"])
        if found := _under(f"optimizer.{name}.", tensors):
            optimizer.state[parameter] = found
    return _under("kept.", tensors), {name: value for name, value in tensors.items() if "." not in name}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
