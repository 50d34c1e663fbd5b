"""Small figures for the summary on the Prefect server: SVG inside the markdown, as data, so that nothing is fetched."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import pandas as pd

from atomsets_core.campaigns import OUT_OF_FOLD
from atomsets_core.models import reliability
from atomsets_core.report import probability_of, symbol_of
from atomsets_core.storage import Store
from atomsets_core.transforms import find_transform

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 640, 64, 18, 14, 44
BLUE, GREY, INK = "#2563eb", "#9ca3af", "#111827"
POINT = 9
"""Width of the points of a reliability figure."""
POINTS = 1500
"""Drawn at most of the out-of-fold predictions, evenly spread over the rows."""


def of_run(store: Store, summary: Mapping[str, Any], chosen: pd.DataFrame) -> list[str]:
    """Markdown of the figures of a run: the shortlist with its intervals, and predicted against known values."""
    logarithmic = find_transform(summary["transform"]).logarithmic
    of_class = "class" in summary
    name = symbol_of(summary) + (f", {summary['unit']}" if summary["unit"] else "")
    name = probability_of(summary) if of_class else name
    # Where there is no interval, its ends are the prediction.
    shown = chosen.head(25)
    ends = {end: shown[end].fillna(shown["predicted"]) for end in ("lower", "upper")}
    rows = shown[["formula", "predicted"]].assign(**ends).to_dict("records")
    known = store.read_table(f"{summary['model']['folder']}/{OUT_OF_FOLD}", ["value", "predicted"]).to_pandas()
    figures = []
    if rows:
        best = summary["model"]["value_min" if summary["settings"]["objective"]["goal"] == "minimize" else "value_max"]
        dashed = "the best that was learned from"
        if of_class:
            best, dashed = summary["model"]["share"], "the share of the training data"
        figures.append(picture(shortlist(rows, name, logarithmic, best, dashed), "shortlist with intervals"))
    if of_class:
        bins = reliability(known["value"].to_numpy(np.float64), known["predicted"].to_numpy(np.float64))
        drawn_bins = (np.array(bins["said"]), np.array(bins["found"]))
        axes = (f"{name}, out of fold", "share that is of it")
        return [*figures, picture(parity(*drawn_bins, *axes, logarithmic, POINT), "reliability")]
    step = max(1, math.ceil(len(known) / POINTS))
    drawn = known.iloc[::step]
    figures.append(
        picture(
            parity(
                drawn["value"].to_numpy(),
                drawn["predicted"].to_numpy(),
                f"{name}: known",
                "predicted out of fold",
                logarithmic,
            ),
            "out-of-fold",
        )
    )
    return figures


def picture(svg: str, alternative: str) -> str:
    """An image that holds itself, in markdown."""
    return f"![{alternative}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def shortlist(
    rows: Sequence[Mapping[str, Any]],
    name: str,
    logarithmic: bool,
    best: float,
    dashed: str = "the best that was learned from",
) -> str:
    """One line for each candidate, best first: prediction and interval; what they are compared with is dashed."""
    height = TOP + BOTTOM + 18 * len(rows)
    ends = [float(row[key]) for row in rows for key in ("lower", "upper")]
    axis = _Axis([*ends, best], logarithmic, LEFT + 40, WIDTH - RIGHT)
    parts = [axis.below(height - BOTTOM, TOP, f"{name}; dashed: {dashed}")]
    x = axis(best)
    parts.append(f'<path d="M{x:.1f} {TOP}V{height - BOTTOM}" stroke="{INK}" stroke-dasharray="4 3"/>')
    for place, row in enumerate(rows):
        y = TOP + 18 * place + 9
        low, middle, high = (axis(float(row[key])) for key in ("lower", "predicted", "upper"))
        parts.append(f'<text x="{LEFT + 32}" y="{y + 4}" text-anchor="end">{escape(str(row["formula"]))}</text>')
        parts.append(f'<path d="M{low:.1f} {y}H{high:.1f}" stroke="{BLUE}" stroke-width="2" opacity=".45"/>')
        parts.append(f'<circle cx="{middle:.1f}" cy="{y}" r="4" fill="{BLUE}"/>')
    return _svg(height, parts)


def parity(truth: np.ndarray, predicted: np.ndarray, along: str, upward: str, logarithmic: bool, width: int = 4) -> str:
    """A point for each value: as it is, and as it was predicted by models that hadn't seen it; named on the axes."""
    height = 420
    finite = np.isfinite(truth) & np.isfinite(predicted)
    truth, predicted = truth[finite], predicted[finite]
    both = [*truth.tolist(), *predicted.tolist()]
    right = LEFT + height - TOP - BOTTOM
    across, up = _Axis(both, logarithmic, LEFT, right), _Axis(both, logarithmic, height - BOTTOM, TOP)
    points = "".join(f"M{across(a):.0f} {up(b):.0f}h0" for a, b in zip(truth, predicted, strict=True))
    return _svg(
        height,
        [
            across.below(height - BOTTOM, TOP, along),
            up.beside(LEFT, right, upward),
            f'<path d="M{LEFT} {height - BOTTOM}L{right} {TOP}" stroke="{GREY}" stroke-dasharray="4 3"/>',
            f'<path d="{points}" stroke="{BLUE}" stroke-width="{width}" stroke-linecap="round" opacity=".4"/>',
        ],
        right + RIGHT,
    )


