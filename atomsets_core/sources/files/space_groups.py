"""Settings of the space groups: which operations a symbol, a Hall symbol or a number of the tables may mean.

The tables are spglib's 530 settings (Hall, Acta Cryst. A37, 517 (1981)). One symbol often stands for several of them:
both origins of F d -3 m, both axes of R -3 m, and a number for every choice of axes. Which of them a file means is for
its cell and its atoms to say (`atomsets_core.sources.files.cif_symmetry`).
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import spglib
from spglib import SpaceGroupType

N_SETTINGS = 530

_PARTS = 24
"""Translations are whole numbers of 24ths: the finest of the tables are eighths and twelfths."""


@dataclass(frozen=True)
class Operations:
    """Symmetry operations of a setting: x' = rotation x + translation.

    Attributes:
        rotations: (n, 3, 3) int64, of fractional coordinates.
        translations: (n, 3) float64, in [0, 1).
    """

    rotations: npt.NDArray[np.int64]
    translations: npt.NDArray[np.float64]

    def as_xyz(self) -> list[str]:
        """The operations as "-x, y+1/2, z", the identity first."""
        texts = [_xyz(rotation, shift) for rotation, shift in zip(self.rotations, self.translations, strict=True)]
        return sorted(texts, key=lambda text: text != "x, y, z")


@dataclass(frozen=True)
class Setting:
    """A space group with its axes and origin.

    Attributes:
        number: 1 to 230; 0 of a Hall symbol that isn't in the tables.
        symbol: full Hermann-Mauguin symbol, with spaces.
        choice: what tells it from others with this symbol: "H", "R", "1", "2", "b1", "ba-c", ...
        hall: its Hall symbol, by which its operations are found.
    """

    number: int
    symbol: str
    choice: str
    hall: str

    @property
    def name(self) -> str:
        """The symbol, with the choice behind it where the symbol alone doesn't say it."""
        told = self.choice[:1] in "12" or self.choice in ("H", "R")
        return f"{self.symbol} :{self.choice}" if told and self.choice else self.symbol

    @property
    def operations(self) -> Operations:
        """Its symmetry operations."""
        return operations_of_hall(self.hall)


def _tabulated(row: int) -> SpaceGroupType:
    kind = spglib.get_spacegroup_type(row)
    if kind is None:
        raise LookupError(f"spglib has no setting {row} of its {N_SETTINGS}")
    return kind


@lru_cache(maxsize=1)
def settings() -> tuple[Setting, ...]:
    """All settings of the tables, in their order."""
    found = []
    for row in range(1, N_SETTINGS + 1):
        kind = _tabulated(row)
        symbol = kind.international_full if 3 <= kind.number <= 15 else kind.international
        found.append(Setting(kind.number, symbol.split("=")[-1].strip(), kind.choice, kind.hall_symbol))
    return tuple(found)


# Symbols of before 1992, without the e of a double glide plane, where the new one stands for two settings.
_OLD = {
    "cmma": "-C 2a 2", "cmmb": "-C 2a 2a", "abmm": "-A 2b 2b", "acmm": "-A 2 2b", "bmcm": "-B 2 2a", "bmam": "-B 2a 2",
}  # fmt: skip
_OLD_CHOICES = {
    "ccca": ("1", "2"), "cccb": ("1ba-c", "2ba-c"), "abaa": ("1cab", "2cab"), "acaa": ("1-cba", "2-cba"),
    "bbcb": ("1bca", "2bca"), "bbab": ("1a-cb", "2a-cb"),
}  # fmt: skip

# Triclinic cells with a centring, which the tables leave out and feldspars are described in.
_CENTRED = {f"{centring.lower()}{one}": f"{'-' if '-' in one else ''}{centring} 1"
            for centring in "ABCIF" for one in ("1", "-1")}  # fmt: skip


@lru_cache(maxsize=1)
def _by_symbol() -> dict[str, tuple[Setting, ...]]:
    """Bare symbol -> the settings it may mean."""
    table: dict[str, list[Setting]] = defaultdict(list)
    for row, setting in enumerate(settings(), start=1):
        kind = _tabulated(row)
        full, named = _bare(kind.international_full), _bare(setting.symbol)
        names = {full, named}
        if 3 <= setting.number <= 15:
            names.add("".join(part for part in kind.international_full.replace("_", "").lower().split() if part != "1"))
        if "e" in named and setting.number not in (67, 68):
            names |= {named.replace("e", glide) for glide in "abc"}
        if setting.number == 41 and setting.choice == "-cba":  # "C 2 c e" in the tables of spglib
            names |= {"c2ce", "c2eb", "c2cb"}
        if setting.number >= 200:  # -3 was written as 3
            names |= {name.replace("-3", "3") for name in names}
        names |= {name for name, hall in _OLD.items() if hall == setting.hall and setting.number == 67}
        names |= {name for name, choices in _OLD_CHOICES.items() if setting.number == 68 and setting.choice in choices}
        for name in names:
            table[name].append(setting)
    for name, hall in _CENTRED.items():
        table.setdefault(name, []).append(
            Setting(len(name.lstrip("abcif")), name[0].upper() + " " + name[1:], "", hall)
        )
    return {name: tuple(found) for name, found in table.items()}


