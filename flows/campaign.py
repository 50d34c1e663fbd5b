"""The campaign: one pydantic model that is the TOML file, the command line's `--set` and the form in the Prefect UI.

This is the only place where options are named and explained.
"""

from __future__ import annotations

import difflib
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from dask.utils import parse_bytes
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from atomsets_core.parents import is_parent, load_parent, parent_names, split_levels
from atomsets_core.sets import ACTIVATIONS, POOLINGS
from atomsets_core.sources import MATERIALS_PROJECT, MaterialsQuery
from flows.keys import KeyGivenError, refuse_keys
from tasks import clusters

DEFAULT = "incompressible"

DISTANT_WORKERS = 4
"""Workers of a cluster that is asked for some, unless told otherwise."""


class CampaignError(Exception):
    """A campaign that can't be run as it is written; the message names the file and the key and says what to change."""


class Section(BaseModel):
    """A section of the file: an unknown key is an error, a value never changes after reading."""

    # an error that shows what was given would show a key that was given
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Range(Section):
    """Bounds of a numeric column, both inclusive; a missing value doesn't pass."""

    min: float | None = Field(None, description="Smallest value that passes.")
    max: float | None = Field(None, description="Largest value that passes.")

    @model_validator(mode="after")
    def _not_empty(self) -> Range:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self


def _complete_query(source: str, query: MaterialsQuery | None, names: list[str]) -> MaterialsQuery | None:
    if source == MATERIALS_PROJECT:
        return (query or MaterialsQuery()).with_fields(names)
    if query is not None:
        raise ValueError(f"a query goes with the source {MATERIALS_PROJECT!r}")
    return None


class Optimade(Section):
    """What is asked of an OPTIMADE provider."""

    filter: str = Field("", description='E.g. elements HAS ALL "Si","O" AND nelements=2; everything without one.')
    fields: list[str] = Field(default_factory=list, description="Properties to have as columns, e.g. _mp_stability.")


class Substitution(Section):
    """Which candidates are made by substitution in known crystals."""

    count: Annotated[int, Field(ge=1)] = Field(1000, description="Most candidates that are made.")
    threshold: Annotated[float, Field(gt=0, le=1)] = Field(
        1e-3, description="Least probability of a substitution, the product over all ions of the compound."
    )
    changes: Annotated[int, Field(ge=1, le=3)] = Field(1, description="Most elements that are replaced at once.")
    max_atoms: Annotated[int, Field(ge=1)] = Field(40, description="Larger prototypes are left out.")
    elements: list[str] = Field(default_factory=list, description="Elements that candidates may hold; all by default.")
    exclude_elements: list[str] = Field(default_factory=list, description="Elements that they must not hold.")
    seed: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Draws at random from all above the threshold; by default the most probable are taken."
    )


def _refuse_unused(source: str, **sections: tuple[str, bool]) -> None:
    """Raise ValueError for a section that belongs to another kind of source."""
    for name, (scheme, given) in sections.items():
        if given and f"{scheme}:" not in source:
            raise ValueError(f"{name} goes with a source {scheme}:...")


class Training(Section):
    """The values to learn from."""

    source: str = Field(
        description="Where the labelled structures come from: embedded:elastic, a file or folder, mp, or optimade:URL."
    )
    query: MaterialsQuery | None = Field(None, description="Which entries, for the source mp (Materials Project).")
    optimade: Optimade = Field(Optimade(), description="What is asked of an OPTIMADE provider.")  # type: ignore[call-arg]
    labels: str | None = Field(None, description="CSV with the labels, for a source that holds structures alone.")
    id_column: str = Field("material_id", description="Column of the identifiers, for a file that has one.")
    target: str = Field(description="Column of the values.")
    unit: str = Field("", description="Unit of the values, shown wherever they are.")
    transform: Literal["none", "log10"] = Field("none", description="log10 for positive values that span decades.")

    @model_validator(mode="after")
    def _query_fits(self) -> Training:
        self.materials_query()
        _refuse_unused(self.source, optimade=("optimade", self.optimade != Optimade()))  # type: ignore[call-arg]
        return self

    def pull_options(self) -> dict[str, Any]:
        """Further arguments of `atomsets_core.sources.pull`."""
        return {"optimade_filter": self.optimade.filter, "optimade_fields": self.optimade.fields}

    def materials_query(self) -> MaterialsQuery | None:
        """The query with the target among its fields; None for other sources."""
        return _complete_query(self.source, self.query, [self.target])


