"""A model on formulas, without structures: what fifty values are good for."""

import numpy as np

from atomsets_core.models import AtomSetsRegressor
from atomsets_core.sources import load_elastic

data = load_elastic()
formulas, first = np.unique(data.structures.formulas.astype(str), return_index=True)
moduli = data.columns["K_VRH"].to_numpy()[first]
rows = np.random.default_rng(0).permutation(len(formulas))
known, others = rows[:50], rows[50:250]

model = AtomSetsRegressor(transform="log10", members=5, folds=5).fit(list(formulas[known]), moduli[known])
predicted = model.predict(list(formulas[others]))

error = np.abs(np.log10(predicted / moduli[others])).mean()
blind = np.abs(np.log10(np.median(moduli[known]) / moduli[others])).mean()
print(f"error {error:.3f} decades after 50 values; always the median: {blind:.3f}")
assert error < blind