@lru_cache(maxsize=1)
def _by_hall() -> dict[str, tuple[Setting, ...]]:
    table: dict[str, list[Setting]] = defaultdict(list)
    for setting in settings():
        spaced = _bare_hall(setting.hall)
        for name in {spaced, spaced.replace(" ", "")}:
            table[name].append(setting)
    return {name: tuple(found) for name, found in table.items()}


def by_number(number: int) -> tuple[Setting, ...]:
    """All settings of a space group."""
    return tuple(setting for setting in settings() if setting.number == number)


def by_hall(text: str) -> tuple[Setting, ...]:
    """The settings a Hall symbol means: at most one crystal's, but the tables print some twice.

    Symbols that aren't in the tables are worked out. None where it can't be read.
    """
    spaced = _bare_hall(text)  # spaces count: "P 32" is a screw axis, "P 3 2" two axes
    if known := _by_hall().get(spaced) or _by_hall().get(spaced.replace(" ", "")):
        return known
    try:
        operations_of_hall(text.strip())
    except ValueError:
        return ()
    return (Setting(0, f"Hall symbol {text.strip()}", "", text.strip()),)


def by_symbol(text: str) -> tuple[Setting, ...]:
    """The settings a Hermann-Mauguin symbol may mean; none where it isn't known.

    Read are short and full symbols, with or without spaces and underscores, of today and of before 1992, and what
    databases write behind them: ":H", ":2", ":b1", " S" and " Z" (ICSD), "(origin choice 2)", "hexagonal axes".
    """
    bare, choice = split_choice(text)
    found = _by_symbol().get(bare, ())
    return tuple(setting for setting in found if fits_choice(setting, choice))


def fits_choice(setting: Setting, choice: str) -> bool:
    """Whether a setting is the one that a code of axes or origin means; "" says nothing."""
    own, wanted = setting.choice.lower(), choice.lower()
    if wanted in ("", own):
        return True
    if wanted in ("1", "2"):
        return own.startswith(wanted) or (wanted == "1" and own in ("", "b1"))
    if wanted == "h" and own == "":
        return 143 <= setting.number <= 194
    if wanted in ("b", "c", "a", "-b", "-c", "-a"):
        return own in (wanted, f"{wanted}1")
    return own.lstrip("12") == wanted or (wanted == "abc" and own.lstrip("12") == "")


_BEHIND = (
    (re.compile(r"[:,;]\(?(?:origin(?:choice)?|o)?=?([12]|h|r|-?[abc][123]?)\)?$"), ""),
    (re.compile(r"[:,;]\(?([12]?(?:abc|ba-c|cab|-cba|bca|a-cb))\)?$"), ""),
    (re.compile(r"[:;,]?[\[({]?origin(?:choice|setting)?[:=@]*(1|2)[\])}]?$"), ""),
    (re.compile(r"[:;,]?[\[({]?origin(?:choice)?(?:at|@|on)?(?:the)?(?:inversion)?(?:centre|center|-1)[\])}]?$"), "2"),
    (re.compile(r"[:;,]?[\[({]?(hex|rho)[a-z]*(?:axes|setting|cell)?[\])}]?$"), ""),
    (re.compile(r"[:;,]?o([12])$"), ""),
)  # fmt: skip
_LETTERS = {"rs": "r", "h": "h", "r": "r", "s": "1", "z": "2"}


def split_choice(text: str) -> tuple[str, str]:
    """A symbol without spaces, in lower case, and the code of axes or origin behind it ("" where there is none)."""
    bare = _bare(text)
    if bare in _by_symbol():
        return bare, ""
    for pattern, meaning in _BEHIND:
        if match := pattern.search(bare):
            choice = meaning or match.group(1)
            return bare[: match.start()], {"hex": "h", "rho": "r"}.get(choice, choice)
    for letters, choice in _LETTERS.items():
        if bare.endswith(letters) and bare[: -len(letters)] in _by_symbol():
            return bare[: -len(letters)], choice
    return bare, ""


