"""Columns of text read as numbers: decided by the whole column, with a reason for each cell that can't be read.

A cell alone often says too little: "1,526" is a thousand and more to some and less than two to others. What the other
cells of the column (and of the table) show decides; where nothing does, the cell is refused and never guessed.
"""

# ruff: noqa: RUF001  # characters that people write

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from atomsets_core.sources.units import factor, is_unit

Mark = Literal["point", "comma", ""]
"""The decimal mark of a table as a whole; "" where nothing shows it."""

LONGEST = 80
"""Characters of a cell that can be a number."""

MISSING = frozenset(
    {"", "#n/a", "#n/a n/a", "#na", "-1.#ind", "-1.#qnan", "-nan", "1.#ind", "1.#qnan", "<na>", "n/a", "null", "nan"}
)
"""Words for an empty cell, in lower case, with NA and None below: those that pandas and other programs write."""

_MISSING_AS_WRITTEN = frozenset({"NA", "None"})

WORDS = frozenset({"na", "none", "-", "--", "---", "–", "—", "?", ".", "..", "...", "x", "/", "n.a.", "n.a", "nd",
                   "n.d.", "n.d", "tbd", "unknown", "missing", "not available", "not measured"})  # fmt: skip
"""What people write instead of a number; read as no number, and not counted as text either."""

_SPACES = re.compile(r"[\s\u00a0\u2007\u2009\u202f]+")
_MINUS = str.maketrans({"−": "-", "‐": "-", "‑": "-", "＋": "+"})
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")

_NUMBER = r"[+-]?\s?(?:\d[\d.,'’ ]*|[.,]\d+)"
_EXPONENT = (
    r"(?:\s*[eEdD](?P<{0}power>[+-]?\d{{1,4}})(?![\d.,])"
    r"|\s*[x×*·⋅]\s*10(?:\s*(?:\^|\*\*)\s*[{{(]?\s*(?P<{0}caret>[+-]?\d{{1,3}})[}})]?|(?P<{0}signed>[+-]\d{{1,3}})"
    r"|(?P<{0}raised>[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]{{1,3}})))?"
)
_CELL = re.compile(
    rf"(?P<open>\()?(?P<number>{_NUMBER}){_EXPONENT.format('a')}"
    rf"(?:\s?\((?P<last>\d+(?:[.,]\d+)?)\))?"
    rf"(?:\s*(?:±|\+\s?/\s?-|\+-|\\pm)\s*(?P<error>{_NUMBER}){_EXPONENT.format('b')})?"
    rf"(?P<close>\))?{_EXPONENT.format('c')}\s*(?:(?P<unit>[^\d\s,.;()\[\]].*)|[(\[](?P<bracketed>[^\d\s,.;()\[\]][^()\[\]]*)[)\]])?"
)
_WRAPPED = re.compile(r'="(?P<text>[^"]*)"|\$(?P<formula>[^$]*)\$')
"""What keeps a spreadsheet from changing a cell, and LaTeX."""
_BOUND = re.compile(r"(?:[<>≤≥≲≳]|&[lg]t;)=?\s*[+-]?[\d.,]")
_FOOTNOTES = frozenset("abcdefABDE*")
"""Behind a number these are marks of footnotes far more often than units."""
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}.*")


@dataclass(frozen=True)
class Numbers:
    """What a column of n cells came to.

    Attributes:
        values: (n,) float64, NaN where a cell is empty or can't be read.
        errors: (n,) float64, standard uncertainties that stand in the cells, NaN where there is none; None for a
            column without any.
        reasons: (n,) str, why a cell that isn't empty can't be read, "" for all others.
        unit: that stands in every cell; "" where none does.
        how: of cells that aren't plain numbers, how they were read; "" for plain ones.
    """

    values: npt.NDArray[np.float64]
    errors: npt.NDArray[np.float64] | None
    reasons: npt.NDArray[np.object_]
    unit: str = ""
    how: str = ""


@dataclass(frozen=True)
class _Cell:
    """A cell taken apart; `number` and `error` still as they are written."""

    text: str
    number: str
    power: int
    unit: str
    error: str
    error_power: int
    last_digits: bool


def is_missing(value: Any) -> bool:
    """Whether a cell is empty, or holds a word for that which programs write."""
    if isinstance(value, str):
        text = value.strip()
        return text.lower() in MISSING or text in _MISSING_AS_WRITTEN
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value)


