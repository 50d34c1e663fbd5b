"""The campaign file of a class: what goes together, what is taken where nothing is said, and what is refused."""

from pathlib import Path

import pytest

from atomsets_core.discovery.choice import CLASS_PREFERRED, PREFERRED
from atomsets_flows.campaign.base import CampaignError
from atomsets_flows.campaign.reading import read_campaign
from atomsets_flows.campaign.sections import Campaign
from atomsets_flows.runs.champions import definition

CLASSES = """
name = "mine"
[training]
source = "a.parquet"
target = "kind"
task = "class"
[candidates]
source = "b.parquet"
[objective]
value = "metal"
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(CLASSES)
    return path


def test_goal_heads_unit_and_acquisition_follow_from_the_task(file):
    campaign = read_campaign(file)
    assert campaign.objective.goal == "class"
    assert campaign.wanted == "metal"
    assert campaign.unit == "probability"
    assert campaign.heads == list(CLASS_PREFERRED)
    assert campaign.kinds == ("mean", "ucb")
    assert campaign.parameters["task"] == "class"
    assert read_campaign(file, ['discovery.heads=["logistic regression"]']).heads == ["logistic regression"]


def test_a_campaign_of_numbers_has_no_word_of_classes():
    campaign = read_campaign()
    assert campaign.wanted is None
    assert campaign.heads == list(PREFERRED)
    assert "task" not in campaign.parameters
    assert "task" not in campaign.training.asked()


@pytest.mark.parametrize(("text", "wanted"), [('"metal"', "metal"), ("true", True), ("2", 2.0), ('"2"', "2")])
def test_the_wanted_class_is_text_truth_or_number(file, text, wanted):
    campaign = read_campaign(file, [f"objective.value={text}"])
    assert campaign.wanted == wanted
    assert type(campaign.wanted) is type(wanted)
    again = Campaign.model_validate(campaign.model_dump(mode="json"))
    assert again == campaign
    assert type(again.wanted) is type(wanted)


def test_another_wanted_class_is_another_model(file):
    one, other = (definition(read_campaign(file, [f"objective.value={name}"]), "d") for name in ("metal", "glass"))
    assert one != other


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "objective={goal='maximize'}",
            "with training.task = 'class' the goal is class, with value = the wanted class",
        ),
        ("objective={}", "value goes with the goals target, exceed and class, and these need it"),
        ("training.task=number", "value goes with the goals target, exceed and class"),
        ("training.unit=eV", "unit = 'eV' goes with task number"),
        ("training.transform=log10", "transform = 'log10' goes with task number: classes have no scale"),
        ("training.repeats=mean", "repeats = 'mean' goes with task number"),
        ("objective.acquisition=ei", "the goal class takes the acquisition mean or ucb"),
        ('discovery.heads=["ridge"]', "discovery.heads: 'ridge' learns no classes; there are AtomSets, mixture"),
    ],
)
def test_what_does_not_go_with_classes_is_named(file, override, message):
    with pytest.raises(CampaignError) as error:
        read_campaign(file, [override])
    assert message in str(error.value)


def test_what_does_not_go_with_numbers_is_named():
    for override, message in (
        ('objective={goal="class", value="metal"}', "the goal class needs training.task = 'class'"),
        (
            'objective={goal="exceed", value="metal"}',
            "objective.value: 'metal' is no number, which the goal exceed needs",
        ),
        ('discovery.heads=["logistic regression"]', "'logistic regression' learns no numbers"),
    ):
        with pytest.raises(CampaignError) as error:
            read_campaign(None, [override])
        assert message in str(error.value)


def test_numbers_may_be_written_as_text():
    assert read_campaign(None, ['objective={goal="exceed", value="250"}']).objective.value == 250.0


def test_the_example_is_a_campaign_of_a_class():
    campaign = read_campaign(Path(__file__).resolve().parents[3] / "examples/campaigns/metals.toml")
    assert campaign.wanted is True
    assert campaign.unit == "probability"
    # labels bring the target: the database isn't asked for it
    assert "is_metal" not in campaign.training.materials_query().model_dump_json()
    assert (
        "band_gap"
        in campaign.training.model_copy(update={"labels": None, "target": "band_gap"})
        .materials_query()
        .model_dump_json()
    )
