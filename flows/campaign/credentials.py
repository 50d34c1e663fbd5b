"""Keys for the length of a run: from the environment, or from Secret blocks of the Prefect server.

A block is named like the variable, in small letters with dashes: `mp-api-key` stands for MP_API_KEY. What is found
is in the environment of the process, and of local workers that it starts, as long as the run lasts. It
never becomes a parameter, which the server would keep and show. Workers on other machines have keys of their own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from prefect.blocks.system import Secret

from atomsets_core.sources import MATERIALS_PROJECT
from atomsets_core.storage import SCHEME as S3
from atomsets_flows.campaign.sections import Campaign

MATERIALS_KEY = ("MP_API_KEY",)
S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def needed(campaign: Campaign, out: str) -> list[str]:
    """Variables that a run of a campaign may need."""
    sources = {campaign.training.source, campaign.candidates.source}
    folders = (out, campaign.features.store or "")
    return [
        *(MATERIALS_KEY if MATERIALS_PROJECT in sources else ()),
        *(S3_KEYS if any(folder.startswith(S3) for folder in folders) else ()),
    ]


@contextlib.contextmanager
def provided(names: list[str]) -> Iterator[None]:
    """Put what the environment lacks of these variables into it, from blocks; what has no block is left out."""
    found = {name: value for name in names if not os.environ.get(name) and (value := _read_block(name))}
    os.environ.update(found)
    try:
        yield
    finally:
        for name in found:
            os.environ.pop(name, None)


def block_name(variable: str) -> str:
    """Name of the Secret block that holds a variable."""
    return variable.lower().replace("_", "-")


def _read_block(variable: str) -> str:
    try:
        return str(Secret.load(block_name(variable)).get())  # type: ignore[union-attr]
    except ValueError:  # there is none
        return ""
