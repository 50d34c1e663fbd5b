"""The answer of a campaign: the first candidate, what it is, and in a sentence why to believe it or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from atomsets_core.report.candidates.crystals import Crystal, bonded_in_words
from atomsets_core.report.classes.words import known_class
from atomsets_core.report.markup import small_digits
from atomsets_core.report.results import Results
from atomsets_core.report.words import listed, minus, number, percent, with_unit

NEIGHBOURS = 3
"""Nearest known materials that the sentence names."""

STABLE = 5e-4
"""eV/atom above the hull that show as 0.000: on it, as far as is told."""


def what_it_is(row: Mapping[str, Any], found: Crystal | None) -> str:
    """Space group, stability and bonds of a candidate, as far as they are known, e.g. "Cmcm (63), orthorhombic"."""
    parts = [] if found is None else [found.group]
    if stability := hull_in_words(row.get("e_above_hull")):
        parts.append(stability)
    kind = bonded_in_words(row.get("matter"))
    if kind and not kind.startswith("bulk"):
        parts.append(kind)
    return "; ".join(parts)


def hull_in_words(energy: Any) -> str:
    """Stability in words; nothing where it isn't known."""
    if energy is None or pd.isna(energy):
        return ""
    if abs(float(energy)) < STABLE:
        return "stable: on the convex hull of its source"
    side = "above" if energy > 0 else "below"
    return f"{minus(f'{abs(float(energy)):.3f}')} eV/atom {side} the convex hull of its source"


def why(results: Results) -> str:
    """Why to believe the first candidate or not, from what is known that is like it; nothing without a candidate."""
    if results.shortlist.empty:
        return ""
    row = results.shortlist.iloc[0].to_dict()
    if not results.summary["choice"].get("better_than_random", True):
        return (
            "Don't believe it yet: where the answer is known, this ranking was no better than a blind choice, so its "
            "order says nothing."
        )
    near = _nearest(results, row)
    if not bool(row["in_domain"]):
        return f"Check it first: no known material is much like it{_named(results, near, ' (the nearest', ')')}."
    if bool(results.beyond_training()[0]):
        return (
            f"Check it first: no known value is as good{_found(results)}"
            f"{_named(results, near, '; its nearest known materials', '')}."
        )
    if not near or "class" in results.summary:
        return f"Known materials are like it{_named(results, near, ': the nearest', '')}."
    values, predicted = [float(one["value"]) for one in near], float(row["predicted"])
    named = _named(results, near, "its nearest known materials", "")
    if min(values) <= predicted <= max(values):
        return f"It can be believed as far as its interval goes: among {named} some have more and some less."
    less = "less" if predicted > max(values) else "more"
    return f"Trust its place more than its value: all of {named} have {less}."


def _nearest(results: Results, row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The nearest known materials."""
    about = results.evidence.get(str(row["material_id"]))
    return [] if about is None else list(about["neighbours"][:NEIGHBOURS])


def _named(results: Results, near: list[Mapping[str, Any]], before: str, after: str) -> str:
    """Formulas and values of known materials between two texts; nothing where there are none."""
    if not near:
        return ""
    told = [f"{small_digits(str(one['formula']))} ({_value(results, one)})" for one in near]
    return f"{before} {listed(told)}{after}"


def _value(results: Results, one: Mapping[str, Any]) -> str:
    if "class" in results.summary:
        return known_class(results.summary, float(one["value"]))
    return with_unit(number(float(one["value"])), results.unit)


def _found(results: Results) -> str:
    """What happened where such values were hidden, if that was tried."""
    heads = results.heads()
    if not heads:
        return ""
    own = next(iter(heads.values()))
    return f" (of such values, hidden from it, the model found {percent(own['r_precision'])})"


def winner(results: Results) -> str:
    """Which other model finds more of what is hidden than the one in use, and by how much; nothing where none does.

    What `words.comparison_sentences` says already isn't said again.
    """
    heads = results.heads()
    if not heads:
        return ""
    own, *others = heads.values()
    rivals = [head for head in others if head["head"] not in ("random", "oracle")]
    if not rivals or own["r_precision"] is None:
        return ""
    best = max(rivals, key=lambda head: head["r_precision"])
    lost = results.summary["choice"].get("lost") or {}
    if best["r_precision"] <= own["r_precision"] or lost.get("to") == best["head"]:
        return ""
    what = "class" if "class" in results.summary else "best"
    return (
        f"Where the answer is known {best['head']} found more: {percent(best['r_precision'])} of the hidden {what}, "
        f"{own['head']}, which is used here, {percent(own['r_precision'])}."
    )
