"""SevenNet's convolution as one compiled loop over bonds: weights from a table, messages, their sum over neighbours.

Bonds are worked on in groups. The weights of a group's distinct lengths are interpolated first, into a buffer that
stays in the cache. Then a tile of bonds gets the matrices that turn the vectors of its neighbours into messages, and
each bond adds its messages to those of its centre: the neighbour's vectors stay in registers while all paths that
start from them are done. Nothing of a bond is ever written to memory but its share in the sums.

The instructions are written from `plan`, which knows all sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from atomsets_core.compiled import compiled
from atomsets_core.parents.lanes_kernel import LANES, REGISTERS, ahead, at, load, multiply_add, splat, store
from atomsets_core.parents.sevennet.plan import PAD, Path, Plan, plan

TILE = 4
"""Bonds whose matrices are made together, so that a coupling is loaded once for all of them."""

FINE, COARSE, BORDER = 0.005, 0.0125, 2.0
"""Angstrom between the knots of the table below and above BORDER Angstrom."""

FINE_KNOTS = round(BORDER / FINE)

KINDS = 4
"""Layers by what they read and make: 2 x (whether vectors of higher degree come in) + (whether they go out)."""


def plan_of(lmax: int, kind: int) -> Plan:
    """The plan of a kind of layer."""
    return plan(lmax, lmax * (kind // 2), lmax * (kind % 2))


# --- Instructions -------------------------------------------------------------------------------------------------


def _by_kind(b: Any, kind: Any, write: Callable[[int], None]) -> None:
    """One stretch of code for each kind of layer, the one at hand chosen when it runs."""
    done = b.append_basic_block("done")
    choice = b.switch(kind, done)
    for number in range(KINDS):
        block = b.append_basic_block("kind")
        choice.add_case(ir.Constant(kind.type, number), block)
        b.position_at_end(block)
        write(number)
        b.branch(done)
    b.position_at_end(done)


def _turn(lmax: int) -> Any:
    """Intrinsic f(kind, harmonics, h0, couplings, turn): fill the matrices of TILE bonds, from row h0 of harmonics."""
    width = (lmax + 1) ** 2

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        kinds, zero = signature.args, ir.Constant(args[2].type, 0)
        harmonics = at(context, b, kinds[1], args[1], args[2])
        couplings, turn = at(context, b, kinds[3], args[3], zero), at(context, b, kinds[4], args[4], zero)

        def write(kind: int) -> None:
            what = plan_of(lmax, kind)
            for l2, (first, size) in what.blocks.items():
                start = what.coupling_start(l2)
                with cgutils.for_range(b, cgutils.intp_t(size // (2 * LANES))) as loop:
                    column = b.mul(loop.index, cgutils.intp_t(2 * LANES))
                    source, target = b.gep(couplings, [column]), b.gep(turn, [column])
                    sums: list[Any] = [None] * (2 * TILE)
                    for m in range(2 * l2 + 1):
                        pair = [load(b, source, start + m * size + LANES * j) for j in (0, 1)]
                        for i in range(TILE):
                            value = splat(b, b.load(ahead(b, harmonics, i * width + l2**2 + m)))
                            for j in (0, 1):
                                k = 2 * i + j
                                sums[k] = b.fmul(value, pair[j]) if m == 0 else multiply_add(b, value, pair[j], sums[k])
                    for k, total in enumerate(sums):
                        store(b, total, target, k // 2 * what.turns + first + k % 2 * LANES)

        _by_kind(b, args[0], write)
        return context.get_dummy_value()

    def typed(context: Any, kind: Any, harmonics: Any, h0: Any, couplings: Any, turn: Any) -> Any:  # noqa: ARG001
        return types.void(types.intp, harmonics, types.intp, couplings, turn), generate

    return intrinsic(typed)


def _bond(lmax: int) -> Any:
    """Intrinsic f(kind, atoms, n, j, weights, w0, turn, t0, sums, m, i): add the messages of a bond to atom i of m.

    Args of the intrinsic: `atoms` are the vectors of n atoms, degree after degree, of which j is the neighbour; `sums`
    are the messages of m atoms in the same order.
    """

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        kinds, zero = signature.args, cgutils.intp_t(0)
        atoms, sums = at(context, b, kinds[1], args[1], zero), at(context, b, kinds[8], args[8], zero)
        weights, turn = at(context, b, kinds[4], args[4], args[5]), at(context, b, kinds[6], args[6], args[7])

        def rows_of(base: Any, n: Any, row: Any, before: int, size: int) -> Any:
            """The numbers of one atom in the block of a degree."""
            offset = b.add(b.mul(n, cgutils.intp_t(before)), b.mul(row, cgutils.intp_t(size)))
            return b.gep(base, [offset])

        def write(kind: int) -> None:
            what = plan_of(lmax, kind)
            targets = [
                rows_of(sums, args[9], args[10], what.message_size(k), (2 * k + 1) * width)
                for k, width in enumerate(what.widths)
            ]
            for l1, channels in enumerate(what.channels):
                x = rows_of(atoms, args[2], args[3], what.atom_size(l1), (2 * l1 + 1) * channels)
                paths = [path for path in what.paths if path.l1 == l1]
                # As many channels at once as there are registers for, each for all components.
                panel = channels // LANES
                while (2 * l1 + 3) * panel > REGISTERS - 4:
                    panel //= 2
                for first in range(0, channels, panel * LANES):
                    steps = [first + LANES * p for p in range(panel)]
                    vectors = [[load(b, x, m * channels + step) for step in steps] for m in range(2 * l1 + 1)]
                    for path in paths:
                        target = ahead(b, targets[path.l3], path.column)
                        _path(b, path, what.widths[path.l3], vectors, steps, weights, turn, target)

        _by_kind(b, args[0], write)
        return context.get_dummy_value()

    def typed(
        context: Any,  # noqa: ARG001
        kind: Any,  # noqa: ARG001
        atoms: Any,
        n: Any,  # noqa: ARG001
        j: Any,  # noqa: ARG001
        weights: Any,
        w0: Any,  # noqa: ARG001
        turn: Any,
        t0: Any,  # noqa: ARG001
        sums: Any,
        m: Any,  # noqa: ARG001
        i: Any,  # noqa: ARG001
    ) -> Any:
        i8 = types.intp
        return types.void(i8, atoms, i8, i8, weights, i8, turn, i8, sums, i8, i8), generate

    return intrinsic(typed)


def _path(
    b: Any, path: Path, width: int, vectors: list[list[Any]], steps: list[int], weights: Any, turn: Any, target: Any
) -> None:
    """Add the messages of one path: sum over m1 of T_(m3, m1) x_m1, times the weight of each channel."""
    weight = [load(b, weights, path.weight + step) for step in steps]
    components = 2 * path.l1 + 1
    if path.l2 == 0:
        # The harmonic of degree 0 is 1: the vectors themselves.
        for m, vector in enumerate(vectors):
            for step, x, w in zip(steps, vector, weight, strict=True):
                store(b, multiply_add(b, x, w, load(b, target, m * width + step)), target, m * width + step)
        return
    # Either the vectors or the messages get the weight, whichever are fewer.
    before = path.rows > components and 2 * components * len(steps) + 4 <= REGISTERS
    if before:
        vectors = [[b.fmul(x, w) for x, w in zip(vector, weight, strict=True)] for vector in vectors]
    for row in range(path.rows):
        places = [row * width + step for step in steps]
        values = [splat(b, b.load(ahead(b, turn, path.turn + row * components + m))) for m in range(components)]
        if before:
            total = [load(b, target, place) for place in places]
            for value, vector in zip(values, vectors, strict=True):
                total = [multiply_add(b, x, value, partial) for x, partial in zip(vector, total, strict=True)]
        else:
            total = [b.fmul(x, values[0]) for x in vectors[0]]
            for value, vector in zip(values[1:], vectors[1:], strict=True):
                total = [multiply_add(b, x, value, partial) for x, partial in zip(vector, total, strict=True)]
            total = [
                multiply_add(b, message, w, load(b, target, place))
                for message, w, place in zip(total, weight, places, strict=True)
            ]
        for message, place in zip(total, places, strict=True):
            store(b, message, target, place)


def _mix() -> Any:
    """Intrinsic f(out, o0, table, t0, n, a, b, c, d): four rows of n numbers, summed with these factors."""

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        kinds, n = signature.args, args[4]
        out, table = at(context, b, kinds[0], args[0], args[1]), at(context, b, kinds[2], args[2], args[3])
        factors = [splat(b, factor) for factor in args[5:]]
        rows = [b.gep(table, [b.mul(n, cgutils.intp_t(k))]) for k in range(4)]
        with cgutils.for_range(b, b.udiv(n, cgutils.intp_t(PAD))) as loop:
            column = b.mul(loop.index, cgutils.intp_t(PAD))
            for step in range(0, PAD, LANES):
                total = b.fmul(factors[0], load(b, b.gep(rows[0], [column]), step))
                for factor, row in zip(factors[1:], rows[1:], strict=True):
                    total = multiply_add(b, factor, load(b, b.gep(row, [column]), step), total)
                store(b, total, b.gep(out, [column]), step)
        return context.get_dummy_value()

    def typed(context: Any, out: Any, o0: Any, table: Any, t0: Any, n: Any, a: Any, b: Any, c: Any, d: Any) -> Any:  # noqa: ARG001
        return types.void(out, types.intp, table, types.intp, types.intp, *[types.float32] * 4), generate

    return intrinsic(typed)


_turn_2, _turn_3, _bond_2, _bond_3, _mixture = _turn(2), _turn(3), _bond(2), _bond(3), _mix()


# --- Loops --------------------------------------------------------------------------------------------------------


@compiled
def _weigh(table: Any, columns: int, lengths: Any, first: int, last: int, weights: Any) -> None:
    """Fill weights (last - first, columns): cubic Hermite interpolation between the knots of the table."""
    for k in range(first, last):
        # In float64: float32 would leave the share of a step to four digits.
        length = float(lengths[k])
        if length < BORDER:
            step, before, position = FINE, 0, length / FINE
        else:
            step, before, position = COARSE, FINE_KNOTS, (length - BORDER) / COARSE
        knot = min(int(position), len(table) // (2 * columns) - 2 - before)
        t = position - knot
        s = 1.0 - t
        # Rows of a knot: the value, and the slope times the step that follows; where steps change two knots meet.
        _mixture(
            weights,
            (k - first) * columns,
            table,
            2 * (knot + before) * columns,
            columns,
            np.float32(s * s * (1.0 + 2.0 * t)),
            np.float32(step * t * s * s),
            np.float32(t * t * (3.0 - 2.0 * t)),
            np.float32(-step * t * t * s),
        )


@compiled
def convolve_2(
    kind: int,
    first: int,
    last: int,
    bonds: Any,
    neighbour: Any,
    centre: Any,
    slot: Any,
    distinct: Any,
    lengths: Any,
    harmonics: Any,
    couplings: Any,
    turns: int,
    table: Any,
    columns: int,
    atoms: Any,
    n_atoms: int,
    sums: Any,
    n_sums: int,
    first_atom: int,
    weights: Any,
) -> None:
    """Add the messages of the bonds of groups `first` to `last` to the sums of their centres; harmonics to degree 2.

    Args:
        kind: of the layer, see KINDS.
        first: group to begin with.
        last: the group after the last.
        bonds: (groups + 1,) int64, first bond of each group.
        neighbour: (n_bonds,) int64.
        centre: (n_bonds,) int64.
        slot: (n_bonds,) int64, which of its group's distinct lengths a bond has.
        distinct: (groups + 1,) int64, first distinct length of each group.
        lengths: (n_lengths,) float32, Angstrom.
        harmonics: (n_bonds + TILE, 9) float32, flat.
        couplings: float32, flat: for each block of the plan (2 l2 + 1, size).
        turns: of the plan.
        table: (knots, 2, columns) float32, flat: weights and their slopes.
        columns: of the plan.
        atoms: float32, flat: for each degree (n_atoms, 2l + 1, channels).
        n_atoms: rows of them.
        sums: float32, flat, added to: for each degree (n_sums, 2l + 1, width).
        n_sums: rows of them.
        first_atom: that row 0 of the sums belongs to.
        weights: float32, room for the weights of the distinct lengths of a group.
    """
    turn = np.empty(TILE * turns + PAD, np.float32)
    for group in range(first, last):
        _weigh(table, columns, lengths, distinct[group], distinct[group + 1], weights)
        for start in range(bonds[group], bonds[group + 1], TILE):
            _turn_2(kind, harmonics, 9 * start, couplings, turn)
            for i in range(min(TILE, bonds[group + 1] - start)):
                k = start + i
                at_slot, row = slot[k] * columns, centre[k] - first_atom
                _bond_2(kind, atoms, n_atoms, neighbour[k], weights, at_slot, turn, i * turns, sums, n_sums, row)


@compiled
def convolve_3(
    kind: int,
    first: int,
    last: int,
    bonds: Any,
    neighbour: Any,
    centre: Any,
    slot: Any,
    distinct: Any,
    lengths: Any,
    harmonics: Any,
    couplings: Any,
    turns: int,
    table: Any,
    columns: int,
    atoms: Any,
    n_atoms: int,
    sums: Any,
    n_sums: int,
    first_atom: int,
    weights: Any,
) -> None:
    """The same with harmonics to degree 3, (n_bonds + TILE, 16)."""
    turn = np.empty(TILE * turns + PAD, np.float32)
    for group in range(first, last):
        _weigh(table, columns, lengths, distinct[group], distinct[group + 1], weights)
        for start in range(bonds[group], bonds[group + 1], TILE):
            _turn_3(kind, harmonics, 16 * start, couplings, turn)
            for i in range(min(TILE, bonds[group + 1] - start)):
                k = start + i
                at_slot, row = slot[k] * columns, centre[k] - first_atom
                _bond_3(kind, atoms, n_atoms, neighbour[k], weights, at_slot, turn, i * turns, sums, n_sums, row)


@compiled
def harmonics_of(vector: Any, lmax: int, out: Any) -> None:
    """Fill rows of `out` with the spherical harmonics of bonds up to degree 2 or 3, each degree of norm sqrt(2l + 1).

    Args:
        vector: (n, 3) float64, of any length but 0.
        lmax: 2 or 3.
        out: (more than n, (lmax + 1)^2) float32, in e3nn's order: y is the polar axis.
    """
    for i in range(len(vector)):
        norm = 1.0 / math.sqrt(vector[i, 0] ** 2 + vector[i, 1] ** 2 + vector[i, 2] ** 2)
        x, y, z = vector[i, 0] * norm, vector[i, 1] * norm, vector[i, 2] * norm
        across, xz, zz = x * x + z * z, math.sqrt(3.0) * x * z, 0.5 * math.sqrt(3.0) * (z * z - x * x)
        row = out[i]
        row[0], row[1], row[2], row[3] = 1.0, math.sqrt(3.0) * x, math.sqrt(3.0) * y, math.sqrt(3.0) * z
        row[4], row[5] = math.sqrt(5.0) * xz, math.sqrt(15.0) * x * y
        row[6] = math.sqrt(5.0) * (y * y - 0.5 * across)
        row[7], row[8] = math.sqrt(15.0) * y * z, math.sqrt(5.0) * zz
        if lmax == 3:
            row[9] = math.sqrt(35.0 / 6.0) * (xz * z + zz * x)
            row[10] = math.sqrt(35.0) * xz * y
            row[11] = math.sqrt(21.0 / 8.0) * (4.0 * y * y - across) * x
            row[12] = 0.5 * math.sqrt(7.0) * y * (2.0 * y * y - 3.0 * across)
            row[13] = math.sqrt(21.0 / 8.0) * (4.0 * y * y - across) * z
            row[14] = math.sqrt(35.0) * zz * y
            row[15] = math.sqrt(35.0 / 6.0) * (zz * z - xz * x)
