"""What comes from data is shown as it is, in the Prefect UI and on the terminal."""

from __future__ import annotations

import pytest

from atomsets_flows.runs.headlines import headlines
from atomsets_flows.runs.summary import markdown, plain


@pytest.mark.parametrize(
    "text",
    ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[click](javascript:alert(1))", "![x](http://a/b)",
     "a | b\n# title", "`code`", "**K_VRH**"],
)  # fmt: skip
def test_markdown_and_html_lose_their_meaning(text):
    shown = plain(text)
    assert "<" not in shown
    assert "\n" not in shown
    for mark in "[]|`*_!":
        assert shown.count(mark) == shown.count(f"\\{mark}") == text.count(mark)


def test_ordinary_names_stay_readable():
    assert plain("Fe2O3, 3.2 eV/atom (log10 GPa)") == "Fe2O3, 3.2 eV/atom (log10 GPa)"
    assert plain("AT&T") == "AT&amp;T"


def finished(**choice):
    """A summary with no more than its headlines need."""
    return {
        "campaign": "c", "target": "Tc", "unit": "K", "transform": "none",
        "settings": {"objective": {"goal": "maximize"}, "discovery": {"choose": True}},
        "counts": {
            "training": {"labelled": 10, "learned_from": 10, "pulled": 10},
            "candidates": {"pulled": 5, "ranked": 5, "filtered": 0, "failed": 0},
        },
        "model": {"mae": 1.0, "r2": 0.5, "coverage_out_of_fold": 0.9, "coverage": 0.9},
        "choice": {"head": "random forest, composition", **choice},
        "discovery": None,
    }  # fmt: skip


def test_to_whom_atomsets_lost_is_a_headline_with_the_numbers():
    lost = {"to": "random forest, composition", "r_precision": 0.62, "own": 0.53, "by": 0.09, "used": True}
    said = (
        "AtomSets lost to random forest, composition where the answer is known: it found 53% of the hidden best, "
        "random forest, composition 62%, 9.0 points more; so it is used here."
    )
    assert headlines(finished(lost=lost))[-1] == said
    assert f"- {said}" in markdown(finished(lost=lost))
    for won in (finished(lost=None), finished()):
        assert not any("lost" in line for line in headlines(won))


def test_the_header_of_a_table_is_escaped_like_its_cells(monkeypatch):
    """The unit, which anybody writes, stands in the header."""
    summary = {**finished(), "discovery": {"any": 1}}
    monkeypatch.setattr("atomsets_flows.runs.summary.discovery_header", lambda _: ("model", "error, <img src=x>|b|"))
    monkeypatch.setattr("atomsets_flows.runs.summary.discovery_rows", lambda _: [("one", "two")])
    lines = markdown(summary).splitlines()
    assert "| model | error, &lt;img src=x&gt;\\|b\\| |" in lines
    assert "<img" not in markdown(summary)
