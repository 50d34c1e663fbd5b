"""A parent of compositions: a network that reads a formula alone, trained on 37,664 crystals of the Materials Project.

Element vectors exchange messages by attention (Vaswani et al., NeurIPS 30 (2017)), in which the weight of an element is
multiplied by its fraction, as Goodall & Lee (Nat. Commun. 11, 6280 (2020)) and Wang et al. (npj Comput. Mater. 7, 77
(2021)) do for compositions: an element that is hardly there is hardly heard. Its readout learned formation energy, band
gap, whether there is a gap, and volume of the most stable crystal of each composition in mp-2018.6.1.

The weights are part of the package; `benchmarks/composition_parent.py` trains them.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from importlib.resources import files

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from atomsets_core.parents.about import About, levels_about
from atomsets_core.parents.base import Features, Levels, featurize_batches, weights_digest
from atomsets_core.parents.megnet.parent import REFERENCE as CHEN_2019
from atomsets_core.structures import Compositions, IntArray, Refusal, Structures

NAME = "composition"
CODE_VERSION = "1"
"""Part of the digest: raised when the meaning of the numbers below changes."""

FILE = "composition_parent.safetensors"
WIDTH, BLOCKS, HEADS = 96, 3, 4
PROPERTIES = ("formation energy, eV/atom", "band gap, eV", "probability of a gap above 0.05 eV", "volume, A^3/atom")
GAP, HAS_GAP, VOLUME = 1, 2, 3

SITE_LEVELS = {"site": WIDTH}
STRUCTURE_LEVELS = {"hidden": WIDTH, "properties": len(PROPERTIES)}

ABOUT = About(
    title="composition network",
    described="a network on compositions, pretrained on the computed crystals of mp-2018.6.1",
    # The weights are our own; their data were collected by these authors.
    references=(CHEN_2019,),
    licence="BSD 3-Clause, part of this package; the data it learned from are CC BY 4.0",
    trained_on="formation energies, PBE gaps and volumes of 37,664 Materials Project crystals (mp-2018.6.1), the most "
    "stable one of each composition",
    overlap="The parent of compositions was trained on formation energies, PBE gaps and volumes of 37,664 "
    "Materials Project crystals (mp-2018.6.1), one of each composition. It may have seen these compositions, with "
    "these three. Scores for computed formation energies or gaps would be flattered by that.",
    takes="the formula alone; all elements, of which those it was never shown are flagged",
    levels=levels_about(
        SITE_LEVELS,
        STRUCTURE_LEVELS,
        {
            "site": "an element in the company of the others",
            "hidden": "the composition as a whole, before the readout",
            "properties": "what the Materials Project would compute for the most stable crystal of the composition: "
            "formation energy (eV/atom), PBE gap (eV), probability that the gap is above 0.05 eV, volume (Å³/atom)",
        },
        of_elements=(*SITE_LEVELS, *STRUCTURE_LEVELS),
    ),
)

BESIDE = ("trained", "keys")
"""What the file holds beside weights."""

BATCH = 4096
"""Compositions that go through the network together."""


class CompositionNetwork(nn.Module):
    """From atomic numbers and fractions to vectors of the elements in their company, and of the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = nn.Embedding(119, WIDTH)
        self.amounts = nn.Linear(2, WIDTH)
        self.blocks = nn.ModuleList(_Block() for _ in range(BLOCKS))
        self.norm = nn.LayerNorm(WIDTH)
        self.hidden = nn.Linear(WIDTH, WIDTH)
        self.readout = nn.Linear(WIDTH, len(PROPERTIES))
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(len(PROPERTIES)))
        self.register_buffer("scale", torch.ones(len(PROPERTIES)))

    def forward(self, numbers: Tensor, fractions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors and standardised outputs.

        Args:
            numbers: (n, m) int64 atomic numbers, 0 where a composition has fewer than m elements.
            fractions: (n, m) float32, 0 there.

        Returns:
            (n, m, WIDTH) of the elements, (n, WIDTH) of the compositions, (n, 4) standardised formation energy, gap,
            logit of having one, and logarithm of the volume.
        """
        amount = fractions.clamp_min(1e-9)
        x = self.elements(numbers) + self.amounts(torch.stack([fractions, torch.log10(amount)], dim=-1))
        # softmax(a_j + log f_j) = f_j exp(a_j) / sum_k f_k exp(a_k): the weight of an element times its fraction;
        # places without an element get none.
        heard = torch.where(numbers > 0, torch.log(amount), -torch.inf)[:, None, None, :]
        for block in self.blocks:
            x = block(x, heard)
        x = self.norm(x)
        # The whole is the mean over the atoms, sum f_i x_i: the same for Fe2O3 and Fe4O6.
        hidden = silu(self.hidden((x * fractions[..., None]).sum(dim=1)))
        return x, hidden, self.readout(hidden)

    def in_units(self, outputs: Tensor) -> Tensor:
        """(n, 4) float32: what `PROPERTIES` names, in its units, of standardised outputs; no gap is below zero."""
        values = outputs * self.scale + self.mean
        return torch.stack(
            [
                values[:, 0],
                values[:, GAP].clamp_min(0.0),
                # From the outputs as they are: mean and scale of a logit have no meaning.
                torch.sigmoid(outputs[:, HAS_GAP]),
                torch.exp(values[:, VOLUME]),
            ],
            dim=1,
        )


class _Block(nn.Module):
    """Attention between the elements of a composition, then two layers for each of them."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.ask_and_tell = nn.Linear(WIDTH, 3 * WIDTH)
        self.join = nn.Linear(WIDTH, WIDTH)
        self.wide, self.narrow = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor, heard: Tensor) -> Tensor:
        """(n, m, WIDTH); `heard` is added to the logits of the attention."""
        n, m, _ = x.shape
        parts = self.ask_and_tell(self.before(x)).view(n, m, 3, HEADS, WIDTH // HEADS)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        weight = torch.softmax(query @ key.transpose(2, 3) / (WIDTH // HEADS) ** 0.5 + heard, dim=-1)
        x = x + self.join((weight @ value).transpose(1, 2).reshape(n, m, WIDTH))
        return x + self.narrow(silu(self.wide(self.after(x))))


def load_composition(device: str = "cpu") -> CompositionParent:
    """The parent with the weights of the package, on a torch device."""
    return CompositionParent(read_weights(), device)


def read_weights() -> dict[str, np.ndarray]:
    """All weights as float32, by the names of `CompositionNetwork`.

    Returns:
        Name -> kernels (outputs, inputs), as torch has them, and biases (outputs,). Beside them "trained", (89,) int64,
        the atomic numbers it was shown, and "keys", (37664,) uint32, `keys_of` the compositions.
    """
    stored = safetensors.numpy.load((files("atomsets_core") / "data" / FILE).read_bytes())
    return {name: value.astype(np.float32) if value.dtype == np.float16 else value for name, value in stored.items()}


def keys_of(batch: Compositions) -> npt.NDArray[np.uint32]:
    """(n,) number that stands for a composition, with fractions rounded to 1e-4; those it was trained on are stored."""
    found = np.empty(len(batch), dtype=np.uint32)
    parts = np.round(batch.fractions * 1e4).astype(np.int64)
    for row, (start, stop) in enumerate(itertools.pairwise(batch.offsets)):
        digest = hashlib.blake2b(batch.numbers[start:stop].tobytes() + parts[start:stop].tobytes(), digest_size=4)
        found[row] = int.from_bytes(digest.digest(), "little")
    return found


class CompositionParent:
    """The network as a parent; structures count as what they are made of. `ABOUT` says what its levels are."""

    name = NAME
    site_levels = SITE_LEVELS
    structure_levels = STRUCTURE_LEVELS
    default_levels = ("site",)
    element_levels = (*SITE_LEVELS, *STRUCTURE_LEVELS)

    def __init__(self, weights: dict[str, np.ndarray], device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.digest = weights_digest(NAME, CODE_VERSION, weights)
        self._network = CompositionNetwork()
        state = {name: torch.from_numpy(value) for name, value in weights.items() if name not in BESIDE}
        self._network.load_state_dict(state)
        self._network.to(self.device).eval()
        self._keys = weights["keys"]
        self._untrained = frozenset(range(1, 119)) - frozenset(weights["trained"].tolist())

    def featurize(self, batch: Structures | Compositions, levels: Sequence[str] | None = None) -> Features:
        """See `Parent.featurize`. Nothing is refused; elements that the network was never shown are flagged."""
        return featurize_batches(
            self,
            batch,
            levels,
            covered=np.arange(119) > 0,
            compute=self._compute,
            needs_coordinates=False,
            untrained=self._untrained,
        )

    def has_seen(self, batch: Structures | Compositions) -> npt.NDArray[np.bool_]:
        """(n,) whether the network was trained on a crystal of this composition; one in 100,000 is a mistake."""
        # 37,664 of 2^32 keys are taken, so one composition in 114,000 looks like one of them by chance.
        return np.isin(keys_of(batch if isinstance(batch, Compositions) else Compositions.of(batch)), self._keys)

    @torch.inference_mode()
    def _compute(
        self, batch: Structures | Compositions, wanted: Sequence[str], _refused: list[Refusal]
    ) -> Iterator[tuple[IntArray, Levels]]:
        """One stretch after the other; within one, compositions of as many elements go through the network together.

        So no row is padded, and what it gets doesn't depend on its neighbours.
        """
        for start in range(0, len(batch), BATCH):
            rows = np.arange(start, min(start + BATCH, len(batch)))
            part = batch.take(rows)
            made_of = part if isinstance(part, Compositions) else Compositions.of(part)
            found = self._of_compositions(made_of)
            if isinstance(part, Structures):
                found["site"] = found["site"][_element_rows(part, made_of)]
            yield rows, {level: found[level] for level in wanted}

    def _of_compositions(self, batch: Compositions) -> dict[str, np.ndarray]:
        found = {"site": np.empty((len(batch.numbers), WIDTH), dtype=np.float32)}
        found |= {name: np.empty((len(batch), width), dtype=np.float32) for name, width in STRUCTURE_LEVELS.items()}
        for count in np.unique(batch.n_elements):
            rows = np.flatnonzero(batch.n_elements == count)
            elements = batch.offsets[rows][:, None] + np.arange(count)
            site, hidden, outputs = self._network(
                torch.from_numpy(batch.numbers[elements]).to(self.device),
                torch.from_numpy(batch.fractions[elements].astype(np.float32)).to(self.device),
            )
            found["site"][elements] = site.cpu().numpy()
            found["hidden"][rows] = hidden.cpu().numpy()
            found["properties"][rows] = self._network.in_units(outputs).cpu().numpy()
        return found


def _element_rows(structures: Structures, made_of: Compositions) -> IntArray:
    """(sites,) row of each site's element among those of the compositions."""
    # Composition and element in one ascending number; no atomic number reaches 256.
    owner = np.repeat(np.arange(len(structures)), structures.n_atoms) * 256
    of_elements = np.repeat(np.arange(len(made_of)), made_of.n_elements) * 256 + made_of.numbers
    return np.searchsorted(of_elements, owner + structures.numbers)
