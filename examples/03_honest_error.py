"""How good is it really: scikit-learn's cross-validation, intervals, and the domain."""

import numpy as np
from sklearn.model_selection import KFold, cross_val_score

from atomsets_core.models import AtomSetsRegressor
from atomsets_core.parents import Features, load_parent
from atomsets_core.sources import load_elastic

data = load_elastic()
rows = np.arange(0, 1181, 6)
features: Features = load_parent("megnet").featurize(data.structures.take(rows), ["V0", "V1", "V2", "V3"])
values = data.columns["G_VRH"].to_numpy()[rows]

model = AtomSetsRegressor("megnet:V0+V1+V2+V3", transform="log10", members=4, folds=2, epochs=20)
folds = KFold(3, shuffle=True, random_state=0)
scores = -cross_val_score(model, features, values, cv=folds, scoring="neg_mean_absolute_error")
print(f"shear modulus, 3 folds: mean absolute error {scores.mean():.1f} GPa (each: {scores.round(1)})")

model.fit(features, values)
unseen = model.oof_
print(f"out of fold: {model.coverage_:.0%} of the values inside their 90% interval")
for name, chosen in (("inside", unseen.in_domain), ("outside", ~unseen.in_domain)):
    error = np.abs(np.log10(unseen.value[chosen] / values[chosen])).mean()
    print(f"{chosen.sum():4} structures {name} the domain are off by {error:.3f} decades on average")
assert scores.mean() < np.abs(values - np.median(values)).mean()