def read_numbers(cells: pd.Series, mark: Mark = "") -> Numbers:
    """The numbers of a column.

    Args:
        cells: (n,) numbers, texts or anything else.
        mark: the decimal mark of the table; decides where the cells of the column don't.
    """
    n = len(cells)
    reasons = np.full(n, "", dtype=object)
    if pd.api.types.is_numeric_dtype(cells) and not pd.api.types.is_bool_dtype(cells):
        return Numbers(cells.to_numpy(dtype=np.float64, na_value=np.nan), None, reasons)
    raw = cells.to_numpy(dtype=object)
    filled = [value for value in raw if not is_missing(value)]
    if filled and all(isinstance(value, bool | np.bool_) for value in filled):  # flags are 1 and 0
        return Numbers(np.array([np.nan if is_missing(value) else float(value) for value in raw]), None, reasons)
    values = _plain(raw)
    taken: dict[int, _Cell] = {}
    for row in np.flatnonzero(np.isnan(values)):
        value = raw[row]
        if is_missing(value):
            continue
        cell = _taken_apart(value)
        if cell is None:
            reasons[row] = _no_number(value)
        else:
            taken[int(row)] = cell
    doubtful = mark == "comma" and any("." in str(raw[i]) for i in np.flatnonzero(~np.isnan(values)))
    if not taken and not doubtful:
        return Numbers(values, None, reasons)
    plain = {int(row): str(raw[row]).strip() for row in np.flatnonzero(~np.isnan(values))}
    return _by_column(values, reasons, plain, taken, mark)


