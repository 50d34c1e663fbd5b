"""Candidates that no database holds: ions of known crystals replaced by others that have taken such places before.

The probabilities are those of G. Hautier, C. Fischer, V. Ehrlacher, A. Jain, G. Ceder, Data mined ionic substitutions
for the discovery of new compounds, Inorg. Chem. 50, 656 (2011), in the table that comes with pymatgen. Charge
neutrality and electronegativity are checked with smact.

Cells are rescaled as the ionic radii are (reference lattice scaling: I. Chu, S. Roychowdhury, D. Han, A. Jain,
S. P. Ong, Comput. Mater. Sci. 146, 184 (2018)); where a radius is unknown, as the usual bond lengths are that the same
publication gives.
`benchmarks/substitution.py` measures how far that is from computed volumes.

A probability says how usual a substitution is among known compounds. It is no stability: relax what comes out, and
compute its energy above the hull, before believing in it.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pymatgen.analysis.structure_prediction.substitution_probability import SubstitutionProbability
from pymatgen.analysis.structure_prediction.volume_predictor import bond_params
from pymatgen.core import Element, Species

from atomsets_core.sources.base import Pulled, SourceError
from atomsets_core.structures import CrystalsByFormula, FloatArray, Refusal, Structures, prepare

SMALLEST_SCALE, LARGEST_SCALE = 0.5, 2.0
"""Bounds of the factor of the volume; a substitution that needs more doesn't fit this prototype."""
OVERLAP = 0.7
"""Distances below this share of the usual bond length are overlaps."""
Composition = tuple[tuple[str, int], ...]
"""Symbol and amount in the reduced formula of each element, by atomic number."""

_REACH = 4.0  # Angstrom beyond the atomic radius, as in pymatgen's DLSVolumePredictor


@dataclass(frozen=True)
class Options:
    """How many candidates of which kind.

    Attributes:
        count: most that are made.
        threshold: least probability of a substitution, the product over all ions of the compound, those that stay
            included (as in pymatgen's `cond_prob_list`).
        changes: most elements that are replaced at once.
        max_atoms: larger prototypes are left out.
        elements: that candidates may hold; all that the table knows when empty.
        exclude_elements: that no candidate may hold.
        seed: None takes the most probable; a number draws at random from all above the threshold.
    """

    count: int = 1000
    threshold: float = 1e-3
    changes: int = 1
    max_atoms: int = 40
    elements: Sequence[str] = ()
    exclude_elements: Sequence[str] = ()
    seed: int | None = None


@dataclass(frozen=True)
class Substitution:
    """New ions for a prototype.

    Attributes:
        old: symbols of the elements replaced.
        new: symbols of their replacements.
        charges: of the replacements.
        probability: see `Options.threshold`.
    """

    old: tuple[str, ...]
    new: tuple[str, ...]
    charges: tuple[int, ...]
    probability: float

    def __str__(self) -> str:
        return ",".join(f"{old}>{new}" for old, new in zip(self.old, self.new, strict=True))


