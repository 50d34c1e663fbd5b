"""A dry run of formulas: what it counts, and that it fails as a run would."""

import pytest

from atomsets_core.sources.base import SourceError
from atomsets_flows.campaign.estimate import estimate, told
from atomsets_flows.campaign.reading import read_campaign

QUICK = ["model.members=4", "model.folds=2", "model.epochs=2", "discovery.seeds=1", "discovery.heads=['ridge']"]


def test_formulas_are_counted_and_timed(tmp_path):
    found = estimate(read_campaign("formulas", QUICK), str(tmp_path))
    assert (found.pulled, found.labelled) == ({"training": 206, "candidates": 3938}, 206)
    assert found.materials == "compositions"
    # 561 pass no filter or are known; those left hold some compositions twice, which have one content
    assert 3000 < found.missing < 3938
    assert found.rate > 0
    assert any("compositions have none yet" in line for line in told(found, str))
    assert not list(tmp_path.iterdir())


def test_structures_by_labels_of_formulas_are_told(tmp_path):
    found = estimate(read_campaign("formulas", [*QUICK, "candidates.take=entries"]), str(tmp_path))
    assert found.materials == "structures"
    assert any("each is ranked by its composition alone" in note for note in found.notes)


def test_a_dry_run_refuses_what_a_run_does(tmp_path):
    reverse = ["training.source=embedded:elastic"]
    with pytest.raises(SourceError, match=r"set training\.take"):
        estimate(read_campaign("formulas", [*QUICK, *reverse]), str(tmp_path))
    with pytest.raises(SourceError, match="V1 of megnet"):
        estimate(read_campaign("formulas", ["features.parent=megnet", "features.levels=['V1']"]), str(tmp_path))
    with pytest.raises(SourceError, match="formulas have no cell of atoms"):
        estimate(read_campaign("formulas", [*QUICK, "candidates.filters.n_atoms={max=4}"]), str(tmp_path))
