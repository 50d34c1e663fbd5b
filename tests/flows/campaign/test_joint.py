"""Campaign files with several properties: what is read, and what is refused with which words."""

import pytest

from atomsets_flows.campaign.base import CampaignError
from atomsets_flows.campaign.joint import JointCampaign
from atomsets_flows.campaign.reading import read_any, read_campaign

TEXT = """
name = "two"
[candidates]
source = "embedded:flla"
[[properties]]
name = "K"
[properties.training]
source = "embedded:elastic"
target = "K_VRH"
unit = "GPa"
transform = "log10"
[[properties]]
name = "G"
[properties.training]
source = "embedded:elastic"
target = "G_VRH"
unit = "GPa"
[properties.model]
members = 4
folds = 2
[[objectives]]
property = "K"
goal = "maximize"
[[objectives]]
property = "G"
goal = "below"
value = 60
at_least = 0.8
"""


def read(folder, text, *overrides):
    path = folder / "campaign.toml"
    path.write_text(text)
    return read_any(path, list(overrides))


def test_each_property_is_a_campaign_of_its_own(tmp_path):
    campaign = read(tmp_path, TEXT, "discovery.seeds=2", "choice.shortlist=7")
    assert isinstance(campaign, JointCampaign)
    one, other = (campaign.campaign_of(name, "/shared/features") for name in ("K", "G"))
    assert (one.name, one.training.target, one.objective.goal) == ("two-K", "K_VRH", "maximize")
    assert (other.name, other.objective.goal) == ("two-G", "minimize")
    assert (one.model.members, other.model.members) == (10, 4)
    assert one.features.store == other.features.store == "/shared/features"
    assert one.discovery.seeds == 2
    assert one.objective.shortlist == 7
    goals = [wanted.as_goal() for wanted in campaign.objectives]
    assert [(goal.name, goal.goal, goal.value, goal.at_least) for goal in goals] == [
        ("K", "maximize", None, None),
        ("G", "below", 60.0, 0.8),
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "G"', 'name = "K"', "two properties are called K"),
        ('name = "G"', 'name = "score"', "can't be called score"),
        ('name = "G"', 'name = "a b"', "properties.1.name"),
        ('property = "G"', 'property = "K"', "no objective names the property G"),
        ("value = 60", "", "value goes with the goals target, exceed, below and class"),
        ('goal = "below"\nvalue = 60', 'goal = "minimize"', "has no end that can be met"),
        ('goal = "maximize"', 'goal = "exceed"\nvalue = 3\n[[objectives]]\nproperty = "K"\ngoal = "window"\nlow = 1\n'
         "high = 2", "K has two limits"),
        ('name = "G"', 'name = "K_std"', "can't be called K_std: a column of K has that name"),
        ('goal = "maximize"', 'goal = "maximize"\n[[objectives]]\nproperty = "score"\ngoal = "minimize"',
         "score is a column of the ranking; call the candidates' own column otherwise"),
        ('goal = "maximize"', 'goal = "maximize"\n[[objectives]]\nproperty = "G_lower"\ngoal = "minimize"',
         "G_lower is a column of the ranking"),
        ('property = "K"', 'property = "KK"', r"no objective names the property K \('KK' is no property\)"),
        ('goal = "maximize"', 'goal = "exceed"\nvalue = -5',
         "K: value = -5: with transform = 'log10' all values are positive"),
        ("value = 60", "value = nan", "G: value = nan is no number that a value could have"),
        ("folds = 2", "folds = 2\n[properties.discovery]\nheads = ['logistic regression']\n",
         "G: discovery.heads: 'logistic regression' learns no numbers"),
        ("members = 4", "memberz = 4", "did you mean 'members'"),
        ('goal = "maximize"', 'goal = "maximise"', "objectives.0.goal"),
        ("[candidates]", "[candidatez]", "candidatez: unknown key; did you mean 'candidates'"),
    ],
)  # fmt: skip
def test_what_doesnt_fit_is_said(tmp_path, old, new, said):
    assert old in TEXT
    with pytest.raises(CampaignError, match=said):
        read(tmp_path, TEXT.replace(old, new, 1) if "property" not in old else TEXT.replace(old, new))


def test_where_one_property_is_wanted_a_sentence_says_so(tmp_path):
    path = tmp_path / "campaign.toml"
    path.write_text(TEXT)
    with pytest.raises(CampaignError, match="this campaign has several properties: run it with `atomsets screen`"):
        read_campaign(path)
