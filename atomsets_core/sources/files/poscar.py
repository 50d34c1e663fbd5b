"""POSCAR text to a structure: whatever its second line scales, and never with elements that the text doesn't name.

An XDATCAR is a header of a POSCAR and frame after frame of positions.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator

import numpy as np
from pymatgen.core import Structure

from atomsets_core.sources.base import Entry, reason_of
from atomsets_core.structures import Refusal


def read_poscar(text: str) -> Structure:
    """The structure of a POSCAR.

    Raises:
        ValueError: it can't be read, or names no elements.
    """
    from pymatgen.io.vasp import Poscar  # brings scipy.signal and half of pymatgen: a second, for this format alone

    try:
        _check_counts(text)
        poscar = Poscar.from_str(_with_plain_scale(text), read_velocities=False)
    except Exception as error:
        raise ValueError(reason_of(error, "not a readable POSCAR")) from error
    if not poscar.true_names:  # pymatgen would call them H, He, Li, ...
        raise ValueError("no element symbols (VASP 4 format): write them in the line before the numbers of atoms")
    return poscar.structure


def _check_counts(text: str) -> None:
    """Raise ValueError where a POSCAR announces more atoms than it has lines: pymatgen names them all, however many."""
    lines = text.splitlines()
    for line in lines[5:7]:
        counts = list(itertools.takewhile(str.isdecimal, line.split()))
        if counts and (any(len(count) > 9 for count in counts) or sum(map(int, counts)) > len(lines)):
            raise ValueError(f"{' + '.join(counts)} atoms are announced, the file has {len(lines)} lines")


def _with_plain_scale(text: str) -> str:
    """The same crystal with one positive number in its second line.

    A negative number there is the volume of the cell, by which VASP scales Cartesian positions as it scales the cell
    (pymatgen multiplies them by the number itself); three numbers scale the components along x, y and z.
    """
    lines = text.splitlines()
    scales = _leading_numbers(lines[1])
    if len(scales) == 1 and scales[0] < 0:
        volume = abs(float(np.linalg.det(_rows(lines[2:5]))))
        if not 0 < volume < math.inf:
            raise ValueError("the cell has no volume")
        return "\n".join([lines[0], repr((-scales[0] / volume) ** (1 / 3)), *lines[2:]])
    if len(scales) == 3 and min(scales) > 0:
        factors = np.array(scales)
        first = _first_position(lines)
        lines[1], lines[2:5] = "1.0", [_line(row * factors) for row in _rows(lines[2:5])]
        if lines[first - 1].strip()[:1] in "CcKk":
            last = first + _n_atoms(lines)
            lines[first:last] = [_scaled(line, factors) for line in lines[first:last]]
        return "\n".join(lines)
    if len(scales) != 1 or not 0 < scales[0] < math.inf:
        raise ValueError(
            f"the second line reads {lines[1].strip()[:40]!r}: one scale, a negative volume or three scales"
        )
    return text


def _leading_numbers(line: str) -> list[float]:
    numbers: list[float] = []
    for word in line.split():
        try:
            numbers.append(float(word))
        except ValueError:
            break
    return numbers


def _rows(lines: list[str]) -> np.ndarray:
    return np.array([[float(word) for word in line.split()[:3]] for line in lines])


def _line(row: np.ndarray) -> str:
    return " ".join(repr(float(value)) for value in row)


def _scaled(line: str, factors: np.ndarray) -> str:
    words = line.split()
    return " ".join([_line(np.array([float(word) for word in words[:3]]) * factors), *words[3:]])


def _counts_line(lines: list[str]) -> int:
    return 5 if lines[5].split() and lines[5].split()[0].isdecimal() else 6


def _n_atoms(lines: list[str]) -> int:
    return sum(int(count) for count in itertools.takewhile(str.isdecimal, lines[_counts_line(lines)].split()))


def _first_position(lines: list[str]) -> int:
    """Line of the first position: after the counts, "Selective dynamics" where it stands, and the kind of places."""
    after = _counts_line(lines) + 1
    return after + (2 if lines[after].strip()[:1] in "Ss" else 1)


_FRAME = re.compile(r"\s*(?:direct|cartesian)\s+configuration\s*=\s*\d+", re.IGNORECASE)


def read_xdatcar(text: str, stem: str) -> Iterator[Entry | Refusal]:
    """The frames of an XDATCAR, called `stem#1`, `stem#2`, ... by their numbers in the file.

    Each frame is an entry, as those of extended XYZ are: which of them is wanted the file doesn't say, the last of a
    molecular dynamics is no better than the others, and labels of frames need all of them. A frame that is cut short
    is refused by its name.

    Raises:
        ValueError: it has no frames, or names no elements.
    """
    lines = text.splitlines()
    starts = [row for row, line in enumerate(lines) if _FRAME.match(line)]
    if not starts:
        raise ValueError("not a readable XDATCAR: no line 'Direct configuration=' in it")
    header = lines[: starts[0]]
    try:
        n = _n_atoms(header)
    except (IndexError, ValueError) as error:
        raise ValueError("not a readable XDATCAR: the lines above its first frame are incomplete") from error
    for row, after in zip(starts, [*starts[1:], len(lines)], strict=True):
        words = lines[row].replace("=", " ").split()
        name = f"{stem}#{words[2]}"
        places = [line for line in lines[row + 1 : min(row + 1 + n, after)] if line.strip()]
        if len(places) < n:
            announced = f"{n} atoms are announced, {len(places)} lines follow"
            yield Refusal(name, "parse", f"the frame is cut short: {announced}")
            continue
        try:
            poscar = "\n".join([*header, words[0], *places]) + "\n"
            yield Entry(name, read_poscar(poscar), {"frame": int(words[2])})
        except ValueError as error:
            yield Refusal(name, "parse", reason_of(error))
        # Where the cell changes, the next frame has a header of its own.
        between = lines[row + 1 + n : after]
        header = between if any(line.strip() for line in between) else header
