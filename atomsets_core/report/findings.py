"""What the numbers of a campaign say, in plain words: the question, the answer, and how far to trust it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from atomsets_core.discovery import MEAN, find_acquisition
from atomsets_core.report import methods
from atomsets_core.report.markup import small_digits
from atomsets_core.report.results import NAMES, FloatArray, Results
from atomsets_core.report.words import (
    alike,
    called,
    comparison_sentences,
    counted,
    factor,
    funnel_sentences,
    interval_sentences,
    listed,
    material,
    mean_count,
    number,
    percent,
    scale_name,
    with_unit,
)

FEW = 20
"""Rows below which a share of them says little."""


NO_BETTER = (
    "Warning: where the answer is known, this ranking was no better than a blind choice. Don't spend calculations on "
    "its order; more values, or features that know more of this property, may help."
)


@dataclass(frozen=True)
class Finding:
    """A heading and one or more sentences."""

    title: str
    text: str


@dataclass(frozen=True)
class Tile:
    """A key number: what it is, the number, and what to compare it with."""

    name: str
    value: str
    note: str


def question(results: Results) -> str:
    """What the campaign asked, as a question."""
    target, unit, n = called(results.summary), results.unit, len(results.ranking)
    asked = f"Which of {counted(n, 'candidate')}"
    if results.goal == "target":
        value = with_unit(number(results.summary["settings"]["objective"]["value"]), unit)
        return f"{asked} {'comes' if n == 1 else 'come'} closest to {target} = {value}?"
    if results.goal in ("window", "exceed"):
        return f"{asked} {'has' if n == 1 else 'have'} {methods.wanted(results.summary)}?"
    end = "highest" if results.goal == "maximize" else "lowest"
    return f"{asked} {'has' if n == 1 else 'have'} the {end} {target}{f' ({unit})' if unit else ''}?"


def best_inside(results: Results) -> pd.Series | None:
    """The candidate with the best prediction inside the applicability domain, if there is one."""
    utility = np.where(results.ranking["in_domain"].to_numpy(dtype=bool), results.utility(), -np.inf)
    if not len(utility) or not np.isfinite(utility.max()):
        return None
    return results.rows([int(np.argmax(utility))], (*NAMES, "lower", "upper", "in_domain")).iloc[0]


def error_in_words(results: Results, value: float) -> str:
    """An error on the model's scale, as a percentage or factor where the scale is logarithmic."""
    scale = results.transform
    if scale.logarithmic:
        return factor(scale.factor(value))
    return with_unit(number(abs(value)), scale.of(results.unit))


def tiles(results: Results) -> list[Tile]:
    """The key numbers of the first screen."""
    summary, model = results.summary, results.summary["model"]
    candidates, heads = summary["counts"]["candidates"], results.heads()
    tiles = [
        ranked_tile(candidates),
        Tile(
            "Shortlist",
            f"{candidates['shortlist']:,}",
            f"{int(results.shortlist['in_domain'].sum()):,} of them like known materials (inside the domain)",
        ),
        Tile(
            "Typical error",
            error_in_words(results, model["mae"]).removeprefix("a "),
            f"of known values that the model had not seen; R² {number(model['r2'])}",
        ),
        _interval_tile(summary),
    ]
    return [*tiles, found_tile(results)] if heads else tiles


def ranked_tile(candidates: Mapping[str, Any]) -> Tile:
    """How many candidates were ranked, and what became of the others."""
    lost = candidates["pulled"] - candidates["ranked"]
    rest = f"; {lost:,} were filtered out or failed" if lost else ""
    return Tile("Ranked", f"{candidates['ranked']:,}", f"of {candidates['pulled']:,} candidates{rest}")


def found_tile(results: Results) -> Tile:
    """R-precision of the simulated discovery, with what it is and what to hold it against."""
    own, *_ = results.heads().values()
    k, what = results.summary["discovery"]["n_hidden"], "of the class" if "class" in results.summary else "best known"
    return Tile(
        f"Hidden {'class' if 'class' in results.summary else 'best'} found",
        percent(own["r_precision"]),
        f"of {k:,} {what}, hidden from the model, among its first {k:,} picks (R-precision), against {rivals(results)}",
    )