def looks_like_numbers(cells: pd.Series) -> bool:
    """Whether at least half of the cells that aren't empty are numbers, however they are written."""
    raw = cells.to_numpy(dtype=object)
    values = _plain(raw)
    plain = int((~np.isnan(values)).sum())
    if 2 * plain >= len(raw) > 0:  # long columns of plain numbers need no further look
        return True
    others = [value for value in raw[np.isnan(values)] if not is_missing(value)]
    others = [value for value in others if not (isinstance(value, str) and value.strip().lower() in WORDS)]
    if not plain and not others:
        return False
    some = others[:: max(1, len(others) // 400)]  # a glance, before a long column of text is read
    if some and not plain and 4 * sum(_is_numeric(value) for value in some) < len(some):
        return False
    return 2 * (plain + sum(_is_numeric(value) for value in others)) >= plain + len(others)


def _is_numeric(value: Any) -> bool:
    if _taken_apart(value) is not None:
        return True
    text = value.strip() if isinstance(value, str) else ""
    return bool(_BOUND.match(text)) or text.lstrip("+-").lower() in ("inf", "infinity")


def _plain(raw: npt.NDArray[np.object_]) -> npt.NDArray[np.float64]:
    """(n,) numbers of the cells that any program reads alike, NaN for all others."""
    texts = [value if isinstance(value, str | int | float) and not isinstance(value, bool) else None for value in raw]
    texts = [str(value) if isinstance(value, int) else value for value in texts]  # of any length
    return np.asarray(pd.to_numeric(pd.Series(texts, dtype=object), errors="coerce"), dtype=np.float64).copy()


def _cleaned(text: str) -> str:
    plain = _SPACES.sub(" ", text).strip().translate(_MINUS)
    if plain[:1] == "–":  # a sign where it stands first, a range where it doesn't
        plain = f"-{plain[1:]}"
    wrapped = _WRAPPED.fullmatch(plain)
    return wrapped["formula"] or wrapped["text"].strip() if wrapped else plain


def _taken_apart(value: Any) -> _Cell | None:
    """None for what is no number whatever the column says."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _Cell(str(value), str(value), 0, "", "", 0, False)
    if not isinstance(value, str) or len(value) > LONGEST:
        return None
    text = _cleaned(value)
    found = _CELL.fullmatch(text) if not _DATE.fullmatch(text) else None
    if found is None or bool(found["open"]) != bool(found["close"]) or (found["open"] and not found["error"]):
        return None
    if (found["last"] and found["error"]) or any(c.isdecimal() and not c.isascii() for c in text):
        return None
    number = found["number"].strip()
    if number[-1] in ",'’" or (found["apower"] and found["cpower"]):
        return None
    power, error_power, common = (_power(found, which) for which in "abc")
    unit = (found["unit"] or found["bracketed"] or "").strip()
    if unit in _FOOTNOTES or (unit and not re.search(r"[^\W\d_]|[%‰°]", unit)):
        return None
    error = found["last"] or (found["error"] or "").strip()
    if unit == "%" and found["error"] and not found["open"]:  # 5.2 ± 3%: of the value, or in its unit
        unit = error = ""
    return _Cell(text, number, power + common, unit, error, error_power + common, bool(found["last"]))


def _power(found: re.Match[str], which: str) -> int:
    for name in ("power", "caret", "signed"):
        if found[which + name]:
            return int(found[which + name])
    return int(found[f"{which}raised"].translate(_SUPERSCRIPTS)) if found[f"{which}raised"] else 0


def _no_number(value: Any) -> str:
    text = value if isinstance(value, str) else str(value)
    shown = repr(text if len(text) <= 60 else text[:60])
    if isinstance(value, str) and _BOUND.match(_cleaned(value)):
        return f"is a bound, not a value: {shown}"
    if text.startswith("="):
        return f"is a formula of a spreadsheet without its value, save it there once: {shown}"
    return f"is not a number: {shown}"


_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?")
_GROUPED_BY_POINTS = re.compile(r"[+-]?[1-9]\d{0,2}(?:\.\d{3})+(?:,\d*)?")
_GROUPED_BY_SPACES = re.compile(r"[+-]?[1-9]\d{0,2}(?:[ '’]\d{3})+(?P<rest>[.,]\d*)?")
_POINT = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)")
_COMMA = re.compile(r"[+-]?(?:\d+,\d*|,\d+)")


def _shows(number: str) -> Mark:
    """The decimal mark that a number alone proves; "" where it proves none."""
    spaced = _GROUPED_BY_SPACES.fullmatch(number)
    if spaced:
        rest = spaced["rest"] or ""
        return "point" if rest[:1] == "." else "comma" if rest[:1] == "," else ""
    if _GROUPED.fullmatch(number):
        return "point" if "." in number or number.count(",") > 1 else ""
    if _GROUPED_BY_POINTS.fullmatch(number):
        return "comma" if "," in number or number.count(".") > 1 else ""
    if "." in number and _POINT.fullmatch(number):
        return "point"
    return "comma" if "," in number and _COMMA.fullmatch(number) else ""


def _shown(numbers: Sequence[str]) -> Mark:
    """The decimal mark that all of these numbers agree on."""
    marks = {mark for number in numbers if (mark := _shows(re.split(r"[eEdD]", number)[0])) != ""}
    return marks.pop() if len(marks) == 1 else ""


def column_mark(cells: pd.Series) -> Mark:
    """The decimal mark that the cells of a column prove, for what the others of the table leave open."""
    some = [value for value in cells.to_numpy(dtype=object) if isinstance(value, str)][:2000]
    parts = [cell for value in some if (cell := _taken_apart(value)) is not None]
    return _shown([cell.number for cell in parts]) if 2 * len(parts) >= len(some) > 0 else ""


def _value_of(number: str, mark: Mark, long_plain: bool, grouping: bool = False) -> float | None:
    """A number under a decimal mark; None where it can't be one, or can be another number as well.

    Args:
        number: as it is written.
        mark: that the column or table shows; "" where none does.
        long_plain: the column has whole numbers of more than three digits that aren't grouped.
        grouping: the column has points between thousands for certain.
    """
    number = re.sub(r"^([+-])\s", r"\1", number).strip()
    if spaced := _GROUPED_BY_SPACES.fullmatch(number):
        rest = (spaced["rest"] or "")[:1]
        if long_plain or (rest == "," and mark == "point") or (rest == "." and mark == "comma"):
            return None
        return float(re.sub(r"[ '’]", "", number).replace(",", "."))
    if _GROUPED.fullmatch(number):
        sure = "." in number or number.count(",") > 1
        if mark == "point" and (sure or not long_plain):
            return float(number.replace(",", ""))
        if mark == "comma" and not sure:
            return float(number.replace(",", "."))
        return None
    if _GROUPED_BY_POINTS.fullmatch(number):
        sure = "," in number or number.count(".") > 1
        if mark == "comma" and (sure or grouping):
            return float(number.replace(".", "").replace(",", "."))
        if mark != "comma" and not sure:
            return float(number)
        return None
    if _POINT.fullmatch(number):
        return float(number) if "." not in number or mark != "comma" else None
    if _COMMA.fullmatch(number) and mark == "comma":
        return float(number.replace(",", "."))
    return None


def _by_column(
    values: npt.NDArray[np.float64],
    reasons: npt.NDArray[np.object_],
    plain: dict[int, str],
    taken: dict[int, _Cell],
    mark: Mark,
) -> Numbers:
    """The cells that aren't plain numbers, as the whole column says."""
    bare = [re.split(r"[eEdD]", number)[0] for number in plain.values()]
    numbers = [*bare, *(cell.number for cell in taken.values())]
    marks = Counter(shown for number in numbers if (shown := _shows(number)))
    own: Mark = "point" if marks["point"] and not marks["comma"] else "comma" if len(marks) == 1 else ""
    mixed = len(marks) == 2
    used: Mark = "point" if mixed else own or mark  # "7.63" beside "7,63": the points are what they are
    long_plain = any(re.fullmatch(r"[+-]?\d{4,}", number) for number in numbers) and own != "point"
    grouping = any(_shows(number) == "comma" and "." in number for number in numbers)
    unit, common = _common_unit(plain, taken)
    if used == "comma":  # what any program reads alike may be thousands here
        for row, number in zip(plain, bare, strict=True):
            if "." not in number:
                continue
            value = _value_of(number, used, long_plain, grouping)
            values[row] = np.nan if value is None else value
            if value is None:
                reasons[row] = f"is not a number: {plain[row]!r}, whose point may stand between thousands"
    if unit:
        for row in plain:
            if not reasons[row]:
                values[row], reasons[row] = np.nan, f"is not a number: {plain[row]!r} has no unit, others say {unit}"
    errors = np.full(len(values), np.nan)
    read: Counter[str] = Counter()
    for row, cell in taken.items():
        scale = common.get(cell.unit)
        unsure = mixed and "," in cell.number
        value = None if unsure else _value_of(cell.number, used, long_plain, grouping)
        if value is None or scale is None:
            reasons[row] = _no_number(cell.text) + _doubt(cell, used, scale, unit, mixed)
            continue
        values[row] = float(Decimal(repr(value)).scaleb(cell.power)) * scale if cell.power else value * scale
        if cell.error and (error := _error_of(cell, used, long_plain)) is not None:
            errors[row] = error * scale
        read.update(_ways(cell, scale, used))
    how = ", ".join(sorted(read)) + (f", all in {unit}" if unit else "")
    return Numbers(values, errors if np.isfinite(errors).any() else None, reasons, unit, how if read else "")


def _ways(cell: _Cell, scale: float, mark: Mark) -> list[str]:
    """In which ways a cell is more than a plain number."""
    number = cell.number
    found = []
    if _GROUPED_BY_SPACES.fullmatch(number):
        found.append("thousands set apart")
    elif "," in number:
        found.append("commas between thousands" if mark == "point" else "decimal commas")
    if cell.error:
        found.append("uncertainties in the cells")
    if cell.unit:
        found.append("units in the cells" if scale == 1 else "units in the cells, converted")
    return found or ["powers of ten and signs as people write them"]


def _common_unit(plain: dict[int, str], taken: dict[int, _Cell]) -> tuple[str, dict[str, float]]:
    """The unit of the column and the factor of each unit in its cells; what has none there can't be read.

    A column says its units in all cells or in none: where only some do, the fewer are not read.
    """
    units = Counter(cell.unit for cell in taken.values() if cell.unit)
    n_with, n_bare = sum(units.values()), len(plain) + sum(not cell.unit for cell in taken.values())
    known = [unit for unit, _ in units.most_common() if is_unit(unit)]
    if not known or n_with <= n_bare:
        return "", {"": 1.0}
    unit = known[0]
    factors = {other: scale for other in known if (scale := factor(other, unit)) is not None}
    return unit, factors


def _doubt(cell: _Cell, mark: Mark, scale: float | None, unit: str, mixed: bool) -> str:
    """Why a cell that looks like a number isn't read."""
    if scale is None:
        if not cell.unit:
            return f" has no unit, others say {unit}"
        if not is_unit(cell.unit):
            return ""
        return f", whose unit others don't have{'' if not unit else f': they say {unit}'}"
    if mixed:
        return ", since points are decimal marks in the same column"
    if mark == "point" and _GROUPED.fullmatch(cell.number):
        return ", while others write thousands without a comma"
    if mark == "" and _GROUPED.fullmatch(cell.number):
        plain = cell.number.replace(",", "")
        return f', which is {plain} or {cell.number.replace(",", ".")}: say decimal = "." or decimal = ","'
    return ""


def _error_of(cell: _Cell, mark: Mark, long_plain: bool) -> float | None:
    """The standard uncertainty, in the unit of the number; None where it can't be read."""
    if not cell.last_digits:
        error = _value_of(cell.error, mark, long_plain)
        return None if error is None else _finite(repr(abs(error)), cell.error_power or cell.power)
    if re.search(r"[.,]", cell.error):
        return _finite(cell.error.replace(",", "."), cell.power)
    decimal = "," if mark == "comma" else "."
    digits = len(cell.number.partition(decimal)[2].strip())
    return _finite(cell.error, cell.power - digits)


def _finite(mantissa: str, power: int) -> float | None:
    """Mantissa times 10 to a power; None beyond all numbers."""
    value = float(Decimal(mantissa).scaleb(power))
    return value if np.isfinite(value) else None
