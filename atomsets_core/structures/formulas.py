"""Formulas as chemists write them: hydrates, whatever dot stands in them, and what can't be told from a cell."""

# ruff: noqa: RUF001  # characters that people write

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from pymatgen.core import Composition, Element

from atomsets_core.structures.batch import LARGEST_ATOMIC_NUMBER

_DOTS = "·•⋅∙・‧⸱●∗＊×*"
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_FRACTIONS = {"½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"}
_AMOUNT = r"(?:\d+/\d+|\d+(?:\.\d+)?)"
_WATER = r"(?:H2O|D2O|OH2|\((?:H2O|D2O)\)|\[(?:H2O|D2O)\])"
_PART = re.compile(rf"(?P<amount>{_AMOUNT})?\s*(?P<formula>\S.*)")
_UNCERTAIN_WATER = re.compile(rf"[.{re.escape(_DOTS)}]\s*\(?\s*(?:[nxyzm]|\d+-\d+)\s*\)?\s*{_WATER}")
_DOTTED_WATER = re.compile(
    rf"(?<![A-Za-z]0)\s*\.\s*(?P<amount>{_AMOUNT})?\s*(?P<water>{_WATER})(?=$|\s*[.{re.escape(_DOTS)}])"
)

_WATER_APART = re.compile(rf"\s*[xX:–+-]\s*(?P<amount>{_AMOUNT})\s*(?P<water>{_WATER})\s*$")
"""Water behind another sign than a dot, with its amount: CuSO4 x 5H2O, CuSO4-5H2O."""

_FRACTION = re.compile(r"(?<=[A-Za-z)\]])(\d{1,4})/([1-9]\d{0,3})(?![\d/])")
_MARKUP = re.compile(r"</?su[bp]>")
_SUBSCRIPT = re.compile(r"\$?_\{([\d.]+)\}\$?|\$_([\d.]+)\$|_([\d.]+)(?!\d)")

ADDUCTS = ("NH3", "CO2", "HCl", "HF", "H2O2", "C2H5OH", "CH3OH", "H2SO4", "HNO3", "SO3", "SO2")
"""Molecules that stand behind a dot as water does; a point before them may as well be a decimal one."""

OXIDES = ("SiO2", "Al2O3", "Fe2O3", "P2O5", "B2O3", "TiO2", "ZrO2", "CaO", "MgO", "Na2O", "K2O", "SO3", "N2O5",
          "MoO3", "WO3", "V2O5", "Nb2O5", "Ta2O5", "GeO2", "CrO3", "ZnO", "PbO", "BaO", "SrO", "TeO2")  # fmt: skip
"""The same after an oxide: Al2O3.2SiO2 is two oxides to a mineralogist."""

MISSING = {"NaN": "Na1N1", "None": "No1Ne1", "nan": "", "NA": "", "N/A": "", "null": "", "NULL": "", "none": ""}
"""Words for an empty cell, with the formula that some of them would be as well."""


_PLAIN_FORMULA = re.compile(r"(?:[A-Z][a-z]?(?:[1-9]\d{0,8})?)+")
_PLAIN_PART = re.compile(r"([A-Z][a-z]?)(\d*)")


@lru_cache(maxsize=1)
def _plain_elements() -> dict[str, int]:
    return {Element.from_Z(z).symbol: z for z in range(1, LARGEST_ATOMIC_NUMBER + 1)}


def plain_amounts(text: str) -> dict[int, float] | None:
    """Atomic number -> amount of a formula of symbols and whole numbers alone, ten times as fast as `parse_formula`.

    Returns:
        What `parse_formula` says of it; None for every other text.
    """
    written = text.strip()
    if written in MISSING or not _PLAIN_FORMULA.fullmatch(written):
        return None
    known, found = _plain_elements(), dict[int, float]()
    for symbol, amount in _PLAIN_PART.findall(written):
        number = known.get(symbol)
        if number is None:
            return None
        found[number] = found.get(number, 0.0) + (float(amount) if amount else 1.0)
    return found


def parse_formula(text: str) -> Composition:
    """The composition that a formula states; amounts in all its parts added up.

    A dot · • * between parts of an adduct is read, and a point where it can be nothing else: before water
    (CuSO4.5H2O) and between two capital letters (CaO.Al2O3).

    Raises:
        ValueError: it is no formula, or can be read in two ways; the message says which.
    """
    written = text.strip()
    if not written:
        raise ValueError("no formula")
    if written in MISSING:
        meant = MISSING[written]
        raise ValueError(
            f"no formula: the cell reads {written!r}" + (f" (for the compound write {meant})" if meant else "")
        )
    if (
        written.isascii() and written.isalnum() and "x" not in written
    ):  # most formulas; nothing in them can be read in two ways
        return _composition(written, written)
    plain = written.translate(_SUBSCRIPTS)
    for sign, fraction in _FRACTIONS.items():
        plain = plain.replace(sign, fraction)
    plain = _without_markup(plain)
    plain = _WATER_APART.sub(lambda found: f"·{found['amount']}{found['water']}", plain)
    plain = _FRACTION.sub(lambda found: f"{int(found[1]) / int(found[2]):.12g}", plain)
    if _UNCERTAIN_WATER.search(plain):
        raise ValueError(f"not a chemical formula: {written[:80]!r} (how much water isn't stated)")
    try:
        parts = _parts(plain)
        if parts == [(1, plain)]:
            return Composition(plain)
        total = Composition()
        for amount, formula in parts:
            total += Composition(formula) * float(amount)
    except Exception as error:
        raise ValueError(_not_a_formula(written, error)) from error
    return total


