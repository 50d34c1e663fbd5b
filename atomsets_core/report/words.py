"""Numbers and scores as words, the same on the command line, in artifacts and in the report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from atomsets_core.transforms import find_transform

NONE = "\N{EN DASH}"
"""Stands where there is no number."""


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits and thousands separated; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if not -4 <= magnitude <= 6:
        return minus(f"{value:.{digits - 1}e}")
    return minus(f"{value:,.{max(0, digits - 1 - magnitude)}f}")


def mean_count(value: float) -> str:
    """A mean of counts, with a decimal only where there is one."""
    return f"{value:,.1f}".removesuffix(".0")


def minus(text: str) -> str:
    """A number with the minus sign of typography."""
    return text.replace("-", "\N{MINUS SIGN}")


def percent(share: float | None, digits: int = 0) -> str:
    """A share of 1 as a percentage."""
    return NONE if share is None or not math.isfinite(share) else f"{share:.{digits}%}"


def counted(n: int, name: str, several: str = "") -> str:
    """A number of things, e.g. "1 candidate", "2,000 candidates"."""
    return f"{n:,} {name if n == 1 else several or name + 's'}"


def material(summary: Mapping[str, Any], dataset: str = "training") -> str:
    """What a data set holds one of: "structure" or "composition"."""
    return "composition" if summary.get("materials", {}).get(dataset) == "compositions" else "structure"


def listed(parts: list[str]) -> str:
    """Parts as in a sentence: "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def with_unit(value: str, unit: str) -> str:
    """A number and its unit, if it has one."""
    return f"{value} {unit}".strip()


def factor(ratio: float) -> str:
    """How many times too large or small a prediction is: a percentage, or a factor where it is large."""
    return f"{ratio - 1:.1%}" if ratio < 1.5 else f"a factor of {number(ratio)}"


def scale_name(summary: Mapping[str, Any]) -> str:
    """The unit errors are given in."""
    return find_transform(summary["transform"]).of(summary["unit"]) or "unit of the target"


def comparison_sentences(summary: Mapping[str, Any]) -> list[str]:
    """To whom AtomSets lost and by how much, and which heads there was no time for; none where neither happened."""
    choice, found = summary["choice"], []
    lost = choice.get("lost")
    if lost:
        used = choice["head"]
        if lost["used"]:
            so = "so it is used here"
        elif summary["settings"]["discovery"]["choose"]:
            hidden = summary["discovery"]["n_hidden"] * len(summary["discovery"].get("what", [None]))
            so = f"a lead within the noise of {hidden:,} hidden values, so {used} is used"
        else:
            so = f"but the campaign leaves no choice: {used} is used"
        found.append(
            f"AtomSets lost to {lost['to']} where the answer is known: it found {percent(lost['own'])} of the hidden "
            f"{'class' if 'class' in summary else 'best'}, {lost['to']} {percent(lost['r_precision'])}, "
            f"{100 * lost['by']:.1f} points more; {so}."
        )
    left_out = (summary["discovery"] or {}).get("left_out")
    if left_out:
        found.append(
            f"Within {number(summary['discovery']['minutes'])} minutes there was no time to compare {listed(left_out)}."
        )
    return found


def called(summary: Mapping[str, Any]) -> str:
    """The property in sentences, e.g. "bulk modulus K": title and symbol of the campaign, else the column's name."""
    title, symbol = str(summary.get("title") or ""), str(summary.get("symbol") or "")
    return f"{title} {symbol}".strip() or str(summary["target"])


def symbol_of(summary: Mapping[str, Any]) -> str:
    """The property over columns and on axes, e.g. "K": its symbol, else its title, else the column's name."""
    return str(summary.get("symbol") or summary.get("title") or summary["target"])


def title_of(summary: Mapping[str, Any]) -> str:
    """The property where its symbol would be in the way, e.g. "bulk modulus"."""
    return str(summary.get("title") or summary.get("symbol") or summary["target"])


def with_column(summary: Mapping[str, Any]) -> str:
    """The property with the column that its values stand in, where that is called otherwise."""
    name, column = called(summary), str(summary["target"])
    return name if name == column else f"{name} (column {column})"


def alike(trust: Mapping[str, Any]) -> bool:
    """Whether candidates can't be told from the training data, so that every row of it weighs the same."""
    return bool(trust["effective_rows"] > 0.999 * trust["rows"])


