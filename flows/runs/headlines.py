"""What came out of a run, in a few lines: read from its summary alone, without a library that computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atomsets_core.report import class_scores, comparison_sentences, funnel_sentences, interval_sentences, scale_name


def headlines(summary: Mapping[str, Any]) -> list[str]:
    """What came out, in lines: what became of everything pulled, how good the model is, and to whom AtomSets lost."""
    training, candidates = summary["counts"]["training"], summary["counts"]["candidates"]
    later = "" if training["labelled"] == training["learned_from"] else f" ({training['labelled']} have a value by now)"
    return [
        f"learned from {training['learned_from']} of {training['pulled']} entries{later}; "
        f"pulled {candidates['pulled']} candidates = {candidates['ranked']} ranked + {candidates['filtered']} filtered "
        f"+ {candidates['failed']} failed",
        class_scores(summary) if "class" in summary else _errors(summary),
        *funnel_sentences(summary.get("funnel")),
        *interval_sentences(summary),
        *comparison_sentences(summary),
    ]


def _errors(summary: Mapping[str, Any]) -> str:
    """How good the model is, out of fold."""
    model, covered = summary["model"], summary["model"]["coverage_out_of_fold"]
    inside = "too few labels to tell how many lie" if covered is None else f"{covered:.1%} of values"
    return (
        f"out-of-fold error {model['mae']:.4f} {scale_name(summary)}, R² {model['r2']:.3f}; "
        f"{inside} inside their {model['coverage']:.0%} interval"
    )