def rivals(results: Results) -> str:
    """What the best of the other models and blind picking find of the hidden, e.g. "ridge 87%, blind picking 36%"."""
    _, *others = results.heads().values()
    models = [head for head in others if head["head"] not in ("random", "oracle")]
    best = [max(models, key=lambda head: head["r_precision"])] if models else []
    told = [f"{head['head']} {percent(head['r_precision'])}" for head in best]
    told += [f"blind picking {percent(head['r_precision'])}" for head in others if head["head"] == "random"]
    return ", ".join(told)


def _interval_tile(summary: Mapping[str, Any]) -> Tile:
    """What is known of the candidates' intervals; where nothing is, what training values say of the model's own."""
    model = summary["model"]
    of_training = f"of known values {percent(model['coverage_out_of_fold'], 1)} do"
    trust = (summary.get("intervals") or {}).get("candidates")
    if trust is None:
        return Tile(
            "Intervals hold",
            percent(model["coverage_out_of_fold"], 1),
            f"of known values that the model had not seen; asked for {percent(model['coverage'])}",
        )
    if trust["factor"] is None:
        return Tile("Intervals for candidates", "none", f"too few training rows are like them; {of_training}")
    if alike(trust):
        return Tile(
            "Intervals for candidates",
            percent(trust["coverage"]),
            f"of them should lie inside; {of_training}",
        )
    return Tile(
        "Intervals for candidates",
        percent(trust["coverage"]),
        f"of them should lie inside. For that intervals are {number(trust['factor'], 2)} times as wide as trained: "
        "candidates are unlike the training data",
    )


def trust(results: Results) -> list[Finding]:
    """How far the campaign's answer can be trusted, from its own numbers; the first finding sums it up."""
    found = [
        _typical_error(results),
        _intervals(results),
        _beyond(results),
        which_model(results),
        _baselines(results),
        _shortlist(results),
        Finding("What got the dear features", ". ".join(funnel_sentences(results.summary.get("funnel")))),
        Finding("What the parent network has seen", results.summary["overlap"]),
    ]
    return [_in_short(results), *(finding for finding in found if finding and finding.text)]


def _in_short(results: Results) -> Finding:
    model, heads = results.summary["model"], results.heads()
    parts = [
        f"For materials like those it was trained on, a prediction is typically off by "
        f"{error_in_words(results, model['mae'])}."
    ]
    parts[:0] = comparison_sentences(results.summary)
    if not results.summary["choice"].get("better_than_random", True):
        parts.insert(0, NO_BETTER)
    if heads:
        own, *_ = heads.values()
        parts.append(
            f"In a simulated search for values beyond its training range the model found {percent(own['r_precision'])} "
            f"of the hidden best, against {rivals(results)}."
        )
    outside = int((~results.shortlist["in_domain"].astype(bool)).sum())
    if len(results.shortlist):
        parts.append(
            f"{outside:,} of the {len(results.shortlist):,} shortlisted materials are unlike what it was trained on"
            + (f"{_unlike(results)}: check those first." if outside else ".")
        )
    return Finding("In short", " ".join(parts))


def _unlike(results: Results) -> str:
    """How predictions did for training structures unlike the others, if there are enough to tell."""
    unlike = ~results.out_of_fold["in_domain"].to_numpy(dtype=bool)
    if unlike.sum() < FEW:
        return ""
    return f"; for such, known values were missed by {error_in_words(results, _errors(results)[unlike].mean())}"


def _typical_error(results: Results) -> Finding:
    summary, model = results.summary, results.summary["model"]
    details = [f"mean absolute error {with_unit(number(model['mae']), scale_name(summary))}"]
    if not results.transform.plain:
        details.append(f"{with_unit(number(model['mae_in_unit']), results.unit)} in the unit of the target")
    details += [f"R² {number(model['r2'])}", f"rank correlation {number(model['spearman'])}"]
    return Finding(
        "Inside the training range",
        f"Each of the {len(results.out_of_fold):,} training values, {number(model['value_min'])} to "
        f"{with_unit(number(model['value_max']), results.unit)}, was predicted by models that had seen neither it "
        f"nor any {material(summary)} of the same formula. They are off by {error_in_words(results, model['mae'])} on "
        f"average ({', '.join(details)}).",
    )


