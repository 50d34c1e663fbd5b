"""Keys of databases stay out of campaign files and command lines, which are shared, kept with runs and shown."""

from __future__ import annotations

import re
from typing import Any

_NAMES = {"key", "apikey", "token", "secret", "password"}
_WORD = re.compile(r"(?<![A-Za-z0-9])[A-Za-z0-9]{32}(?![A-Za-z0-9])")
_WHERE_KEYS_GO = (
    "Remove it, and put the key into the environment variable MP_API_KEY or, with `pmg config --add PMG_MAPI_KEY "
    "<key>`, into pymatgen's settings"
)


class KeyGivenError(Exception):
    """An option that holds a key; the message names the option and never the key."""


def refuse_keys(raw: Any, where: str, path: str = "") -> None:
    """Refuse options that are named like one for a key, or whose value looks like a key of the Materials Project.

    Args:
        raw: options, nested as in the file.
        where: what messages call the file.
        path: of `raw` in it.

    Raises:
        KeyGivenError: there is one.
    """
    if isinstance(raw, dict):
        for name, value in raw.items():
            here = f"{path}.{name}" if path else str(name)
            words = set(re.split(r"[._-]", str(name).lower()))
            # A campaign that was written down whole names everything; cluster.tls.key is the name of a file.
            empty = value is None or isinstance(value, dict) or here == "cluster.tls.key"
            if words & _NAMES and not empty:
                raise KeyGivenError(f"{where}: {here}: a key never goes here. {_WHERE_KEYS_GO}")
            refuse_keys(value, where, here)
    elif isinstance(raw, list):
        for value in raw:
            refuse_keys(value, where, path)
    elif isinstance(raw, str):
        for word in _WORD.findall(raw):
            if re.search("[0-9]", word) and re.search("[A-Za-z]", word):
                raise KeyGivenError(f"{where}: {path}: it holds what looks like a key. {_WHERE_KEYS_GO}")
