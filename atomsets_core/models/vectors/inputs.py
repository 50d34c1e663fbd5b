"""The plain vectors that a learner sees of a structure: its pooled features, or statistics of its formula."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from atomsets_core.features import AnyFeatures, FeatureSpec
from atomsets_core.models.baselines import composition_statistics
from atomsets_core.models.networks.training_data import TrainingData

FEATURES, COMPOSITION = "features", "composition"
"""What a learner can be given."""

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Vectors:
    """What the parts of a model see of n structures.

    Attributes:
        features: (n, width) float32, see `pooled_features`; distances between structures are measured in it.
        composition: (n, width) statistics of the formulas; None where no part looks at them.
        sets: the same structures for networks; None where there are none.
    """

    features: Float32Array
    composition: FloatArray | None = None
    sets: TrainingData | None = None

    def pooled(self) -> Float32Array:
        """(n, width) float32, as `TrainingData.pooled`."""
        return self.features

    def of(self, inputs: str) -> FloatArray:
        """(n, width) the vectors of one kind of input."""
        found = self.features if inputs == FEATURES else self.composition
        if found is None:
            raise ValueError(f"no vectors of the {inputs} were made")
        return found.astype(np.float64)

    def take(self, rows: npt.NDArray[np.int64]) -> Vectors:
        """The vectors of these rows, without the sets."""
        return Vectors(self.features[rows], None if self.composition is None else self.composition[rows])


def pooled_features(spec: FeatureSpec, features: AnyFeatures) -> Float32Array:
    """(n, 2 site width + structure width): mean and deviation over the sites, then the structure's own levels.

    Args:
        spec: which levels.
        features: of n structures, one at least; those in shards are read block by block.
    """
    rows, parts = [], []
    for found, block in features.blocks():
        sites = spec.site_matrix(block)
        moments = block.moments(sites) if sites.shape[1] else ()
        rows.append(found)
        parts.append(np.concatenate([*moments, spec.structure_matrix(block)], axis=1))
    return np.concatenate(parts)[np.argsort(np.concatenate(rows))]


def composition_vectors(features: AnyFeatures) -> FloatArray:
    """(n, width) statistics of the formulas, see `baselines.composition_statistics`; each formula is looked at once."""
    formulas, row = np.unique(features.formula.astype(str), return_inverse=True)
    return composition_statistics(formulas.tolist())[row.reshape(-1)]
