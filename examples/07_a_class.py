"""A class instead of a number: how probable it is that a structure is stiff, also in chemistry that was hidden."""

import numpy as np

from atomsets_core.discovery import ClassDesign, Rows, answer, campaign_heads, scored_by, summarize
from atomsets_core.features import featurize
from atomsets_core.models import ClassProbability, probability_scores
from atomsets_core.sources import load_elastic, load_flla

SPEC = "megnet:V0+V1+V2+V3"
known, offered = load_elastic(), load_flla()
rows = np.arange(0, 1181, 3)
features = featurize(known.structures.take(rows), SPEC)
stiff = (known.columns["K_VRH"].to_numpy()[rows] > 150).astype(float)

model = ClassProbability(SPEC, head="mixture", members=4, folds=4, epochs=20).fit(features, stiff)
scores = probability_scores(stiff, model.oof_.value)
print(f"out of fold: ROC-AUC {scores['roc_auc']:.3f}, balanced accuracy {scores['balanced_accuracy']:.1%}")

# Members of the class from one part of composition space are hidden, and nothing from there is learned from.
parameters = {"features": SPEC, "task": "class", "members": 4, "folds": 4, "epochs": 20}
runs = []
for seed in range(2):
    heads = campaign_heads(parameters, ["logistic regression", "random forest, composition"])
    found = {name: answer(head, Rows(features), stiff, ClassDesign(), seed) for name, head in heads.items()}
    runs.append(scored_by(ClassDesign(), found, stiff, features.formula, seed, kappa=0.5))
for row in summarize(runs):
    print(f"{row['head']:30} finds {row['r_precision']:.0%} of the hidden")

some = featurize(offered.structures.take(np.arange(200)), SPEC)
said = model.predict_distribution(some)
for row in np.argsort(-said.value)[:5]:
    print(f"{some.formula[row]:10} {said.value[row]:.2f} ({said.lower[row]:.2f} to {said.upper[row]:.2f})")
assert ((said.lower <= said.value) & (said.value <= said.upper)).all()
assert scores["roc_auc"] > 0.9
