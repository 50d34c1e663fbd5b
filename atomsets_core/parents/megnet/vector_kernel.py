"""Vector instructions for compiled loops: small matrix products, softplus and exp on float32.

Numba gives plain loops; what its compiler doesn't find by itself is written here in LLVM's vector types, which become
AVX-512, AVX2 or NEON on the machine at hand: a matrix product that keeps its sums in registers, and softplus as two
polynomials. Arrays are flat, row after row; each comes with the offset of its first number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from atomsets_core.parents.lanes_kernel import (
    LANES,
    VECTOR,
    at,
    call,
    constant,
    exponential_of,
    fit,
    horner,
    load,
    multiply_add,
    splat,
    store,
)

ROWS = 6 if LANES == 8 else 12
"""Rows of a small product: 2 x ROWS sums stay in registers (of which AVX2 has 16, the others 32)."""

TABLE_WIDTH = 96
"""Columns of the table that the mixtures read."""

# log(1 + y) / y instead of log(1 + y), so that small y keep their relative precision.
_LOG1P = fit(lambda y: np.log1p(y) / y, 1e-12, 1.0, 7)


def _softplus(b: Any, x: Any) -> Any:
    """max(x, 0) + log(1 + e^-|x|), absolute error 2e-7 plus rounding."""
    # log(1 + e^x) = max(x, 0) + log(1 + e^-|x|): the exponential never overflows.
    y = exponential_of(b, b.fneg(call(b, "fabs", x)))
    return multiply_add(b, y, horner(b, y, _LOG1P), call(b, "maxnum", x, constant(0.0)))


def _elementwise(width: int, n_sources: int, operation: Callable[..., Any]) -> Any:
    """Intrinsic f(target, t0, source, s0, ...): target[t0 + j] = operation(...) for j below `width`."""

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        pointers = [at(context, b, signature.args[i], args[i], args[i + 1]) for i in range(0, 2 * n_sources + 2, 2)]
        for step in range(0, width, LANES):
            store(b, operation(b, *(load(b, pointer, step) for pointer in pointers)), pointers[0], step)
        return context.get_dummy_value()

    if n_sources == 0:

        def typed(context: Any, target: Any, t0: Any) -> Any:  # noqa: ARG001
            return types.void(target, types.intp), generate
    elif n_sources == 1:

        def typed(context: Any, target: Any, t0: Any, source: Any, s0: Any) -> Any:  # type: ignore[misc]  # noqa: ARG001
            return types.void(target, types.intp, source, types.intp), generate
    else:

        def typed(context: Any, target: Any, t0: Any, x: Any, x0: Any, y: Any, y0: Any) -> Any:  # type: ignore[misc]  # noqa: ARG001
            return types.void(target, types.intp, x, types.intp, y, types.intp), generate

    return intrinsic(typed)


def _product(n_in: int, n_out: int) -> Any:
    """Intrinsic f(x, x0, w, weight, bias, out, out0): ROWS rows of x @ w[weight:] + w[bias:]."""
    panel = min(2, n_out // LANES)

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        x, out = at(context, b, kinds[0], args[0], args[1]), at(context, b, kinds[5], args[5], args[6])
        weight, bias = (at(context, b, kinds[2], args[2], args[i]) for i in (3, 4))
        zero, one = cgutils.intp_t(0), cgutils.intp_t(1)
        for column in range(0, n_out, panel * LANES):
            columns = [column + LANES * j for j in range(panel)]
            # For each k the weights of a panel are loaded once and multiplied with ROWS rows; 2 x ROWS independent sums
            # hide the delay of a fused multiply-add.
            start = [load(b, bias, c) for c in columns] * ROWS
            entry, loop, done = b.block, b.append_basic_block("k"), b.append_basic_block("done")
            b.branch(loop)
            b.position_at_end(loop)
            k, sums = b.phi(cgutils.intp_t), [b.phi(VECTOR) for _ in start]
            row = b.gep(weight, [b.mul(k, cgutils.intp_t(n_out))])
            weights = [load(b, row, c) for c in columns]
            new = []
            # One input, spread over all lanes, is used for both vectors of the panel.
            for i, partial in enumerate(sums):
                if i % panel == 0:
                    value = splat(b, b.load(b.gep(x, [b.add(k, cgutils.intp_t(i // panel * n_in))])))
                new.append(multiply_add(b, value, weights[i % panel], partial))
            after = b.add(k, one)
            for phi, first, later in zip([k, *sums], [zero, *start], [after, *new], strict=True):
                phi.add_incoming(first, entry)
                phi.add_incoming(later, loop)
            b.cbranch(b.icmp_signed("<", after, cgutils.intp_t(n_in)), loop, done)
            b.position_at_end(done)
            for i, total in enumerate(new):
                store(b, total, out, i // panel * n_out + columns[i % panel])
        return context.get_dummy_value()

    def typed(context: Any, x: Any, x0: Any, w: Any, weight: Any, bias: Any, out: Any, out0: Any) -> Any:  # noqa: ARG001
        return types.void(x, types.intp, w, types.intp, types.intp, out, types.intp), generate

    return intrinsic(typed)


def _mixture(width: int, stride: int) -> Any:
    """Intrinsic f(target, t0, table, row, a, b, c, d): four rows, `stride` apart, summed with weights a to d."""

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        target = at(context, b, signature.args[0], args[0], args[1])
        table = at(context, b, signature.args[2], args[2], args[3])
        weights = [splat(b, weight) for weight in args[4:]]
        for step in range(0, width, LANES):
            total = b.fmul(weights[0], load(b, table, step))
            for i in (1, 2, 3):
                total = multiply_add(b, weights[i], load(b, table, step + i * stride), total)
            store(b, total, target, step)
        return context.get_dummy_value()

    def typed(context: Any, x: Any, x0: Any, t: Any, t0: Any, w0: Any, w1: Any, w2: Any, w3: Any) -> Any:  # noqa: ARG001
        return types.void(x, types.intp, t, types.intp, *[types.float32] * 4), generate

    return intrinsic(typed)


activate = _elementwise(LANES, 0, _softplus)
"""activate(x, i): LANES numbers become their softplus."""

activate_sum_64 = _elementwise(64, 2, lambda b, t, x, y: _softplus(b, b.fadd(b.fadd(t, x), y)))
"""activate_sum_64(t, i, x, j, y, k): 64 numbers t become softplus(t + x + y)."""

exponential = _elementwise(LANES, 0, exponential_of)
"""exponential(x, i): LANES numbers, none positive, become e^x."""

add_32 = _elementwise(32, 1, lambda b, t, x: b.fadd(t, x))
add_64 = _elementwise(64, 1, lambda b, t, x: b.fadd(t, x))
"""add_64(t, i, x, j): 64 numbers x are added to t."""

product_32_32, product_32_64 = _product(32, 32), _product(32, 64)
product_64_32, product_64_64, product_96_64 = _product(64, 32), _product(64, 64), _product(96, 64)
"""product_96_64(x, i, w, j, k, out, l): ROWS rows of x (96 wide) @ w[j:] + w[k:] (64 wide)."""

mix_64, mix_32 = _mixture(64, TABLE_WIDTH), _mixture(32, TABLE_WIDTH)
"""mix_64(target, i, table, j, a, b, c, d): 64 numbers of four consecutive rows of a table, summed with weights."""
