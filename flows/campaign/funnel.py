"""The section of a campaign file that says how much of a cheap ranking is looked at closely."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from atomsets_flows.campaign.base import Section
from atomsets_flows.campaign.features import PARENT


class Funnel(Section):
    """All candidates are ranked by cheap features, and the best part of them by those of the campaign."""

    features: str = Field(PARENT, description="The cheap ones, e.g. megnet or megnet:V0+V1.")
    keep: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.99,
        description="Share of the first candidates of the dear ranking that the part is to hold, by what simulated "
        "discoveries and a sample of the candidates say of both rankings.",
    )
    first: Annotated[int, Field(ge=1)] = Field(100, description="How many are the first.")
    share: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="Part of the candidates that is looked at closely, in place of what they say."
    )
    cpu_hours: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Of one core, that the dear features of candidates may take: fewer are looked at if need be."
    )

    @field_validator("features")
    @classmethod
    def _readable(cls, text: str) -> str:
        from atomsets_core.features import parse_features  # takes a second to import

        try:
            return str(parse_features(text))
        except FileNotFoundError as error:
            raise ValueError(str(error)) from error
