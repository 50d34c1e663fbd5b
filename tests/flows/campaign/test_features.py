"""The section of features: several parents, and auto."""

import pytest

from atomsets_core.models import recipe
from atomsets_core.sources.base import SourceError
from atomsets_flows.campaign.base import CampaignError
from atomsets_flows.campaign.features import FeatureOptions
from atomsets_flows.campaign.reading import read_any, read_campaign
from atomsets_flows.commands.verify import reaches

FILE = """
name = "several"
features = "{features}"
[training]
source = "embedded:elastic"
target = "K_VRH"
[candidates]
source = "embedded:flla"
"""


@pytest.fixture
def written(tmp_path):
    def write(features):
        path = tmp_path / "campaign.toml"
        path.write_text(FILE.format(features=features))
        return path

    return write


def test_one_line_stands_for_the_section(written):
    campaign = read_campaign(written("megnet:V0+V1, amount"), ["features.shard_size=64"])
    assert campaign.features.spec == "megnet:V0+V1,amount:fraction+log"
    assert campaign.features.shard_size == 64
    assert campaign.settled().features == campaign.features
    assert campaign.parameters["features"] == campaign.features.spec


def test_parents_are_named_in_full(written):
    with pytest.raises(CampaignError, match=r"features.specification: no parent named 'gpt'"):
        read_campaign(written("megnet:V0,gpt:x"))
    with pytest.raises(CampaignError, match="specification stands for parent and levels"):
        read_campaign(written("megnet:V0"), ["features.parent=megnet"])


def test_formulas_have_no_structure(written, tmp_path):
    (tmp_path / "labels.csv").write_text("formula,K_VRH\nNaCl,25\nMgO,160\n")
    campaign = read_campaign(written("megnet:V1,amount"), [f"training.source={tmp_path / 'labels.csv'}"])
    with pytest.raises(SourceError, match=r"megnet:V1,amount:fraction\+log' needs one: name levels of elements alone"):
        campaign.settled()
    able = read_campaign(written("megnet:V0,amount"), [f"training.source={tmp_path / 'labels.csv'}"])
    assert able.settled().features.spec == "megnet:V0,amount:fraction+log"


def test_auto_chooses_from_what_is_installed(monkeypatch):
    monkeypatch.setattr(recipe, "FOR_STRUCTURES", {"gone:x,megnet:V0": None, "megnet:V0+V1": 10, "megnet:V0": None})
    options = FeatureOptions.model_validate("auto")
    assert options.is_open
    assert options.spec == "auto"
    assert options.specs(formulas=False) == ("megnet:V0+V1", "megnet:V0")
    assert "composition" in options.specs(formulas=True)[0]
    assert FeatureOptions().specs(formulas=False) == ("megnet:V0+V1+V2+V3",)


def test_a_received_folder_says_which_folders_its_parents_are_read_from(written):
    asked = read_any(written("megnet:V0"))
    told = asked.features.model_copy(update={"specification": "/home/other/parent:V0"})
    assert "features.specification = /home/other/parent:V0" in reaches(asked.model_copy(update={"features": told}))
