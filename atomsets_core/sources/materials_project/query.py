"""What is asked of the Materials Project and how fast: the options, with requests per second, and the requests."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pymatgen.core import Element

from atomsets_core.sources.identifiers import project_id
from atomsets_core.sources.materials_project.fields import SUMMARY, Column, column
from atomsets_core.structures import from_formulas

GNOME = "gnome_r2scan_statics"
"""The batch of the database that came from GNoME."""

IDS_IN_A_REQUEST = 200
"""Identifiers, formulas or systems that fit into an address every server takes (some 3,000 characters)."""

_NETWORK = ("page_size", "requests_per_second", "attempts", "first_wait", "timeout")


class Bounds(BaseModel):
    """Both inclusive; an entry without the value doesn't pass."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min: float | None = Field(default=None, description="Smallest value that passes.")
    max: float | None = Field(default=None, description="Largest value that passes.")

    @model_validator(mode="after")
    def _in_order(self) -> Bounds:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self


class MaterialsQuery(BaseModel):
    """Which entries of the Materials Project, and which of their numbers; deprecated entries never."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    elements: list[str] = Field(default_factory=list, description="Elements that an entry must all hold.")
    any_elements: list[str] = Field(default_factory=list, description="Elements of which it must hold at least one.")
    exclude_elements: list[str] = Field(default_factory=list, description="Elements that it must not hold.")
    chemsys: list[str] = Field(
        default_factory=list, description='Chemical systems, e.g. "Fe-O"; one alone may have wildcards: "Fe-O-*".'
    )
    material_ids: list[str] = Field(
        default_factory=list, description="Identifiers, in either spelling: mp-22862 or mp-aaaabhvi."
    )
    formulas: list[str] = Field(default_factory=list, description='Formulas of whole compounds, e.g. "Fe2O3".')
    nelements: Bounds | None = Field(default=None, description="How many elements.")
    nsites: Bounds | None = Field(default=None, description="How many sites in the cell.")
    energy_above_hull: Bounds | None = Field(default=None, description="Energy above the convex hull, eV/atom.")
    band_gap: Bounds | None = Field(default=None, description="Band gap, eV.")
    is_stable: bool | None = Field(default=None, description="Whether it lies on the hull.")
    theoretical: bool | None = Field(
        default=None, description="false: only what was made in experiments; true: only the rest."
    )
    has_props: list[str] = Field(
        default_factory=list, description="Calculations that must exist for it: elasticity, dielectric, phonon, ..."
    )
    include_gnome: bool = Field(
        default=False, description="Also entries from GNoME, whose licence (CC BY-NC 4.0) forbids commercial use."
    )
    fields: list[str] = Field(
        default_factory=list,
        description="Numbers to pull beside the structures, e.g. energy_above_hull, k_vrh, elasticity.young_modulus.",
    )
    page_size: Annotated[int, Field(ge=1, le=1000)] = Field(default=1000, description="Entries in a request.")
    requests_per_second: Annotated[float, Field(gt=0, le=1000)] = Field(default=4.0, description="At most so many.")
    attempts: Annotated[int, Field(ge=1, le=20)] = Field(
        default=7, description="Tries for a request that fails in passing."
    )
    first_wait: Annotated[float, Field(gt=0)] = Field(
        default=1.0, description="Seconds before the second try, doubled for each later one, up to a minute."
    )
    timeout: Annotated[float, Field(gt=0)] = Field(
        default=60.0, description="Seconds without an answer that count as failure."
    )

    @field_validator("elements", "any_elements", "exclude_elements")
    @classmethod
    def _are_elements(cls, symbols: list[str]) -> list[str]:
        for symbol in symbols:
            if not Element.is_valid_symbol(symbol):
                raise ValueError(f"{symbol!r} is not an element")
        return list(dict.fromkeys(symbols))

    @field_validator("chemsys")
    @classmethod
    def _are_systems(cls, systems: list[str]) -> list[str]:
        for system in systems:
            for symbol in system.split("-"):
                if symbol != "*" and not Element.is_valid_symbol(symbol):
                    raise ValueError(f"{system!r} is not a chemical system: write elements with dashes, e.g. Li-Fe-O")
        if len(systems) > 1 and any("*" in system for system in systems):
            raise ValueError("a system with a wildcard must be the only one")
        # the database writes each in alphabetical order
        ordered = (sorted(system.split("-"), key=lambda symbol: (symbol == "*", symbol)) for system in systems)
        return list(dict.fromkeys("-".join(symbols) for symbols in ordered))

    @field_validator("material_ids")
    @classmethod
    def _are_identifiers(cls, names: list[str]) -> list[str]:
        found = [project_id(name) for name in names]
        if None in found:
            wrong = names[found.index(None)]
            raise ValueError(f"{wrong!r} is no identifier of the Materials Project, e.g. mp-22862")
        return list(dict.fromkeys(name for name in found if name))

    @field_validator("formulas")
    @classmethod
    def _are_formulas(cls, texts: list[str]) -> list[str]:
        found, refused = from_formulas(texts)
        if refused:
            raise ValueError(refused[0].reason)
        return list(dict.fromkeys(found.formulas))

    @field_validator("fields")
    @classmethod
    def _are_fields(cls, names: list[str]) -> list[str]:
        for name in names:
            column(name)
        return list(dict.fromkeys(names))

    @field_validator("has_props")
    @classmethod
    def _are_words(cls, names: list[str]) -> list[str]:
        for name in names:
            if not re.fullmatch("[a-z_]+", name):
                raise ValueError(f"{name!r} is not a kind of calculation, e.g. elasticity")
        return names

    @model_validator(mode="after")
    def _contradiction(self) -> MaterialsQuery:
        clash = {*self.elements, *self.any_elements} & set(self.exclude_elements)
        if clash:
            raise ValueError(f"{min(clash)} is both wanted and excluded")
        return self

    def with_fields(self, names: Iterable[str]) -> MaterialsQuery:
        """The same with more fields.

        Raises:
            ValueError: one of them isn't a number of the Materials Project.
        """
        wanted = [*self.fields, *names]
        for name in wanted:
            column(name)
        return self.model_copy(update={"fields": list(dict.fromkeys(wanted))})

    def columns(self, *endpoints: str) -> list[Column]:
        """The fields, of these endpoints only where any are given."""
        found = [column(name) for name in self.fields]
        return [item for item in found if not endpoints or item.endpoint in endpoints]

    def endpoints(self) -> list[str]:
        """Endpoints besides the summary that fields come from."""
        return list(dict.fromkeys(item.endpoint for item in self.columns() if item.endpoint != SUMMARY))

    def parts(self) -> list[dict[str, Any]]:
        """Parameters of the searches that together give every entry once.

        The interface knows no "at least one of": entries with the first element, those with the second but not the
        first, and so on, are disjoint and are all.
        """
        if not self.any_elements:
            wholes = [self._parameters(self.elements, self.exclude_elements)]
        else:
            wholes = [
                self._parameters(
                    list(dict.fromkeys([*self.elements, symbol])), [*self.exclude_elements, *self.any_elements[:i]]
                )
                for i, symbol in enumerate(self.any_elements)
                # an entry that must hold an earlier one of them is in that one's part already
                if not set(self.elements) & set(self.any_elements[:i])
            ]
        # an entry has one identifier, one formula and one system: the parts of long lists are disjoint too
        lists = [
            [(name, ",".join(some)) for some in chunks(values)] or [("", "")]
            for name, values in (
                ("material_ids", self.material_ids), ("formula", self.formulas), ("chemsys", self.chemsys)
            )
        ]  # fmt: skip
        return [
            {**whole, **{name: value for name, value in some if name}}
            for whole in wholes
            for some in itertools.product(*lists)
        ]

    def told(self) -> str:
        """What is asked, for messages: lists that are long by their number."""
        asked = self.asked()
        for name, value in asked.items():
            if isinstance(value, list) and len(value) > 5:
                asked[name] = f"{len(value)} of them"
        return str(asked or "the query")

    def _parameters(self, elements: list[str], excluded: list[str]) -> dict[str, Any]:
        given: dict[str, Any] = {"deprecated": False}
        for name, values in (
            ("elements", elements),
            ("exclude_elements", excluded),
            ("has_props", self.has_props),
        ):
            if values:
                given[name] = ",".join(values)
        for name in ("nelements", "nsites", "energy_above_hull", "band_gap"):
            bounds: Bounds | None = getattr(self, name)
            for end in ("min", "max"):
                value = getattr(bounds, end) if bounds else None
                if value is not None:
                    given[f"{name}_{end}"] = int(value) if name in ("nelements", "nsites") else value
        for name in ("is_stable", "theoretical"):
            if getattr(self, name) is not None:
                given[name] = getattr(self, name)
        if not self.include_gnome:
            given["batch_id_not_eq"] = GNOME
        return given

    def asked(self) -> dict[str, Any]:
        """What decides which data come, without what decides how: the options that differ from their defaults."""
        return self.model_dump(exclude=set(_NETWORK), exclude_defaults=True)

    def digest(self, endpoint: str) -> str:
        """12 hex digits of what is asked and where."""
        text = json.dumps([endpoint, self.asked()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def chunks(values: Sequence[str]) -> list[Sequence[str]]:
    """The values in as many parts as there are addresses for them."""
    return [values[start : start + IDS_IN_A_REQUEST] for start in range(0, len(values), IDS_IN_A_REQUEST)]
