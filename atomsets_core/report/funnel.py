"""What a funnel did, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def funnel_sentences(told: Mapping[str, Any] | None) -> list[str]:
    """What the funnel did, and how true it proved; nothing without one.

    Args:
        told: "funnel" of summary.json.
    """
    if told is None:
        return []
    said = {
        "keep": f"so that {told['keep']:.4g} of the first {told['first']} of the dear ranking are held",
        "share": "as the campaign says",
        "budget": "as many as the budget allows",
        "all": "which is all: less would lose too much",
    }
    lines = [f"funnel: {told['kept']:,} of {told['n']:,} candidates got the dear features, {said[told['why']]}"]
    needed = " and ".join(f"{float(kept):.0%} in {share:.1%}" for kept, share in told["shares"].items())
    lines.append(
        f"on {told['sampled']['n']} candidates drawn at random both rankings agree with a correlation of "
        f"{told['sampled']['correlation']:.2f}; counted as {told['assumed']:.2f}, the cheap one has of the dear one's "
        f"first {told['first']}: {needed}"
    )
    if "in_discovery" in told:
        seen = " and ".join(f"{float(kept):.0%} in {share:.1%}" for kept, share in told["in_discovery"].items())
        lines.append(
            f"in simulated discoveries (correlation {told['correlation']:.2f}) it had of the first "
            f"{told['top_in_discovery']:.0%} of the pool {seen}"
        )
    if found := told.get("found"):
        lines.append(
            f"the first {found['first']} of the final ranking stood at most at place {found['deepest']:,} of the cheap "
            f"one, half of them within {found['median']:,.0f}"
        )
    return lines
