"""Crystal structures as the page shows them: the atoms of a cell with their images on its faces, and bonds.

One list of balls and sticks serves the still picture (SVG, which prints and needs no script) and the rotatable one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from monty.serialization import loadfn
from pymatgen.core import Element

ON_FACE = 0.02
"""Fractional distance from a face of the cell within which an atom is drawn on the opposite face too."""

BOND = 1.15
"""Two atoms are joined where they are nearer than this times the sum of their radii."""

FALLBACK_RADIUS = 1.5
MOST_ATOMS = 220
"""Drawn of one structure; of a larger one only the cell itself."""

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Drawing:
    """What is drawn of a structure.

    Attributes:
        symbol: element of each atom.
        site: which site of the structure it is.
        at: (n, 3) Cartesian, Angstrom.
        bonds: pairs of atoms.
        corners: (8, 3) of the cell, in the order of the bits of 0 to 7.
    """

    symbol: list[str]
    site: list[int]
    at: FloatArray
    bonds: list[tuple[int, int]]
    corners: FloatArray

    def as_json(self) -> dict[str, Any]:
        """Atoms as [symbol, site, x, y, z], bonds as pairs of atoms, corners of the cell, turned as in the picture."""
        at, corners = self.turned()
        places = np.round(at, 3).tolist()
        atoms = [[symbol, site, *at] for symbol, site, at in zip(self.symbol, self.site, places, strict=True)]
        return {"atoms": atoms, "bonds": self.bonds, "cell": np.round(corners, 3).tolist()}

    def turned(self) -> tuple[FloatArray, FloatArray]:
        """(n, 3) atoms and (8, 3) corners around the middle of the cell, Angstrom: x to the right, y up, z near."""
        middle, turn = self.corners.mean(axis=0), _view()
        return (self.at - middle) @ turn.T, (self.corners - middle) @ turn.T


def draw(lattice: FloatArray, numbers: list[int], frac: FloatArray) -> Drawing:
    """Atoms, images on the faces, and bonds of one structure.

    Args:
        lattice: (3, 3), rows are the vectors, Angstrom.
        numbers: (n,) atomic numbers.
        frac: (n, 3) fractional coordinates.
    """
    wrapped = np.asarray(frac, dtype=np.float64) % 1.0
    wrapped[wrapped > 1 - ON_FACE] -= 1.0
    site, place = [], []
    for number, x in enumerate(wrapped):
        shifts = [(0, 1) if abs(c) < ON_FACE else (0,) for c in x]
        for shift in np.stack(np.meshgrid(*shifts, indexing="ij"), axis=-1).reshape(-1, 3):
            site.append(number)
            place.append(x + shift)
    if len(site) > MOST_ATOMS:
        site, place = list(range(len(wrapped))), list(wrapped)
    at = np.asarray(place) @ np.asarray(lattice, dtype=np.float64)
    symbol = [Element.from_Z(numbers[s]).symbol for s in site]
    bits = np.array([[i & 1, i >> 1 & 1, i >> 2 & 1] for i in range(8)], dtype=np.float64)
    return Drawing(symbol, site, at, _bonds(symbol, at), bits @ np.asarray(lattice, dtype=np.float64))


def _bonds(symbol: list[str], at: FloatArray) -> list[tuple[int, int]]:
    radius = np.array([_radius(s) for s in symbol])
    distance = np.linalg.norm(at[:, None] - at[None], axis=-1)
    joined = (distance < BOND * (radius[:, None] + radius[None])) & (distance > 0.4)
    found = [(int(i), int(j)) for i, j in np.argwhere(np.triu(joined, 1))]
    metals = [Element(s).is_metal for s in symbol]
    # Between metals sticks would hide what they join; where there is nothing else they are all there is.
    polar = [(i, j) for i, j in found if not (metals[i] and metals[j])]
    return polar or found


@cache
def _radius(symbol: str) -> float:
    value = Element(symbol).atomic_radius
    return float(value) if value else FALLBACK_RADIUS


@cache
def _colors() -> dict[str, str]:
    with resources.as_file(resources.files("pymatgen.vis").joinpath("ElementColorSchemes.yaml")) as path:
        scheme = loadfn(path)["VESTA"]
    return {symbol: "#{:02x}{:02x}{:02x}".format(*rgb) for symbol, rgb in scheme.items()}


def color(symbol: str) -> str:
    """Colour of an element in VESTA's scheme."""
    return _colors().get(symbol, "#999999")


def picture(drawing: Drawing, size: int = 260) -> Markup:
    """A still picture: balls, sticks and the cell, seen a little from above, the near in front of the far."""
    at, corners = drawing.turned()
    radius = np.array([0.32 * _radius(s) + 0.12 for s in drawing.symbol])
    reach = max(float(np.abs(corners[:, :2]).max()), float((np.abs(at[:, :2]) + radius[:, None]).max(initial=1.0)))
    scale = 0.48 * size / reach
    flat = lambda p: (size / 2 + scale * p[0], size / 2 - scale * p[1])  # noqa: E731
    parts: list[tuple[float, Markup]] = []
    for i in range(8):
        for bit in (1, 2, 4):
            if not i & bit:
                parts.append((-1e9 + float(corners[i, 2]), _line(flat(corners[i]), flat(corners[i | bit]), "edge")))
    for i, j in drawing.bonds:
        along = (at[j] - at[i]) / np.linalg.norm(at[j] - at[i])
        # From ball to ball: a stick that begins at the centre of the nearer one would be drawn across it.
        a, b = at[i] + 0.9 * radius[i] * along, at[j] - 0.9 * radius[j] * along
        parts.append((float(a[2] + b[2]) / 2, _line(flat(a), flat(b), "bond")))
    for symbol, p, r in zip(drawing.symbol, at, radius, strict=True):
        x, y = flat(p)
        parts.append(
            (
                float(p[2]),
                Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{:.1f}" fill="{}"/>').format(x, y, scale * r, color(symbol)),
            )
        )
    inside = Markup("").join(part for _, part in sorted(parts, key=lambda part: part[0]))
    return Markup('<svg viewBox="0 0 {0} {0}" class="crystal" aria-hidden="true">{1}</svg>').format(size, inside)


def _view() -> FloatArray:
    """Rotation to the eye of the reader: the x axis to the right, z up, both turned and tilted a little."""
    a, b = np.radians(-22.0), np.radians(-72.0)
    around = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1.0]])
    tilt = np.array([[1.0, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return tilt @ around


def _line(a: tuple[float, float], b: tuple[float, float], kind: str) -> Markup:
    return Markup('<path class="{}" d="M{:.1f} {:.1f}L{:.1f} {:.1f}"/>').format(kind, *a, *b)


def legend(drawing: Drawing) -> list[dict[str, Any]]:
    """Element and colour, each once, in the order of the sites."""
    return [{"symbol": s, "color": color(s)} for s in dict.fromkeys(drawing.symbol)]
