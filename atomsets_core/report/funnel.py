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
    if "shares" in told:
        needed = " and ".join(f"{float(kept):.0%} in {share:.1%}" for kept, share in told["shares"].items())
        seen = " and ".join(f"{float(kept):.0%} in {share:.1%}" for kept, share in told["in_discovery"].items())
        lines.append(
            f"by simulated discoveries with both rankings (correlation {told['correlation']:.2f}, counted as "
            f"{told['assumed']:.2f}) the cheap ranking has of the dear one's first {told['first']}: {needed}; of the "
            f"first {told['top_in_discovery']:.0%} of their pools it had {seen}"
        )
    if found := told.get("found"):
        lines.append(
            f"the first {found['first']} of the final ranking stood at most at place {found['deepest']:,} of the cheap "
            f"one, half of them within {found['median']:,.0f}"
        )
    return lines