class Candidates(Section):
    """The structures to rank, and which of them count."""

    source: str = Field(
        description="Where the candidates come from: embedded:flla, a file or folder, mp, optimade:URL, or substitute: "
        "before any but mp, for candidates made of their structures."
    )
    substitution: Substitution = Field(
        Substitution(),  # type: ignore[call-arg]
        description="Which candidates are made, for a source substitute:...",
    )
    query: MaterialsQuery | None = Field(None, description="Which entries, for the source mp (Materials Project).")
    optimade: Optimade = Field(Optimade(), description="What is asked of an OPTIMADE provider.")  # type: ignore[call-arg]
    labels: str | None = Field(None, description="CSV with columns to filter on, for a source of structures alone.")
    id_column: str = Field("material_id", description="Column of the identifiers, for a file that has one.")
    filters: dict[str, Range] = Field(
        default_factory=dict,
        description="Bounds on columns, e.g. e_above_hull = { max = 0.1 }; also n_atoms, n_elements.",
    )
    exclude_elements: list[str] = Field(default_factory=list, description="Elements that a candidate must not hold.")
    only_elements: list[str] = Field(
        default_factory=list, description="Elements that a candidate may hold, and no others; all where none is named."
    )
    exclude_seen: bool = Field(
        True, description="Leave out what is in the training data, by identifier or as the same crystal."
    )
    deduplicate: list[Literal["id", "content", "structure"]] = Field(
        ["id"],
        description="What makes two candidates one: id, content (the same numbers), structure (the same crystal).",
    )
    prefer: str | None = Field(
        None, description="Column of which the duplicate with the lowest value is kept; by default the first is."
    )

    @model_validator(mode="after")
    def _query_fits(self) -> Candidates:
        self.materials_query()
        _refuse_unused(
            self.source,
            optimade=("optimade", self.optimade != Optimade()),  # type: ignore[call-arg]
            substitution=("substitute", self.substitution != Substitution()),  # type: ignore[call-arg]
        )
        return self

    def pull_options(self) -> dict[str, Any]:
        """Further arguments of `atomsets_core.sources.pull`."""
        from atomsets_core.substitution import Options  # takes a second to import

        return {
            "optimade_filter": self.optimade.filter,
            "optimade_fields": self.optimade.fields,
            "substitution": Options(**self.substitution.model_dump()),
        }

    def materials_query(self) -> MaterialsQuery | None:
        """The query with the stability and what is filtered on among its fields; None for other sources."""
        filtered = [name for name in self.filters if name not in ("n_atoms", "n_elements")]
        return _complete_query(self.source, self.query, list(dict.fromkeys(["energy_above_hull", *filtered])))


class Objective(Section):
    """What is wanted, and how candidates are scored."""

    goal: Literal["maximize", "minimize", "target", "window", "exceed"] = Field(
        "maximize",
        description="What to do with the property; target: near a value; window: between two; exceed: above a value, "
        "how far doesn't matter.",
    )
    value: float | None = Field(None, description="For the goals target and exceed, in the unit of the property.")
    low: float | None = Field(None, description="Lower end, for the goal window, in the unit of the property.")
    high: float | None = Field(None, description="Upper end, for the goal window, in the unit of the property.")
    acquisition: Literal["auto", "ucb", "mean", "ei", "probability"] = Field(
        "auto",
        description="ucb: prediction + kappa std; mean: prediction alone; ei: expected improvement; probability: of "
        "beating the best training value; auto: the one that did best in the simulated discovery, ucb without one.",
    )
    kappa: Annotated[float, Field(ge=0)] = Field(0.5, description="Weight of the uncertainty in ucb.")
    shortlist: Annotated[int, Field(ge=1, le=1000)] = Field(25, description="Candidates on the shortlist.")
    diversity: Annotated[float, Field(ge=0, le=1)] = Field(
        0.2, description="0: the best scores; 1: as unlike each other as can be. Always one a formula."
    )

    @property
    def window(self) -> tuple[float, float] | None:
        """Both ends of the goal window."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @model_validator(mode="after")
    def _target_has_value(self) -> Objective:
        if (self.goal in ("target", "exceed")) != (self.value is not None):
            raise ValueError("value goes with the goals target and exceed, and these need it")
        if self.goal == "window" and (self.low is None or self.high is None or self.low >= self.high):
            raise ValueError("the goal window needs low and high, low the smaller")
        if self.goal != "window" and (self.low is not None or self.high is not None):
            raise ValueError("low and high go with the goal window")
        if self.goal == "target" and self.acquisition in ("ei", "probability"):
            raise ValueError("the goal target takes the acquisition ucb or mean")
        if self.goal == "window" and self.acquisition == "ei":
            raise ValueError("the goal window takes the acquisition ucb, mean or probability")
        return self


class FeatureOptions(Section):
    """Which levels of the parent, and where features are kept."""

    parent: str = Field(
        "megnet", description="Pretrained network that features come from, or the folder of one trained here."
    )
    levels: list[str] = Field(
        default_factory=list,
        description="Its levels, joined, e.g. V0 V1 V2 V3 or v of megnet; by default those the parent is best with.",
    )
    shard_size: Annotated[int, Field(ge=1, le=4096)] = Field(
        256, description="Structures in a shard, the unit of work."
    )
    store: str | None = Field(
        None, description="Folder or URL of the feature store; by default features/ of the campaign. Can be shared."
    )

    @field_validator("parent")
    @classmethod
    def _known(cls, name: str) -> str:
        if not is_parent(name):
            raise ValueError(f"no parent {name!r}; there are {', '.join(parent_names())}")
        return name

    @model_validator(mode="after")
    def _has_levels(self) -> FeatureOptions:
        try:
            split_levels(load_parent(self.parent), self.levels)
        except FileNotFoundError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def chosen(self) -> tuple[str, ...]:
        """The levels, the parent's own choice where none are named."""
        return tuple(self.levels) or load_parent(self.parent).default_levels

    @property
    def spec(self) -> str:
        """As the estimators take it, e.g. "megnet:V0+V1"."""
        return f"{self.parent}:{'+'.join(self.chosen)}"


