"""What a joint ranking came to, in words: sentences, the summary on the server, cells of the shortlist."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from atomsets_core.report.words import called, counted, listed, number, percent, symbol_of, with_unit

if TYPE_CHECKING:
    import pandas as pd

Summary = Mapping[str, Any]

STRATEGIES = {
    "hypervolume": "expected growth of the volume under the front",
    "front": "probability to be on the front",
    "weights": "weighted sum",
    "random": "blind choice",
}
"""How rows of the search with hidden values are called."""


def unit_of(summary: Summary, name: str) -> str:
    """Unit of a property or column; may be empty."""
    return str(summary["units"].get(name, ""))


def called_in(summary: Summary, name: str) -> str:
    """A property in sentences, by the title and symbol of its labels; a column, or a property without these, as is."""
    about = summary["properties"].get(name) or {}
    return called({**about, "target": name})


def label_of(summary: Summary, name: str) -> str:
    """A property or column over a column and on an axis, with its unit."""
    about, unit = summary["properties"].get(name) or {}, unit_of(summary, name)
    symbol = symbol_of({**about, "target": name})
    return f"{symbol} ({unit})" if unit else symbol


def wish(summary: Summary, asked: Mapping[str, Any]) -> str:
    """One objective in words, e.g. "gap above 3 eV with at least 80 %"."""
    name, unit = called_in(summary, asked["property"]), unit_of(summary, asked["property"])
    goal, value = asked["goal"], asked["value"]
    if goal in ("maximize", "minimize"):
        return f"{'highest' if goal == 'maximize' else 'lowest'} {name}"
    if goal == "window":
        text = f"{name} between {asked['low']:g} and {with_unit(format(asked['high'], 'g'), unit)}"
    elif goal == "class":
        text = f"highest chance that {name} is {value}"
    else:
        word = {"exceed": "above", "below": "below", "target": "near"}[goal]
        text = f"{name} {word} {with_unit(format(value, 'g'), unit)}"
    return text if asked["at_least"] is None else f"{text} with at least {percent(asked['at_least'])}"


def question(summary: Summary) -> str:
    """What was asked, in one sentence."""
    wishes = [wish(summary, asked) for asked in summary["settings"]["objectives"]]
    return f"Which candidates have the {listed(wishes)}?" if wishes else ""


def value_text(row: Mapping[str, Any], name: str, unit: str) -> str:
    """A value with its interval, or that it is known."""
    value = with_unit(number(row[name]), unit)
    if f"{name}_known" not in row:
        return value
    if row[f"{name}_known"]:
        return f"{value}, known"
    low, high = row[f"{name}_lower"], row[f"{name}_upper"]
    return value if low is None or math.isnan(low) else f"{value} ({number(low)} to {number(high)})"


def chance(share: float | None) -> str:
    """A probability as a percentage; what is nearly certain is not called certain."""
    if share is None or not math.isfinite(share):
        return percent(share)
    return "> 99%" if 0.995 <= share < 1 else "< 1%" if 0 < share < 0.005 else percent(share)


def asked_names(summary: Summary) -> list[str]:
    """Properties and columns that objectives name, each once, in their order."""
    return list(dict.fromkeys(asked["property"] for asked in summary["settings"]["objectives"]))


def joint_sentences(summary: Summary) -> list[str]:
    """What came out, a sentence each."""
    candidates = summary["counts"]["candidates"]
    said = [
        f"pulled {candidates['pulled']:,} candidates = {candidates['ranked']:,} ranked + {candidates['filtered']:,} "
        f"filtered + {candidates['failed']:,} failed"
    ]
    for name, about in summary["properties"].items():
        model = about["model"]
        scores = f", out-of-fold R² {model['r2']:.3f}" if "r2" in model else ""
        scores = f", out-of-fold ROC-AUC {model['roc_auc']:.3f}" if "roc_auc" in model else scores
        said.append(
            f"{name}: learned from {counted(about['training']['learned_from'], 'value')} with {about['choice']['head']}"
            + scores
        )
    if n := candidates["some_known"]:
        said.append(f"of {counted(n, 'ranked candidate')} some value is known and used instead of a prediction")
    if candidates["on_front"]:
        said.append(f"{counted(candidates['on_front'], 'candidate')} on the Pareto front of the values")
    limits = {reason: n for reason, n in candidates["filtered_by_reason"].items() if " with less than " in reason}
    said += [f"left out because {reason}: {n:,}" for reason, n in limits.items()]
    said += search_sentences(summary)
    if summary["why_first"]:
        said.append(f"the first line lies outside the domain of a model: {summary['why_first']}")
    changes = summary.get("changes")
    if changes and (changes["entered"] or changes["left"]):
        said.append(
            f"since the last run {counted(len(changes['entered']), 'candidate')} came to the shortlist and "
            f"{len(changes['left'])} left it"
        )
    return said


def sought(summary: Summary) -> str:
    """What a search with hidden values looks for, by how many directions are wanted."""
    from atomsets_core.discovery import AXES  # computes, and these words are read without what does

    directions = sum(asked["goal"] in AXES for asked in summary["settings"]["objectives"])
    return "the front" if directions > 1 else "the best tenth" if directions else "what meets all limits"


def search_sentences(summary: Summary) -> list[str]:
    """How well such a ranking finds what is known, or why that isn't known."""
    together = summary["together"]
    if not together["strategies"]:
        return [f"how well such a ranking finds things could not be tried: {together['why']}"]
    rows = {row["strategy"]: row for row in together["strategies"]}
    used, blind = rows.get(summary["combine"]) or rows["hypervolume"], rows["random"]
    tried = f"tried on {counted(together['n'], 'material')} of which all values are known, one in ten looked up: this"
    of_one = [row for name, row in rows.items() if name.endswith(" alone")]
    if of_one:
        alone = max(of_one, key=lambda row: row["gained"])
        said = [
            f"{tried} ranking gains {percent(used['gained'])} of what there is to gain and finds "
            f"{percent(used['found'])} of {sought(summary)}; {alone['strategy']} {percent(alone['gained'])}, a blind "
            f"choice {percent(blind['gained'])}"
        ]
        if alone["gained"] > used["gained"]:
            said.append(
                f"ranking by {alone['strategy']} does better there: the other objectives are predicted too poorly"
            )
    else:
        said = [
            f"{tried} ranking finds {percent(used['found'])} of {sought(summary)}, a blind choice "
            f"{percent(blind['found'])}"
        ]
    if used["gained"] <= blind["gained"]:
        said.append("that is no better than a blind choice: its order says nothing")
    return said


