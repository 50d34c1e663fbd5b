"""What was asked and how it was done: settings in words, references, and a paragraph for a paper."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from atomsets_core.discovery import find_acquisition
from atomsets_core.parents import About, Reference, about_parent
from atomsets_core.report.classes.words import class_hidden, counts_of, probability_of
from atomsets_core.report.words import (
    called,
    counted,
    listed,
    material,
    number,
    percent,
    symbol_of,
    title_of,
    with_column,
    with_unit,
)
from atomsets_core.transforms import find_transform

ATOMSETS = Reference(
    key="chen2021",
    citation="C. Chen, S. P. Ong, AtomSets as a hierarchical transfer learning framework for small and large "
    "materials datasets, npj Comput. Mater. 7, 173 (2021)",
    doi="10.1038/s41524-021-00639-w",
    fields={
        "author": "Chen, Chi and Ong, Shyue Ping",
        "title": "AtomSets as a hierarchical transfer learning framework for small and large materials datasets",
        "journal": "npj Computational Materials",
        "volume": "7",
        "pages": "173",
        "year": "2021",
    },
)


HEADS = {
    "ridge": "a ridge regression of pooled features, its strength chosen by leave-one-out",
    "Gaussian process": "a Gaussian process of pooled features with a linear and a squared-exponential kernel, their "
    "sizes those of the highest marginal likelihood",
    "random forest": "a random forest of 100 trees on pooled features",
    "ridge, composition": "a ridge regression of statistics of the composition, its strength chosen by leave-one-out",
    "logistic regression": "a ridge-penalised logistic regression of pooled features",
    "logistic regression, composition": "a ridge-penalised logistic regression of statistics of the composition",
    "random forest, composition": "a random forest of 300 trees on statistics of the composition",
    "AtomSets + Gaussian process": "the mean of AtomSets networks and a Gaussian process of pooled features",
    "mixture": "the mean of AtomSets networks, a Gaussian process of pooled "
    "features and a ridge regression of statistics of the composition",
}
"""What the heads beside AtomSets are, in a sentence."""


def parents(summary: Mapping[str, Any]) -> list[About]:
    """What each parent in the feature specification is, e.g. in "megnet:V0+V1"."""
    return [about_parent(part.partition(":")[0].strip()) for part in str(summary["model"]["features"]).split(",")]


def levels(summary: Mapping[str, Any]) -> list[str]:
    """The levels that were used, e.g. from "megnet:V0+V1"; of several parents all of them."""
    parts = str(summary["model"]["features"]).split(",")
    return [level for part in parts for level in part.partition(":")[2].split("+") if level]


def references(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What to cite: method, parents, data; each once."""
    return cited(parents(summary), summary["sources"].values())