def substitute(prototypes: Pulled, options: Options | None = None) -> Pulled:
    """Candidates made from the structures of a source by substitution.

    Every structure of the source counts as known: what is the same crystal as one of them, or as a candidate before
    it, becomes a refusal that says so. The result depends on nothing but the arguments.

    Args:
        prototypes: any source.
        options: how many, how probable, of which elements; the defaults without.

    Returns:
        Structures named "mp-149:Si>Ge", with columns `prototype`, `substitution`, `substitution_probability` and
        `volume_scale`. `provenance["generated"]` counts what was considered and why the rest was left out.

    Raises:
        SourceError: smact isn't installed, or an element is unknown.
    """
    options = options or Options()
    check = _composition_check()
    for symbol in (*options.elements, *options.exclude_elements):
        if not Element.is_valid_symbol(symbol):
            raise SourceError(f"substitute: {symbol!r} is no element")
    # A site that several elements share has no ion to substitute.
    ordered = prototypes.structures.take(~prototypes.structures.disordered)
    counts: Counter[str] = Counter(prototypes=len(ordered))
    planned = plan(ordered, options, counts)
    maker = _Maker(ordered, check, counts)
    for row, substitution in planned:
        if len(maker.made) == options.count:
            break
        maker.consider(row, substitution)
    structures = Structures.concat(maker.made)
    provenance = {
        "name": f"substitutions in {prototypes.provenance.get('name', 'structures')}",
        "prototypes": prototypes.provenance,
        "citation": "Hautier et al., Inorg. Chem. 50, 656 (2011); Chu et al., Comput. Mater. Sci. 146, 184 (2018); "
        "Davies et al., J. Open Source Softw. 4, 1361 (2019)",
        "generated": {**counts, "candidates": len(structures)},
        "options": {
            **vars(options),
            "elements": list(options.elements),
            "exclude_elements": [*options.exclude_elements],
        },
    }
    columns = pd.DataFrame(
        maker.columns, columns=["prototype", "substitution", "substitution_probability", "volume_scale"]
    )
    return Pulled(structures, columns, maker.refused, provenance)


def _composition_check() -> Any:
    """The test of smact for a formula: some oxidation states are neutral, and anions the more electronegative."""
    try:
        validity = importlib.import_module("smact.screening").smact_validity
    except ImportError as error:
        raise SourceError("substitutions are checked with smact: pip install 'atomsets-screening[generate]'") from error
    return functools.lru_cache(maxsize=None)(functools.partial(validity, include_alloys=False))


# Which ions a compound has, and which could be in their places.


@functools.lru_cache(maxsize=1)
def _table() -> _Table:
    return _Table.load()


@dataclass(frozen=True)
class _Table:
    """The ions of pymatgen's table.

    Attributes:
        symbols, charges: (n,) of each ion.
        conditional: (n, n), probability that the column's ion is replaced by the row's.
        share: (n,) how often the ion occurs.
        of_element: symbol -> rows of its ions.
    """

    symbols: list[str]
    charges: npt.NDArray[np.int64]
    conditional: FloatArray
    share: FloatArray
    of_element: Mapping[str, list[int]]

    @staticmethod
    def load() -> _Table:
        known = SubstitutionProbability()
        ions = sorted((ion for ion in known.species if float(ion.oxi_state or 0.5).is_integer()), key=str)
        # P(a, b) = exp(lambda_ab) / Z (Hautier et al. 2011). `get_px` is the sum of exp(lambda_ab) over a, so that
        # P(a | b) = exp(lambda_ab) / get_px(b), without Z, and P(b) = get_px(b) / Z.
        weight = np.array([[math.exp(known.get_lambda(new, old)) for old in ions] for new in ions])
        total = np.array([known.get_px(ion) for ion in ions])
        of_element: dict[str, list[int]] = defaultdict(list)
        for row, ion in enumerate(ions):
            of_element[ion.symbol].append(row)
        return _Table(
            [ion.symbol for ion in ions],
            np.array([int(ion.oxi_state or 0) for ion in ions]),
            weight / total,
            total / known.Z,
            dict(of_element),
        )


@functools.lru_cache(maxsize=100_000)
def assign_ions(composition: Composition) -> tuple[int, ...] | None:
    """The most usual ions of a compound, one for each element, that make it neutral.

    Args:
        composition: (symbol, amount) of each element.

    Returns:
        Rows of the table in the same order; None where no ions of the table are neutral together, as in alloys and in
        compounds of mixed valence. "Most usual" is the product of their shares in the table.
    """
    table = _table()
    choices = [table.of_element.get(symbol, []) for symbol, _ in composition]
    # All combinations: elements have a few ions each, 7 at most, so there are few.
    best, best_share = None, 0.0
    for ions in itertools.product(*choices):
        charge = sum(int(table.charges[ion]) * amount for ion, (_, amount) in zip(ions, composition, strict=True))
        share = math.prod(float(table.share[ion]) for ion in ions)
        if charge == 0 and share > best_share:
            best, best_share = ions, share
    # Neutral because nothing is charged says nothing of ions.
    return best if best is None or any(table.charges[ion] for ion in best) else None


