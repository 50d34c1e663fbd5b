"""A campaign of several properties: what is learned for each, and what is wanted of them together.

Each property is a campaign of its own in everything but the candidates, which all share; `campaign_of` makes it.
"""

from __future__ import annotations

import builtins
import difflib
from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from atomsets_core.discovery import AXES, COMBINATIONS, LIMITS, Goal
from atomsets_core.transforms import NONE
from atomsets_flows.campaign.base import Section
from atomsets_flows.campaign.classes import refuse_ends
from atomsets_flows.campaign.cluster import Cluster
from atomsets_flows.campaign.keys import KeyGivenError, refuse_keys
from atomsets_flows.campaign.model import Model
from atomsets_flows.campaign.sections import (
    Campaign,
    Candidates,
    Discovery,
    FeatureOptions,
    Objective,
    Standing,
    Training,
)

RESERVED = frozenset(
    ("rank", "material_id", "formula", "score", "p_feasible", "p_front", "front", "e_above_hull", "in_domain", "matter",
     "shortlist", "n_atoms", "remark", "structure_hash")
)  # fmt: skip
"""Columns of every joint ranking."""

OF_CANDIDATES = frozenset(("e_above_hull", "n_atoms"))
"""Those of them that are the candidates' own, and may be wanted."""

BESIDE = ("std", "lower", "upper", "known", "probability")
"""What stands behind the name of a property, after an underscore, in further columns of the ranking."""


class Property(Section):
    """A property that is learned."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,38}$")] = Field(
        description="Names its columns and its folder: letters, digits, underscore."
    )
    training: Training = Field(description="The values to learn from.")
    features: FeatureOptions | None = Field(None, description="As of the whole campaign, where they aren't given.")
    model: Model | None = Field(None, description="As of the whole campaign, where it isn't given.")
    discovery: Discovery | None = Field(None, description="As of the whole campaign, where it isn't given.")


class Wanted(Section):
    """What is wanted of one property, or of a column of the candidates."""

    property: str = Field(
        description="Name of a property, or of a column of the candidates; also density, n_atoms, n_elements."
    )
    goal: Literal[(*AXES, *LIMITS)] = Field(  # type: ignore[valid-type]
        description="maximize, minimize, target (near a value): more is better. exceed, below, window, class (be of "
        "one): met or not, with a probability."
    )
    value: float | bool | str | None = Field(
        None, description="For target, exceed and below, in the unit of the property; for class, the class."
    )
    low: float | None = Field(None, description="Lower end, for the goal window, in the unit of the property.")
    high: float | None = Field(None, description="Upper end, for the goal window, in the unit of the property.")
    weight: Annotated[float, Field(gt=0)] = Field(1.0, description="Where properties are added up, see combine.")
    at_least: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="Probability of meeting a limit below which a candidate is left out."
    )

    @model_validator(mode="after")
    def _fits(self) -> Wanted:
        if (self.goal in ("target", "exceed", "below", "class")) != (self.value is not None):
            raise ValueError("value goes with the goals target, exceed, below and class, and these need it")
        if self.goal != "class" and isinstance(self.value, bool | str):
            raise ValueError(f"{self.value!r} is no number, which the goal {self.goal} needs")
        if self.goal == "window" and (self.low is None or self.high is None or self.low >= self.high):
            raise ValueError("the goal window needs low and high, low the smaller")
        if self.goal != "window" and (self.low is not None or self.high is not None):
            raise ValueError("low and high go with the goal window")
        if self.at_least is not None and self.goal not in LIMITS:
            raise ValueError(f"at_least goes with {', '.join(LIMITS)}: the goal {self.goal} has no end that can be met")
        return self

    @builtins.property  # a field is called so too
    def is_limit(self) -> bool:
        """Whether it is met or not, as opposed to more being better."""
        return self.goal in LIMITS

    def as_goal(self) -> Goal:
        """The same for `atomsets_core.discovery`."""
        value = None if self.goal == "class" or self.value is None else float(self.value)
        return Goal(self.property, self.goal, value, self.low, self.high, self.weight, self.at_least)

    def as_objective(self) -> dict[str, Any]:
        """Options of the objective of the property's own campaign: its direction, and its end where it has one."""
        if self.goal == "window":
            return {"goal": "window", "low": self.low, "high": self.high}
        if self.goal in ("target", "exceed", "class"):
            return {"goal": self.goal, "value": self.value}
        return {"goal": "minimize" if self.goal in ("minimize", "below") else "maximize"}


class Choice(Section):
    """How candidates are chosen by all properties together."""

    combine: Literal[("auto", *COMBINATIONS)] = Field(  # type: ignore[valid-type]
        "auto",
        description="hypervolume: expected growth of the volume under the Pareto front; front: probability to be on "
        "it; weights: the weighted sum; each times the probability to meet all limits. auto: what did best in a search "
        "with hidden values.",
    )
    shortlist: Annotated[int, Field(ge=1, le=1000)] = Field(25, description="Candidates on the shortlist.")
    outside: Literal["mark", "drop", "keep"] = Field(
        "mark", description="Candidates unlike the training structures of a property; as in objective.outside."
    )