def cited(parents: Iterable[About], sources: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The references of the method, of parents and of data, each once, as data sources say theirs."""
    of_parents = [reference.as_source() for about in parents for reference in about.references]
    found: list[Mapping[str, Any]] = []
    for source in (ATOMSETS.as_source(), *of_parents, *sources):
        if source.get("citation") and source["citation"] not in [other["citation"] for other in found]:
            found.append(source)
    return found


def named(about: About) -> str:
    """A parent in running text, with who made it."""
    made_by = "; ".join(reference.short for reference in about.references)
    return f"{about.described} ({made_by})" if made_by else about.described


def source_name(summary: Mapping[str, Any], dataset: str) -> str:
    """What a source is called: by the campaign, and its title where it has one."""
    known, asked = summary["sources"][dataset], summary["settings"][dataset]["source"]
    title = known.get("title") or known.get("name") or asked
    return str(title) if title == asked else f"{asked}, {title}"


def filters(summary: Mapping[str, Any]) -> list[str]:
    """What a candidate had to be, one condition each."""
    asked, units = summary["settings"]["candidates"], summary["sources"]["candidates"].get("units") or {}
    conditions = []
    for name, bounds in asked["filters"].items():
        low, high = bounds.get("min"), bounds.get("max")
        unit = units.get(name, "")
        if low is not None and high is not None:
            conditions.append(with_unit(f"{name} from {low:g} to {high:g}", unit))
        elif low is not None or high is not None:
            conditions.append(with_unit(f"{name} ≤ {high:g}" if low is None else f"{name} ≥ {low:g}", unit))
    if asked["exclude_elements"]:
        conditions.append(f"without {', '.join(asked['exclude_elements'])}")
    if asked.get("only_elements"):
        conditions.append(f"of {', '.join(asked['only_elements'])} alone")
    if asked["exclude_seen"]:
        of_formulas = "composition" in (material(summary), material(summary, "candidates"))
        how = "as a composition" if of_formulas else "neither by identifier nor as the same crystal"
        conditions.append(f"not in the training data, {how}")
    return conditions


def wanted(summary: Mapping[str, Any]) -> str:
    """The objective, e.g. "the highest K_VRH"."""
    objective, target = summary["settings"]["objective"], called(summary)
    if objective["goal"] == "class":
        return f"the highest {probability_of(summary)}"
    if objective["goal"] == "target":
        return f"a {target} nearest to {with_unit(number(objective['value']), summary['unit'])}"
    if objective["goal"] == "window":
        return f"a {target} of {number(objective['low'])} to {with_unit(number(objective['high']), summary['unit'])}"
    if objective["goal"] == "exceed":
        return f"a {target} above {with_unit(number(objective['value']), summary['unit'])}"
    return f"the {'highest' if objective['goal'] == 'maximize' else 'lowest'} {target}"


def acquisition(summary: Mapping[str, Any]) -> str:
    """How candidates were scored."""
    objective = summary["settings"]["objective"]
    scale = find_transform(summary["transform"]).of(symbol_of(summary))
    goal, beyond = objective["goal"], f"a {scale} beyond the best training value"
    utility = {
        "maximize": scale,
        "minimize": f"minus {scale}",
        "target": f"minus the distance of {scale} to the wanted one",
        "window": f"minus the distance of {scale} to the window",
        "exceed": f"{scale} above the wanted value",
        "class": f"the {probability_of(summary)}" if goal == "class" else "",
    }
    return find_acquisition(objective["acquisition"], objective["kappa"]).formula.format(
        utility=utility[goal],
        quantity=scale,
        reference="the wanted value" if goal == "exceed" else "the best training value",
        better=wanted(summary) if goal in ("window", "exceed") else beyond,
        weight=f"{objective['kappa']:g} \N{MULTIPLICATION SIGN} " if objective["kappa"] != 1 else "",
    )


def asked(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The campaign's settings, as name and sentence."""
    settings = summary["settings"]
    objective, check = settings["objective"], settings["discovery"]
    scale = find_transform(summary["transform"])
    quantity = with_column(summary) + (f" in {summary['unit']}" if summary["unit"] else "")
    of_class = objective["goal"] == "class"
    learned = f"{with_column(summary)}: {counts_of(summary)}" if of_class else quantity
    rows = [
        ("Wanted", wanted(summary)),
        ("Learned from", learned if scale.plain else f"{quantity}, as {scale.called}"),
        ("Candidates", "; ".join(filters(summary)) or "all, without a filter"),
        ("Score", acquisition(summary)),
        (
            "Shortlist",
            f"{objective['shortlist']:,} wanted, one a formula; diversity {objective['diversity']:g} "
            "(0: the best scores, 1: as unlike each other as can be)",
        ),
        (
            "Features",
            f"{listed([about.title for about in parents(summary)])}, levels {', '.join(levels(summary))}",
        ),
        ("Model", _model(summary)),
    ]
    if summary["discovery"]:
        rows.append(
            (
                "Check",
                (
                    f"hide {percent(check['quantile'])} of the class, all from one part of composition space, "
                    if of_class
                    else f"hide the best {percent(check['quantile'])} of the training values "
                )
                + f"among {percent(check['pool_share'])} of the others, {counted(check['seeds'], 'repeat')}",
            )
        )
    return rows


def _model(summary: Mapping[str, Any]) -> str:
    model, head = summary["settings"]["model"], HEADS.get(summary["choice"]["head"])
    if "class" in summary:
        what = head or f"{model['members']} AtomSets networks"
        return f"{what[0].upper()}{what[1:]}, once without each of {model['folds']} parts of the training data"
    ends = f"of {model['folds']} parts of the training data; intervals for {percent(model['coverage'])} of the values"
    if head is None:
        return f"{model['members']} AtomSets networks; each leaves out one {ends}"
    return f"{head[0].upper()}{head[1:]}, once without each {ends}"


def _fitted(summary: Mapping[str, Any]) -> list[str]:
    """How the model was fitted, a sentence each."""
    model, head = summary["settings"]["model"], summary["choice"]["head"]
    widths = {part: "-".join(map(str, model[part])) or "none" for part in ("phi", "rho")}
    networks = (
        f"The ensemble has {model['members']} networks with layers of {widths['phi']} units on each site, "
        f"{' and '.join(model['pooling'])} pooling, layers of {widths['rho']} units after it and {model['activation']} "
        f"activations, trained for {model['epochs']} epochs with AdamW (batch size {model['batch_size']}, learning "
        f"rate {model['learning_rate']:g}, weight decay {model['weight_decay']:g}) on the "
        f"{'log loss' if 'class' in summary else model['loss'] + ' error'}; seed {model['seed']}."
    )
    if head not in HEADS:
        return [networks, f"Each network leaves out one of {model['folds']} folds grouped by reduced formula."]
    own = f"The model is {HEADS[head]}, fitted once without each of {model['folds']} folds grouped by reduced formula."
    return [own, networks] if head.startswith("AtomSets") else [own]


def paragraph(summary: Mapping[str, Any]) -> str:
    """A methods section for a paper, with every choice that matters to repeat the work."""
    settings, scores = summary["settings"], summary["model"]
    model, objective = settings["model"], settings["objective"]
    training, candidates = summary["counts"]["training"], summary["counts"]["candidates"]
    made_by = listed([named(about) for about in parents(summary)])
    scale = find_transform(summary["transform"]).applied_to(symbol_of(summary))
    conditions = filters(summary)
    head = summary["choice"]["head"]
    kind = f"a {head} model" if head in HEADS else f"AtomSets models ({ATOMSETS.short})"
    text = [
        f"Candidates for {wanted(summary)} were ranked with {kind} on features of "
        f"{made_by}, levels {', '.join(levels(summary))}, using "
        f"atomsets-screening {summary['versions'].get('atomsets-screening', '')}.",
        f"The models were trained on {training['learned_from']:,} values of {scale}{_meaning(summary)} from "
        f"{source_name(summary, 'training')}{f', {counts_of(summary)}' if 'class' in summary else ''}.",
        f"The candidates came from {source_name(summary, 'candidates')}; {candidates['ranked']:,} of "
        f"{candidates['pulled']:,} were ranked"
        + (f" after {candidates['filtered']:,} were filtered out (kept: {'; '.join(conditions)})" if conditions else "")
        + f"; {candidates['failed']:,} could not be read or featurised.",
        *_fitted(summary),
        _of_probabilities(summary)
        if "class" in summary
        else f"Intervals are "
        f"conformal, from the out-of-fold residuals scaled by the spread of the ensemble, for "
        f"{percent(model['coverage'])} coverage "
        f"({percent(scores['coverage_out_of_fold'], 1)} out of fold). The out-of-fold mean absolute error is "
        f"{number(scores['mae'])} in {scale} (R² {number(scores['r2'])}).",
        f"Candidates were scored by {acquisition(summary)}; a shortlist of {candidates['shortlist']:,} was chosen by "
        f"maximal marginal relevance (diversity {objective['diversity']:g}), one "
        f"{material(summary, 'candidates')} a formula.",
        _check(summary),
    ]
    return " ".join(part for part in text if part)


def _meaning(summary: Mapping[str, Any]) -> str:
    """What a symbol stands for, and in which column its values were found, in brackets; nothing where it is that."""
    column = str(summary["target"])
    return "" if symbol_of(summary) == column else f" ({title_of(summary)}, column {column})"


def _of_probabilities(summary: Mapping[str, Any]) -> str:
    model, scores = summary["settings"]["model"], summary["model"]
    return (
        "Probabilities are calibrated on the log odds of rows that were left out (temperature and bias), and go to the "
        "share of the class far from the training data; intervals are those of beta distributions with the deviation "
        f"of a delete-a-group jackknife over the folds, for {percent(model['coverage'])}. Out of fold the ROC-AUC is "
        f"{number(scores['roc_auc'])}, the balanced accuracy at 0.5 {percent(scores['balanced_accuracy'], 1)} and the "
        f"Brier score {number(scores['brier'])}."
    )


def _check(summary: Mapping[str, Any]) -> str:
    found = summary["discovery"]
    if not found:
        return ""
    if "class" in summary:
        own, *others = found["heads"]
        rivals = [f"{number(head['r_precision'])} for {head['head']}" for head in others if head["head"] != "oracle"]
        return (
            f"In a simulated discovery with {class_hidden(summary)}, the R-precision was {number(own['r_precision'])} "
            f"on average, against {listed(rivals)}."
        )
    own, *others = found["heads"]
    end = "highest" if summary["settings"]["objective"]["goal"] == "maximize" else "lowest"
    rivals = [f"{number(head['r_precision'])} for {head['head']}" for head in others if head["head"] != "oracle"]
    return (
        f"In a simulated discovery with the {found['n_hidden']:,} {end} training values hidden in a pool of "
        f"{found['n_pool']:,} and all {material(summary)}s of the pool's formulas left out of training, the "
        f"R-precision was {number(own['r_precision'])} (mean of {counted(len(found['files']), 'repeat')}), against "
        f"{listed(rivals)}."
    )
