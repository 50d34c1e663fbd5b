"""From structures to predictions with intervals, in three lines."""

from atomsets_core.models import AtomSetsRegressor
from atomsets_core.sources import load_elastic

data = load_elastic()
structures, moduli = data.structures.to_pymatgen()[:150], data.columns["K_VRH"].to_numpy()[:150]

model = AtomSetsRegressor(transform="log10", members=4, folds=2, epochs=20)
model.fit(structures[:120], moduli[:120])
found = model.predict_distribution(structures[120:])

for structure, low, value, high, true in zip(
    structures[120:125], found.lower, found.value, found.upper, moduli[120:], strict=False
):
    print(f"{structure.composition.reduced_formula:12} {low:6.0f} {value:6.0f} {high:6.0f} GPa, computed {true:6.0f}")

inside = ((moduli[120:] >= found.lower) & (moduli[120:] <= found.upper)).mean()
print(f"{inside:.0%} of the computed values lie inside their 90% interval")
assert inside > 0.6