class _Axis:
    """Values to places; called with a value, it gives the place."""

    def __init__(self, values: Sequence[float], logarithmic: bool, start: float, end: float) -> None:
        # what a model says may not be positive though the target is
        self._log = logarithmic and min(values) > 0
        scaled = [self._scale(value) for value in values]
        low, high = min(scaled), max(scaled)
        margin = 0.04 * (high - low) or 1.0
        self._low, self._high, self._start, self._end = low - margin, high + margin, start, end

    def _scale(self, value: float) -> float:
        return math.log10(max(value, 1e-300)) if self._log else value

    def __call__(self, value: float) -> float:
        share = (self._scale(value) - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        """Some round numbers on it."""
        if self._log:
            first, last = math.floor(self._low), math.ceil(self._high)
            wide = last - first > 4
            candidates = [m * 10.0**e for e in range(first, last + 1) for m in ((1,) if wide else (1, 2, 5))]
            inside = [value for value in candidates if self._low <= math.log10(value) <= self._high]
            if len(inside) >= 3:
                return inside
        low, high = (10**self._low, 10**self._high) if self._log else (self._low, self._high)
        raw = (high - low) / 5
        step = 10.0 ** math.floor(math.log10(raw))
        step *= next(m for m in (1, 2, 5, 10) if m * step >= raw)
        return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]

    def below(self, y: float, top: float, name: str) -> str:
        """The axis along the bottom, with lines up to `top`."""
        middle = (self._start + self._end) / 2
        marks = "".join(
            f'<path d="M{self(v):.1f} {top}V{y}" stroke="{GREY}" opacity=".35"/>'
            f'<text x="{self(v):.1f}" y="{y + 16:.0f}" text-anchor="middle">{v:.4g}</text>'
            for v in self.ticks()
        )
        return f'{marks}<text x="{middle:.0f}" y="{y + 36:.0f}" text-anchor="middle">{escape(name)}</text>'

    def beside(self, x: float, right: float, name: str) -> str:
        """The axis along the left, with lines as far as `right`."""
        middle = (self._start + self._end) / 2
        marks = "".join(
            f'<path d="M{x} {self(v):.1f}H{right}" stroke="{GREY}" opacity=".35"/>'
            f'<text x="{x - 6}" y="{self(v) + 4:.1f}" text-anchor="end">{v:.4g}</text>'
            for v in self.ticks()
        )
        turned = f'transform="rotate(-90 14 {middle:.0f})"'
        return f'{marks}<text x="14" y="{middle:.0f}" text-anchor="middle" {turned}>{escape(name)}</text>'


def _svg(height: int, parts: Sequence[str], width: int = WIDTH) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="12" fill="{INK}">'
        # a ground of its own: the page may be dark
        f'<rect width="{width}" height="{height}" fill="#fff"/><g fill="none">{"".join(parts)}</g></svg>'
    ).replace("<text ", f'<text fill="{INK}" ')
