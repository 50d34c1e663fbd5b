"""Units of the labels against what a campaign says, and against those of the candidates."""

import pytest

from atomsets_core.jobs.structures import agreed_units
from atomsets_core.sources.base import SourceError


def test_a_unit_that_the_source_contradicts_is_refused():
    assert agreed_units({"units": {"K": "GPa"}}, {}, "K", "GPa") == []
    assert agreed_units({}, {}, "K", "GPa") == []
    with pytest.raises(SourceError, match="K is in GPa in the source, and you say Mbar: say GPa"):
        agreed_units({"units": {"K": "GPa"}}, {}, "K", "Mbar")


def test_candidates_in_another_unit_are_told():
    (said,) = agreed_units({"units": {"K": "GPa"}}, {"units": {"K": "Mbar"}}, "K", "")
    assert said == "candidates hold K in Mbar, and it is learned in GPa: predictions are in GPa"
    (said,) = agreed_units({}, {"units": {"K": "Mbar"}}, "K", "GPa")
    assert "predictions are in GPa" in said
    assert agreed_units({"units": {"K": "GPa"}}, {"units": {"K": "GPa"}}, "K", "GPa") == []
