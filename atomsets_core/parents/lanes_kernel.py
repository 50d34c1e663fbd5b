"""Vector registers for compiled loops: what the intrinsics of the networks' kernels are written with.

Numba gives plain loops; what its compiler doesn't find by itself is written in LLVM's vector types, which become
AVX-512, AVX2 or NEON on the machine at hand. These functions write instructions; the loops around them stand in the
kernels of the networks. Arrays are flat, row after row, float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba.core import cgutils

_HOST = llvm.get_host_cpu_features()
LANES = 16 if _HOST.get("avx512f") else 8 if _HOST.get("avx2") else 4
"""Numbers in a vector register."""

REGISTERS = 16 if LANES == 8 else 32
"""Vector registers: AVX2 has 16, AVX-512 and NEON 32."""

LN2 = math.log(2.0)

INT = ir.IntType(32)
VECTOR, INT_VECTOR = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(INT, LANES)


def fit(function: Callable[[Any], Any], low: float, high: float, degree: int) -> list[float]:
    """Coefficients, lowest first, of the polynomial through the Chebyshev points of an interval."""
    # Through the Chebyshev points the largest error is close to the least that a polynomial of this degree can have.
    series = np.polynomial.chebyshev.Chebyshev.interpolate(function, degree, [low, high])
    return [float(c) for c in series.convert(kind=np.polynomial.Polynomial).coef]


# e^r for |r| <= ln(2) / 2 to 1e-7.
_EXP = fit(np.exp, -LN2 / 2, LN2 / 2, 5)


def constant(value: float) -> Any:
    """A vector of one number."""
    return ir.Constant(VECTOR, [float(np.float32(value))] * LANES)


def call(b: Any, name: str, *args: Any) -> Any:
    """LLVM's own function `name` of vectors."""
    signature = ir.FunctionType(VECTOR, [VECTOR] * len(args))
    return b.call(cgutils.get_or_insert_function(b.module, signature, f"llvm.{name}.v{LANES}f32"), args)


def multiply_add(b: Any, x: Any, y: Any, z: Any) -> Any:
    """The vector x y + z in one instruction."""
    return call(b, "fmuladd", x, y, z)


def horner(b: Any, x: Any, coefficients: list[float]) -> Any:
    """The polynomial of a vector, coefficients lowest first."""
    out = constant(coefficients[-1])
    for c in coefficients[-2::-1]:
        out = multiply_add(b, out, x, constant(c))
    return out


def exponential_of(b: Any, x: Any) -> Any:
    """e^x for x <= 0: 2^n e^r with |r| <= ln(2) / 2; relative error 1e-7, no underflow below 1e-38."""
    magic = constant(1.5 * 2**23)  # adding it leaves the rounded integer in the lowest bits
    # e^-87 = 1.6e-38, just above the smallest normal float32.
    x = call(b, "maxnum", x, constant(-87.0))
    shifted = multiply_add(b, x, constant(1 / LN2), magic)
    r = multiply_add(b, b.fsub(shifted, magic), constant(-LN2), x)
    # n stands in the lowest bits; moved to the exponent and added there it multiplies by 2^n.
    bits = b.shl(b.bitcast(shifted, INT_VECTOR), ir.Constant(INT_VECTOR, [23] * LANES))
    return b.bitcast(b.add(b.bitcast(horner(b, r, _EXP), INT_VECTOR), bits), VECTOR)


def at(context: Any, b: Any, kind: Any, array: Any, offset: Any) -> Any:
    """Pointer to a number of a numba array."""
    return b.gep(context.make_array(kind)(context, b, array).data, [offset])


def ahead(b: Any, pointer: Any, numbers: int) -> Any:
    """Pointer so many numbers further on."""
    return b.gep(pointer, [cgutils.intp_t(numbers)])


def load(b: Any, pointer: Any, step: int = 0) -> Any:
    """The vector `step` numbers behind a pointer."""
    return b.load(b.bitcast(ahead(b, pointer, step), VECTOR.as_pointer()), align=4)


def store(b: Any, value: Any, pointer: Any, step: int = 0) -> None:
    """Write a vector `step` numbers behind a pointer."""
    b.store(value, b.bitcast(ahead(b, pointer, step), VECTOR.as_pointer()), align=4)


def splat(b: Any, scalar: Any) -> Any:
    """One number in every lane."""
    one = b.insert_element(ir.Constant(VECTOR, ir.Undefined), scalar, ir.Constant(INT, 0))
    return b.shuffle_vector(one, ir.Constant(VECTOR, ir.Undefined), ir.Constant(INT_VECTOR, [0] * LANES))