def interval_sentences(summary: Mapping[str, Any]) -> list[str]:
    """Whether intervals hold for the candidates, and how far beyond the known values they reach; none where unknown."""
    intervals, found = summary.get("intervals") or {}, []
    trust, beyond = intervals.get("candidates"), intervals.get("beyond")
    if trust and trust["factor"] is None:
        found.append(
            f"Hardly any training row is like the candidates: their weight is that of {trust['effective_rows']:.0f} "
            f"rows, too few for intervals of {percent(trust['coverage'])}. The ranking gives none."
        )
    elif trust and alike(trust):
        found.append(
            "Candidates can't be told from the training data by their features, so intervals are as wide as held-out "
            f"values need them, {number(trust['factor'])} times as wide as trained."
        )
    elif trust:
        found.append(
            f"Candidates are drawn unlike the training data: as calibrated on these, intervals meant to hold "
            f"{percent(trust['coverage'])} would hold {percent(trust['expected'])} of the candidates. With training "
            f"rows weighed by how candidate-like they are, worth {trust['effective_rows']:,.0f} rows, intervals are "
            f"{number(trust['factor'])} times as wide."
        )
    if beyond:
        scale = find_transform(summary["transform"])
        reach = (
            factor(scale.factor(beyond["reach"]))
            if scale.logarithmic
            else with_unit(number(beyond["reach"]), summary["unit"])
        )
        found.append(
            f"Of values better than all known ones, {percent(summary['model']['coverage'])} should lie within {reach} "
            "of the prediction, by what was hidden from the model; intervals that reach beyond the known values are "
            "as wide as that."
        )
    return found


def number_header(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """Column names for `number_rows`, with the unit of the errors."""
    from atomsets_core.discovery import COVERAGE  # numbers become words in commands that start without torch

    scale = scale_name(summary)
    return (
        "model",
        "R-precision",
        "enrichment",
        f"error outside, {scale}",
        f"error inside, {scale}",
        f"bias outside, {scale}",
        "Spearman outside",
        f"{percent(COVERAGE)} intervals hold outside",
        f"their width, {scale}",
    )


def number_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The discovery table as text: head, R-precision, enrichment, errors, rank correlation, intervals."""
    rows: list[tuple[str, ...]] = []
    for row in summary["discovery"]["heads"]:
        precision = _decimals(row["r_precision"], 3)
        if row["r_precision_se"]:
            precision += f" ± {row['r_precision_se']:.3f}"
        rows.append(
            (
                row["head"],
                precision,
                _decimals(row["enrichment"], 2),
                _decimals(row["mae_outside"], 3),
                _decimals(row["mae_inside"], 3),
                _decimals(row["bias_outside"], 3),
                _decimals(row["spearman_outside"], 2),
                percent(row.get("coverage_outside")).replace(NONE, ""),
                _decimals(row.get("width_outside"), 3),
            )
        )
    return rows


def number_sentences(summary: Mapping[str, Any]) -> list[str]:
    """What the intervals of the model that is used were worth in simulated discovery; none where it wasn't measured.

    They are its intervals as trained. What the ranking gives is wider, see `interval_sentences`.
    """
    from atomsets_core.discovery import COVERAGE

    heads = {row["head"]: row for row in (summary["discovery"] or {}).get("heads", [])}
    row = heads.get((summary.get("choice") or {}).get("head"))
    if row is None or row.get("width_outside") is None:
        return []
    scale = scale_name(summary)

    def told(where: str) -> str:
        width, bias = (with_unit(number(row[f"{name}_{where}"]), scale) for name in ("width", "bias"))
        return f"{percent(row[f'coverage_{where}'])} (median width {width}, bias {bias})"

    return [
        f"Intervals of {row['head']} as trained, meant to hold {percent(COVERAGE)}, held {told('outside')} of the "
        f"hidden values beyond the training range, {percent(row['coverage_inside'])} of the others (median width "
        f"{with_unit(number(row['width_inside']), scale)})."
    ]


def _decimals(value: float | None, digits: int) -> str:
    """So many decimals; two significant digits where these would show next to nothing of a small number."""
    if value is None:
        return ""
    return f"{value:.2g}" if 0 < abs(value) < 10 ** (1 - digits) else f"{value:.{digits}f}"


def funnel_sentences(told: Mapping[str, Any] | None) -> list[str]:
    """What the funnel did, and how true it proved; nothing without one.

    Args:
        told: "funnel" of summary.json.
    """
    if told is None:
        return []
    said = {
        "keep": f"so that {told['keep']:.4g} of the first {told['first']} of the dear ranking are held",
        "share": "as the campaign says",
        "budget": "as many as the budget allows",
        "all": "which is all: less would lose too much",
    }
    lines = [f"funnel: {told['kept']:,} of {told['n']:,} candidates got the dear features, {said[told['why']]}"]
    needed = " and ".join(f"{float(kept):.0%} in {share:.1%}" for kept, share in told["shares"].items())
    lines.append(
        f"on {told['sampled']['n']} candidates drawn at random both rankings agree with a correlation of "
        f"{told['sampled']['correlation']:.2f}; counted as {told['assumed']:.2f}, the cheap one has of the dear one's "
        f"first {told['first']}: {needed}"
    )
    if "in_discovery" in told:
        seen = " and ".join(f"{float(kept):.0%} in {share:.1%}" for kept, share in told["in_discovery"].items())
        lines.append(
            f"in simulated discoveries (correlation {told['correlation']:.2f}) it had of the first "
            f"{told['top_in_discovery']:.0%} of the pool {seen}"
        )
    if found := told.get("found"):
        lines.append(
            f"the first {found['first']} of the final ranking stood at most at place {found['deepest']:,} of the cheap "
            f"one, half of them within {found['median']:,.0f}"
        )
    return lines