def _bare(text: str) -> str:
    """A symbol as a key: lower case, no spaces, underscores, markup, brackets of screw axes or numbers behind."""
    text = re.sub(r"\\(?:bar|overline)\s*\{?\s*(\d)\s*\}?", r"-\1", text)
    text = re.sub(r"<[^>]*>|[\s_~$'\"{}]", "", text).replace("\u2212", "-").lower()
    text = re.sub(r"\((?:no\.?|#)?\d{2,3}\)$|no\.?\d{1,3}$", "", text)
    return re.sub(r"(?<=\d)\((\d)\)", r"\1", text)


def _bare_hall(text: str) -> str:
    return " ".join(text.replace("=", '"').replace("_", " ").lower().split())


# Hall symbols: rotations by order and axis, translations by letter (in 24ths of a cell).

_ROTATIONS = {
    1: ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    2: ((-1, 0, 0), (0, -1, 0), (0, 0, 1)),
    3: ((0, -1, 0), (1, -1, 0), (0, 0, 1)),
    4: ((0, -1, 0), (1, 0, 0), (0, 0, 1)),
    6: ((1, -1, 0), (1, 0, 0), (0, 0, 1)),
}
_DIAGONAL = {"'": ((0, -1, 0), (-1, 0, 0), (0, 0, -1)), '"': ((0, 1, 0), (1, 0, 0), (0, 0, -1))}
_BODY = ((0, 0, 1), (1, 0, 0), (0, 1, 0))
_TURN = {"x": 1, "y": 2, "z": 0}  # cyclic steps that bring z onto the axis
_SHIFTS = {
    "a": (12, 0, 0), "b": (0, 12, 0), "c": (0, 0, 12), "n": (12, 12, 12),
    "u": (6, 0, 0), "v": (0, 6, 0), "w": (0, 0, 6), "d": (6, 6, 6),
}  # fmt: skip
_CENTRINGS = {
    "p": (), "a": ((0, 12, 12),), "b": ((12, 0, 12),), "c": ((12, 12, 0),), "i": ((12, 12, 12),),
    "r": ((16, 8, 8), (8, 16, 16)), "s": ((8, 8, 16), (16, 16, 8)), "t": ((8, 16, 8), (16, 8, 16)),
    "f": ((0, 12, 12), (12, 0, 12), (12, 12, 0)),
}  # fmt: skip
_SYMBOL = re.compile(r"(-?)([pabcirstf])((?:\s+[^\s(]+)+)\s*(?:\(([^)]*)\))?")
_PART = re.compile(r"(-?)([12346])([xyz'\"*]?)([abcnuvwd12345]*)")


@lru_cache(maxsize=512)
def operations_of_hall(text: str) -> Operations:
    """The operations of a Hall symbol.

    Raises:
        ValueError: it can't be read.
    """
    lowered = text.replace("_", " ").replace("=", '"').strip().lower()
    match = _SYMBOL.fullmatch(lowered)
    if not match:
        raise ValueError(f"{text!r} is no Hall symbol")
    generators = [(np.eye(3, dtype=np.int64), np.array(shift)) for shift in _CENTRINGS[match[2]]]
    if match[1]:
        generators.append((-np.eye(3, dtype=np.int64), np.zeros(3, dtype=np.int64)))
    axis, order = "z", 0
    for place, word in enumerate(match[3].split()):
        rotation, shift, axis, order = _generator(word, place, axis, order)
        generators.append((rotation, shift))
    if match[4]:
        generators = _moved(generators, match[4])
    return _closed(generators, text)


def _generator(
    word: str, place: int, before: str, order_before: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], str, int]:
    """One operation of a Hall symbol, with its axis and order, on which the next one's axis depends."""
    match = _PART.fullmatch(word)
    if not match:
        raise ValueError(f"{word!r} is no operation of a Hall symbol")
    order, axis, shifts = int(match[2]), match[3], match[4]
    if not axis and place == 1 and order == 2:
        axis = "x" if order_before in (2, 4) else "'" if order_before in (3, 6) else "z"
    elif not axis and place == 2 and order == 3:
        axis = "*"
    along = before
    if axis == "*":
        rotation = np.array(_BODY)
    elif axis in ("'", '"'):
        rotation = _turned(np.array(_DIAGONAL[axis]), before)
    else:
        along = axis or "z"
        rotation = _turned(np.array(_ROTATIONS[order]), along)
    shift = np.zeros(3, dtype=np.int64)
    for letter in shifts:
        if letter.isdigit():  # a screw axis
            shift["xyz".index(along)] += _PARTS * int(letter) // order
        else:
            shift += _SHIFTS[letter]
    return (-rotation if match[1] else rotation), shift, along, order


def _turned(rotation: npt.NDArray[np.int64], axis: str) -> npt.NDArray[np.int64]:
    """A rotation about z as one about another axis."""
    step = _TURN[axis]
    return np.roll(np.roll(rotation, step, axis=0), step, axis=1)


