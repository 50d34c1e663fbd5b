"""What all sections of the campaign file share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

DISTANT_WORKERS = 4
"""Workers of a cluster that is asked for some, unless told otherwise."""


class CampaignError(Exception):
    """A campaign that can't be run as it is written; the message names the file and the key and says what to change."""


class Section(BaseModel):
    """A section of the file: an unknown key is an error, a value never changes after reading."""

    # an error that shows what was given would show a key that was given
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Range(Section):
    """Bounds of a numeric column, both inclusive; a missing value doesn't pass."""

    min: float | None = Field(None, description="Smallest value that passes.")
    max: float | None = Field(None, description="Largest value that passes.")

    @model_validator(mode="after")
    def _not_empty(self) -> Range:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self
