"""What a run tells the world: events on the Prefect server, on which automations act."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from prefect.events import emit_event

ENTERED = "atomsets.top-ten.entered"
"""A candidate that was not among the first ten of the last run is now; one event for a run, however many there are."""

TOP = 10


def entered_top_ten(
    campaign: str, entered: Sequence[Mapping[str, Any]], *, target: str, unit: str, report: str = ""
) -> str | None:
    """Emit the event for the candidates that entered the first ten, if there are any.

    Inside a flow the event names the run and its deployment. The automation top-ten.yaml turns it into a message.

    Args:
        campaign: its name.
        entered: rows of the ranking, best first: rank, material_id, formula, predicted, lower, upper.
        target: what is predicted.
        unit: of the predictions.
        report: address of the report, for the message.

    Returns:
        The text of the message; None where nothing entered and nothing is emitted.
    """
    if not entered:
        return None
    lines = [told(row, unit) for row in entered]
    text = "\n".join(lines)
    emit_event(
        ENTERED,
        resource={"prefect.resource.id": f"atomsets.campaign.{campaign}", "prefect.resource.name": campaign},
        related=[
            {
                "prefect.resource.id": f"atomsets.structure.{row['material_id']}",
                "prefect.resource.role": "candidate",
                "prefect.resource.name": str(row["formula"]),
            }
            for row in entered
        ],
        payload={
            "campaign": campaign,
            "target": target,
            "count": len(entered),
            "subject": f"{campaign}: {lines[0]}" + (f", and {len(lines) - 1} more" if len(lines) > 1 else ""),
            "text": text,
            "report": report,
        },
    )
    return text


def told(row: Mapping[str, Any], unit: str) -> str:
    """A candidate in one line, e.g. "FeWN2 (mp-21) is number 3: 333 GPa, 301 to 368 GPa"."""
    unit = f" {unit}" if unit else ""
    who = f"{row['formula']} ({row['material_id']}) is number {int(row['rank'])}: {float(row['predicted']):.4g}{unit}"
    ends = [row["lower"], row["upper"]]
    if any(end is None or math.isnan(end) for end in ends):
        return f"{who}, without an interval"
    low, high = (f"{float(end):.4g}" for end in ends)
    return f"{who}, {low} to {high}{unit}"
