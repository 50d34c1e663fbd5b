"""What axe-core finds wrong with a page that a reader with a screen reader, a keyboard or weak eyes would trip over."""

from __future__ import annotations

from importlib import resources
from typing import Any

import pytest

from tests.browser import Page

SERIOUS = ("serious", "critical")


def faults(page: Page) -> list[dict[str, Any]]:
    """The serious and critical faults of the page that is open: rule, how many elements, the first of them."""
    pytest.importorskip("axe_core_python", reason="axe-core is not installed: pip install axe-core-python")
    page.run(resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8") + "; 0")
    found: list[dict[str, Any]] = page.run(
        "axe.run(document, {resultTypes: ['violations']}).then(r => r.violations.map(v => ({rule: v.id,"
        " impact: v.impact, n: v.nodes.length, first: v.nodes[0].html.slice(0, 300), why: v.nodes[0].failureSummary})))"
    )
    return [fault for fault in found if fault["impact"] in SERIOUS]