def _without_markup(text: str) -> str:
    """Without the signs of LaTeX and HTML that set amounts lower: Ba_{0.5}TiO_3, Fe<sub>2</sub>O<sub>3</sub>."""
    plain = _MARKUP.sub("", text) if "<sub>" in text else text
    if "_{" in plain or "$_" in plain:
        plain = _SUBSCRIPT.sub(lambda found: found[1] or found[2] or found[3], plain)
    return plain


def _composition(formula: str, written: str) -> Composition:
    try:
        return Composition(formula)
    except Exception as error:
        raise ValueError(_not_a_formula(written, error)) from error


_HINTS = (
    (re.compile(r"\s[a-z]+$|\([a-z]+\)$|-[a-z]{3,}$"), "a name behind the formula: leave it out"),
    (re.compile(r"^(?:[a-z]{1,5}|[α-ω]|\d[A-Z])-(?=[A-Z])"), "a name before the formula: leave it out"),
    (
        re.compile(r"(?:\^\{?|\()\s*\d*[+-]|[A-Za-z\d)\]]\s*\d*[+]\s*$|\([+-]|[⁺⁻]|\]\d*[+-]$|[a-z]\d*[+](?=[A-Z])"),
        "a charge: write the atoms alone",
    ),
    (re.compile(r"^[A-Z][a-z]?(?:-\d+(?:\.\d+)?[A-Z][a-z]?)+$"), "an alloy by weight: write atomic amounts"),
    (re.compile(r"\d+(?:[+±-]|[+±-][δxyz]|-d)(?:$|[A-Za-zδ(])"), "an amount that isn't stated: write a number for it"),
    (re.compile(r"\d,\d"), "write decimals with a point"),
    (re.compile(r"^\d+/\d+"), "write whole amounts, or decimals"),
    (re.compile(r"^\^?\[?\d+[A-Z][a-z]?\]?(?:[A-Z\d]|$)"), "digits before an element: leave them out"),
    (re.compile(r"\d-\d+(?:\.\d+)?[A-Z]|^\d*\.\d+[A-Z]"), "several compounds: write them as one formula"),
    (re.compile(r"[A-Za-z\d)]/[A-Z]"), "two compounds: give each a row"),
)
"""What a text that is no formula has in it, and what to do about it, the first that fits."""


def _not_a_formula(written: str, error: Exception) -> str:
    """Why a text isn't read as a formula, in words of the field where it is known; those of the parser otherwise."""
    hint = next((hint for pattern, hint in _HINTS if pattern.search(written)), str(error))
    return f"not a chemical formula: {written[:80]!r} ({hint})"


def _parts(text: str) -> list[tuple[Fraction, str]]:
    """How often each part of a formula counts, and its formula."""
    # water first: the digits before it are how often it comes, never the decimals of what stands before the point
    dotted = _DOTTED_WATER.sub(lambda found: f"·{found['amount'] or ''}{found['water']}", text)
    # a point before a capital letter has no decimals behind it
    dotted = re.sub(r"(?<=[\w)\]])\s*\.\s*(?=[A-Z(\[])", "·", dotted)
    pieces = [piece.strip() for piece in re.split(rf"\s*[{re.escape(_DOTS)}]\s*", dotted)]
    if len(pieces) == 1:
        _refuse_doubt(dotted)
        return [(Fraction(1), dotted)]
    found = []
    for piece in pieces:
        part = _PART.fullmatch(piece)
        if part is None:
            raise ValueError("nothing stands beside a dot")
        _refuse_doubt(part["formula"])
        found.append((Fraction(part["amount"]) if part["amount"] else Fraction(1), _bare(part["formula"])))
    return found


def _bare(formula: str) -> str:
    """Without square brackets around all of it."""
    around = formula.startswith("[") and formula.endswith("]") and formula.count("[") == 1
    return formula[1:-1] if around else formula


_DOUBTS = (
    re.compile(rf"[1-9]\d*\.(?P<amount>\d+)(?P<molecule>{'|'.join(ADDUCTS)})$"),
    re.compile(rf"O\d*\.(?P<amount>\d+)(?P<molecule>{'|'.join(OXIDES)})$"),
)


def _refuse_doubt(formula: str) -> None:
    for doubt in _DOUBTS:
        if found := doubt.search(formula):
            before = formula[: found.start("amount") - 1]
            meant = f"{before}·{found['amount']}{found['molecule']}"
            raise ValueError(f"write {meant}, or the amounts apart: the point may be a decimal one")
    if re.search(r"\.\d*H20$", formula):
        raise ValueError("H20 with a zero: water is H2O")