class JointCampaign(Section):
    """A screening campaign of several properties of the same candidates."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,59}$")] = Field(
        description="Names the campaign's folder and runs: letters, digits, dot, dash, underscore."
    )
    candidates: Candidates
    properties: Annotated[list[Property], Field(min_length=1, max_length=12)] = Field(
        description="What is learned, one section [[properties]] each."
    )
    objectives: Annotated[list[Wanted], Field(min_length=1)] = Field(
        description="What is wanted, one section [[objectives]] each."
    )
    choice: Choice = Choice()  # type: ignore[call-arg]
    features: FeatureOptions = FeatureOptions()  # type: ignore[call-arg]
    model: Model = Model()  # type: ignore[call-arg]
    discovery: Discovery = Discovery()  # type: ignore[call-arg]
    standing: Standing = Standing()  # type: ignore[call-arg]
    cluster: Cluster = Cluster()  # type: ignore[call-arg]

    @model_validator(mode="before")
    @classmethod
    def _no_keys(cls, raw: Any) -> Any:
        try:
            refuse_keys(raw, "campaign")
        except KeyGivenError as error:
            raise ValueError(str(error)) from None
        return raw

    @model_validator(mode="after")
    def _fits(self) -> JointCampaign:
        names = [one.name for one in self.properties]
        if twice := [name for name, n in Counter(names).items() if n > 1]:
            raise ValueError(f"two properties are called {twice[0]}")
        for name in names:
            if name in RESERVED:
                raise ValueError(f"a property can't be called {name}: that is a column of every ranking")
        self._refuse_columns(names)
        for limit in (False, True):
            asked = Counter(one.property for one in self.objectives if one.is_limit == limit)
            if twice := [name for name, n in asked.items() if n > 1]:
                kind = "limits (a window has two ends)" if limit else "directions"
                raise ValueError(f"{twice[0]} has two {kind}: one objective of that kind for each property")
        unused = [name for name in names if name not in {one.property for one in self.objectives}]
        if unused:
            close = difflib.get_close_matches(unused[0], [one.property for one in self.objectives], n=1, cutoff=0.4)
            hint = f" ({close[0]!r} is no property)" if close and close[0] not in names else ""
            raise ValueError(
                f"no objective names the property {unused[0]}{hint}: say what is wanted of it, or leave it out"
            )
        tasks = {one.name: one.training.task for one in self.properties}
        for one in self.objectives:
            if (tasks.get(one.property, "number") == "class") != (one.goal == "class"):
                raise ValueError(
                    f"{one.property}: the goal class, with value = the wanted class, goes with a property of "
                    f"training.task = 'class', and that with no other goal"
                )
        scales = {one.name: one.training.transform for one in self.properties}
        for one in self.objectives:
            goal = one.as_goal()
            ends = {"value": goal.value, "low": goal.low, "high": goal.high}
            refuse_ends(scales.get(one.property, NONE.name), {f"{one.property}: {k}": end for k, end in ends.items()})
        for name in names:
            try:
                self.campaign_of(name, "")
            except ValidationError as error:
                said = error.errors()[0]
                where = ".".join(str(part) for part in said["loc"])
                message = said["msg"].removeprefix("Value error, ")
                raise ValueError(f"{name}: {f'{where}: ' if where else ''}{message}") from None
        return self

    def _refuse_columns(self, names: list[str]) -> None:
        """Raise ValueError where two columns of the ranking would have one name."""
        made = {f"{name}_{end}": name for name in names for end in BESIDE}
        for name in names:
            if name in made:
                raise ValueError(f"a property can't be called {name}: a column of {made[name]} has that name")
        for one in self.objectives:
            taken = one.property in RESERVED - OF_CANDIDATES or one.property in made
            if taken:
                raise ValueError(
                    f"objectives: {one.property} is a column of the ranking; call the candidates' own column otherwise"
                )

    def campaign_of(self, name: str, store: str) -> Campaign:
        """The campaign of one property.

        Args:
            name: of the property.
            store: folder or URL of the feature store that all properties share, unless the file names one.
        """
        one = next(found for found in self.properties if found.name == name)
        asked = [wanted for wanted in self.objectives if wanted.property == name]
        # A direction says more of what is looked for than a limit does.
        wanted = min(asked, key=lambda found: found.is_limit)
        features = one.features or self.features
        if features.store is None:
            features = features.model_copy(update={"store": store})
        return Campaign(
            name=f"{self.name}-{name}",
            training=one.training,
            # What is known of this property needs no prediction, and known values are used as such.
            candidates=self.candidates.model_copy(update={"exclude_seen": True}),
            objective=Objective(shortlist=self.choice.shortlist, **wanted.as_objective()),  # type: ignore[call-arg]
            features=features,
            model=one.model or self.model,
            discovery=one.discovery or self.discovery,
            standing=self.standing,
            cluster=self.cluster,
        )
