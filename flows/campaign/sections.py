"""The campaign: one pydantic model that is the TOML file, the command line's `--set` and the form in the Prefect UI.

This is the only place where options are named and explained.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from atomsets_core.discovery import ACQUISITIONS, CLASS_KINDS, KINDS, PREFERRED, UCB, takers
from atomsets_core.sources import (
    AS_THEY_COME,
    GENERATE,
    MATERIALS_PROJECT,
    RULES,
    MaterialsQuery,
    TableOptions,
    holds_formulas,
    is_field,
)
from atomsets_core.structures import COMPOSITIONS
from atomsets_core.transforms import NONE, TRANSFORMS, purposes
from atomsets_flows.campaign.base import Range, Section
from atomsets_flows.campaign.classes import (
    HEADS,
    PROBABILITY,
    heads_of,
    number_of,
    refuse_acquisition,
    refuse_ends,
    refuse_mixture,
    refuse_scale,
    with_goal,
)
from atomsets_flows.campaign.cluster import Cluster
from atomsets_flows.campaign.features import FeatureOptions
from atomsets_flows.campaign.funnel import Funnel
from atomsets_flows.campaign.keys import KeyGivenError, refuse_keys
from atomsets_flows.campaign.model import Model

DEFAULT, EMBEDDED = "incompressible", ("incompressible", "formulas")
"""The campaign that runs without a file, and all that come with the package."""

ID_COLUMN = "Column of the identifiers, for a file that has one; two that are one together: split,id."


def _complete_query(source: str, query: MaterialsQuery | None, names: list[str]) -> MaterialsQuery | None:
    if source == MATERIALS_PROJECT:
        return (query or MaterialsQuery()).with_fields(names)
    if query is not None:
        raise ValueError(f"a query goes with the source {MATERIALS_PROJECT!r}")
    return None


class Optimade(Section):
    """What is asked of an OPTIMADE provider."""

    filter: str = Field("", description='E.g. elements HAS ALL "Si","O" AND nelements=2; everything without one.')
    fields: list[str] = Field(default_factory=list, description="Properties to have as columns, e.g. _mp_stability.")


class Substitution(Section):
    """Which candidates are made by substitution in known crystals."""

    count: Annotated[int, Field(ge=1)] = Field(1000, description="Most candidates that are made.")
    threshold: Annotated[float, Field(gt=0, le=1)] = Field(
        1e-3, description="Least probability of a substitution, the product over all ions of the compound."
    )
    changes: Annotated[int, Field(ge=1, le=3)] = Field(1, description="Most elements that are replaced at once.")
    max_atoms: Annotated[int, Field(ge=1)] = Field(40, description="Larger prototypes are left out.")
    elements: list[str] = Field(default_factory=list, description="Elements that candidates may hold; all by default.")
    exclude_elements: list[str] = Field(default_factory=list, description="Elements that they must not hold.")
    seed: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Draws at random from all above the threshold; by default the most probable are taken."
    )


class Generation(Section):
    """Which compositions are generated."""

    elements: list[str] = Field(
        default_factory=list, description="Elements of which all charge-balanced compositions are made, by smact."
    )
    least: Annotated[int, Field(ge=1)] = Field(2, description="Elements that a composition holds at least.")
    most: Annotated[int, Field(ge=1, le=6)] = Field(3, description="Elements that it holds at most.")
    largest: Annotated[int, Field(ge=1, le=40)] = Field(8, description="Largest integer in a formula.")
    end_members: list[list[str]] = Field(
        default_factory=list,
        description='End members of each solid solution, e.g. [["Bi2Te3", "Sb2Te3"]]; shares count formula units.',
    )
    steps: Annotated[int, Field(ge=1, le=1000)] = Field(
        10, description="Steps from one end member of a solid solution to another."
    )
    count: Annotated[int, Field(ge=1)] = Field(
        100_000, description="Compositions there may be; where there are more, the campaign ends with a sentence."
    )


TAKE = Field(
    AS_THEY_COME,
    description="compositions: of structures only what they are made of is kept, so that formulas are learned from or "
    "ranked; entries: as they come.",
)


def _refuse_unused(source: str, **sections: tuple[str, bool]) -> None:
    """Raise ValueError for a section that belongs to another kind of source."""
    for name, (scheme, given) in sections.items():
        if given and f"{scheme}:" not in source:
            raise ValueError(f"{name} goes with a source {scheme}:...")


class Tables(Section):
    """How tables of a source and its labels are read, where that isn't to be found out from what they show."""

    separator: str = Field("", description="Between columns: , ; | tab or space; found out without it.")
    decimal: Literal["", ".", ","] = Field("", description="The decimal mark; found out without it.")
    sheet: str = Field("", description="Of a spreadsheet; its first without it.")

    @field_validator("separator")
    @classmethod
    def _known_separator(cls, separator: str) -> str:
        TableOptions(separator)
        return separator

    def table_options(self) -> TableOptions:
        """The same for `atomsets_core.sources.pull.pull`."""
        return TableOptions(self.separator, self.decimal, self.sheet)


