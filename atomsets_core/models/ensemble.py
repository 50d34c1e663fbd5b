"""What the regressor and the classifier share: inputs, folds, the training of the members, and saving.

Members are spread over folds. Each leaves one fold out altogether, scalers and early stopping included, so that every
row has predictions from members that never saw it; these calibrate intervals and probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils import Tags

from atomsets_core.features import AnyFeatures, Batch, FeatureSpec, as_batch, default_features, parse_features
from atomsets_core.models.networks.checkpoints import Checkpoint, Progress
from atomsets_core.models.networks.set_network import AtomSetsNetwork
from atomsets_core.models.networks.training import TrainingOptions, automatic_batch_size, train
from atomsets_core.models.networks.training_data import TrainingData, apply
from atomsets_core.models.recipe import Choice, choose
from atomsets_core.models.saved_models import SavedModel, read_model, write_model
from atomsets_core.models.trust import Domain, domain_and_distances
from atomsets_core.parents import Features, resolve_device
from atomsets_core.storage import StorageError, Store

AUTO = "auto"
OF_SITES, OF_ELEMENTS = ("mean",), ("mean", "max")
"""Poolings unless told otherwise: a trace element vanishes in a mean weighted by the fractions, not in a maximum."""

FEWEST = 5
"""Labelled rows that a model can be trained on at least."""

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

NETWORK_OPTIONS = (
    "members",
    "phi",
    "rho",
    "pooling",
    "alpha",
    "activation",
    "set2set_steps",
    "set2set_hidden",
    "heads",
    "dropout",
)
"""Parameters that `AtomSetsNetwork` takes under the same name."""

TRAINING_OPTIONS = (
    "epochs",
    "batch_size",
    "learning_rate",
    "weight_decay",
    "loss",
    "seed",
    "patience",
    "mixed_precision",
)
"""Parameters that `TrainingOptions` takes under the same name."""


class AtomSetsEnsemble(BaseEstimator):
    """Base of `AtomSetsRegressor` and `AtomSetsClassifier`, which list and explain the parameters.

    Attributes:
        spec_: what the model sees.
        options_: the parameters it was trained with: the constructor's, and with features="auto" those chosen.
        choice_: what features="auto" chose and tried; None otherwise.
        network_: the fitted members.
        fold_: (n_train,) fold of each training row, -1 if folds is 0.
        domain_: applicability domain.
        digest_: of the parents whose features it was trained on.
        parents_: parent -> its digest.
        weighted_: whether it was trained on compositions or disordered structures, whose sites have weights.
        losses_: mean training loss of each epoch.
        n_train_: training rows.
    """

    task = ""
    features: str | None
    seed: int
    auto_limits: Mapping[str, Any] | None

    def __sklearn_tags__(self) -> Tags:
        """Inputs are structures, not tables; several targets are possible."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.target_tags.required = True
        tags.no_validation = True
        return tags

    def choose_features(self, X: Any, y: npt.NDArray[Any]) -> str:
        """The specification that `fit` will use for inputs of this kind, for callers that make the features themselves.

        With features="auto" the choice is made here; the next `fit` on features keeps it.
        """
        self._decided = self._decide(as_batch(X), self._for_choice(y))
        return self._decided[0]

    def _decide(self, batch: Batch, y: npt.NDArray[Any]) -> tuple[str, Choice | None]:
        if self.features != AUTO:
            return self.features or default_features(batch), None
        choice = self._choose(batch, y)
        return choice.features, choice

    def _choose(self, batch: Batch, y: npt.NDArray[Any]) -> Choice:
        if isinstance(batch, AnyFeatures):
            raise ValueError('features="auto" chooses between levels and parents: give structures or compositions')
        return choose(batch, y, self.task, self.seed, **(self.auto_limits or {}))

    def _for_choice(self, y: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Labels as `recipe.choose` wants them."""
        return y

    def _prepare(self, X: Any, y: npt.NDArray[Any], n: int) -> AnyFeatures:
        """Decide what the model sees and with which parameters; the features of X."""
        batch = as_batch(X)
        parameters = self.get_params(deep=False)
        ahead = self.__dict__.pop("_decided", None) if isinstance(batch, AnyFeatures) else None
        self.choice_: Choice | None
        text, self.choice_ = ahead or self._decide(batch, y)
        if self.choice_ is not None:
            parameters.update(self.choice_.parameters)
        self.options_ = SimpleNamespace(**{**parameters, "features": text})
        self.spec_: FeatureSpec = parse_features(text)
        features = self._features(batch)
        if len(features) != n:
            raise ValueError(f"{len(features)} structures and {n} labels")
        if n < FEWEST:
            raise ValueError(f"{n} labelled structures are too few to learn from; at least {FEWEST} are needed")
        self.n_train_ = n
        self.digest_ = self.spec_.digest(features)
        self.parents_ = self.spec_.digests(features)
        self.weighted_ = _weighted(features)
        if self.options_.pooling is None:
            self.options_.pooling = OF_ELEMENTS if self.weighted_ else OF_SITES
        return features

    def _features(self, X: Any) -> AnyFeatures:
        batch = as_batch(X)
        if isinstance(batch, AnyFeatures):
            return batch
        features = self.spec_.featurize(batch)
        if features.refused:
            raise ValueError(f"structure {features.refused[0].material_id}: {features.refused[0].reason}")
        return features

    def _data(self, features: AnyFeatures) -> TrainingData:
        spec = self.spec_
        return TrainingData.gathered(
            features, spec.site_matrix, spec.structure_matrix, widths=spec.site_widths, merge=self.options_.alpha == 1
        )

    def _train(
        self,
        data: TrainingData,
        y: FloatArray,
        groups: IntArray,
        row_weights: FloatArray,
        progress: Progress | None,
        checkpoint: Checkpoint | None,
    ) -> tuple[npt.NDArray[np.bool_], FloatArray]:
        """Fit the members and the domain.

        Returns:
            (members, n) which rows each member has seen in any way, and (n,) distances to the other training rows.
        """
        seen = self._learn(data, y, groups, row_weights, progress, checkpoint)
        self.domain_: Domain
        # The members that judge a row saw none of its formula: the row is as far as the others are.
        self.domain_, distance = domain_and_distances(data.pooled(), groups=groups)
        return seen, distance

    def _learn(
        self,
        data: TrainingData,
        y: FloatArray,
        groups: IntArray,
        row_weights: FloatArray,
        progress: Progress | None,
        checkpoint: Checkpoint | None,
    ) -> npt.NDArray[np.bool_]:
        """Fit the members; (members, n) which rows each of them has seen in any way."""
        options = self.options_
        n_folds = int(self.fold_.max()) + 1
        seen = np.ones((options.members, len(y)), dtype=bool)
        if n_folds:
            if options.members < n_folds:
                raise ValueError(f"{n_folds} folds need at least as many members; there are {options.members}")
            # Member m leaves out fold m modulo the folds; there is a member for each at least, so every row is judged.
            seen = self.fold_[None, :] != (np.arange(options.members) % n_folds)[:, None]
        validation = None
        if options.patience is not None:
            validation = _validation_rows(seen, groups, options.validation_share, options.seed)
        used = np.where(seen if validation is None else seen & ~validation, row_weights, 0.0)
        torch.manual_seed(options.seed)
        network = build_network(vars(options), data.sites.shape[1], data.structure.shape[1], y.shape[1])
        self.network_ = network.to(resolve_device(options.device))
        chosen = {name: getattr(options, name) for name in TRAINING_OPTIONS}
        if options.batch_size == "auto":
            chosen["batch_size"] = automatic_batch_size(len(y))
        training = TrainingOptions(**chosen)
        self.losses_ = train(
            self.network_, data, y, used, training, validation=validation, progress=progress, checkpoint=checkpoint
        )
        return seen

    @property
    def _sizes(self) -> tuple[int, int]:
        """Members that say something, and outputs of each."""
        return self.options_.members, int(self.network_.out.bias.shape[2])

    def _outputs(self, data: TrainingData) -> npt.NDArray[np.float64]:
        """(members, n, outputs) what each member says."""
        return apply(self.network_, data)

    def _unseen(self, data: TrainingData, seen: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """(members, n, outputs) what each member says of rows it has not seen, NaN elsewhere."""
        return out_of_fold(self._outputs(data), seen)

    def _apply(self, X: Any) -> tuple[npt.NDArray[np.float64], FloatArray]:
        """(members, n, outputs) what each member says, and (n,) distances to the training structures.

        Raises:
            NotFittedError: before `fit`.
            ValueError: features of other parents than those the model was trained on.
        """
        if not hasattr(self, "domain_"):
            raise NotFittedError(f"fit the {type(self).__name__} before predicting")
        features = self._features(X)
        digest = self.spec_.digest(features)
        if digest != self.digest_:
            raise ValueError(
                f"the model was trained on features of parent digest {self.digest_}, these come from {digest}"
            )
        self._check_weights(features)
        members, targets = self._sizes
        outputs = np.empty((members, len(features), targets))
        distance = np.empty(len(features))
        for rows, block in features.blocks():
            data = self._data(block)
            outputs[:, rows] = self._outputs(data)
            distance[rows] = self.domain_.distance(data.pooled())
        return outputs, distance

    def pooled(self, X: Any) -> npt.NDArray[np.float32]:
        """(n, width) the plain vectors in which `domain_` measures distances, read block by block."""
        features = self._features(X)
        out = np.empty((len(features), len(self.domain_.mean)), np.float32)
        for rows, block in features.blocks():
            out[rows] = self._data(block).pooled()
        return out

    def _check_weights(self, features: AnyFeatures) -> None:
        """A sum over sites, or weights to a power, are another thing for fractions than for the sites of a cell."""
        depends = "sum" in self.options_.pooling or self.options_.alpha != 1
        if depends and len(features) and _weighted(features) != self.weighted_ and self.spec_.element_only:
            kinds = ("sites of crystals", "fractions of compositions")
            raise ValueError(
                f"the model was trained on {kinds[self.weighted_]} and can't be applied to "
                f"{kinds[not self.weighted_]}: its pooling depends on which"
            )

    def _state(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """What a kind of model has to keep beside the network, as JSON and as arrays."""
        raise NotImplementedError

    def _restore(self, state: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Put `_state` back."""
        raise NotImplementedError

    def save(self, store: Store, folder: str, about: Mapping[str, Any] | None = None) -> None:
        """Write model.safetensors and then model.json into a folder of a store; see `saved_models`.

        Args:
            store: where.
            folder: within the store.
            about: anything to keep beside it (target, unit, data), JSON.

        Raises:
            NotFittedError: before `fit`.
            StorageError: it can't be written.
        """
        if not hasattr(self, "domain_"):
            raise NotFittedError(f"fit the {type(self).__name__} before saving it")
        state, arrays = self._state()
        saved = SavedModel(
            kind=type(self).__name__,
            parameters=self.get_params(deep=False),
            options=vars(self.options_),
            features=str(self.spec_),
            digest=self.digest_,
            parents=self.parents_,
            weighted=self.weighted_,
            n_train=self.n_train_,
            choice=self.choice_,
            domain=self.domain_,
            state=state,
            arrays=arrays,
            about=dict(about or {}),
        )
        write_model(store, folder, saved, getattr(self, "network_", None))

    @classmethod
    def load(cls, store: Store, folder: str) -> Self:
        """A saved model, ready to predict; see `load_model` for one of unknown kind.

        Raises:
            StorageError: the files are missing, damaged, of a newer format, or hold a model of another kind; the
                message says which.
            ValueError: a parent it was trained with is not known here.
            FileNotFoundError: the package that carries a parent's weights is not installed.
        """
        saved, network = read_model(store, folder, cls.__name__, build_network)
        spec = parse_features(saved.features)
        try:
            return cls._from_saved(saved, network, spec)
        except (TypeError, KeyError, ValueError) as error:
            raise StorageError(f"{store.url(folder)}: the model is damaged ({error!r}); train it again") from error

    @classmethod
    def _from_saved(cls, saved: SavedModel, network: AtomSetsNetwork | None, spec: FeatureSpec) -> Self:
        model = cls(**saved.parameters)
        defaults = cls().get_params(deep=False)
        model.options_ = SimpleNamespace(**{**defaults, **saved.options})
        model.spec_ = spec
        model.digest_, model.parents_, model.weighted_ = saved.digest, saved.parents, saved.weighted
        model.n_train_, model.choice_, model.domain_ = saved.n_train, saved.choice, saved.domain
        if network is not None:
            model.network_ = network.to(resolve_device(model.options_.device)).eval()
        model.losses_, model.fold_ = [], np.empty(0, dtype=np.int64)
        model._restore(saved.state, saved.arrays)
        return model


def build_network(options: Mapping[str, Any], site_width: int, structure_width: int, outputs: int) -> AtomSetsNetwork:
    """An untrained network from the parameters of an estimator."""
    chosen = {name: options[name] for name in NETWORK_OPTIONS if name in options}
    return AtomSetsNetwork(chosen.pop("members"), site_width, structure_width, outputs=outputs, **chosen)


def _weighted(features: AnyFeatures) -> bool:
    return isinstance(features, Features) and features.weights is not None


def _validation_rows(seen: npt.NDArray[np.bool_], group: IntArray, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """(members, n) rows that end a member's training: of those it may see, a share of the groups, its own choice."""
    if not 0 < share < 1:
        raise ValueError(f"validation_share must be between 0 and 1, not {share}")
    out = np.zeros_like(seen)
    for member, rows in enumerate(seen):
        present = np.unique(group[rows])
        n = max(1, round(share * len(present)))
        if n >= len(present):
            raise ValueError(
                f"{len(present)} formulas are too few to set some aside for early stopping: leave patience"
            )
        # A choice of its own for each member: the validation rows of one train the others.
        chosen = np.random.default_rng([seed, member, 1]).permutation(present)[:n]
        out[member] = rows & np.isin(group, chosen)
    return out


def out_of_fold(members: npt.NDArray[np.float64], seen: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """(members, n, outputs) of (members, n, outputs), NaN where a member has seen the row."""
    return np.where(seen[:, :, None], np.nan, members)
