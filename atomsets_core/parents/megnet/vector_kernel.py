"""Vector instructions for compiled loops: small matrix products, softplus and exp on float32.

Numba gives plain loops; what its compiler doesn't find by itself is written here in LLVM's vector types, which become
AVX-512, AVX2 or NEON on the machine at hand: a matrix product that keeps its sums in registers, and softplus as two
polynomials. Arrays are flat, row after row; each comes with the offset of its first number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_HOST = llvm.get_host_cpu_features()
LANES = 16 if _HOST.get("avx512f") else 8 if _HOST.get("avx2") else 4
"""Numbers in a vector register."""

ROWS = 6 if LANES == 8 else 12
"""Rows of a small product: 2 x ROWS sums stay in registers (of which AVX2 has 16, the others 32)."""

TABLE_WIDTH = 96
"""Columns of the table that the mixtures read."""

LN2 = math.log(2.0)

_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_VECTOR, _INT_VECTOR = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT, LANES)


def _fit(function: Callable[[Any], Any], low: float, high: float, degree: int) -> list[float]:
    """Coefficients, lowest first, of the polynomial through the Chebyshev points of an interval."""
    # Through the Chebyshev points the largest error is close to the least that a polynomial of this degree can have.
    series = np.polynomial.chebyshev.Chebyshev.interpolate(function, degree, [low, high])
    return [float(c) for c in series.convert(kind=np.polynomial.Polynomial).coef]


# e^r for |r| <= ln(2) / 2 to 1e-7. log(1 + y) / y instead of log(1 + y), so that small y keep their relative precision.
_EXP = _fit(np.exp, -LN2 / 2, LN2 / 2, 5)
_LOG1P = _fit(lambda y: np.log1p(y) / y, 1e-12, 1.0, 7)


# --- Vector instructions -----------------------------------------------------------------------------------------


def _constant(value: float) -> Any:
    return ir.Constant(_VECTOR, [float(np.float32(value))] * LANES)


def _call(b: Any, name: str, *args: Any) -> Any:
    signature = ir.FunctionType(_VECTOR, [_VECTOR] * len(args))
    return b.call(cgutils.get_or_insert_function(b.module, signature, f"llvm.{name}.v{LANES}f32"), args)


def _horner(b: Any, x: Any, coefficients: list[float]) -> Any:
    out = _constant(coefficients[-1])
    for c in coefficients[-2::-1]:
        out = _call(b, "fmuladd", out, x, _constant(c))
    return out


def _exp(b: Any, x: Any) -> Any:
    """e^x for x <= 0: 2^n e^r with |r| <= ln(2) / 2; relative error 1e-7, no underflow below 1e-38."""
    magic = _constant(1.5 * 2**23)  # adding it leaves the rounded integer in the lowest bits
    # e^-87 = 1.6e-38, just above the smallest normal float32.
    x = _call(b, "maxnum", x, _constant(-87.0))
    shifted = _call(b, "fmuladd", x, _constant(1 / LN2), magic)
    r = _call(b, "fmuladd", b.fsub(shifted, magic), _constant(-LN2), x)
    # n stands in the lowest bits; moved to the exponent and added there it multiplies by 2^n.
    bits = b.shl(b.bitcast(shifted, _INT_VECTOR), ir.Constant(_INT_VECTOR, [23] * LANES))
    return b.bitcast(b.add(b.bitcast(_horner(b, r, _EXP), _INT_VECTOR), bits), _VECTOR)


def _softplus(b: Any, x: Any) -> Any:
    """max(x, 0) + log(1 + e^-|x|), absolute error 2e-7 plus rounding."""
    # log(1 + e^x) = max(x, 0) + log(1 + e^-|x|): the exponential never overflows.
    y = _exp(b, b.fneg(_call(b, "fabs", x)))
    return _call(b, "fmuladd", y, _horner(b, y, _LOG1P), _call(b, "maxnum", x, _constant(0.0)))


def _at(context: Any, b: Any, kind: Any, array: Any, offset: Any) -> Any:
    return b.gep(context.make_array(kind)(context, b, array).data, [offset])


def _load(b: Any, pointer: Any, step: int = 0) -> Any:
    return b.load(b.bitcast(b.gep(pointer, [cgutils.intp_t(step)]), _VECTOR.as_pointer()), align=4)


def _store(b: Any, value: Any, pointer: Any, step: int = 0) -> None:
    b.store(value, b.bitcast(b.gep(pointer, [cgutils.intp_t(step)]), _VECTOR.as_pointer()), align=4)


def _splat(b: Any, scalar: Any) -> Any:
    one = b.insert_element(ir.Constant(_VECTOR, ir.Undefined), scalar, ir.Constant(_INT, 0))
    return b.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), ir.Constant(_INT_VECTOR, [0] * LANES))


def _elementwise(width: int, n_sources: int, operation: Callable[..., Any]) -> Any:
    """Intrinsic f(target, t0, source, s0, ...): target[t0 + j] = operation(...) for j below `width`."""

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        pointers = [_at(context, b, signature.args[i], args[i], args[i + 1]) for i in range(0, 2 * n_sources + 2, 2)]
        for step in range(0, width, LANES):
            _store(b, operation(b, *(_load(b, pointer, step) for pointer in pointers)), pointers[0], step)
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
        x, out = _at(context, b, kinds[0], args[0], args[1]), _at(context, b, kinds[5], args[5], args[6])
        weight, bias = (_at(context, b, kinds[2], args[2], args[i]) for i in (3, 4))
        zero, one = cgutils.intp_t(0), cgutils.intp_t(1)
        for column in range(0, n_out, panel * LANES):
            columns = [column + LANES * j for j in range(panel)]
            # For each k the weights of a panel are loaded once and multiplied with ROWS rows; 2 x ROWS independent sums
            # hide the delay of a fused multiply-add.
            start = [_load(b, bias, c) for c in columns] * ROWS
            entry, loop, done = b.block, b.append_basic_block("k"), b.append_basic_block("done")
            b.branch(loop)
            b.position_at_end(loop)
            k, sums = b.phi(cgutils.intp_t), [b.phi(_VECTOR) for _ in start]
            row = b.gep(weight, [b.mul(k, cgutils.intp_t(n_out))])
            weights = [_load(b, row, c) for c in columns]
            new = []
            # One input, spread over all lanes, is used for both vectors of the panel.
            for i, partial in enumerate(sums):
                if i % panel == 0:
                    value = _splat(b, b.load(b.gep(x, [b.add(k, cgutils.intp_t(i // panel * n_in))])))
                new.append(_call(b, "fmuladd", value, weights[i % panel], partial))
            after = b.add(k, one)
            for phi, first, later in zip([k, *sums], [zero, *start], [after, *new], strict=True):
                phi.add_incoming(first, entry)
                phi.add_incoming(later, loop)
            b.cbranch(b.icmp_signed("<", after, cgutils.intp_t(n_in)), loop, done)
            b.position_at_end(done)
            for i, total in enumerate(new):
                _store(b, total, out, i // panel * n_out + columns[i % panel])
        return context.get_dummy_value()

    def typed(context: Any, x: Any, x0: Any, w: Any, weight: Any, bias: Any, out: Any, out0: Any) -> Any:  # noqa: ARG001
        return types.void(x, types.intp, w, types.intp, types.intp, out, types.intp), generate

    return intrinsic(typed)


def _mixture(width: int, stride: int) -> Any:
    """Intrinsic f(target, t0, table, row, a, b, c, d): four rows, `stride` apart, summed with weights a to d."""

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        target = _at(context, b, signature.args[0], args[0], args[1])
        table = _at(context, b, signature.args[2], args[2], args[3])
        weights = [_splat(b, weight) for weight in args[4:]]
        for step in range(0, width, LANES):
            total = b.fmul(weights[0], _load(b, table, step))
            for i in (1, 2, 3):
                total = _call(b, "fmuladd", weights[i], _load(b, table, step + i * stride), total)
            _store(b, total, target, step)
        return context.get_dummy_value()

    def typed(context: Any, x: Any, x0: Any, t: Any, t0: Any, w0: Any, w1: Any, w2: Any, w3: Any) -> Any:  # noqa: ARG001
        return types.void(x, types.intp, t, types.intp, *[types.float32] * 4), generate

    return intrinsic(typed)


activate = _elementwise(LANES, 0, _softplus)
"""activate(x, i): LANES numbers become their softplus."""

activate_sum_64 = _elementwise(64, 2, lambda b, t, x, y: _softplus(b, b.fadd(b.fadd(t, x), y)))
"""activate_sum_64(t, i, x, j, y, k): 64 numbers t become softplus(t + x + y)."""

exponential = _elementwise(LANES, 0, _exp)
"""exponential(x, i): LANES numbers, none positive, become e^x."""

add_32 = _elementwise(32, 1, lambda b, t, x: b.fadd(t, x))
add_64 = _elementwise(64, 1, lambda b, t, x: b.fadd(t, x))
"""add_64(t, i, x, j): 64 numbers x are added to t."""

product_32_32, product_32_64 = _product(32, 32), _product(32, 64)
product_64_32, product_64_64, product_96_64 = _product(64, 32), _product(64, 64), _product(96, 64)
"""product_96_64(x, i, w, j, k, out, l): ROWS rows of x (96 wide) @ w[j:] + w[k:] (64 wide)."""

mix_64, mix_32 = _mixture(64, TABLE_WIDTH), _mixture(32, TABLE_WIDTH)
"""mix_64(target, i, table, j, a, b, c, d): 64 numbers of four consecutive rows of a table, summed with weights."""