def _moved(
    generators: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]], basis: str
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """The operations after a change of basis: a shift "0 0 -1" in twelfths, or "x-1/4, y, z"."""
    if re.fullmatch(r"\s*-?\d+\s+-?\d+\s+-?\d+\s*", basis):
        change, origin = np.eye(3, dtype=np.int64), np.array([2 * int(part) for part in basis.split()])
    else:
        change, origin = _parsed_basis(basis)
    inverse = np.round(np.linalg.inv(change)).astype(np.int64)
    moved = []
    for rotation, shift in generators:
        turned = change @ rotation @ inverse
        moved.append((turned, change @ shift + origin - turned @ origin))
    return moved


def _parsed_basis(basis: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    change, origin = np.zeros((3, 3), dtype=np.int64), np.zeros(3, dtype=np.int64)
    parts = basis.replace(" ", "").split(",")
    if len(parts) != 3:
        raise ValueError(f"({basis}) is no change of basis")
    for row, part in enumerate(parts):
        for sign, number, below, letter in re.findall(r"([+-]?)(?:(\d+)(?:/(\d+))?|([xyz]))", part):
            factor = -1 if sign == "-" else 1
            if letter:
                change[row, "xyz".index(letter)] += factor
            else:
                shift = _PARTS * int(number) / int(below or 1)
                if shift % 1:
                    raise ValueError(f"({basis}) is finer than the tables")
                origin[row] += factor * int(shift)
        if not re.fullmatch(r"(?:[+-]?(?:\d+(?:/\d+)?|[xyz]))+", part):
            raise ValueError(f"({basis}) is no change of basis that can be read")
    if abs(round(np.linalg.det(change))) != 1:
        raise ValueError(f"({basis}) changes the volume of the cell")
    return change, origin


def _closed(generators: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]], text: str) -> Operations:
    """The group that the operations generate."""
    identity = (np.eye(3, dtype=np.int64), np.zeros(3, dtype=np.int64))
    known = {_key(*identity): identity}
    waiting = [identity]
    while waiting:
        rotation, shift = waiting.pop()
        for other, more in generators:
            made = other @ rotation, (other @ shift + more) % _PARTS
            key = _key(*made)
            if key not in known:
                known[key] = made
                waiting.append(made)
        if len(known) > 192:
            raise ValueError(f"{text!r} generates no space group")
    rotations = np.array([rotation for rotation, _ in known.values()])
    return Operations(rotations, np.array([shift for _, shift in known.values()]) / _PARTS)


def _key(rotation: npt.NDArray[np.int64], shift: npt.NDArray[np.int64]) -> bytes:
    return rotation.astype(np.int8).tobytes() + (shift % _PARTS).astype(np.int8).tobytes()


def _xyz(rotation: npt.NDArray[np.int64], shift: npt.NDArray[np.float64]) -> str:
    rows = []
    for row, part in zip(rotation, np.round(shift * _PARTS).astype(int), strict=True):
        text = "".join(
            {1: f"+{axis}", -1: f"-{axis}"}.get(int(step), "") for step, axis in zip(row, "xyz", strict=True)
        )
        if part:
            divisor = int(np.gcd(part, _PARTS))
            text += f"+{part // divisor}/{_PARTS // divisor}"
        rows.append(text.removeprefix("+"))
    return ", ".join(rows)


def metric_of(lattice: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(3, 3) lengths of a cell and the cosines between its vectors, from (3, 3) rows."""
    gram = lattice @ lattice.T
    lengths = np.sqrt(np.diag(gram))
    cosines = gram / np.outer(lengths, lengths)
    np.fill_diagonal(cosines, lengths)
    return np.asarray(cosines)


LONGER, STEEPER = 0.01, 0.02
"""By how much an operation may change a length (relatively) and the cosine of an angle: about one in a hundred, and one
degree. Rounded and computed cells are off by less; a cell of another system is off by more, or so near that it could be
called either."""


def keeps_metric(rotations: npt.NDArray[np.int64], lattice: npt.NDArray[np.float64]) -> bool:
    """Whether rotations (n, 3, 3) of fractional coordinates leave lengths and angles of a cell (3, 3) what they are."""
    own = metric_of(lattice)
    turned = np.einsum("nji,jk->nik", rotations, lattice)  # rows: the images of the cell's vectors
    gram = np.einsum("nik,njk->nij", turned, turned)
    lengths = np.sqrt(np.einsum("nii->ni", gram))
    if (np.abs(lengths / np.diag(own) - 1) > LONGER).any():
        return False
    cosines = gram / (lengths[:, :, None] * lengths[:, None, :])
    off = [(first, second) for first, second in itertools.combinations(range(3), 2)]
    return all((np.abs(cosines[:, i, j] - own[i, j]) <= STEEPER).all() for i, j in off)
