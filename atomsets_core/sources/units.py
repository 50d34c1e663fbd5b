"""Units as people write them behind a number or beside a column's name: which are known, and what one is in another."""

# ruff: noqa: RUF001  # characters that people write

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

_DEFINITIONS = (
    "atom = [atom] = at",
    "formula_unit = [formula_unit] = fu",
    "site = [site]",
    "cell = [cell]",
    "bohr_magnetons = bohr_magneton",
)
"""What materials science counts by, beside what pint knows."""

_SPELLINGS = (
    (re.compile(r"\b[gG][pP][aA]\b"), "GPa"),
    (re.compile(r"\b[eE][vV]\b"), "eV"),
    (re.compile(r"\b(?:Hartree|Rydberg|Bohr|Angstrom)s?\b"), lambda found: found.group().lower().rstrip("s")),
    (re.compile(r"\bWm(?=[-−^⁻])"), "W m"),
    (re.compile(r"(?<=[-−⁻][1-4¹²³⁴])(?=[A-Z])"), " "),
    (re.compile(r"/\s*(c?m)\s?[-.·⋅*]?\s?K(?:\^?(2)|(²))?(?!\w)"), lambda found: _below(found)),
    (re.compile(r"/(\w+)-([A-Za-z]\w*)$"), r"/(\1*\2)"),
    (re.compile(r"(?<=[A-Za-z])-(?=c?m\b)"), "*"),
    (re.compile(r"(?<=Pa)[ .·⋅*]?(?:√\s?\(?m\)?|m\^?\(?(?:1/2|½)\)?)"), "*m^0.5"),
    (re.compile(r"(?<=eV/)A\b"), "angstrom"),
    (re.compile(r"\bf\.\s?u\.?"), "fu"),
    (re.compile(r"\bformula[ _]units?\b"), "fu"),
    (re.compile(r"\b(?:at|wt|vol|mol)\.?\s?%|[%‰]"), lambda found: "permille" if "‰" in found.group() else "percent"),
    (re.compile(r"[µμ]_?B\b|\bmu_?B\b"), "bohr_magneton"),
    (re.compile(r"[µμ]"), "µ"),
    (re.compile(r"Å|Å|\bAng\b|\bA(?=\^?-?[23]\b)"), "angstrom"),
    (re.compile(r"\bHa\b"), "hartree"),
    (re.compile(r"[Ωℰ]"), "ohm"),
    (re.compile(r"[·⋅∙×]"), "*"),
)
"""Pattern -> what pint calls it. An A with a power is taken for the length: nobody has squares of amperes.

GPA and ev are slips of the keyboard; W/mK, W/m-K and W/m.K all mean W/(m K), and never a millikelvin.
"""

NO_UNITS = frozenset({"a", "b", "c", "d", "B/G", "G/B", "K/G", "G/K", "c/a", "b/a"})
"""Behind a column's name these are marks and ratios, though each could be a unit."""

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")

LONGEST = 30
"""Characters of a unit; what is longer is none."""


@lru_cache(maxsize=1)
def _registry() -> Any:
    import pint  # takes a second

    registry: Any = pint.UnitRegistry(cache_folder=None)
    for definition in _DEFINITIONS:
        if definition.split(" ")[0] not in registry:
            registry.define(definition)
    return registry


def _below(found: re.Match[str]) -> str:
    """Metres and kelvins that both stand below the line."""
    return f"/({found[1]}*K{'**2' if found[2] or found[3] else ''})"


def _for_pint(text: str) -> str:
    for pattern, spelling in _SPELLINGS:
        text = pattern.sub(spelling, text)  # type: ignore[arg-type]  # texts and functions, both of which re takes
    text = re.sub(r"(?<=[^\W\d_])\s*([⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+)", lambda found: found.group(1).translate(_SUPERSCRIPTS), text)
    return re.sub(r"(?<=[^\W\d_])([-+−]?\d+)", r"**\1", text.replace("^", "").replace("−", "-")).strip()


