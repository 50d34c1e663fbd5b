"""The first step of a run that a Prefect worker starts: go where the campaigns lie."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "ATOMSETS_HOME"


def go_home() -> dict[str, str]:
    """Make the folder of ATOMSETS_HOME the working directory, in which campaigns/ and discoveries/ are.

    Returns:
        Its path, as the output of the step.

    Raises:
        RuntimeError: the variable is not set where the worker was started, or names no folder.
    """
    home = os.environ.get(VARIABLE, "")
    if not home:
        raise RuntimeError(f"{VARIABLE} is not set: start the worker with the folder in it that holds campaigns/")
    if not Path(home).is_dir():
        raise RuntimeError(f"{VARIABLE} is {home}, where there is no folder on this machine")
    os.chdir(home)
    return {"directory": home}
