"""Why a prediction is what it is: the nearest known materials, and what each site adds."""

import numpy as np

from atomsets_core.models import AtomSetsRegressor, contributions
from atomsets_core.parents import load_parent
from atomsets_core.sources import load_elastic

data = load_elastic()
rows = np.arange(0, 1181, 5)
structures, values = data.structures.take(rows), data.columns["K_VRH"].to_numpy()[rows]
features = load_parent("megnet").featurize(structures, ["V0", "V1", "V2", "V3"])
model = AtomSetsRegressor("megnet:V0+V1+V2+V3", transform="log10", members=4, folds=2, epochs=20)
model.fit(features[np.arange(200)], values[:200])

asked = features[np.array([int(np.argmax(values[200:])) + 200])]
distance, near = model.domain_.nearest(model.pooled(asked), n_train=200)
shares = contributions(model.network_, model.spec_, asked)
predicted = model.predict_distribution(asked)

print(f"{asked.formula[0]}: {predicted.value[0]:.0f} GPa")
for row, far in zip(near[0], distance[0], strict=True):
    print(f"  like {structures.formulas[row]:12} {values[row]:4.0f} GPa, distance {far:.1f}")
print(f"  a structure of average sites: {10 ** shares.base[0]:.0f} GPa")
for share in shares.sites:
    print(f"  site: x {10**share:.2f}")
assert abs(shares.base[0] + shares.sites.sum() - predicted.mean[0]) < 0.01