class Model(Section):
    """The ensemble of AtomSets networks."""

    members: Annotated[int, Field(ge=2, le=100)] = Field(10, description="Networks in the ensemble.")
    folds: Annotated[int, Field(ge=2, le=20)] = Field(
        5, description="Parts of the training data; each member leaves one out, which calibrates the intervals."
    )
    phi: list[Annotated[int, Field(ge=1)]] = Field([128], description="Widths of the layers on each site.")
    rho: list[Annotated[int, Field(ge=1)]] = Field([128], description="Widths of the layers after pooling.")
    pooling: list[Literal[POOLINGS]] = Field(["mean"], description="How sites are joined; several are concatenated.")  # type: ignore[valid-type]
    alpha: Annotated[float, Field(ge=0)] = Field(
        1.0, description="Exponent of the site weights in mean and std; matters where sites have weights (occupancies)."
    )
    set2set_steps: Annotated[int, Field(ge=1)] = Field(3, description="Attention steps of the pooling set2set.")
    set2set_hidden: Annotated[int, Field(ge=1)] = Field(16, description="Units of the pooling set2set.")
    heads: Annotated[int, Field(ge=1)] = Field(4, description="Heads of the pooling attention.")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Share of the hidden units left out at random in training."
    )
    activation: Literal[tuple(ACTIVATIONS)] = Field("relu", description="Of every hidden layer.")  # type: ignore[valid-type]
    epochs: Annotated[int, Field(ge=1)] = Field(60, description="Passes over the training data.")
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto", description="Structures a step; auto is 64, and more above 2,048 rows."
    )
    learning_rate: Annotated[float, Field(gt=0)] = Field(3e-3, description="At the top of the schedule.")
    weight_decay: Annotated[float, Field(ge=0)] = Field(1e-4, description="Decoupled (AdamW).")
    patience: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Epochs without improvement on a tenth of the rows, held back for it, before training stops."
    )
    mixed_precision: bool = Field(False, description="Products in bfloat16, for GPUs.")
    loss: Literal["absolute", "squared"] = Field("absolute", description="On the standardised target.")
    coverage: Annotated[float, Field(gt=0.5, lt=1)] = Field(0.9, description="Share of values inside the intervals.")
    seed: Annotated[int, Field(ge=0)] = Field(0, description="Of folds, initial weights and order.")

    @model_validator(mode="after")
    def _enough_members(self) -> Model:
        if self.members < self.folds:
            raise ValueError(
                f"members = {self.members} is less than folds = {self.folds}: each fold needs one at least"
            )
        return self


class Discovery(Section):
    """The check that hides the best training values and looks whether the model finds them."""

    seeds: Annotated[int, Field(ge=0, le=100)] = Field(5, description="Repeats; 0 leaves the check out.")
    quantile: Annotated[float, Field(gt=0, le=0.5)] = Field(0.1, description="Share of the values that is hidden.")
    pool_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.2, description="Share of the other values among which the hidden are to be found."
    )
    choose: bool = Field(
        True,
        description="Let the check decide between the model as described below and the same with a linear readout; "
        "false: as described.",
    )


