"""The section of a campaign file that says what features come from, and what they may cost."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from atomsets_core.parents import element_levels, is_parent, load_parent, parent_names, split_levels
from atomsets_core.sources import SourceError
from atomsets_flows.campaign.base import Section

PARENT, PARENT_OF_FORMULAS = "megnet", "composition"
"""What features come from where nothing is named, of structures and of formulas (docs/accuracy.md has figures)."""

AUTO = "auto"
"""In place of a specification: it is chosen."""


class FeatureOptions(Section):
    """Which levels of which parents, and where features are kept.

    In a file `features = "auto"` is short for the section with that specification alone.
    """

    parent: str = Field(
        "",
        description="Pretrained network that features come from, or the folder of one trained here; by default "
        f"{PARENT}, and {PARENT_OF_FORMULAS} where the labels are formulas.",
    )
    levels: list[str] = Field(
        default_factory=list,
        description="Its levels, joined, e.g. V0 V1 V2 V3 or v of megnet; by default those the parent is best with, of "
        "formulas those that need no structure.",
    )
    specification: str = Field(
        "",
        description="Levels of several parents, e.g. megnet:V0+V1,chgnet:site, in place of parent and levels; or auto: "
        "what predicts the labels best, of what all candidates can be had at within cpu_hours.",
    )
    cpu_hours: Annotated[float, Field(gt=0)] = Field(
        1.0, description="Of one core, that features of all structures may take for auto to consider them."
    )
    shard_size: Annotated[int, Field(ge=1, le=4096)] = Field(
        256, description="Structures in a shard, the unit of work."
    )
    store: str | None = Field(
        None, description="Folder or URL of the feature store; by default features/ of the campaign. Can be shared."
    )

    @model_validator(mode="before")
    @classmethod
    def _short(cls, raw: Any) -> Any:
        return {"specification": raw} if isinstance(raw, str) else raw

    @field_validator("specification")
    @classmethod
    def _readable(cls, text: str) -> str:
        if text and text != AUTO:
            from atomsets_core.features import parse_features  # takes a second to import

            try:
                return str(parse_features(text))
            except FileNotFoundError as error:
                raise ValueError(str(error)) from error
        return text

    @field_validator("parent")
    @classmethod
    def _known(cls, name: str) -> str:
        if name and not is_parent(name):
            raise ValueError(f"no parent {name!r}; there are {', '.join(parent_names())}")
        return name

    @model_validator(mode="after")
    def _has_levels(self) -> FeatureOptions:
        if self.specification:
            if self.parent or self.levels:
                raise ValueError("specification stands for parent and levels: leave them out, or it")
            return self
        try:
            # Without a name it may be either, see `Campaign.settled`.
            of_formulas = load_parent(PARENT_OF_FORMULAS)
            either = not self.parent and set(self.levels) <= {*of_formulas.site_levels, *of_formulas.structure_levels}
            split_levels(load_parent(self.parent or PARENT), [] if either else self.levels)
        except FileNotFoundError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def is_open(self) -> bool:
        """Whether the features are to be chosen."""
        return self.specification == AUTO

    @property
    def spec(self) -> str:
        """As the estimators take it, e.g. "megnet:V0+V1"; "auto" where it is to be chosen."""
        if self.specification:
            return self.specification
        name = self.parent or PARENT
        return f"{name}:{'+'.join(self.levels or load_parent(name).default_levels)}"

    def specs(self, formulas: bool) -> tuple[str, ...]:
        """The specification, or all that are chosen from, the richest first.

        Those of a parent that isn't installed are left out.
        """
        if not self.is_open:
            return (self.spec,)
        from atomsets_core.features import parse_features
        from atomsets_core.models import candidates_for

        found = []
        for text in candidates_for(1, compositions=formulas):
            try:
                found.append(str(parse_features(text)))
            except (ValueError, FileNotFoundError, ImportError):
                continue
        return tuple(found)

    def settled(self, formulas: bool) -> FeatureOptions:
        """The same with a parent, and for labels that are formulas with levels that need no structure.

        Raises:
            SourceError: the labels are formulas, and the levels need structures; or the parent lacks a level.
        """
        if self.specification:
            self._suits(formulas)
            return self
        name = self.parent or (PARENT_OF_FORMULAS if formulas else PARENT)
        network = load_parent(name)
        if not formulas:
            self._has(name)
            return self.model_copy(update={"parent": name})
        able = element_levels(network)
        levels = self.levels or [level for level in network.default_levels if level in able]
        lacking = [level for level in levels if level not in able]
        if lacking or not levels:
            asked = ", ".join(lacking or network.default_levels)
            without = f"of {name} {', '.join(able)} can do without" if able else f"no level of {name} can do without"
            raise SourceError(
                f"the labels are formulas, which have no structure, and features need one ({asked} of {name}); "
                f"{without}. Set features.levels to such, or leave parent and levels out, for {PARENT_OF_FORMULAS}"
            )
        return self.model_copy(update={"parent": name, "levels": levels})

    def _has(self, name: str) -> None:
        try:
            split_levels(load_parent(name), self.levels)
        except ValueError as error:
            raise SourceError(f"features: {error}") from error

    def _suits(self, formulas: bool) -> None:
        if not formulas or self.is_open:
            return
        from atomsets_core.features import parse_features

        if not parse_features(self.specification).element_only:
            raise SourceError(
                f"the labels are formulas, which have no structure, and features.specification = "
                f"{self.specification!r} needs one: name levels of elements alone, such as {PARENT_OF_FORMULAS}:"
                f"{'+'.join(load_parent(PARENT_OF_FORMULAS).default_levels)},megnet:V0, or auto"
            )
