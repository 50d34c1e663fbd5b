"""A campaign from its TOML file, with overrides, and errors that name the key."""

from __future__ import annotations

import difflib
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from atomsets_flows.campaign.base import CampaignError, Range
from atomsets_flows.campaign.joint import JointCampaign
from atomsets_flows.campaign.keys import KeyGivenError, refuse_keys
from atomsets_flows.campaign.sections import DEFAULT, EMBEDDED, Campaign


def read_campaign(path: str | Path | None = None, overrides: list[str] | None = None) -> Campaign:
    """A campaign of one property from its file or, where it is embedded, by its name; see `read_any`.

    Raises:
        CampaignError: the file is missing, is not TOML, or holds an unknown key or an unusable value; or it is a
            campaign of several properties.
    """
    found = read_any(path, overrides)
    if isinstance(found, JointCampaign):
        raise CampaignError(
            f"{path}: this campaign has several properties: run it with `atomsets screen`; of each property alone, the "
            "folder properties/NAME in its own holds a campaign.json"
        )
    return found


def read_any(path: str | Path | None = None, overrides: list[str] | None = None) -> Campaign | JointCampaign:
    """A campaign of one property or, where the file has [[properties]], of several, with `section.key=value` overrides.

    Args:
        path: of the file, or name of an embedded campaign; the first of these without any.
        overrides: options that count instead of those of the file.

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
    return read_text(text, name, overrides)


def read_text(text: str, name: str, overrides: list[str] | None = None) -> Campaign | JointCampaign:
    """A campaign from the text of its file; see `read_any`.

    Args:
        text: TOML.
        name: of the file, for messages.
        overrides: options that count instead of those of the file.

    Raises:
        CampaignError: it is not TOML, or holds an unknown key or an unusable value.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CampaignError(f"{name}: not TOML: {error}") from error
    try:
        refuse_keys(raw, name)
        if isinstance(features := raw.get("features"), str):  # so that options can be set beside it
            raw["features"] = {"specification": features}
        for override in overrides or []:
            refuse_keys(dict([override.partition("=")[::2]]), "--set")
            _override(raw, override)
    except KeyGivenError as error:
        raise CampaignError(str(error)) from None
    kind = JointCampaign if "properties" in raw or "objectives" in raw else Campaign
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise CampaignError("\n".join(f"{name}: {_explain(item, kind)}" for item in error.errors())) from error


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


def _explain(item: Any, kind: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in item["loc"]) or "campaign"
    if item["type"] == "extra_forbidden":
        known = _known_keys(item["loc"][:-1], kind)
        close = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
        return f"{where}: unknown key; {hint}"
    if item["type"] == "missing":
        return f"{where}: missing, and needed"
    message = item["msg"].removeprefix("Value error, ")
    return f"{where}: {message} (it is {item['input']!r})" if item["type"] != "value_error" else f"{where}: {message}"


def _known_keys(path: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    for part in path:
        if isinstance(part, int):  # of a list, whose kind was found already
            continue
        field = model.model_fields.get(str(part))
        annotation = field.annotation if field else Range
        choices = [kind for kind in (annotation, *_inside(annotation)) if isinstance(kind, type)]
        model = next((kind for kind in choices if issubclass(kind, BaseModel)), Range)
    return list(model.model_fields)


def _inside(annotation: Any) -> list[Any]:
    """What a union or a list is made of, whatever is around it."""
    found = []
    for part in get_args(annotation):
        found += [part, *_inside(part)]
    return found
