"""What every parent says of itself, and that reports, cards, BibTeX, NOTICE and the documentation say it too."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import atomsets_core.discovery.elements  # noqa: F401 - registers a parent of its own
from atomsets_core.jobs.model_card import model_card, parent_lines
from atomsets_core.models.regressor import AtomSetsRegressor
from atomsets_core.models.trained import load_model
from atomsets_core.parents import registry
from atomsets_core.parents.about import About, Reference, levels_about, unknown
from atomsets_core.parents.registry import (
    BUILT_IN,
    about_parent,
    carrier_versions,
    load_parent,
    parent_names,
    register_parent,
)
from atomsets_core.parents.trained import about_folder
from atomsets_core.report import methods
from atomsets_core.report.downloads import bibtex
from atomsets_core.storage.store import Store
from scripts import parents_page

ROOT = Path(__file__).resolve().parents[3]
NAMES = parent_names()
DOI = re.compile(r"10\.\d{4,9}/[^\s,;{}\\]+")
NEEDED = {"article": {"author", "title", "journal", "year", "volume", "pages"}, "misc": {"author", "title", "year"}}
"""Fields without which BibTeX warns, and those that a reader needs to find a paper."""


def summary(features: str) -> dict:
    """What of a campaign's summary the references are made from; so it was in the first version too."""
    return {"model": {"features": features}, "sources": {"training": {"name": "labels.csv"}, "candidates": {}}}


def parsed(text: str) -> dict[str, tuple[str, dict[str, str]]]:
    """BibTeX: key -> kind and fields; braces must balance, and nothing may be left over."""
    entries, rest = {}, text
    while rest.strip():
        head = re.match(r"\s*@([a-z]+)\{([^\s,{}]+),", rest)
        assert head, rest[:80]
        depth, end = 1, head.end()
        while depth:
            depth += {"{": 1, "}": -1}.get(rest[end], 0)
            end += 1
        fields = re.findall(r"^\s+(\w+) = \{(.*)\},?$", rest[head.end() : end - 1], re.MULTILINE)
        assert all(value.count("{") == value.count("}") for _, value in fields)
        assert head[2] not in entries, "keys must be unique"
        entries[head[2]] = (head[1], dict(fields))
        assert len(fields) == len(rest[head.end() : end - 1].strip().splitlines())
        rest = rest[end:]
    return entries


def test_there_are_parents_to_ask():
    assert {*BUILT_IN, "elements"} <= set(NAMES)
    assert len(NAMES) >= 27


@pytest.mark.parametrize("name", NAMES)
def test_every_parent_says_what_it_is(name):
    about = about_parent(name)
    for text in (about.title, about.described, about.licence, about.trained_on, about.overlap):
        assert text.strip() == text
        assert text
    assert about.overlap.endswith("."), "it stands as a sentence beside scores"
    assert "not known" not in about.overlap + about.trained_on + about.licence
    assert bool(about.references) != bool(about.uncited), "what to cite, or why there is nothing to cite"
    assert about.levels
    for level in about.levels.values():
        assert level.of in ("site", "structure")
        assert level.width > 0
        assert level.meaning


@pytest.mark.parametrize("name", NAMES)
def test_its_references_are_whole(name):
    for reference in about_parent(name).references:
        assert not reference.doi or DOI.fullmatch(reference.doi)
        assert NEEDED[reference.entry] <= reference.fields.keys()
        assert reference.citation.endswith(f"({reference.fields['year']})")
        assert reference.key.endswith(reference.fields["year"])
        first = reference.fields["author"].partition(",")[0]
        assert first in reference.citation.partition(",")[0]
        assert first in reference.short
        assert reference.fields["title"].lower() in reference.citation.lower()
        pages, volume = reference.fields.get("pages", ""), reference.fields.get("volume", "")
        assert f"{volume}, {pages.partition('--')[0]} (" in reference.citation or reference.entry == "misc"


