"""The parent that knows nothing: one-hot elements, for the same networks without transfer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from pymatgen.core import Composition

from atomsets_core.parents import About, Features, Parent, featurize_batches, levels_about, register_parent
from atomsets_core.structures import LARGEST_ATOMIC_NUMBER, Structures

NAME, LEVEL = "elements", "one-hot"
TABLE = np.eye(LARGEST_ATOMIC_NUMBER + 1, dtype=np.float32)

ABOUT = About(
    title="one-hot elements",
    described="the elements, one of n",
    uncited="it is which element an atom is",
    licence="BSD 3-Clause, part of this package",
    trained_on="nothing: which element an atom is",
    overlap="One-hot elements know nothing of these structures or labels.",
    takes="the elements alone, all of them",
    levels=levels_about({LEVEL: TABLE.shape[1]}, {}, {LEVEL: "the element, as one of n"}, of_elements=()),
)


@dataclass(frozen=True)
class Elements:
    """One-hot elements as a parent: no weights, so whatever a model knows of an element it has learned itself."""

    name: str = NAME
    digest: str = "one-hot-elements"
    site_levels: dict[str, int] = field(default_factory=lambda: {LEVEL: TABLE.shape[1]})
    structure_levels: dict[str, int] = field(default_factory=dict)
    default_levels: tuple[str, ...] = (LEVEL,)

    def featurize(self, structures: Structures, levels: Sequence[str] | None = None) -> Features:
        """One-hot vectors of the elements on every site; nothing is refused, see `Parent.featurize`."""
        return featurize_batches(
            self,
            structures,
            levels,
            covered=np.arange(len(TABLE)) > 0,
            compute=lambda *_: iter(()),
            embedding={LEVEL: TABLE},
        )


def _load(device: str) -> Parent:  # noqa: ARG001  # there is nothing to put on a device
    return Elements()


register_parent(NAME, _load, ABOUT)


def element_sets(formula: npt.NDArray[np.object_]) -> Features:
    """One-hot features of (n,) reduced formulas, a site for each atom of the formula."""
    parts = [Composition(str(text)).reduced_composition.items() for text in formula]
    atoms = [[element.Z for element, amount in part for _ in range(round(amount))] for part in parts]
    counts = np.array([len(sites) for sites in atoms], dtype=np.int64)
    numbers = np.array([z for sites in atoms for z in sites], dtype=np.int64)
    return Features(
        material_id=formula,
        structure_hash=formula,
        formula=formula,
        n_atoms=counts,
        sites={LEVEL: TABLE[numbers]},
        structure={},
        digest=Elements().digest,
    )
