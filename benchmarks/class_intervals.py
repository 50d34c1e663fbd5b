"""How often the interval of a probability holds what a model of another training set says.

    python benchmarks/class_intervals.py

The embedded elastic data are cut at random into two training sets and 281 structures to ask about; the class is a bulk
modulus above 100 GPa. Two models of each head learn from one set each; counted is how often the probability of one lies
within the interval of the other, and how often it does or is hardly outside, both ways, over five cuts. An interval
that held the mean over all training sets for 90 % would hold another model's probability for 76 %.
"""

from __future__ import annotations

import numpy as np

from atomsets_core.features import featurize
from atomsets_core.models import CLASS_HEADS, ClassProbability
from atomsets_core.sources import load_elastic

SPEC = "megnet:V0+V1+V2+V3"
ABOVE, ASKED, CUTS = 100.0, 281, 5
HARDLY = 0.02
"""Probabilities this near to an interval are hardly outside."""


def main() -> None:
    """Print a line for each head."""
    known = load_elastic()
    label = (known.columns["K_VRH"].to_numpy() > ABOVE).astype(np.float64)
    features = featurize(known.structures, SPEC)
    held: dict[str, list[list[float]]] = {name: [] for name in CLASS_HEADS}
    for cut in range(CUTS):
        order = np.random.default_rng(cut).permutation(len(label))
        asked, *parts = order[:ASKED], *np.array_split(order[ASKED:], 2)
        for name, found in held.items():
            one, other = (
                ClassProbability(SPEC, head=name, members=5, epochs=30, seed=cut)
                .fit(features[np.sort(part)], label[np.sort(part)])
                .predict_distribution(features[asked])
                for part in parts
            )
            for a, b in ((one, other), (other, one)):
                outside = np.maximum(np.maximum(a.lower - b.value, b.value - a.upper), 0.0)
                found.append([float(np.mean(outside <= edge)) for edge in (0.0, HARDLY)])
    for name, found in held.items():
        inside, hardly = np.array(found).T
        print(f"{name:34} within {inside.mean():.0%}, {inside.min():.0%} to {inside.max():.0%}; "
              f"or hardly outside {hardly.mean():.0%}, {hardly.min():.0%} to {hardly.max():.0%}")  # fmt: skip


if __name__ == "__main__":
    main()
