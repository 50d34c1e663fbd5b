"""A transform is one entry of a table: what stands there can be learned on, told and drawn, and nothing names it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from atomsets_core import transforms
from atomsets_core.models.recipe import TRIED
from atomsets_core.models.regressor import AtomSetsRegressor
from atomsets_core.report.methods import asked
from atomsets_core.sources.base import Pulled
from atomsets_core.sources.selection import usable_labels
from atomsets_core.storage.store import Store
from atomsets_core.transforms import (
    LOG10,
    NONE,
    TRANSFORMS,
    Transform,
    find_transform,
    listed_transforms,
    purposes,
    transform_target,
    transform_targets,
)
from tests.atomsets_core.report.test_report import campaign, page
from tests.spelling import spelled, spelled_in

SQUARE_ROOT = Transform(
    "sqrt",
    forward=np.sqrt,
    inverse=lambda x: np.maximum(x, 0.0) ** 2,
    slope=lambda value: 2.0 * np.sqrt(value),
    accepts=lambda value: np.asarray(value) >= 0,
    needed="non-negative",
    purpose="for counts",
    called="sqrt",
)
ASINH = Transform(
    "asinh",
    forward=np.arcsinh,
    inverse=np.sinh,
    slope=lambda value: np.sqrt(1.0 + np.square(value)),
    accepts=lambda value: np.ones(np.shape(value), dtype=bool),
    purpose="for values of both signs that span decades",
    called="asinh",
)
ADDED = (SQUARE_ROOT, ASINH)
"""Entries that somebody might add."""

EVERY = (*TRANSFORMS.values(), *ADDED)
VALUES = np.concatenate([-np.geomspace(1e3, 1e-3, 40), [0.0], np.geomspace(1e-3, 1e3, 40)])

every_transform = pytest.mark.parametrize("scale", EVERY, ids=lambda scale: scale.name)


@pytest.fixture(autouse=True)
def _table(monkeypatch):
    monkeypatch.setattr(transforms, "TRANSFORMS", {scale.name: scale for scale in EVERY})


def learnable(scale: Transform) -> np.ndarray:
    return VALUES[scale.accepts(VALUES)]


@every_transform
def test_there_and_back(scale):
    values = learnable(scale)
    on_scale = transform_target(values, scale.name)
    np.testing.assert_allclose(scale.inverse(on_scale), values, rtol=1e-9, atol=1e-12)
    assert (np.diff(on_scale) > 0).all()
    assert scale.inverse(scale.forward(2.0)) == pytest.approx(2.0)


@every_transform
def test_ends_of_intervals_stay_in_order_wherever_they_lie(scale):
    back = scale.inverse(np.linspace(-40.0, 40.0, 401))
    assert np.isfinite(back).all()
    assert (np.diff(back) >= 0).all()


@every_transform
def test_the_slope_is_that_of_the_way_back(scale):
    values = learnable(scale)
    values, step = values[np.abs(values) > 0.1], 1e-5
    x = scale.forward(values)
    np.testing.assert_allclose(
        scale.slope(values), (scale.inverse(x + step) - scale.inverse(x - step)) / (2 * step), rtol=1e-4
    )


@every_transform
def test_what_it_does_not_accept_is_refused_with_its_position(scale):
    for bad in [*VALUES[~scale.accepts(VALUES)][:3], np.nan, np.inf, -np.inf]:
        with pytest.raises(ValueError, match="label 2 is .*: labels must be finite") as error:
            transform_target([1.0, 2.0, bad, 3.0], scale.name)
        assert scale.needed in str(error.value)
    assert scale.accepts(VALUES).all() == (not scale.needed)


@every_transform
def test_a_missing_value_of_several_targets_stays_missing(scale):
    found = transform_targets([[1.0, np.nan], [2.0, 3.0]], [NONE.name, scale.name])
    assert np.isnan(found[0, 1])
    assert found[1, 1] == scale.forward(3.0)
    assert listed_transforms(scale.name, 2) == [scale, scale]


@every_transform
def test_labels_are_used_as_far_as_it_accepts_them(scale, elastic):
    structures = elastic.structures.take(np.arange(len(VALUES)))
    usable, refused = usable_labels(
        Pulled(structures, pd.DataFrame({"K": VALUES}), [], {"name": "file.csv"}), "K", scale.name
    )
    assert usable.tolist() == scale.accepts(VALUES).tolist()
    assert all(refusal.reason.endswith(f": {scale.name} needs a {scale.needed} value") for refusal in refused)


@every_transform
def test_there_are_words_for_it(scale):
    assert scale.name == scale.name.lower().strip()
    assert scale.plain == (scale is NONE)
    if scale.plain:
        assert (scale.of("GPa"), scale.of(""), scale.applied_to("GPa"), scale.applied_to("")) == ("GPa", "", "GPa", "")
    else:
        assert scale.purpose
        assert f"{scale.name} {scale.purpose}" in purposes()
        assert scale.of("GPa") == f"{scale.called} GPa"
        assert (scale.applied_to("GPa"), scale.applied_to("")) == (f"{scale.called}(GPa)", f"{scale.called}(1)")
    if scale.logarithmic:
        assert scale.factor(-(scale.forward(30.0) - scale.forward(10.0))) == pytest.approx(3.0)


@every_transform
def test_a_model_learns_on_it(scale, elastic_features, tmp_path):
    features, values = elastic_features
    model = AtomSetsRegressor(transform=scale.name, members=4, folds=2, epochs=12, phi=(16,), rho=(16,))
    model.fit(features, values)
    found = model.predict_distribution(features)
    assert ((found.lower <= found.value) & (found.value <= found.upper)).all()
    np.testing.assert_allclose(found.value, scale.inverse(found.mean))
    value, std = model.predict(features, return_std=True)
    np.testing.assert_allclose(std, found.std * scale.slope(value))
    assert np.corrcoef(value, values)[0, 1] > 0.6
    model.save(Store(tmp_path), "m", {})
    assert (Store(tmp_path).read_json("m/model.json")["parameters"]["transform"]) == scale.name
    np.testing.assert_array_equal(AtomSetsRegressor.load(Store(tmp_path), "m").predict(features), value)


@every_transform
def test_the_report_tells_and_draws_it(scale, tmp_path):
    store = campaign(np.random.default_rng(0), tmp_path, change={"transform": scale.name})  # of positive values
    summary = store.read_json("summary.json")
    shown = page(store)
    assert scale.of("GPa") in shown.text
    assert ("the factors multiply" in shown.text) == scale.logarithmic
    assert f"K_VRH in GPa{'' if scale.plain else f', as {scale.called}'}" in dict(asked(summary))["Learned from"]
    assert f"values of {scale.applied_to('K_VRH')} from" in shown.text
    assert "nan" not in shown.text.lower().split()
    figures = shown.figures()
    assert (figures["plot-parity"]["layout"]["xaxis"].get("type") == "log") == scale.logarithmic
    bar = figures["plot-map"]["layout"]["coloraxis"]["colorbar"]
    if scale.plain:
        assert "tickvals" not in bar
    else:
        np.testing.assert_allclose(scale.inverse(np.array(bar["tickvals"])), [float(text) for text in bar["ticktext"]])
        assert len(bar["tickvals"]) >= 2


def test_names_are_spelled_in_the_table_alone():
    # Units that published data sets come in are no names of ours.
    apart = ("atomsets_core/sources/matbench.py",)
    about = "transform|scale"
    assert spelled(TRANSFORMS, about, "atomsets_core/transforms.py", everyday=[NONE.name], apart=apart) == []


@pytest.mark.parametrize(
    "code",
    [
        "if summary['transform'] == 'log10': pass",
        "label = f'log10 {unit}'",
        "def fit(transform: str = 'none'): pass",
        "model = Regressor(**{'transform': 'none'})",
        "def transforms():\n    return ['none']",
    ],
)
def test_a_name_spelled_elsewhere_would_be_seen(code):
    assert list(spelled_in(code, TRANSFORMS, "transform|scale", [NONE.name]))


def test_another_sense_of_a_name_and_a_docstring_count_for_nothing():
    code = "def pick(diversity='none'):\n    'Not log10.'"
    assert not list(spelled_in(code, TRANSFORMS, "transform|scale", [NONE.name]))


def test_names_in_files_stay_as_they_are():
    assert list(TRANSFORMS) == [NONE.name, LOG10.name] == ["none", "log10"]
    assert TRIED == ("none", "log10")
    with pytest.raises(ValueError, match="no transform 'square'; there are none, log10"):
        find_transform("square")
