"""What comes from data is shown as it is, in the Prefect UI and on the terminal."""

from __future__ import annotations

import pytest

from atomsets_flows.runs.summary import plain


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