class Training(Tables):
    """The values to learn from."""

    source: str = Field(
        description="Where the labelled structures come from: embedded:elastic, a file or folder, mp, or optimade:URL; "
        "or a table with a column of formulas and no structures."
    )
    query: MaterialsQuery | None = Field(None, description="Which entries, for the source mp (Materials Project).")
    optimade: Optimade = Field(Optimade(), description="What is asked of an OPTIMADE provider.")  # type: ignore[call-arg]
    labels: str | None = Field(
        None,
        description="CSV or spreadsheet with the labels, for a source that holds structures alone; with mp, of "
        "identifiers and values: only these entries are pulled.",
    )
    id_column: str = Field("material_id", description=ID_COLUMN)
    target: str = Field(description="Column of the values.")
    task: Literal["number", "class"] = Field(
        "number", description="What the values are; of classes the probability of objective.value is predicted."
    )
    unit: str = Field("", description="Unit of the values, shown wherever they are.")
    title: str = Field("", max_length=80, description="What people read instead of the column's name: bulk modulus.")
    symbol: str = Field("", max_length=20, description="What stands over columns and on axes: K.")
    transform: Literal[tuple(TRANSFORMS)] = Field(NONE.name, description=f"{purposes()}.")  # type: ignore[valid-type]
    repeats: Literal[RULES] = Field(  # type: ignore[valid-type]
        RULES[0], description="What is learned of labels of one structure that differ."
    )
    take: Literal[AS_THEY_COME, COMPOSITIONS] = TAKE  # type: ignore[valid-type]

    @model_validator(mode="after")
    def _class_fits(self) -> Training:
        if self.task == "class":
            refuse_scale(self.unit, self.transform, self.repeats)
        return self

    @model_validator(mode="after")
    def _query_fits(self) -> Training:
        self.materials_query()
        _refuse_unused(self.source, optimade=("optimade", self.optimade != Optimade()))  # type: ignore[call-arg]
        return self

    def pull_options(self) -> dict[str, Any]:
        """Further arguments of `atomsets_core.sources.pull.pull`."""
        return {
            "optimade_filter": self.optimade.filter,
            "optimade_fields": self.optimade.fields,
            "table": self.table_options(),
        }

    def asked(self) -> dict[str, Any]:
        """The section as JSON, without what only people read; what was added to it later counts where it is used."""
        fields = type(self).model_fields
        added = (*Tables.model_fields, "repeats", "take", "task")
        unused = {name for name in added if getattr(self, name) == fields[name].default}
        return self.model_dump(mode="json", exclude={*unused, "title", "symbol"})

    def materials_query(self) -> MaterialsQuery | None:
        """The query with the target among its fields, unless labels bring it; None for other sources."""
        return _complete_query(self.source, self.query, [] if self.labels else [self.target])


