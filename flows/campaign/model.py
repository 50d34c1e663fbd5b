"""The section of a campaign file that says how networks are trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from atomsets_core.models import ACTIVATIONS, POOLINGS
from atomsets_flows.campaign.base import Section


class Model(Section):
    """The ensemble of AtomSets networks."""

    members: Annotated[int, Field(ge=2, le=100)] = Field(10, description="Networks in the ensemble.")
    folds: Annotated[int, Field(ge=2, le=20)] = Field(
        5, description="Parts of the training data; each member leaves one out, which calibrates the intervals."
    )
    phi: list[Annotated[int, Field(ge=1)]] = Field([128], description="Widths of the layers on each site.")
    rho: list[Annotated[int, Field(ge=1)]] = Field([128], description="Widths of the layers after pooling.")
    pooling: list[Literal[POOLINGS]] = Field(["mean"], description="How sites are joined; several are concatenated.")  # type: ignore[valid-type]
    alpha: Annotated[float, Field(ge=0)] = Field(
        1.0, description="Exponent of the site weights in mean and std; matters where sites have weights (occupancies)."
    )
    set2set_steps: Annotated[int, Field(ge=1)] = Field(3, description="Attention steps of the pooling set2set.")
    set2set_hidden: Annotated[int, Field(ge=1)] = Field(16, description="Units of the pooling set2set.")
    heads: Annotated[int, Field(ge=1)] = Field(4, description="Heads of the pooling attention.")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Share of the hidden units left out at random in training."
    )
    activation: Literal[tuple(ACTIVATIONS)] = Field("relu", description="Of every hidden layer.")  # type: ignore[valid-type]
    epochs: Annotated[int, Field(ge=1)] = Field(60, description="Passes over the training data.")
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto", description="Structures a step; auto is 64, and more above 2,048 rows."
    )
    learning_rate: Annotated[float, Field(gt=0)] = Field(3e-3, description="At the top of the schedule.")
    weight_decay: Annotated[float, Field(ge=0)] = Field(1e-4, description="Decoupled (AdamW).")
    patience: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Epochs without improvement on a tenth of the rows, held back for it, before training stops."
    )
    mixed_precision: bool = Field(False, description="Products in bfloat16, for GPUs.")
    loss: Literal["absolute", "squared"] = Field("absolute", description="On the standardised target.")
    coverage: Annotated[float, Field(gt=0.5, lt=1)] = Field(0.9, description="Share of values inside the intervals.")
    seed: Annotated[int, Field(ge=0)] = Field(0, description="Of folds, initial weights and order.")

    @model_validator(mode="after")
    def _enough_members(self) -> Model:
        if self.members < self.folds:
            raise ValueError(
                f"members = {self.members} is less than folds = {self.folds}: each fold needs one at least"
            )
        return self

    @property
    def left_open(self) -> tuple[str, ...]:
        """Options that stand as they do by themselves, which a choice of features may set with them."""
        return tuple(name for name, field in type(self).model_fields.items() if getattr(self, name) == field.default)

    def with_choice(self, parameters: Mapping[str, Any]) -> Model:
        """The same with what was chosen of the options left open."""
        return type(self).model_validate({**self.model_dump(), **parameters})
