"""The campaign file: every mistake is named with its key and what to do."""

import pytest

from atomsets_core.discovery.acquisition import KINDS
from atomsets_core.sources.base import SourceError
from atomsets_core.transforms import TRANSFORMS
from atomsets_flows.campaign.base import CampaignError
from atomsets_flows.campaign.reading import read_campaign
from atomsets_flows.campaign.sections import Campaign
from atomsets_flows.runs.champions import definition
from atomsets_tasks.clusters import Running

MINIMAL = """
name = "mine"
[training]
source = "a.parquet"
target = "y"
[candidates]
source = "b.parquet"
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL)
    return path


def test_the_embedded_campaign():
    campaign = read_campaign()
    assert campaign.name == "incompressible"
    assert campaign.training.source == "embedded:elastic"
    assert campaign.candidates.filters["e_above_hull"].max == 0.1
    assert campaign.features.spec == "megnet:V0+V1+V2+V3"


def test_a_minimal_file_gets_the_defaults(file):
    campaign = read_campaign(file)
    assert campaign.objective.goal == "maximize"
    assert campaign.model.members >= 5


def test_overrides_are_toml_or_text(file):
    changes = [
        "objective.shortlist=7",
        "training.transform=log10",
        "candidates.filters.e={max=0.2}",
        "cluster.workers = 1",
    ]
    campaign = read_campaign(file, changes)
    assert campaign.objective.shortlist == 7
    assert campaign.training.transform == "log10"
    assert campaign.candidates.filters["e"].max == 0.2
    assert campaign.cluster.workers == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.memebers=3", "model.memebers: unknown key; did you mean 'members'?"),
        (
            "training.zzz=3",
            "training.zzz: unknown key; known are separator, decimal, sheet, source, query, optimade, labels, "
            "id_column, target, task, unit, title, symbol, transform, repeats, take",
        ),
        ("candidates.filters.x={mx=1}", "candidates.filters.x.mx: unknown key; did you mean 'max'?"),
        ("candidates.filters.x={min=2,max=1}", "candidates.filters.x: min 2 is above max 1"),
        ("candidates.filters.x={}", "candidates.filters.x: give min, max or both"),
        (
            "objective.goal=up",
            "objective.goal: Input should be 'maximize', 'minimize', 'target', 'window', 'exceed' or 'class' "
            "(it is 'up')",
        ),
        ("training.transform=ln", "training.transform: Input should be 'none' or 'log10' (it is 'ln')"),
        (
            "objective.acquisition=pi",
            "objective.acquisition: Input should be 'auto', 'mean', 'ucb', 'ei' or 'probability' (it is 'pi')",
        ),
        (
            "objective={goal='target', value=1, acquisition='ei'}",
            "objective: the goal target takes the acquisition mean or ucb",
        ),
        ("objective.goal=target", "objective: value goes with the goals target, exceed and class, and these need it"),
        ("model.epochs=ten", "model.epochs: Input should be a valid integer"),
        ("model.members=2", "model: members = 2 is less than folds = 5: each fold needs one at least"),
        ("features.parent=gpt", "features.parent: no parent 'gpt'; there are "),
        ("features.levels=['V9']", "features: parent megnet has no level 'V9'; it has V0, V1, V2, V3"),
        ("name=a/b", "name: String should match pattern"),
        ("nonsense", "--set nonsense: write it as section.key=value"),
        ("name.x=1", "--set name.x=1: name is not a section"),
    ],
)
def test_mistakes_are_named(file, override, message):
    with pytest.raises(CampaignError) as error:
        read_campaign(file, [override])
    assert message in str(error.value)


def test_all_mistakes_are_told_at_once(file):
    with pytest.raises(CampaignError) as error:
        read_campaign(file, ["model.memebers=3", "objective.goal=up"])
    assert len(str(error.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "not TOML"),
        ('name = "x"', "training: missing, and needed"),
        (MINIMAL.replace('target = "y"', ""), "training.target: missing, and needed"),
    ],
)
def test_broken_files_are_named(tmp_path, text, message):
    path = tmp_path / "broken.toml"
    path.write_text(text)
    with pytest.raises(CampaignError, match=message) as error:
        read_campaign(path)
    assert str(error.value).startswith(str(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CampaignError, match=r"nowhere\.toml: there is no such campaign file"):
        read_campaign(tmp_path / "nowhere.toml")


def test_choices_are_those_of_their_tables():
    sections = Campaign.model_json_schema()["$defs"]
    assert sections["Training"]["properties"]["transform"]["enum"] == list(TRANSFORMS)
    assert sections["Objective"]["properties"]["acquisition"]["enum"] == ["auto", *KINDS]


def test_every_option_is_explained():
    def check(model):
        for name, field in model.model_fields.items():
            inner = field.annotation
            if hasattr(inner, "model_fields"):
                check(inner)
            else:
                assert field.description, f"{model.__name__}.{name}"

    check(Campaign)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["cluster.kind=address"], "cluster: address goes with the kind address, and that kind needs it"),
        (["cluster.kind=slurm"], "cluster: memory_per_worker is needed for slurm, e.g. 4GB"),
        (["cluster.kind=kubernetes", "cluster.memory_per_worker=4GB"], "cluster: kubernetes.image is needed"),
        (["cluster.min_workers=1"], "cluster: min_workers is for slurm and kubernetes, not for the kind local"),
        (["cluster.memory_per_worker=much"], "cluster: memory_per_worker = 'much': write it like 4GB"),
        (["cluster.slurm.walltime=noon"], "cluster.slurm.walltime: a wall time is written hours:minutes:seconds"),
        (["cluster.slurm.gpus_per_job=1", "cluster.slurm.workers_per_job=2"], "with gpus_per_job = 1 a job has one"),
        (["cluster.slurm.queue=short"], "cluster.slurm.queue: unknown key"),
        (["cluster.kubernetes.name=Big_One"], "cluster.kubernetes.name: String should match pattern"),
    ],
)
def test_mistakes_about_clusters_are_named(file, overrides, message):
    with pytest.raises(CampaignError) as error:
        read_campaign(file, overrides)
    assert message in str(error.value)


def test_an_address_makes_the_kind(file):
    cluster = read_campaign(file, ["cluster.address=tcp://there:8786"]).cluster
    assert cluster.kind == "address"
    assert cluster.start() == Running("tcp://there:8786")
    for wrong in (
        ["cluster.address=tls://there:8786"],
        ["cluster.address=tcp://there:8786", "cluster.tls={ca='a', certificate='b'}"],
    ):
        with pytest.raises(CampaignError, match="needs the certificates in cluster.tls"):
            read_campaign(file, wrong)


def test_each_kind_is_started_with_its_options(file, monkeypatch):
    asked = {}
    for kind in ("local", "slurm", "kubernetes"):
        monkeypatch.setattr(
            f"atomsets_flows.campaign.cluster.start_{kind}", lambda *a, kind=kind, **b: asked.update({kind: (a, b)})
        )
    common = ["cluster.workers=8", "cluster.memory_per_worker=3GB"]
    read_campaign(file, common).cluster.start()
    remote = [*common, "cluster.min_workers=0"]
    read_campaign(file, [*remote, "cluster.kind=slurm", "cluster.slurm.partition=short"]).cluster.start()
    read_campaign(file, [*remote, "cluster.kind=kubernetes", "cluster.kubernetes.image=i"]).cluster.start()
    assert asked["local"] == ((8, "3GB"), {})
    assert asked["slurm"][0] == asked["kubernetes"][0] == (8, 0, "3GB")
    assert asked["slurm"][1]["partition"] == "short"
    assert asked["kubernetes"][1]["image"] == "i"


def test_sections_of_another_kind_of_source_are_refused(file):
    with pytest.raises(CampaignError, match="substitution goes with a source substitute:"):
        read_campaign(file, ["candidates.substitution.count=3"])
    with pytest.raises(CampaignError, match="optimade goes with a source optimade:"):
        read_campaign(file, ["training.optimade.filter=nelements=2"])
    made = read_campaign(file, ["candidates.source=substitute:embedded:flla", "candidates.substitution.count=3"])
    assert made.candidates.pull_options()["substitution"].count == 3
    asked = read_campaign(file, ["candidates.source=optimade:https://x.org", "candidates.optimade.filter=nelements=2"])
    assert asked.candidates.pull_options()["optimade_filter"] == "nelements=2"
    with pytest.raises(
        CampaignError, match=r"candidates\.deduplicate\.0: Input should be 'id', 'content' or 'structure'"
    ):
        read_campaign(file, ["candidates.deduplicate=['name']"])


def test_a_campaign_that_was_written_down_whole_is_read_again():
    from atomsets_flows.campaign.keys import KeyGivenError, refuse_keys

    refuse_keys({"cluster": {"tls": {"ca": None, "certificate": None, "key": None}}}, "campaign")
    refuse_keys({"cluster": {"tls": {"ca": "a.pem", "certificate": "b.pem", "key": "c.pem"}}}, "campaign")
    with pytest.raises(KeyGivenError, match="a key never goes here"):
        refuse_keys({"cluster": {"key": "abc"}}, "campaign")


@pytest.fixture
def of_formulas(tmp_path):
    (tmp_path / "labels.csv").write_text("formula,y\nMgO,1\n")
    path = tmp_path / "formulas.toml"
    path.write_text(MINIMAL.replace("a.parquet", str(tmp_path / "labels.csv")))
    return path


def test_formulas_take_the_parent_that_reads_them(of_formulas, file):
    assert read_campaign(of_formulas).settled().features.spec == "composition:site"
    assert read_campaign(of_formulas, ["features.parent=megnet"]).settled().features.spec == "megnet:V0"
    chosen = read_campaign(of_formulas, ["features.levels=['site','hidden']"]).settled()
    assert chosen.features.spec == "composition:site+hidden"
    assert read_campaign(file).settled().features.parent == "megnet"
    taken = read_campaign(file, ["training.take=compositions"]).settled()
    assert taken.features.spec == "composition:site"
    assert taken.settled() == taken


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["features.parent=megnet", "features.levels=['V0','V1']"], r"V1 of megnet\); of megnet V0 can do without"),
        (["features.levels=['V2']"], r"features need one \(V2 of composition\)"),
    ],
)
def test_levels_that_need_a_structure_are_refused_for_formulas(of_formulas, changes, message):
    with pytest.raises(SourceError, match=message):
        read_campaign(of_formulas, changes).settled()


def test_levels_of_the_other_parent_are_refused_for_structures(file):
    with pytest.raises(SourceError, match="parent megnet has no level 'site'"):
        read_campaign(file, ["features.levels=['site']"]).settled()


def test_the_embedded_campaign_of_formulas_has_a_name(tmp_path, monkeypatch):
    campaign = read_campaign("formulas")
    assert campaign.name == "formulas"
    assert campaign.of_formulas
    monkeypatch.chdir(tmp_path)
    (tmp_path / "formulas").write_text(MINIMAL)
    assert read_campaign("formulas").name == "mine"


def test_generation_goes_with_its_source(of_formulas):
    asked = read_campaign(of_formulas, ["candidates.source=generate:", "candidates.generation.elements=['Mg','O']"])
    assert asked.candidates.pull_options()["generation"].elements == ["Mg", "O"]
    with pytest.raises(CampaignError, match="generation goes with a source generate:..."):
        read_campaign(of_formulas, ["candidates.generation.elements=['Mg','O']"])


def test_what_people_read_instead_of_a_column_changes_no_model(file):
    plain = read_campaign(file)
    named = read_campaign(file, ["training.title=bulk modulus", "training.symbol=K"])
    assert (named.training.title, named.training.symbol) == ("bulk modulus", "K")
    assert named.training.asked() == plain.training.asked()
    assert definition(named, "parent") == definition(plain, "parent")
