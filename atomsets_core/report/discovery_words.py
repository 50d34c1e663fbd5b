"""The result of `atomsets discover` as text: the same on the command line, in the report and in the documentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atomsets_core.discovery import CHOSEN, find_acquisition
from atomsets_core.report.words import NONE, counted, minus, number, percent
from atomsets_core.transforms import find_transform


def table_header(result: Mapping[str, Any]) -> tuple[str, ...]:
    """Column names for `table_rows`."""
    asked = result["asked"]
    unit = find_transform(asked["transform"]).of(asked["unit"])
    errors = f" ({unit})" if unit else ""
    return (
        "head", "seeds", "R-precision", "best acquisition", "error outside" + errors, "error inside", "bias outside",
        "Spearman outside", "90% intervals hold outside", "acceleration", "area",
    )  # fmt: skip


def table_rows(told: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row of text for each head of a target: means and 95 % bootstrap intervals over the seeds."""
    rows: list[tuple[str, ...]] = []
    for row in told["table"]:
        kinds = row["acquisition"]
        best = max(kinds, key=lambda kind: kinds[kind]) if kinds and row["head"] != CHOSEN else None
        rows.append(
            (
                row["head"],
                str(row["seeds"]),
                _with_interval(row, "r_precision", 3),
                f"{kinds[best]:.3f} ({best})" if best else "",
                _with_interval(row, "mae_outside", 4),
                _plain(row["mae_inside"], 4),
                _plain(row["bias_outside"], 4),
                _plain(row["spearman_outside"], 2),
                percent(row["coverage_outside"]) if row["coverage_outside"] is not None else "",
                _plain(row["acceleration"], 2),
                _plain(row["area"], 3),
            )
        )
    return rows


def _with_interval(row: Mapping[str, Any], name: str, digits: int) -> str:
    value, interval = row[name], row["intervals"][name]
    if value is None:
        return ""
    text = f"{value:.{digits}f}"
    return f"{text} [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]" if interval else text


def _plain(value: float | None, digits: int) -> str:
    return "" if value is None else minus(f"{value:.{digits}f}")


def sentence(result: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    """What was asked, what was found, and whether to trust it, in plain words."""
    asked, run, verdict = result["asked"], told["runs"][0], told["verdict"]
    best = "highest" if asked["goal"] == "maximize" else "lowest"
    parts = [
        f"the {run['n_hidden']:,} {best} of {result['counts']['used']:,} values hidden in a pool of {run['n_pool']:,}, "
        f"{counted(len(told['runs']), 'repeat')}."
    ]
    if not verdict["better_than_random"]:
        parts.append(
            f"WARNING: the ranking is no better than a blind choice: it finds {percent(verdict['r_precision'])} of the "
            f"hidden where blind picking finds {percent(verdict['prevalence'])} and up to {percent(verdict['chance'])} "
            "by luck. Don't spend calculations on it."
        )
    else:
        parts.append(
            f"Choosing head and acquisition inside the training part finds {percent(verdict['r_precision'])} of them "
            f"(blind picking: {percent(verdict['prevalence'])})."
            if told["table"][0]["head"] == CHOSEN
            else f"{told['table'][0]['head']} finds {percent(verdict['r_precision'])} of them (blind picking: "
            f"{percent(verdict['prevalence'])})."
        )
    losses = [rival for rival, scores in told["leads"].items() if not _clear(scores["r_precision"], 1)]
    if losses:
        parts.append(f"Its lead in R-precision is not clear, or there is none, over: {', '.join(losses)}.")
    worse = [rival for rival, scores in told["leads"].items() if not _clear(scores["mae_outside"], -1)]
    if worse:
        parts.append(f"Likewise in the error outside: {', '.join(worse)}.")
    return " ".join(parts)


def _clear(found: Mapping[str, Any] | None, sign: int) -> bool:
    """Whether the whole interval of a lead lies on the good side."""
    if found is None:
        return True
    interval = found["interval"] or [found["mean"], found["mean"]]
    return bool(interval[0] > 0 if sign > 0 else interval[1] < 0)


def choice_sentence(told: Mapping[str, Any]) -> str:
    """How often which head and acquisition was chosen inside the training part."""
    chosen = [c for c in told["chosen"] if c]
    counts: dict[str, int] = {}
    for choice in chosen:
        name = f"{choice['head']} by {find_acquisition(choice['acquisition']).words}"
        counts[name] = counts.get(name, 0) + 1
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    return "; ".join(f"{name} ({n} of {len(chosen)})" for name, n in ranked)


def search_sentence(told: Mapping[str, Any]) -> str:
    """The result of the sequential searches, in plain words."""
    asked, rows = told["search"], told["search"]["table"]
    parts = [
        f"Sequential search, from {asked['n_start']:,} rows of the worse half: to find half of the "
        f"{asked['n_wanted']:,} best among {asked['n_pool']:,}, blind picking needs {asked['random_budget']:,.0f}."
    ]
    for row in rows:
        if row["search"] == "random":
            continue
        if row["budget"] is None:
            parts.append(f"{row['search']}: not within {len(row['curve']):,}.")
            continue
        interval = row["multiple_interval"]
        span = f" [{percent(interval[0], 1)}, {percent(interval[1], 1)}]" if interval else ""
        missed = "" if row["reached"] == row["seeds"] else f", in {row['reached']} of {row['seeds']} repeats"
        parts.append(f"{row['search']}: {row['budget']:,.0f}, {percent(row['multiple'], 1)}{span} of that{missed}.")
    return " ".join(parts)


def search_rows(told: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row for each search: name, repeats that got there, budget, multiple of blind picking."""
    rows: list[tuple[str, ...]] = []
    for row in told["search"]["table"]:
        low, high = row["multiple_interval"] or (None, None)
        span = f" [{number(low)}, {number(high)}]" if low is not None else ""
        rows.append(
            (
                row["search"],
                f"{row['reached']} of {row['seeds']}",
                NONE if row["budget"] is None else f"{row['budget']:,.0f}",
                NONE if row["multiple"] is None else f"{number(row['multiple'])}{span}",
            )
        )
    return rows
