"""What changed since the last run, for the report of a campaign that goes on."""

from __future__ import annotations

from typing import Any

from atomsets_core.campaigns import read_changes, short
from atomsets_core.report import change_words
from atomsets_core.storage import Store

MOST_MOVES, MOST_CONFRONTED, MOST_RUNS = 50, 50, 26
"""Rows on the page."""


def changes(store: Store) -> dict[str, Any] | None:
    """What the template shows; None in a first run, where there is nothing to compare with."""
    found = read_changes(store)
    if not found or found["latest"]["against"] is None:
        return None
    record, history = found["latest"], found["history"]
    return {
        "run": record["run"],
        "before": next((line["finished"][:10] for line in history if line["run"] == record["against"]), ""),
        "findings": change_words.change_sentences(record),
        "lists": [(title, moves[:MOST_MOVES]) for title, moves in change_words.sections(record)],
        "confronted": record["confronted"]["rows"][:MOST_CONFRONTED],
        "runs": [{**line, "model": short(line["model"])} for line in reversed(history[-MOST_RUNS:])],
        "unit": record["unit"],
    }