class Candidates(Tables):
    """The structures to rank, and which of them count."""

    source: str = Field(
        description="Where the candidates come from: embedded:flla, a file or folder, mp, optimade:URL, or substitute: "
        "before any but mp, for candidates made of their structures; a table of formulas, or generate: for formulas "
        "that are made."
    )
    take: Literal[AS_THEY_COME, COMPOSITIONS] = TAKE  # type: ignore[valid-type]
    generation: Generation = Field(
        Generation(),  # type: ignore[call-arg]
        description="Which candidates are made, for a source generate:...",
    )
    substitution: Substitution = Field(
        Substitution(),  # type: ignore[call-arg]
        description="Which candidates are made, for a source substitute:...",
    )
    query: MaterialsQuery | None = Field(None, description="Which entries, for the source mp (Materials Project).")
    optimade: Optimade = Field(Optimade(), description="What is asked of an OPTIMADE provider.")  # type: ignore[call-arg]
    labels: str | None = Field(
        None,
        description="CSV or spreadsheet with columns to filter on, for a source of structures alone; with mp, only the "
        "entries it names are pulled.",
    )
    id_column: str = Field("material_id", description=ID_COLUMN)
    filters: dict[str, Range] = Field(
        default_factory=dict,
        description="Bounds on columns, e.g. e_above_hull = { max = 0.1 }; also n_atoms, n_elements.",
    )
    exclude_elements: list[str] = Field(default_factory=list, description="Elements that a candidate must not hold.")
    only_elements: list[str] = Field(
        default_factory=list, description="Elements that a candidate may hold, and no others; all where none is named."
    )
    exclude_seen: bool = Field(
        True, description="Leave out what is in the training data, by identifier or as the same crystal."
    )
    deduplicate: list[Literal["id", "content", "structure"]] = Field(
        ["id"],
        description="What makes two candidates one: id, content (the same numbers), structure (the same crystal).",
    )
    prefer: str | None = Field(
        None, description="Column of which the duplicate with the lowest value is kept; by default the first is."
    )

    @model_validator(mode="after")
    def _query_fits(self) -> Candidates:
        self.materials_query()
        _refuse_unused(
            self.source,
            optimade=("optimade", self.optimade != Optimade()),  # type: ignore[call-arg]
            substitution=("substitute", self.substitution != Substitution()),  # type: ignore[call-arg]
            generation=(GENERATE, self.generation != Generation()),  # type: ignore[call-arg]
        )
        return self

    def pull_options(self) -> dict[str, Any]:
        """Further arguments of `atomsets_core.sources.pull.pull`."""
        from atomsets_core.sources import Generation as Made
        from atomsets_core.sources import Options  # takes a second to import

        return {
            "optimade_filter": self.optimade.filter,
            "optimade_fields": self.optimade.fields,
            "table": self.table_options(),
            "substitution": Options(**self.substitution.model_dump()),
            "generation": Made(**self.generation.model_dump()),
        }

    def materials_query(self) -> MaterialsQuery | None:
        """The query with the stability and what is filtered on among its fields; None for other sources."""
        filtered = [name for name in self.filters if name not in ("n_atoms", "n_elements")]
        if self.labels:  # columns that the database doesn't know are theirs
            filtered = [name for name in filtered if is_field(name)]
        return _complete_query(self.source, self.query, list(dict.fromkeys(["energy_above_hull", *filtered])))