class Standing(Section):
    """What a campaign that is run again and again does by itself."""

    new_labels: Literal["keep", "challenge", "replace"] = Field(
        "keep",
        description="When there are other labels than the model learned from. keep: the model stays until `atomsets "
        "retrain`; challenge: a new one is trained and takes over if it is better; replace: a new one takes over.",
    )


class Slurm(Section):
    """Jobs that hold the workers of a SLURM cluster."""

    partition: str | None = Field(None, description="Partition, sbatch -p.")
    account: str | None = Field(None, description="Account, sbatch -A.")
    walltime: str = Field("04:00:00", description="Of a job, hours:minutes:seconds; workers leave before it ends.")
    workers_per_job: Annotated[int, Field(ge=1)] = Field(1, description="Workers in a job, each on its own core.")
    gpus_per_job: Annotated[int, Field(ge=0, le=1)] = Field(
        0, description="1 for jobs with a graphics card, which take network work alone, one worker a card."
    )
    interface: str | None = Field(None, description="Network interface of the workers, e.g. ib0.")
    log_directory: str | None = Field(None, description="Folder of the logs of the jobs.")
    prologue: list[str] = Field(default_factory=list, description="Shell lines before a worker, e.g. module load cuda.")
    directives: list[str] = Field(default_factory=list, description="More of what stands behind #SBATCH.")
    python: str | None = Field(None, description="Interpreter on the nodes; by default the one that runs the campaign.")

    @field_validator("walltime")
    @classmethod
    def _is_a_time(cls, text: str) -> str:
        clusters.wall_seconds(text)
        return text

    @model_validator(mode="after")
    def _one_worker_a_card(self) -> Slurm:
        if self.gpus_per_job and self.workers_per_job > 1:
            raise ValueError("with gpus_per_job = 1 a job has one worker: workers_per_job = 1")
        return self


class Kubernetes(Section):
    """Pods that hold the workers, made by the Dask operator."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")] = Field(
        "atomsets", description="Of the Dask cluster: lower case letters, digits and dashes."
    )
    namespace: str = Field("default", description="Namespace of the pods.")
    image: str = Field("", description="Container image with atomsets-screening and its parents; needed.")
    cpu_per_worker: Annotated[float, Field(gt=0)] = Field(1.0, description="Cores that a pod asks for and gets.")
    gpus_per_worker: Annotated[int, Field(ge=0, le=1)] = Field(
        0, description="1 for pods with a graphics card, which take network work alone."
    )
    environment: dict[str, str] = Field(
        default_factory=dict, description="Environment variables of all pods, but for keys, e.g. AWS_ENDPOINT_URL."
    )
    env_from: str | None = Field(
        None, description="Kubernetes Secret whose entries all pods have as variables, e.g. keys of an object store."
    )
    volume_claim: str | None = Field(
        None, description="Persistent volume claim with the campaign's folder, for one outside object stores."
    )
    mount: str = Field("/campaigns", description="Where pods see that volume; the same path as in --out.")


class Cluster(Section):
    """Where the work runs."""

    kind: Literal["local", "address", "slurm", "kubernetes"] = Field(
        "local", description="Processes here, a running Dask scheduler, SLURM jobs, or Kubernetes pods."
    )
    address: str | None = Field(
        None, description="Of a running Dask scheduler, e.g. tcp://host:8786; makes the kind address."
    )
    workers: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Workers, of one thread each; by default one for each core this process may use, else 4."
    )
    min_workers: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Workers that stay when there is little to do (SLURM, Kubernetes); by default all."
    )
    memory_per_worker: str = Field(
        "auto", description="Limit at which a worker is restarted, e.g. 4GB; jobs and pods ask for as much."
    )
    shard_timeout: Annotated[float, Field(gt=0)] | None = Field(
        1800.0, description="Seconds a shard may take before it is tried elsewhere and then cut to find what hangs."
    )
    slurm: Slurm = Slurm()  # type: ignore[call-arg]
    kubernetes: Kubernetes = Kubernetes()  # type: ignore[call-arg]

    @model_validator(mode="before")
    @classmethod
    def _address_is_a_kind(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("address") and "kind" not in values:
            return {**values, "kind": "address"}
        return values

    @model_validator(mode="after")
    def _complete(self) -> Cluster:
        if (self.kind == "address") != (self.address is not None):
            raise ValueError("address goes with the kind address, and that kind needs it")
        if self.min_workers is not None and self.kind not in ("slurm", "kubernetes"):
            raise ValueError(f"min_workers is for slurm and kubernetes, not for the kind {self.kind}")
        if self.min_workers is not None and self.min_workers > (self.workers or DISTANT_WORKERS):
            raise ValueError(f"min_workers = {self.min_workers} is above workers = {self.workers or DISTANT_WORKERS}")
        if self.kind in ("slurm", "kubernetes") and self.memory_per_worker == "auto":
            raise ValueError(f"memory_per_worker is needed for {self.kind}, e.g. 4GB")
        if self.kind == "kubernetes" and not self.kubernetes.image:
            raise ValueError("kubernetes.image is needed: a container image with atomsets-screening")
        if self.memory_per_worker != "auto":
            try:
                parse_bytes(self.memory_per_worker)
            except ValueError as error:
                raise ValueError(f"memory_per_worker = {self.memory_per_worker!r}: write it like 4GB") from error
        return self

    def start(self) -> Any:
        """The cluster, started, or the address of the one that runs; for `tasks.cluster.connect`."""
        if self.kind == "address":
            return self.address
        if self.kind == "local":
            return clusters.start_local(self.workers, self.memory_per_worker)
        size = (self.workers or DISTANT_WORKERS, self.min_workers, self.memory_per_worker)
        if self.kind == "slurm":
            return clusters.start_slurm(*size, **self.slurm.model_dump())
        return clusters.start_kubernetes(*size, **self.kubernetes.model_dump())


class Campaign(Section):
    """A screening campaign: what to learn from, what to rank, for what, and how."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] = Field(
        description="Names the campaign's folder and runs: letters, digits, dot, dash, underscore."
    )
    training: Training
    candidates: Candidates
    objective: Objective = Objective()  # type: ignore[call-arg]
    features: FeatureOptions = FeatureOptions()  # type: ignore[call-arg]
    model: Model = Model()  # type: ignore[call-arg]
    discovery: Discovery = Discovery()  # type: ignore[call-arg]
    standing: Standing = Standing()  # type: ignore[call-arg]
    cluster: Cluster = Cluster()  # type: ignore[call-arg]

    @model_validator(mode="before")
    @classmethod
    def _no_keys(cls, raw: Any) -> Any:
        try:
            refuse_keys(raw, "campaign")
        except KeyGivenError as error:
            raise ValueError(str(error)) from None
        return raw