def substitutions(composition: Composition, options: Options) -> list[Substitution]:
    """All neutral substitutions above the threshold, the most probable first."""
    table, ions = _table(), assign_ions(composition)
    if ions is None:
        return []
    amounts = [amount for _, amount in composition]
    stays = [float(table.conditional[ion, ion]) for ion in ions]
    allowed = _allowed(options)
    found = []
    for n_changed in range(1, min(options.changes, len(ions)) + 1):
        for places in itertools.combinations(range(len(ions)), n_changed):
            # Ions that stay count too: P = prod over all ions of P(new | old). What the replaced ones must reach is
            # therefore the threshold over `rest`.
            rest = math.prod(stays[i] for i in range(len(ions)) if i not in places)
            kept = {table.symbols[ions[i]] for i in range(len(ions)) if i not in places}
            charge = sum(int(table.charges[ions[i]]) * amounts[i] for i in places)
            for new, probability in _replacements([ions[i] for i in places], options.threshold / rest if rest else 1.0):
                symbols = [table.symbols[ion] for ion in new]
                if sum(int(table.charges[ion]) * amounts[i] for ion, i in zip(new, places, strict=True)) != charge:
                    continue
                if len(set(symbols)) < len(symbols) or kept & set(symbols) or not allowed >= set(symbols):
                    continue
                old = tuple(table.symbols[ions[i]] for i in places)
                if all(a != b for a, b in zip(old, symbols, strict=True)) and allowed >= kept:
                    found.append(
                        Substitution(
                            old, tuple(symbols), tuple(int(table.charges[ion]) for ion in new), probability * rest
                        )
                    )
    return sorted(found, key=lambda item: (-item.probability, str(item)))


def _allowed(options: Options) -> set[str]:
    # Nothing named means all that the table knows, not nothing.
    known = set(options.elements) or set(_table().of_element)
    return known - set(options.exclude_elements)


def _replacements(ions: Sequence[int], threshold: float) -> Iterator[tuple[tuple[int, ...], float]]:
    """Ions for these places whose probabilities multiply to the threshold at least, found place after place."""
    conditional = _table().conditional[:, list(ions)]
    # Branch and bound: a beginning is followed only if it can still reach the threshold with the best ions at all
    # places after it.
    best_of_rest = np.append(np.cumprod(conditional.max(axis=0)[::-1])[::-1][1:], 1.0)
    probability, chosen = np.ones(1), np.empty((1, 0), dtype=np.int64)
    for place in range(len(ions)):
        joint = probability[:, None] * conditional[None, :, place]
        rows, columns = np.nonzero(joint * best_of_rest[place] >= threshold)
        probability = joint[rows, columns]
        chosen = np.concatenate([chosen[rows], columns[:, None]], axis=1)
    for row, value in zip(chosen.tolist(), probability.tolist(), strict=True):
        yield tuple(row), value


def plan(structures: Structures, options: Options, counts: Counter[str]) -> list[tuple[int, Substitution]]:
    """Prototype and substitution of all that could be made, in the order in which they are."""
    planned: list[tuple[int, Substitution]] = []
    known: dict[Composition, list[Substitution]] = {}
    for row in range(len(structures)):
        if structures.n_atoms[row] > options.max_atoms:
            counts["prototypes too large"] += 1
            continue
        composition = composition_of(structures, row)
        if assign_ions(composition) is None:
            counts["prototypes without neutral ions"] += 1
            continue
        if composition not in known:
            known[composition] = substitutions(composition, options)
        planned += [(row, substitution) for substitution in known[composition]]
    counts["substitutions above the threshold"] = len(planned)
    names = structures.material_id
    planned.sort(key=lambda item: (-item[1].probability, str(names[item[0]]), str(item[1])))
    if options.seed is not None:
        order = np.random.default_rng(options.seed).permutation(len(planned))
        planned = [planned[i] for i in order]
    return planned


