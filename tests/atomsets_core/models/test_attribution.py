"""Shares of sites add up to the prediction, treat equal sites alike, and are exact where the network is linear."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from atomsets_core.models.attribution import contributions
from atomsets_core.models.regressor import AtomSetsRegressor


@pytest.fixture(scope="module", params=[("mean",), ("mean", "max", "set2set", "attention", "std")], ids=["mean", "all"])
def fitted(request, elastic_features):
    features, values = elastic_features
    features, values = features[np.arange(100)], values[:100]
    options = {"transform": "log10", "members": 2, "folds": 2, "epochs": 6}
    return AtomSetsRegressor("megnet:V0+V1+V2+V3", **options, pooling=request.param).fit(features, values), features


def test_shares_and_base_add_up_to_the_prediction(fitted):
    model, features = fitted
    found = contributions(model.network_, model.spec_, features)
    total = found.base + np.add.reduceat(found.sites, features.offsets[:-1]) + found.structure
    # What the networks say; predictions outside the domain fade from there to the mean of the training values.
    predicted = model._apply(features)[0].mean(axis=0)[:, 0]
    assert np.abs(total - predicted).max() < 0.01 * np.abs(predicted - found.base).max()
    assert not found.structure.any()


def test_the_base_is_the_same_for_all_where_only_averages_count(fitted):
    model, features = fitted
    base = contributions(model.network_, model.spec_, features, steps=1).base
    if model.options_.pooling == ("mean",):
        np.testing.assert_allclose(base, base[0], rtol=1e-6)
    assert base.min() > 1.0
    assert base.max() < 3.0


def test_equivalent_sites_have_equal_shares(fitted):
    model, features = fitted
    shares = contributions(model.network_, model.spec_, features).sites
    values = np.round(model.spec_.site_matrix(features), 4)
    compared = 0
    for start, stop in zip(features.offsets[:-1], features.offsets[1:], strict=True):
        _, which = np.unique(values[start:stop], axis=0, return_inverse=True)
        for group in range(which.max() + 1):
            together = shares[start:stop][which == group]
            assert np.ptp(together) < 1e-4
            compared += len(together) > 1
    assert compared > 50


def test_a_linear_network_is_shared_out_exactly(elastic_features):
    features, values = elastic_features
    model = AtomSetsRegressor("megnet:V0", members=2, folds=2, epochs=2, phi=(8,), rho=()).fit(features, values)
    network = model.network_
    # Far from the kink of relu every site is linear, so a site's share is its own deviation times one gradient.
    with torch.no_grad():
        network.phi[0].bias += 100.0
    found = contributions(network, model.spec_, features, steps=1)
    total = found.base + np.add.reduceat(found.sites, features.offsets[:-1])
    # What the networks say; predictions outside the domain fade from there to the mean of the training values.
    predicted = model._apply(features)[0].mean(axis=0)[:, 0]
    np.testing.assert_allclose(total, predicted, rtol=1e-3)


def test_levels_of_the_structure_have_a_share_of_their_own(elastic, megnet):
    features = megnet.featurize(elastic.structures.take(np.arange(60)), ["V0", "v"])
    values = elastic.columns["K_VRH"].to_numpy()[:60]
    model = AtomSetsRegressor("megnet:V0+v", members=2, folds=2, epochs=4, transform="log10").fit(features, values)
    found = contributions(model.network_, model.spec_, features)
    total = found.base + np.add.reduceat(found.sites, features.offsets[:-1]) + found.structure
    # What the networks say; predictions outside the domain fade from there to the mean of the training values.
    predicted = model._apply(features)[0].mean(axis=0)[:, 0]
    assert np.abs(found.structure).max() > 0.01
    assert np.abs(total - predicted).max() < 0.01 * np.abs(predicted - found.base).max()
