"""Where an unfinished training is kept, and who is told of its progress."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

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
