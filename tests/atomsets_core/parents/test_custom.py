"""The parent of docs/parents.md does what the page says."""

import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from atomsets_core.parents import registry
from atomsets_core.parents.registry import load_parent, parent_names
from atomsets_core.structures.reading import as_structures

PAGE = Path(__file__).resolve().parents[3] / "docs" / "parents.md"


@pytest.fixture(scope="module")
def blocks():
    """The two Python blocks of the page: the parent, and its use."""
    found = re.findall(r"(?s)```python\n(.*?)```", PAGE.read_text())
    assert len(found) == 2
    return found


@pytest.fixture
def shells(blocks, monkeypatch):
    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))
    module = types.ModuleType("shells")
    monkeypatch.setitem(sys.modules, "shells", module)
    exec(blocks[0], module.__dict__)  # noqa: S102 - our own page
    yield module
    load_parent.cache_clear()


def test_the_page_runs(shells, blocks):
    torch.manual_seed(0)
    exec(blocks[1], shells.__dict__)  # noqa: S102 - our own page
    assert "shells" in parent_names()
    prediction, modulus = shells.prediction, shells.modulus[250:]
    assert np.corrcoef(np.log(prediction), np.log(modulus))[0, 1] > 0.7


def test_it_keeps_the_protocol(shells):
    parent = shells.Shells()
    cell = Structure(Lattice.cubic(4.2), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    doubled = cell * [2, 1, 1]
    lonely = Structure(Lattice.cubic(20), ["He"], [[0, 0, 0]])
    features = parent.featurize(as_structures([cell, doubled, lonely]))
    assert [refusal.reason[:13] for refusal in features.refused] == ["isolated atom"]
    assert {level: values.shape[1] for level, values in features.sites.items()} == parent.site_levels
    np.testing.assert_allclose(features.structure["coordination"][0], features.structure["coordination"][1])
    for values in features.sites.values():
        np.testing.assert_allclose(values[[0, 0, 1, 1]], values[2:], rtol=1e-5)
    composition = parent.featurize(as_structures([lonely]), ["element"])
    np.testing.assert_array_equal(composition.sites["element"], [[1, 18, 0]])
    assert parent.digest == shells.Shells().digest
