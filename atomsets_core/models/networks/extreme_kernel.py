"""Largest and smallest entries over the sites of each structure, and where they stand."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from atomsets_core.compiled import compiled

Float32Array = npt.NDArray[np.float32]


@compiled
def find(
    values: Float32Array, starts: npt.NDArray[np.int64], sign: np.float32, out: Float32Array, at: npt.NDArray[np.int32]
) -> None:
    """The largest of sign * x; of equal ones the first, and NaN where there is one.

    Args:
        values: (members, n_sites, width), structure after structure.
        starts: (n + 1,) structure s has the sites starts[s]:starts[s + 1].
        sign: 1, or -1 for the smallest.
        out: (members, n, width), filled with the entries; -inf * sign for a structure without sites.
        at: (members, n, width), filled with the sites they are of; -1 for none.
    """
    members, _, width = values.shape
    for m in range(members):
        for s in range(len(starts) - 1):
            first, last = starts[s], starts[s + 1]
            if first == last:
                out[m, s, :] = -sign * np.inf
                at[m, s, :] = -1
                continue
            out[m, s, :] = values[m, first, :]
            at[m, s, :] = first
            for i in range(first + 1, last):
                for k in range(width):
                    # A choice of two values, no branch, so that the compiler takes many columns in one instruction. NaN
                    # is the one number unequal to itself; `compiled` leaves out the flag that would let it be assumed
                    # away.
                    value, best = values[m, i, k], out[m, s, k]
                    better = (sign * value > sign * best) | (value != value)
                    out[m, s, k] = value if better else best
                    at[m, s, k] = np.int32(i) if better else at[m, s, k]


@compiled
def spread(grad: Float32Array, at: npt.NDArray[np.int32], on_sites: Float32Array) -> None:
    """Give each entry's gradient to the site that it is of.

    Args:
        grad: (members, n, width).
        at: (members, n, width), from `find`.
        on_sites: (members, n_sites, width) of zeros, changed in place.
    """
    members, n, width = grad.shape
    for m in range(members):
        for s in range(n):
            for k in range(width):
                # Each entry has one site, so nothing is added up and the order of the work doesn't matter.
                if at[m, s, k] >= 0:
                    on_sites[m, at[m, s, k], k] = grad[m, s, k]