def read_campaign(path: str | Path | None = None, overrides: list[str] | None = None) -> Campaign:
    """A campaign from its file, with `section.key=value` overrides; the embedded one without a file.

    Raises:
        CampaignError: the file is missing, is not TOML, or holds an unknown key or an unusable value.
    """
    if path is None:
        name = f"{DEFAULT}.toml"
        text = resources.files("flows").joinpath("campaigns", name).read_text()
    else:
        name = str(path)
        try:
            text = Path(path).read_text()
        except FileNotFoundError as error:
            raise CampaignError(f"{name}: there is no such campaign file; check the spelling") from error
        except (OSError, UnicodeDecodeError) as error:
            raise CampaignError(f"{name}: can't be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CampaignError(f"{name}: not TOML: {error}") from error
    try:
        refuse_keys(raw, name)
        for override in overrides or []:
            refuse_keys(dict([override.partition("=")[::2]]), "--set")
            _override(raw, override)
    except KeyGivenError as error:
        raise CampaignError(str(error)) from None
    try:
        return Campaign.model_validate(raw)
    except ValidationError as error:
        raise CampaignError("\n".join(f"{name}: {_explain(item)}" for item in error.errors())) from error


def _override(raw: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise CampaignError(f"--set {text}: write it as section.key=value")
    try:
        parsed = tomllib.loads(f"value = {value.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    *path, last = key.strip().split(".")
    for part in path:
        raw = raw.setdefault(part, {})
        if not isinstance(raw, dict):
            raise CampaignError(f"--set {text}: {part} is not a section")
    raw[last] = parsed


def _explain(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"]) or "campaign"
    if item["type"] == "extra_forbidden":
        known = _known_keys(item["loc"][:-1])
        close = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
        return f"{where}: unknown key; {hint}"
    if item["type"] == "missing":
        return f"{where}: missing, and needed"
    message = item["msg"].removeprefix("Value error, ")
    return f"{where}: {message} (it is {item['input']!r})" if item["type"] != "value_error" else f"{where}: {message}"


def _known_keys(path: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Campaign
    for part in path:
        field = model.model_fields.get(str(part))
        annotation = field.annotation if field else Range
        choices = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
        model = next((kind for kind in choices if issubclass(kind, BaseModel)), Range)
    return list(model.model_fields)
