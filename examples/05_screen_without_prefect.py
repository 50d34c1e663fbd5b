"""A whole screening without Prefect, Dask or a server: shards, model, ranking, shortlist."""

import tempfile

import numpy as np

from atomsets_core.discovery import acquisition, diverse_shortlist
from atomsets_core.features import FeatureStore
from atomsets_core.models import AtomSetsRegressor
from atomsets_core.parents import load_parent
from atomsets_core.sources import load_elastic, load_flla
from atomsets_core.storage import Store

LEVELS = ("V0", "V1", "V2", "V3")
known, offered = load_elastic(), load_flla()
training, values = known.structures.take(np.arange(0, 1181, 4)), known.columns["K_VRH"].to_numpy()[::4]
candidates = offered.structures.take(np.flatnonzero(offered.structures.n_atoms <= 4)[:300])

with tempfile.TemporaryDirectory() as folder:
    store, parent = Store(folder), load_parent("megnet")  # or Store("s3://bucket/features")
    shards = FeatureStore(store, "megnet", parent.digest, LEVELS)
    for batch in (training, candidates):
        features = parent.featurize(batch, LEVELS)
        shards.write(shards.shard_key(list(batch.hashes)), features)

    model = AtomSetsRegressor("megnet:V0+V1+V2+V3", transform="log10", members=4, folds=2, epochs=20)
    model.fit(shards.find(list(training.hashes)), values)
    model.save(store, "models/stiff")

    kept = [h for h in dict.fromkeys(candidates.hashes) if h in set(features.structure_hash)]
    stored = shards.find(kept)
    found = AtomSetsRegressor.load(store, "models/stiff").predict_distribution(stored)
    score = acquisition(found.mean, found.std, goal="maximize", kind="ucb", kappa=0.5)
    best = np.argsort(-score, kind="stable")[:100]
    vectors = model.pooled(stored[best])
    shortlist = best[
        diverse_shortlist(score[best], vectors / vectors.std(axis=0).clip(1e-6), stored.formula[best], 8, 0.2)
    ]

for row in shortlist:
    print(
        f"{stored.formula[row]:10} {found.value[row]:5.0f} GPa ({found.lower[row]:.0f} to {found.upper[row]:.0f})"
        f"{'' if found.in_domain[row] else '  outside the domain'}"
    )
assert len(set(stored.formula[shortlist])) == 8