@lru_cache(maxsize=1024)
def _unit(text: str) -> Any:
    """The unit of pint; None for what is none."""
    plain = re.sub(r"[${}]", "", text).strip()
    if re.match(r"\d+(?:\.\d*)?[eE^-]", plain):  # a power of ten is no unit
        return None
    if not plain or len(plain) > LONGEST or not re.search(r"[^\W\d_]|%|‰|°", plain):
        return None
    if not re.fullmatch(r"(?!\()[\w\s./*^()%‰°√½·⋅∙×−+⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺-]+", plain) or re.search(r"\d{3}", plain):
        return None
    words = _for_pint(plain)
    # parts beside each other are multiplied: W m-1 K-1
    for spelling in (words, re.sub(r"(?<=[\w)])\s+(?=[\w(])", " * ", words)):
        try:
            return _registry().Unit(spelling)
        except Exception:  # noqa: S112  # pint raises whatever its reading of a text raises
            continue
    return None


def is_unit(text: str) -> bool:
    """Whether this is a unit: "eV", "W/(m K)", "W m-1 K-1", "g/cm3", "eV/atom", "%"."""
    return _unit(text) is not None


def factor(one: str, other: str) -> float | None:
    """What a value in `one` is multiplied with to be in `other`; None where they don't measure the same.

    Units with a zero of their own (°C) have no factor to others.
    """
    first, second = _unit(one), _unit(other)
    if first is None or second is None:
        return None
    if one.strip() == other.strip() or first == second:
        return 1.0
    registry = _registry()
    try:
        zero = registry.Quantity(0.0, first).to(second).magnitude
        step = registry.Quantity(1.0, first).to(second).magnitude
    except Exception:  # pint's: other dimensions, logarithmic units
        return None
    return float(step) if zero == 0 and step > 0 else None


_WRITTEN_OUT = r"m?eV(?:[/_](?:per_)?atom)?|GPa|MPa|kbar|THz|cm-1|[aA]ng(?:strom)?"

_IN_A_NAME = (
    re.compile(r"^(?P<name>.*?\S)\s*\[(?:in )?(?P<unit>[^\[\]]+)\](?P<rest>[,\s]+[^\[\]()]+)?$"),
    re.compile(r"^(?P<name>.*?\S)\s*\((?:in )?(?P<unit>[^()]*(?:\([^()]*\)[^()]*)*)\)(?P<rest>[,\s]+[^\[\]()]+)?$"),
    re.compile(r"^(?P<name>.*?\S)\s*[{<](?P<unit>[^{}<>]+)[}>](?P<rest>)$"),
    re.compile(r"^(?P<name>.*?\S)\s+/\s+(?P<unit>\S.*)(?P<rest>)$"),
    re.compile(r"^(?P<name>.*?\S)\s*,\s+(?P<unit>\S.*)(?P<rest>)$"),
    re.compile(r"^(?P<name>.*?\S)\s+in\s+(?P<unit>\S.*)(?P<rest>)$"),
    re.compile(rf"^(?P<name>.*?[^\W_])_(?P<unit>{_WRITTEN_OUT})(?P<rest>)$"),
)
"""K (GPa), gap [eV], "gap (eV), PBE", gap {eV}, gap / eV, "gap, eV", gap in eV, gap_eV."""


def name_and_unit(column: str) -> tuple[str, str]:
    """The name of a column without the unit that stands behind it, and that unit ("" where there is none)."""
    for pattern in _IN_A_NAME:
        found = pattern.match(column.strip())
        if found is None:
            continue
        unit = re.sub(r"_(?:per_)?atom$", "/atom", found["unit"].strip())
        if unit not in NO_UNITS and is_unit(unit):
            return f"{found['name'].strip()}{found['rest'] or ''}", unit
    return column.strip(), ""
