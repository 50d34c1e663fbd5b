"""Hide the best known values and look whether a model that never saw them finds them."""

import numpy as np

from atomsets_core.discovery import AtomSetsHead, CompositionRidgeHead, Design, Rows, answer, scored
from atomsets_core.parents import load_parent
from atomsets_core.sources import load_elastic

data = load_elastic()
chosen = np.arange(0, 1181, 5)
features = load_parent("megnet").featurize(data.structures.take(chosen), ["V0", "V1", "V2", "V3"])
log_modulus = np.log10(data.columns["K_VRH"].to_numpy()[chosen])

design, rows = Design(goal="maximize", quantile=0.1, pool_share=0.2), Rows(features)
heads = {
    "AtomSets": AtomSetsHead({"features": "megnet:V0+V1+V2+V3", "members": 4, "folds": 2, "epochs": 30}),
    "ridge, composition": CompositionRidgeHead(),
}
answers = {name: answer(head, rows, log_modulus, design, seed=0) for name, head in heads.items()}
found = scored(answers, log_modulus, features.formula, design, seed=0)

print(f"{found['n_hidden']} best values hidden in a pool of {found['n_pool']}, {found['n_train']} to learn from")
for name, scores in found["heads"].items():
    print(f"{name:20} found {scores['r_precision']:.0%} of them among as many first picks")
assert found["heads"]["AtomSets"]["r_precision"] > found["prevalence"]
