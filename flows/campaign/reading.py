"""A campaign from its TOML file, with overrides, and errors that name the key."""

from __future__ import annotations

import difflib
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from atomsets_flows.campaign.base import CampaignError, Range
from atomsets_flows.campaign.keys import KeyGivenError, refuse_keys
from atomsets_flows.campaign.sections import DEFAULT, EMBEDDED, Campaign


def read_campaign(path: str | Path | None = None, overrides: list[str] | None = None) -> Campaign:
    """A campaign from its file, with `section.key=value` overrides; an embedded one by its name, or without any.

    Raises:
        CampaignError: the file is missing, is not TOML, or holds an unknown key or an unusable value.
    """
    if path is None or is_embedded(path):
        name = f"{path or DEFAULT}.toml"
        text = resources.files("atomsets_flows.campaign").joinpath("embedded", name).read_text()
    else:
        name = str(path)
        try:
            text = Path(path).read_text()
        except FileNotFoundError as error:
            raise CampaignError(f"{name}: there is no such campaign file; check the spelling") from error
        except (OSError, UnicodeDecodeError) as error:
            raise CampaignError(f"{name}: can't be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CampaignError(f"{name}: not TOML: {error}") from error
    try:
        refuse_keys(raw, name)
        for override in overrides or []:
            refuse_keys(dict([override.partition("=")[::2]]), "--set")
            _override(raw, override)
    except KeyGivenError as error:
        raise CampaignError(str(error)) from None
    try:
        return Campaign.model_validate(raw)
    except ValidationError as error:
        raise CampaignError("\n".join(f"{name}: {_explain(item)}" for item in error.errors())) from error


def is_embedded(path: str | Path) -> bool:
    """Whether that is the name of an embedded campaign, and of no file."""
    return str(path) in EMBEDDED and not Path(path).exists()


def _override(raw: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise CampaignError(f"--set {text}: write it as section.key=value")
    try:
        parsed = tomllib.loads(f"value = {value.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    *path, last = key.strip().split(".")
    for part in path:
        raw = raw.setdefault(part, {})
        if not isinstance(raw, dict):
            raise CampaignError(f"--set {text}: {part} is not a section")
    raw[last] = parsed


def _explain(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"]) or "campaign"
    if item["type"] == "extra_forbidden":
        known = _known_keys(item["loc"][:-1])
        close = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
        return f"{where}: unknown key; {hint}"
    if item["type"] == "missing":
        return f"{where}: missing, and needed"
    message = item["msg"].removeprefix("Value error, ")
    return f"{where}: {message} (it is {item['input']!r})" if item["type"] != "value_error" else f"{where}: {message}"


def _known_keys(path: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Campaign
    for part in path:
        field = model.model_fields.get(str(part))
        annotation = field.annotation if field else Range
        choices = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
        model = next((kind for kind in choices if issubclass(kind, BaseModel)), Range)
    return list(model.model_fields)
