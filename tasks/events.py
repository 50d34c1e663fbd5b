"""Events that automations can wait for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prefect.events import emit_event

ENTERED_TOP = "atomsets.top-ten.entered"


def announce_new_top(campaign: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Tell of materials that are among a campaign's first ten and weren't in its last run; nothing of none.

    Args:
        campaign: its name.
        rows: of the ranking: material_id, formula, rank, predicted, lower, upper, in_domain.
    """
    if not rows:
        return
    names = ("material_id", "formula", "rank", "predicted", "lower", "upper", "in_domain")
    emit_event(
        ENTERED_TOP,
        resource={
            "prefect.resource.id": f"atomsets.campaign.{slug(campaign)}",
            "prefect.resource.name": campaign,
        },
        payload={"campaign": campaign, "entered": [{name: row.get(name) for name in names} for row in rows]},
    )


def slug(campaign: str) -> str:
    """A campaign's name as part of an identifier: lower case letters, digits and dashes."""
    return "".join(c if c.isalnum() else "-" for c in campaign.lower()).strip("-")
