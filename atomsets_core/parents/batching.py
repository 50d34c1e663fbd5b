"""Batches that fit the memory of an accelerator: cut by number of bonds, halved whenever the device says it is full."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch

from atomsets_core.parents.base import Levels
from atomsets_core.structures import CrystalGraphs, IntArray

Item = TypeVar("Item")

LARGEST = 4_000_000
"""Bonds in a batch beyond which an accelerator gains nothing."""


@dataclass
class Halving:
    """A forward pass that goes on with halves of a batch when the memory of the device isn't enough.

    Attributes:
        forward: a batch of graphs and levels wanted -> level -> (n_atoms, width) or (n_structures, width) arrays.
        smaller: makes the working memory of `forward` smaller; False when it can't. Asked when one structure is left.
        fits: bonds that may be tried; halved after each failure, and never raised again.
    """

    forward: Callable[[CrystalGraphs, Sequence[str]], Levels]
    smaller: Callable[[], bool]
    fits: float = float("inf")

    def __call__(self, graphs: CrystalGraphs, wanted: Sequence[str]) -> Iterator[tuple[IntArray, Levels | None]]:
        """Positions of structures in the batch with their levels; None for a structure that can't be done alone."""
        yield from self._part(graphs, wanted, 0, len(graphs.n_atoms))

    def _part(
        self, graphs: CrystalGraphs, wanted: Sequence[str], start: int, stop: int
    ) -> Iterator[tuple[IntArray, Levels | None]]:
        n_bonds = int(graphs.n_bonds[start:stop].sum())
        if stop - start == 1 or n_bonds <= self.fits:
            levels = self._try(part_of(graphs, start, stop), wanted)
            if levels is not None or stop - start == 1:
                yield np.arange(start, stop), levels
                return
            self.fits = n_bonds / 2
        middle = (start + stop) // 2
        yield from self._part(graphs, wanted, start, middle)
        yield from self._part(graphs, wanted, middle, stop)

    def _try(self, graphs: CrystalGraphs, wanted: Sequence[str]) -> Levels | None:
        while True:
            try:
                return self.forward(graphs, wanted)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Outside the handler: the traceback holds the tensors that filled the memory.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if len(graphs.n_atoms) > 1 or not self.smaller():
                return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch failed for want of memory, on a device or on the host."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def part_of(graphs: CrystalGraphs, start: int, stop: int) -> CrystalGraphs:
    """The structures start to stop of a batch as a batch of their own."""
    if (start, stop) == (0, len(graphs.n_atoms)):
        return graphs
    atoms = slice(int(graphs.n_atoms[:start].sum()), int(graphs.n_atoms[:stop].sum()))
    bonds = slice(int(graphs.n_bonds[:start].sum()), int(graphs.n_bonds[:stop].sum()))
    return replace(
        graphs,
        numbers=graphs.numbers[atoms],
        n_atoms=graphs.n_atoms[start:stop],
        n_bonds=graphs.n_bonds[start:stop],
        centre=graphs.centre[bonds] - atoms.start,
        neighbour=graphs.neighbour[bonds] - atoms.start,
        distance=graphs.distance[bonds],
        vector=None if graphs.vector is None else graphs.vector[bonds],
        image=None if graphs.image is None else graphs.image[bonds],
    )


def bonds_that_fit(device: torch.device, bytes_per_bond: int, fixed: int, otherwise: int) -> int:
    """Bonds of a batch that 80 % of a CUDA device's free memory holds, at most `LARGEST`.

    Args:
        device: where the batch goes.
        bytes_per_bond: that the network needs.
        fixed: bytes it needs besides.
        otherwise: answer for a device whose free memory can't be asked.
    """
    if device.type != "cuda":
        return otherwise
    # What others use at this moment is not free; a fifth stays for fragments that the allocator can't join.
    free, _ = torch.cuda.mem_get_info(device)
    return int(np.clip((0.8 * free - fixed) / bytes_per_bond, 10_000, LARGEST))


def made_ahead(items: Iterable[Item], ahead: int = 2) -> Iterator[Item]:
    """The items, made in a thread of their own while the last ones are worked on: graphs while a device computes."""
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=ahead)
    left = threading.Event()

    def offer(what: tuple[str, Any]) -> bool:
        while not left.is_set():
            try:
                # Not for ever: the thread has to notice when whoever takes the items has stopped before the last.
                ready.put(what, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def make() -> None:
        try:
            for item in items:
                if not offer(("item", item)):
                    return
            offer(("end", None))
        # Whatever it was is raised where the items are taken; an error in a thread of its own would only be printed.
        except BaseException as error:
            offer(("error", error))

    threading.Thread(target=make, daemon=True).start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        left.set()