def composition_of(structures: Structures, row: int) -> Composition:
    """(symbol, amount in the reduced formula) of each element, by atomic number."""
    numbers = structures.numbers[structures.offsets[row] : structures.offsets[row + 1]]
    elements, amounts = np.unique(numbers, return_counts=True)
    divisor = math.gcd(*amounts.tolist())
    return tuple(
        (Element.from_Z(z).symbol, amount // divisor)
        for z, amount in zip(elements.tolist(), amounts.tolist(), strict=True)
    )


# Cells of the right size.


@dataclass(frozen=True)
class Contacts:
    """The shortest distances of a crystal.

    Attributes:
        elements: symbols of its elements.
        amounts: atoms of each in the cell.
        shortest: (n, n) Angstrom, between any two elements; inf where none is within reach.
    """

    elements: tuple[str, ...]
    amounts: tuple[int, ...]
    shortest: FloatArray

    def tightness(self, elements: Sequence[str]) -> float:
        """The smallest ratio of a distance to the usual bond length, were these the elements; inf without bonds.

        A factor of 1 / tightness on all lengths makes the tightest bond as long as it usually is, which is the
        prediction of pymatgen's DLSVolumePredictor.
        """
        lengths = _bond_lengths(tuple(elements), self._spread(elements))
        radius = np.array([_atomic_radius(symbol) for symbol in elements])
        seen = self.shortest <= radius[:, None] + _REACH
        return float(np.min(np.where(seen, self.shortest / lengths, np.inf)))

    def _spread(self, elements: Sequence[str]) -> float:
        """Standard deviation of the electronegativity over the sites."""
        values = np.repeat([Element(symbol).X for symbol in elements], self.amounts)
        return float(np.std(values))


def contacts_of(structures: Structures, row: int) -> Contacts:
    """The shortest distances of one structure of a batch."""
    one = structures.take([row])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        crystal = one.to_pymatgen()[0]
        largest = max(_atomic_radius(element.symbol) for element in crystal.composition)
        centre, neighbour, _, distance = crystal.get_neighbor_list(largest + _REACH)
    numbers, place = np.unique(one.numbers, return_inverse=True)
    shortest = np.full((len(numbers), len(numbers)), np.inf)
    np.minimum.at(shortest, (place[centre], place[neighbour]), distance)
    symbols = tuple(Element.from_Z(int(z)).symbol for z in numbers)
    return Contacts(symbols, tuple(np.bincount(place).tolist()), shortest)


def volume_scale(contacts: Contacts, composition: Composition, substitution: Substitution) -> float:
    """By how much the volume changes when ions are replaced.

    Args:
        contacts: of the prototype.
        composition: of the prototype.
        substitution: what is replaced.

    Returns:
        The cube of the ratio of the sums of ionic radii, each weighted by the cube root of its amount; without all
        radii, of the tightness of the contacts. NaN where neither is known.
    """
    ions, table = assign_ions(composition), _table()
    new_ion = dict(zip(substitution.old, zip(substitution.new, substitution.charges, strict=True), strict=True))
    if ions is not None:
        present = [(symbol, int(table.charges[ion])) for ion, (symbol, _) in zip(ions, composition, strict=True)]
        weights = np.cbrt([amount for _, amount in composition])
        radii = [_ionic_radius(*ion) for ion in present]
        new_radii = [_ionic_radius(*new_ion.get(ion[0], ion)) for ion in present]
        # An ion of amount n takes n^(1/3) of a length: lattice lengths go as sum n^(1/3) r, volumes as its cube.
        ratio = float(weights @ new_radii / (weights @ radii))
        if np.isfinite(ratio):
            return ratio**3
    replaced = dict(zip(substitution.old, substitution.new, strict=True))
    before = contacts.tightness(contacts.elements)
    after = contacts.tightness([replaced.get(symbol, symbol) for symbol in contacts.elements])
    # Lengths over usual lengths: looser contacts after than before mean that the cell has to shrink.
    return (before / after) ** 3 if max(before, after) < np.inf else np.nan


@functools.lru_cache(maxsize=1024)
def _ionic_radius(symbol: str, charge: int) -> float:
    """Angstrom; NaN where it is unknown."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        radius = Species(symbol, charge).ionic_radius
    return float(radius) if radius else np.nan


@functools.lru_cache(maxsize=256)
def _atomic_radius(symbol: str) -> float:
    radius = Element(symbol).atomic_radius
    return float(radius) if radius else 1.5


@functools.lru_cache(maxsize=4096)
def _bond_lengths(elements: tuple[str, ...], spread: float) -> FloatArray:
    """(n, n) usual bond lengths, Angstrom."""
    mined = [
        float(bond_params[symbol]["r"]) + float(bond_params[symbol]["k"]) * spread if symbol in bond_params else None
        for symbol in elements
    ]
    lengths = np.empty((len(elements), len(elements)))
    for i, first in enumerate(elements):
        for j, second in enumerate(elements):
            a, b = mined[i], mined[j]
            known = a is not None and b is not None
            # r = r_0 + k s, s the spread of electronegativity over the sites: bonds shorten or lengthen with ionic
            # character.
            lengths[i, j] = a + b if known else _atomic_radius(first) + _atomic_radius(second)  # type: ignore[operator]
    return lengths


@dataclass
class _Maker:
    """Makes candidates one after the other and remembers all crystals so far."""

    prototypes: Structures
    check: Any
    counts: Counter[str]
    made: list[Structures] = field(default_factory=list)
    columns: list[tuple[str, str, float, float]] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    contacts: dict[int, Contacts] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.known = CrystalsByFormula(self.prototypes)

    def consider(self, row: int, substitution: Substitution) -> None:
        """Make one candidate, unless something speaks against it."""
        parent = self.prototypes.take([row])
        replaced = dict(zip(substitution.old, substitution.new, strict=True))
        contacts = self.contacts.get(row)
        if contacts is None:
            contacts = self.contacts[row] = contacts_of(self.prototypes, row)
        elements = [replaced.get(symbol, symbol) for symbol in contacts.elements]
        table = {Element(old).Z: Element(new).Z for old, new in replaced.items()}
        numbers = np.array([table.get(z, z) for z in parent.numbers.tolist()], dtype=np.int64)
        name = f"{parent.material_id[0]}:{substitution}"
        candidate = replace(parent, numbers=numbers, material_id=np.array([name], dtype=object))
        formula = str(candidate.formulas[0])
        if not self.check(formula):
            self.counts["refused by smact"] += 1
            return
        scale = volume_scale(contacts, composition_of(self.prototypes, row), substitution)
        if not SMALLEST_SCALE <= scale <= LARGEST_SCALE:
            self.counts["do not fit the prototype"] += 1
            return
        # Tightness is of the prototype's cell; all lengths grow by the cube root of the volume's factor.
        if contacts.tightness(elements) * scale ** (1 / 3) < OVERLAP:
            self.counts["atoms overlap"] += 1
            return
        candidate = replace(candidate, lattice=parent.lattice * scale ** (1 / 3))
        if same := self._same(candidate, formula):
            self.counts["duplicates"] += 1
            reason = f"duplicate of {same}, which was there before: the same crystal"
            self.refused.append(Refusal(name, "generate", reason, str(candidate.hashes[0])))
            return
        self.made.append(candidate)
        self.columns.append((str(parent.material_id[0]), str(substitution), substitution.probability, float(scale)))

    def _same(self, candidate: Structures, formula: str) -> str:
        """Name of a known crystal that this is; "" and remembered where it is new."""
        crystal = prepare(candidate, 0)
        if crystal is None:
            return ""
        known, n = self.known.of(formula), len(self.prototypes)
        match = known.find(crystal)
        if match is None:
            known.add(replace(crystal, row=n + len(self.made)))
            return ""
        return str(self.prototypes.material_id[match] if match < n else self.made[match - n].material_id[0])