@pytest.mark.parametrize("name", NAMES)
def test_its_package_carries_the_licence_it_says(name):
    about = about_parent(name)
    if not about.package:
        assert "part of this package" in about.licence
        return
    try:
        told = importlib.metadata.metadata(about.package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{about.package} is not installed")
    licences = " ".join([told.get("License", ""), told.get("License-Expression") or ""])
    kind = "BSD" if "BSD" in about.licence else "MIT"
    assert kind in licences
    assert about.package in about.install or re.fullmatch(r"'atomsets-screening\[\w+\]'", about.install)


@pytest.mark.parametrize("name", NAMES)
def test_its_levels_are_those_it_has(name):
    try:
        parent = load_parent(name)
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    levels = about_parent(name).levels
    assert {k: v.width for k, v in levels.items() if v.of == "site"} == parent.site_levels
    assert {k: v.width for k, v in levels.items() if v.of == "structure"} == parent.structure_levels
    bare = {k for k, v in levels.items() if not v.needs_coordinates}
    assert bare == set(getattr(parent, "element_levels", ()))


@pytest.mark.parametrize("name", NAMES)
def test_it_stands_in_report_bibtex_and_card(name):
    about, told = about_parent(name), summary(f"{name}:level")
    references = methods.references(told)
    entries = parsed(bibtex(references))
    card = "\n".join(parent_lines({name: "0123456789abcdef"}))
    for reference in about.references:
        assert reference.citation in [source["citation"] for source in references]
        kind, fields = entries[reference.key]
        assert kind == reference.entry
        assert fields.get("doi", "") == reference.doi.replace("_", r"\_")
        assert fields["year"] == reference.fields["year"]
        assert reference.citation in card
        assert reference.short in methods.named(about)
    assert len(references) == len(entries) == 1 + len(about.references)
    for text in (about.title, f"`{name}`", about.overlap, about.licence, about.uncited):
        assert text in card
    assert about.title in [parent.title for parent in methods.parents(told)]


def test_several_parents_are_all_named_each_reference_once():
    told = summary(",".join(f"{name}:level" for name in NAMES))
    entries = parsed(bibtex(methods.references(told)))
    cited = {reference.citation for name in NAMES for reference in about_parent(name).references}
    assert len(entries) == 1 + len(cited)
    assert {kind for kind, _ in entries.values()} == {"article", "misc"}
    assert [parent.title for parent in methods.parents(summary("megnet:V0+V1,mat2vec"))] == ["MEGNet", "mat2vec"]
    assert methods.levels(summary("megnet:V0+V1,mat2vec:vector")) == ["V0", "V1", "vector"]


def test_nothing_is_loaded_and_no_package_is_needed():
    code = (
        "import importlib.util, sys\n"
        "importlib.util.find_spec = lambda *_: None\n"
        "from atomsets_core.parents import about_parent, base, parent_names\n"
        "import torch, numpy, safetensors.numpy\n"
        "def refuse(*_, **__): raise AssertionError('weights are read')\n"
        "torch.load = safetensors.numpy.load = refuse\n"
        "print(len([about_parent(name).title for name in parent_names()]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == len([name for name in NAMES if name != "elements"])


def test_a_model_of_every_format_can_be_told_of(data):
    for folder in sorted((data / "models").iterdir()):
        try:
            model = load_model(Store(data / "models"), folder.name)
        except FileNotFoundError as missing:
            pytest.skip(str(missing))
        told = {
            "targets": ["K"],
            "unit": "GPa",
            "source": {},
            "training_rows_sha256": "",
            "scores_out_of_fold": {},
            "versions": {},
        }
        card = model_card(model, told)
        for name in model.spec_.parents:
            assert about_parent(name).overlap in card
            for reference in about_parent(name).references:
                assert reference.citation in card


def test_a_card_names_every_parent_and_the_packages_that_carry_them():
    pytest.importorskip("elementembeddings")
    from atomsets_core.jobs.model_card import _overlap, _versions

    formulas = [f"{a}{b}{n}" for a in ("Na", "K", "Li", "Mg") for b in ("Cl", "O", "F") for n in (1, 2)]
    model = AtomSetsRegressor("megnet:V0,mat2vec,amount", members=2, folds=2, epochs=1, phi=(4,), rho=(4,))
    model.fit(formulas, list(range(len(formulas))))
    names = model.spec_.parents
    assert names == ("megnet", "mat2vec", "amount")
    assert {"maml", "elementembeddings"} <= _versions(model).keys()
    assert "chgnet" not in _versions(model)
    for name in names:
        assert about_parent(name).overlap in _overlap(model)


def test_a_parent_of_ones_own_may_say_what_it_is(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))
    said = dataclasses.replace(about_parent("megnet"), title="mine")

    class Mine:
        about = said

    register_parent("silent", lambda device: device)
    register_parent("mine", lambda device: device, said)
    register_parent("class", Mine)
    assert about_parent("mine") == about_parent("class") == said
    assert about_parent("silent") == unknown("silent")
    card = "\n".join(parent_lines({"silent": "x"}))
    assert "is not known" in card
    assert "nothing to cite: it doesn't say" in card
    assert methods.references(summary("silent:a")) == [methods.ATOMSETS.as_source()]


def test_installed_packages_may_say_what_their_parents_are(monkeypatch):
    entries = [
        importlib.metadata.EntryPoint("told", "atomsets_core.parents.sevennet.networks:SEVENNET_0", "parents"),
        importlib.metadata.EntryPoint("silent", "atomsets_core.parents.megnet.parent:load", "parents"),
        importlib.metadata.EntryPoint("gone", "no_such_package:load", "parents"),
    ]
    group = [importlib.metadata.EntryPoint(e.name, e.value, registry.ENTRY_POINTS) for e in entries]
    monkeypatch.setattr(registry, "entry_points", lambda **which: importlib.metadata.EntryPoints(group).select(**which))
    assert about_parent("told").title == "SevenNet-0"
    assert about_parent("silent") == unknown("silent")
    assert about_parent("gone") == unknown("gone")


def test_a_parent_trained_here_says_its_own_data(trained_parent, tmp_path):
    about = about_parent(trained_parent)
    assert about == about_folder(trained_parent)
    assert "formation_energy_per_atom" in about.title
    assert "embedded:flla" in about.overlap
    assert "CC BY" in about.licence
    assert about.citation == about_parent("megnet").citation
    assert about.levels["energy"].meaning == "formation_energy_per_atom, eV/atom"
    assert {k: v.width for k, v in about.levels.items() if v.of == "site"} == load_parent(trained_parent).site_levels
    broken = tmp_path / "parent.json"
    broken.write_text("{}")
    assert about_parent(str(tmp_path)) == unknown(str(tmp_path))
    broken.unlink()
    assert about_parent(str(tmp_path)) == unknown(str(tmp_path))


def test_levels_without_a_meaning_are_refused():
    with pytest.raises(ValueError, match=r"\['b'\] have no meaning"):
        levels_about({"a": 1}, {"b": 2}, {"a": "something"}, of_elements=())


def test_versions_are_of_the_packages_that_carry_weights():
    found = carrier_versions(["megnet", "megnet-bf16", "amount", "nobody"])
    assert list(found) == ["maml"]


def test_two_papers_of_one_key_get_keys_of_their_own():
    reference = Reference("a2020", "A. A, B (2020)", {"author": "A, A", "title": "B", "year": "2020"}, entry="misc")
    other = dataclasses.replace(reference, citation="A. A, C (2020)")
    found = parsed(bibtex([reference.as_source(), other.as_source()]))
    assert list(found) == ["a2020", "a2020b"]
    assert {"entry", "key"}.isdisjoint(found["a2020"][1])


def test_the_notice_names_every_package_that_carries_weights():
    notice = (ROOT / "NOTICE").read_text()
    packages = {about.package: about for about, _ in BUILT_IN.values() if about.package}
    assert set(packages) == {"maml", "chgnet", "sevenn", "elementembeddings"}
    for package, about in packages.items():
        line = re.search(rf"(?m)^{package} \((.*?)\)", notice)
        assert line, f"NOTICE doesn't name {package}"
        assert ("BSD" if "BSD" in about.licence else "MIT") in line[1]
    for name in ("megnet", "chgnet", "sevennet", "sevennet-l3i5", "composition"):
        for reference in about_parent(name).references:
            assert reference.doi in notice


def test_the_documentation_says_what_the_parents_say():
    page = parents_page.PAGE.read_text()
    assert page == parents_page.written(page), "run: python scripts/parents_page.py"
    for name in BUILT_IN:
        assert f"`{name}`" in page
    with pytest.raises(ValueError, match="must stand there once"):
        parents_page.written("no marks")


def test_an_about_is_a_value():
    with pytest.raises(dataclasses.FrozenInstanceError):
        about_parent("megnet").title = "x"
    assert isinstance(about_parent("megnet"), About)