def search_rows(summary: Summary) -> list[list[str]]:
    """Rows of the search with hidden values: strategy, gained, found."""
    return [
        [
            STRATEGIES.get(row["strategy"], row["strategy"])
            + (", used" if row["strategy"] == summary["combine"] else ""),
            _share(row["gained"], row["gained_error"]),
            _share(row["found"], row["found_error"]),
        ]
        for row in summary["together"]["strategies"]
    ]


def _share(value: float, error: float | None) -> str:
    return percent(value) if error is None else f"{percent(value)} ± {percent(error)}"


def shortlist_cells(summary: Summary, shortlist: pd.DataFrame) -> list[dict[str, Any]]:
    """The shortlist as the table on the server shows it."""
    names = asked_names(summary)
    rows = []
    for row in shortlist.to_dict("records"):
        cells: dict[str, Any] = {"rank": row["rank"], "material": row["material_id"], "formula": row["formula"]}
        for name in names:
            unit = unit_of(summary, name)
            cells[f"{name} ({unit})" if unit else name] = value_text(row, name, "")
        cells["meets all limits"] = chance(row["p_feasible"])
        if math.isfinite(row["p_front"]):
            cells["on the front"] = percent(row["p_front"])
        cells["domain"] = "inside" if row["in_domain"] else "outside"
        rows.append(cells)
    return rows


def joint_markdown(summary: Summary, more: Sequence[str] = ()) -> str:
    """The summary artifact, with more paragraphs below what came out."""
    lines = [f"# {_plain(summary['campaign'])}", _plain(question(summary)), ""]
    lines += [f"- {_plain(line)}" for line in joint_sentences(summary)]
    lines += ["", *(line for paragraph in more for line in (paragraph, ""))]
    if summary["together"]["strategies"]:
        lines += ["## Search with hidden values", "", "| ranked by | gained | found |", "|---|---|---|"]
        lines += [f"| {' | '.join(_plain(cell) for cell in row)} |" for row in search_rows(summary)]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Text that comes from data, such that Markdown and HTML show it as it is."""
    text = html.escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"([\\`*_{}\[\]|!])", r"\\\1", text)
