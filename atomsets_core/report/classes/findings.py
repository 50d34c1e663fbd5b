"""What the numbers of a campaign of a class say: the question, the answer, and how far to trust it."""

from __future__ import annotations

import numpy as np

from atomsets_core.models import probability_scores
from atomsets_core.report.classes import words
from atomsets_core.report.findings import FEW, NO_BETTER, Finding, Tile, found_tile, ranked_tile, rivals, which_model
from atomsets_core.report.results import Results
from atomsets_core.report.words import comparison_sentences, counted, mean_count, number, percent


def question(results: Results) -> str:
    """What the campaign asked, as a question."""
    n = len(results.ranking)
    return f"Which of {counted(n, 'candidate')} {'is' if n == 1 else 'are'} {words.class_of(results.summary)}?"


def tiles(results: Results) -> list[Tile]:
    """The key numbers of the first screen."""
    summary, model = results.summary, results.summary["model"]
    candidates, heads = summary["counts"]["candidates"], results.heads()
    likely = int((results.ranking["predicted"].to_numpy(dtype=np.float64) >= 0.5).sum())
    found = [
        ranked_tile(candidates),
        Tile(
            "More probable than not",
            f"{likely:,}",
            f"{percent(model['share'])} of the training data are {words.class_of(summary)}",
        ),
        Tile(
            "ROC-AUC",
            number(model["roc_auc"]),
            "how often one of the class has the higher probability, of labels the model had not seen; balanced "
            f"accuracy {percent(model['balanced_accuracy'], 1)}",
        ),
        Tile(
            "Calibration error",
            number(model["calibration_error"], 2),
            f"between probabilities and what was true; Brier score {number(model['brier'])}",
        ),
    ]
    return [*found, found_tile(results)] if heads else found


def trust(results: Results) -> list[Finding]:
    """How far the campaign's answer can be trusted; the first finding sums it up."""
    found = [
        _probabilities(results),
        _unlike(results),
        _elsewhere(results),
        which_model(results),
        _shortlist(results),
        Finding("What the parent network has seen", results.summary["overlap"]),
    ]
    return [_in_short(results), *(finding for finding in found if finding and finding.text)]


def _in_short(results: Results) -> Finding:
    summary, model, heads = results.summary, results.summary["model"], results.heads()
    parts = [] if summary["choice"].get("better_than_random", True) else [NO_BETTER]
    parts += comparison_sentences(summary)
    parts.append(
        f"Of two materials like those it was trained on, one {words.class_of(summary)} and the other not, the model "
        f"gives the first the higher probability in {percent(model['roc_auc'], 1)} of cases."
    )
    if heads:
        own, *_ = heads.values()
        parts.append(
            f"In chemistry that was hidden from it, it found {percent(own['r_precision'])} of the class among as many "
            f"first picks, against {rivals(results)}."
        )
    outside = int((~results.shortlist["in_domain"].astype(bool)).sum())
    if len(results.shortlist):
        parts.append(
            f"{outside:,} of the {len(results.shortlist):,} shortlisted materials are unlike what it was trained on"
            + (": check those first." if outside else ".")
        )
    return Finding("In short", " ".join(parts))


def _probabilities(results: Results) -> Finding:
    summary, model, name = results.summary, results.summary["model"], words.class_of(results.summary)
    found = model["confusion"]
    members, others = (found[a] + found[b] for a, b in (("true_positive", "false_negative"),
                                                        ("true_negative", "false_positive")))  # fmt: skip
    return Finding(
        "For materials like the training data",
        f"Each of the {len(results.out_of_fold):,} labelled structures, {words.counts_of(summary)}, got its "
        "probability from models that had seen neither it nor any structure of the same formula. At 0.5 "
        f"{found['true_positive']:,} of {members:,} {name} are recognised and {found['false_positive']:,} of "
        f"{others:,} others mistaken for it: a balanced accuracy of {percent(model['balanced_accuracy'], 1)}. The "
        f"Brier score is {number(model['brier'])} (to say {number(model['share'], 2)} of each gives "
        f"{number(model['share'] * (1 - model['share']))}), the calibration error "
        f"{number(model['calibration_error'], 2)}.",
    )


def _unlike(results: Results) -> Finding | None:
    rows = results.out_of_fold
    unlike = ~rows["in_domain"].to_numpy(dtype=bool)
    text = (
        "Far from all training structures the probability goes to the share of the class among them, "
        f"{number(results.summary['model']['share'], 2)}, and its interval to all from 0 to 1. Intervals say how far "
        "another training set would move the probability (jackknife over the folds); a single label can't tell whether "
        "a probability was right."
    )
    if unlike.sum() >= FEW:
        part = rows[unlike]
        found = probability_scores(part["value"].to_numpy(), part["predicted"].to_numpy())
        text += (
            f" Of the {int(unlike.sum()):,} training structures least like the others the ROC-AUC is "
            f"{number(found['roc_auc'])} and the Brier score {number(found['brier'])}."
        )
    return Finding("Materials unlike the others", text)


def _elsewhere(results: Results) -> Finding:
    found, title = results.summary["discovery"], "In chemistry it has never seen"
    if not found:
        return Finding(
            title, "Not tested: the campaign asked for no simulated discovery, or had too few labels for it."
        )
    own, *others = results.heads().values()
    k, pool = found["n_hidden"], found["n_pool"]
    hits = "; ".join(
        f"{head['head']} {mean_count(head['hits'][k - 1])} ({percent(head['r_precision'])})"
        for head in others
        if head["head"] != "oracle"
    )
    text = (
        f"{k:,} members of the class from one part of composition space were hidden, with all others from there left "
        f"out of the training, and ranked among {pool - k:,} that are not of it "
        f"({counted(len(found['files']), 'repeat')}, each elsewhere). The first {k:,} picks held "
        f"{mean_count(own['hits'][k - 1])} of them ({percent(own['r_precision'])}); {hits}."
    )
    return Finding(title, " ".join([text, *words.discovery_sentences(results.summary)]))


def _shortlist(results: Results) -> Finding | None:
    shortlist = results.shortlist
    if shortlist.empty:
        return None
    outside = int((~shortlist["in_domain"].astype(bool)).sum())
    everywhere = float((~results.ranking["in_domain"].astype(bool)).mean())
    expected = float(shortlist["predicted"].sum())
    return Finding(
        "The shortlist",
        f"By their probabilities {mean_count(round(expected, 1))} of the {len(shortlist):,} shortlisted candidates are "
        f"{words.class_of(results.summary)}. {outside:,} of them ({percent(everywhere)} of all ranked ones) lie "
        "outside the applicability domain: no training structure is much like them.",
    )