def _intervals(results: Results) -> Finding:
    model, rows = results.summary["model"], results.out_of_fold
    text = (
        f"{percent(model['coverage_out_of_fold'], 1)} of the training values lie inside their out-of-fold interval; "
        f"{percent(model['coverage'])} was asked for."
    )
    inside = rows["in_domain"].to_numpy(dtype=bool)
    held = ((rows["value"] >= rows["lower"]) & (rows["value"] <= rows["upper"])).to_numpy(dtype=bool)
    if (~inside).sum() >= FEW and inside.any():
        without, errors = held[~inside].mean(), _errors(results)
        text += (
            f" Of the {int((~inside).sum()):,} training {material(results.summary)}s least like the others, those "
            f"outside the applicability domain, {percent(without)} do, and they are off by "
            f"{error_in_words(results, errors[~inside].mean())} on average (the rest: {percent(held[inside].mean())}, "
            f"{error_in_words(results, errors[inside].mean())})"
        )
        text += "."
    text = " ".join([text, *interval_sentences(results.summary)])
    return Finding("Intervals, and materials unlike the others", text)


def _errors(results: Results) -> FloatArray:
    """(n_train,) absolute errors of the out-of-fold predictions, on the model's scale."""
    values = (results.out_of_fold[name].to_numpy(dtype=np.float64) for name in ("value", "predicted"))
    truth, predicted = (results.transform.forward(each) for each in values)
    return np.abs(predicted - truth)


def _beyond(results: Results) -> Finding:
    found, title = results.summary["discovery"], "Beyond the training range"
    if not found:
        why = (
            "the check needs the goal maximize, minimize or exceed"
            if results.goal in ("target", "window")
            else "the campaign asked for no simulated discovery"
        )
        return Finding(title, f"Not tested: {why}. Nothing here says how predictions hold up beyond known values.")
    own, *others = results.heads().values()
    k, pool = found["n_hidden"], found["n_pool"]
    hits = "; ".join(
        f"{head['head']} {mean_count(head['hits'][k - 1])} ({percent(head['r_precision'])})"
        for head in others
        if head["head"] != "oracle"
    )
    budget = min(len(results.shortlist), pool)
    best = "lowest" if results.goal == "minimize" else "highest"
    text = (
        f"The {k:,} {best} training values were hidden and the model, trained without them or any "
        f"{material(results.summary)} of their formulas, ranked them among {pool - k:,} others "
        f"({counted(len(found['files']), 'repeat')}). Its first {k:,} picks held {mean_count(own['hits'][k - 1])} of "
        f"them ({percent(own['r_precision'])}); {hits}."
    )
    if budget:
        text += f" Its first {budget:,}, as many as the shortlist holds, held {mean_count(own['hits'][budget - 1])}."
    text += f" {_bias(results, own)}"
    return Finding(title, text)


def which_model(results: Results) -> Finding | None:
    """Which model and acquisition the simulated discovery chose, with the numbers it went by."""
    choice = results.summary["choice"]
    if "compared" not in choice:
        return None
    others = [
        f"{name} {percent(max(by_kind.values()))}"
        for name, by_kind in choice["compared"].items()
        if name != choice["head"]
    ]
    text = (
        f"{choice['head']}, ranked by {find_acquisition(choice['acquisition']).words}, found "
        f"{percent(choice['r_precision'])} of the hidden {'class' if 'class' in results.summary else 'best'}"
        f"{f' (at best: {listed(others)})' if others else ''}. So this campaign uses it. Of models that find as many "
        f"as the best, noise aside, the first in the order of preference is taken. Blind picking finds "
        f"{percent(choice['prevalence'])} on average and seldom more than {percent(choice['chance'])}."
    )
    return Finding("Which model, and why", text if choice["better_than_random"] else f"{NO_BETTER} {text}")


def _bias(results: Results, own: dict[str, Any]) -> str:
    bias, scale, transform = own["bias_outside"], scale_name(results.summary), results.transform
    if bias is None:
        return ""
    if transform.logarithmic:
        size = percent(abs(transform.inverse(bias) / transform.inverse(0.0) - 1), 1)
    else:
        values = np.sort(transform.forward(results.out_of_fold["value"].to_numpy(dtype=np.float64)))
        k = results.summary["discovery"]["n_hidden"]
        hidden = float(np.mean(values[:k] if results.goal == "minimize" else values[-k:]))
        size = f"{abs(bias / hidden):.1%} of their mean" if hidden else error_in_words(results, bias)
    return (
        f"It {'under' if bias < 0 else 'over'}estimates the hidden values by {size} on average "
        f"({number(bias)} {scale}); its error there is {number(own['mae_outside'])} {scale}, against "
        f"{number(own['mae_inside'])} on the others."
    )


