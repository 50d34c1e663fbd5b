"""One rig of processes for all tests of this folder, and one undisturbed run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.kills import Kills
from tests.faults.rig import Rig


@pytest.fixture(scope="session")
def kills(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kills]:
    place = tmp_path_factory.mktemp("faults")
    with Rig(place / "rig") as rig:
        yield Kills(rig, place)