class Objective(Section):
    """What is wanted, and how candidates are scored."""

    goal: Literal["maximize", "minimize", "target", "window", "exceed", "class"] = Field(
        "maximize",
        description="What to do with the property; target: near a value; window: between two; exceed: above a value, "
        "how far doesn't matter; class: be of one, the only goal of classes.",
    )
    value: float | bool | str | None = Field(
        None, description="For the goals target and exceed, in the unit of the property; for the goal class, the class."
    )
    low: float | None = Field(None, description="Lower end, for the goal window, in the unit of the property.")
    high: float | None = Field(None, description="Upper end, for the goal window, in the unit of the property.")
    acquisition: Literal[("auto", *KINDS)] = Field(  # type: ignore[valid-type]
        "auto",
        description="; ".join(f"{kind}: {ACQUISITIONS[kind].words}" for kind in KINDS)
        + f"; auto: the one that did best in the simulated discovery, {UCB.name} without one.",
    )
    kappa: Annotated[float, Field(ge=0)] = Field(0.5, description=f"Weight of the uncertainty in {UCB.name}.")
    shortlist: Annotated[int, Field(ge=1, le=1000)] = Field(25, description="Candidates on the shortlist.")
    diversity: Annotated[float, Field(ge=0, le=1)] = Field(
        0.2, description="0: the best scores; 1: as unlike each other as can be. Always one a formula."
    )
    outside: Literal["mark", "drop", "keep"] = Field(
        "mark",
        description="Candidates unlike all training structures. mark: they are marked, none comes before the best one "
        "inside the domain, and what is no bulk crystal comes last; drop: they are left out; keep: the score alone "
        "counts.",
    )

    @field_validator("value")
    @classmethod
    def _number_or_class(cls, value: float | bool | str | None, info: ValidationInfo) -> float | bool | str | None:
        found: float | bool | str | None = number_of(info.data.get("goal", ""), value)
        return found

    @property
    def number(self) -> float | None:
        """The value of the goals target and exceed; None for others."""
        return None if self.goal == "class" or self.value is None else float(self.value)

    @property
    def window(self) -> tuple[float, float] | None:
        """Both ends of the goal window."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @model_validator(mode="after")
    def _target_has_value(self) -> Objective:
        if (self.goal in ("target", "exceed", "class")) != (self.value is not None):
            raise ValueError("value goes with the goals target, exceed and class, and these need it")
        refuse_acquisition(self.goal, self.acquisition)
        if self.goal == "window" and (self.low is None or self.high is None or self.low >= self.high):
            raise ValueError("the goal window needs low and high, low the smaller")
        if self.goal != "window" and (self.low is not None or self.high is not None):
            raise ValueError("low and high go with the goal window")
        if self.acquisition in ACQUISITIONS and self.goal in ACQUISITIONS[self.acquisition].refuses:
            raise ValueError(f"the goal {self.goal} takes the acquisition {takers(self.goal, KINDS)}")
        return self


class Discovery(Section):
    """The check that hides the best training values and looks whether the model finds them."""

    seeds: Annotated[int, Field(ge=0, le=100)] = Field(5, description="Repeats; 0 leaves the check out.")
    quantile: Annotated[float, Field(gt=0, le=0.5)] = Field(0.1, description="Share of the values that is hidden.")
    pool_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.2, description="Share of the other values among which the hidden are to be found."
    )
    choose: bool = Field(
        True, description="Let the check decide which of the heads is used; false: the first of them, as described."
    )
    heads: list[Literal[HEADS]] = Field(  # type: ignore[valid-type]
        list(PREFERRED),
        description="Models that are compared and may be used. The first is tried whatever it takes, and used where "
        "nothing is compared. Of classes, those for them: all without.",
    )
    minutes: Annotated[float, Field(gt=0)] = Field(
        60.0,
        description="Of one worker, for all repeats together. Heads are tried from the cheapest on, and none is begun "
        "once a repeat has used up its part; those left out are named.",
    )

    @field_validator("heads")
    @classmethod
    def _some_heads(cls, names: list[str]) -> list[str]:
        if not names or len(set(names)) < len(names):
            raise ValueError(f"heads must name one at least, each once; there are {', '.join(PREFERRED)}")
        return names


class Standing(Section):
    """What a campaign that is run again and again does by itself."""

    new_labels: Literal["keep", "challenge", "replace"] = Field(
        "keep",
        description="When there are other labels than the model learned from. keep: the model stays until `atomsets "
        "retrain`; challenge: a new one is trained and takes over if it is better; replace: a new one takes over.",
    )


class Campaign(Section):
    """A screening campaign: what to learn from, what to rank, for what, and how."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] = Field(
        description="Names the campaign's folder and runs: letters, digits, dot, dash, underscore."
    )
    training: Training
    candidates: Candidates
    objective: Objective = Objective()  # type: ignore[call-arg]
    features: FeatureOptions = FeatureOptions()  # type: ignore[call-arg]
    funnel: Funnel | None = Field(None, description="Cheap features first; without it all candidates get all features.")
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
        return with_goal(raw)

    @property
    def of_formulas(self) -> bool:
        """Whether the labels are formulas, by their source as it is now."""
        training = self.training
        return training.take == COMPOSITIONS or holds_formulas(
            training.source, training.labels, training.table_options()
        )

    def settled(self) -> Campaign:
        """The campaign with the parent that suits its labels, where none is named: what every run begins with.

        Raises:
            SourceError: the labels are formulas, and the levels that were named need structures.
        """
        features = self.features.settled(self.of_formulas)
        return self if features == self.features else self.model_copy(update={"features": features})

    @model_validator(mode="after")
    def _task_fits(self) -> Campaign:
        wish = self.objective
        refuse_mixture(self.training.task, wish.goal, self.heads)
        ends = {"value": wish.number, "low": wish.low, "high": wish.high}
        refuse_ends(self.training.transform, {f"objective.{name}": end for name, end in ends.items()})
        return self

    @property
    def heads(self) -> list[str]:
        """The heads that are compared, the preferred first: those named, of classes all of theirs where none are."""
        named = self.discovery.heads
        return list(heads_of(self.training.task)) if named == list(PREFERRED) else list(named)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Acquisitions that may be used, the preferred first."""
        asked = self.objective.acquisition
        if asked != "auto":
            return (asked,)
        return CLASS_KINDS if self.training.task == "class" else KINDS

    @property
    def wanted(self) -> bool | float | str | None:
        """The class that is wanted; None where labels are numbers."""
        return self.objective.value if self.objective.goal == "class" else None

    @property
    def unit(self) -> str:
        """The unit of what is predicted."""
        return PROBABILITY if self.training.task == "class" else self.training.unit

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters of the model as the campaign describes it, see `models.regressor_of`."""
        found = {
            **self.model.model_dump(), "features": self.features.spec, "transform": self.training.transform
        }  # fmt: skip
        return found if self.training.task == "number" else {**found, "task": self.training.task}