def _baselines(results: Results) -> Finding | None:
    rows = list(results.heads().values())
    if not rows:
        return None
    own, others = rows[0], [row for row in rows[1:] if row["mae_outside"] is not None]
    if not others:
        return None
    wins = _wins(results, own, others)
    names = listed([other["head"] for other in others])
    if wins:
        text = f"Other models do better in {listed(wins)}."
    else:
        text = f"None of the other models ({names}) does better in any score of the simulated discovery."
    rival = max(others, key=lambda row: row["r_precision"])
    margin = own["r_precision"] - rival["r_precision"]
    error = float(np.hypot(own["r_precision_se"] or 0.0, rival["r_precision_se"] or 0.0))
    if margin < 0:
        text += (
            f" In what counts, finding the hidden best, {rival['head']} wins: name it in discovery.heads to have it "
            "used, or trust this list less."
        )
    elif error and margin < 2 * error:
        text += f" The lead in R-precision over {rival['head']}, {margin:.3f}, is within the noise of the repeats."
    return Finding("Against other models", text)


def _wins(results: Results, own: dict[str, Any], others: list[dict[str, Any]]) -> list[str]:
    """The scores in which other heads are better than the campaign's model, as text."""
    scale = scale_name(results.summary)
    scores = (
        ("r_precision", "R-precision", "", 1),
        ("mae_outside", "error outside", scale, -1),
        ("mae_inside", "error inside", scale, -1),
        ("bias_outside", "bias outside", scale, 0),
        ("spearman_outside", "rank correlation outside", "", 1),
    )
    found = []
    for key, name, unit, sign in scores:
        mine = own[key]
        if mine is None:
            continue
        better = [
            f"{other['head']} {number(other[key])}"
            for other in others
            if other[key] is not None and (sign * (other[key] - mine) if sign else abs(mine) - abs(other[key])) > 0
        ]
        if better:
            found.append(f"{name} ({'; '.join(better)}; {own['head']} {with_unit(number(mine), unit)})")
    return found


def _shortlist(results: Results) -> Finding | None:
    shortlist, model = results.shortlist, results.summary["model"]
    if shortlist.empty:
        return None
    outside = int((~shortlist["in_domain"].astype(bool)).sum())
    everywhere = float((~results.ranking["in_domain"].astype(bool)).mean())
    beyond = int(results.beyond_training().sum())
    edge = {
        "maximize": f"above the largest training value, {with_unit(number(model['value_max']), results.unit)}",
        "minimize": f"below the smallest training value, {with_unit(number(model['value_min']), results.unit)}",
    }.get("maximize" if results.goal == "exceed" else results.goal, "outside the range of the training values")
    text = (
        f"{outside:,} of {len(shortlist):,} shortlisted candidates ({percent(everywhere)} of all ranked ones) lie "
        f"outside the applicability domain: no training {material(results.summary)} is much like them. "
        f"{f'{beyond:,} are' if beyond > 1 else 'One is' if beyond else 'None is'} predicted {edge}."
    )
    return Finding("The shortlist", f"{text} {_lifted(results)}".strip())


def _lifted(results: Results) -> str:
    """Which shortlisted candidates owe their place to their uncertainty."""
    objective = results.summary["settings"]["objective"]
    if find_acquisition(objective["acquisition"], objective["kappa"]) is MEAN:
        return ""
    alone = pd.Series(-results.utility(), index=results.ranking.index).rank(method="min").loc[results.shortlist.index]
    lifted = alone[alone > results.shortlist["rank"].max()].sort_values(ascending=False)
    if lifted.empty:
        return ""
    named = [
        f"{small_digits(str(results.shortlist.loc[row, 'formula']))} would be number {int(place):,}"
        for row, place in lifted[:3].items()
    ]
    if len(lifted) == 1:
        return f"One is there for its wide interval: by prediction alone {named[0]}."
    return f"{len(lifted):,} are there for their wide intervals: by prediction alone {listed(named)}."
