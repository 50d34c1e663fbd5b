"""Sites, bonds and angles that no message-passing network can tell apart, so that each is computed once.

In a crystal most sites have a twin by symmetry, and so have their bonds and angles. They are found without looking for
symmetry, by colour refinement (Weisfeiler and Leman): a site's label takes in the labels of its bonds and neighbours, a
bond's label those of its angles, as often as the network has layers. What has the same label then gets the same vector
from any network of that depth. Distances and angles count as equal only to the last bit of a float32, so merging is not
an approximation: twins that rounding has separated are just computed twice.

Labels are 64-bit hashes; two of n different ones coincide with probability n^2 / 2^65, in one of some 10^9 batches of
10^5 bonds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from atomsets_core.structures.batch import IntArray
from atomsets_core.structures.graphs import AngleGraph, CrystalGraphs, angle_graph

Labels = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class MergedGraph:
    """A `CrystalGraphs` in which what is alike stands once, with a count.

    Attributes:
        atom: (n_atoms,) int64, row in the merged graph of each atom of the batch.
        numbers: (n_merged,) int64, atomic numbers.
        centre, neighbour: (n_bonds,) int64, rows of the merged atoms. The first n_short bonds have angles.
        distance: (n_bonds,) float32, Angstrom.
        count: (n_bonds,) float32, how many such bonds an atom like the centre has.
        n_short: 0 where there are no angles.
        undirected: (n_short,) int64, row of the undirected bond.
        one_of_each: (n_undirected,) int64, a bond for each undirected one.
        first, second: (n_angles,) int64, rows of the two bonds of an angle; both are short.
        angle: (n_angles,) float32, radians; see `bond_angles`.
        angle_count: (n_angles,) float32, how many such angles an undirected bond like the first has, at both its ends.
    """

    atom: IntArray
    numbers: IntArray
    centre: IntArray
    neighbour: IntArray
    distance: npt.NDArray[np.float32]
    count: npt.NDArray[np.float32]
    n_short: int
    undirected: IntArray
    one_of_each: IntArray
    first: IntArray
    second: IntArray
    angle: npt.NDArray[np.float32]
    angle_count: npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Classes:
    """Equal labels.

    Attributes:
        of: (n,) int64, class of each item.
        one: (n_classes,) int64, an item of each class.
        size: (n_classes,) int64.
    """

    of: IntArray
    one: IntArray
    size: IntArray


def merge_alike(graphs: CrystalGraphs, layers: int, angle_cutoff: float) -> MergedGraph:
    """The graph as a network of so many layers sees it.

    A layer is taken to update atoms from their bonds, then bonds from their angles, then angles from their bonds; the
    last layer updates atoms only, the one before it no angles. One layer doesn't look at angles at all.

    Args:
        graphs: with vectors and images.
        layers: at least 1.
        angle_cutoff: Angstrom, of the bonds between which there are angles.
    """
    angles = angle_graph(graphs, angle_cutoff) if layers > 1 else None
    if angles is None or not len(angles.first):
        atom, message = _refine_atoms(graphs, layers, _mix(graphs.numbers))
        return _merge(graphs, atom, message, None)
    angle = bond_angles(graphs, angles)
    u_first, u_second = angles.undirected[angles.first], angles.undirected[angles.second]
    centre = graphs.centre[angles.bond][angles.first]
    one_of_each = np.empty(angles.n_undirected, dtype=np.int64)
    one_of_each[angles.undirected] = angles.bond
    length = _bits(graphs.distance)
    atom, bond, turn = _mix(graphs.numbers), _mix(length[one_of_each]), _mix(_bits(angle))
    for layer in range(layers):
        label = length.copy()
        label[angles.bond] = _combine(length[angles.bond], bond[angles.undirected])
        # What a bond tells its centre, and then the centre with the multiset of what it was told: one step of colour
        # refinement. The order of arguments matters to `_combine`, the order of bonds doesn't to `_sums`.
        message = _combine(atom[graphs.centre], atom[graphs.neighbour], label)
        atom = _combine(atom, _sums(message, graphs.centre, len(atom)))
        if layer + 1 < layers:
            angle_message = _combine(bond[u_first], bond[u_second], turn, atom[centre])
            of_directed = _sums(angle_message, angles.first, len(angles.bond))
            # An undirected bond hears of the angles at both its ends.
            bond = _combine(bond, _scattered(of_directed, angles.undirected, len(bond)))
        if layer + 2 < layers:
            turn = _combine(bond[u_first], bond[u_second], turn, atom[centre])
    return _merge(graphs, atom, message, _Angles(angles, angle, one_of_each, bond, angle_message))


def bond_angles(graphs: CrystalGraphs, angles: AngleGraph) -> npt.NDArray[np.float32]:
    """(n_angles,) float32, radians, arccos((1 - 1e-6) cos t) of the angle t between the two bonds.

    The factor keeps the derivative finite; CHGNet was trained with it. Where bonds are in line the angle loses half the
    digits of the cosine, which therefore has float64.

    Raises:
        ValueError: the graphs were made without vectors.
    """
    if graphs.vector is None:
        raise ValueError("angles need a graph with vectors: graph_batches(..., vectors=True)")
    vector = graphs.vector[angles.bond]
    unit = vector / np.linalg.norm(vector, axis=1, keepdims=True)
    cosine = np.einsum("ij,ij->i", unit[angles.first], unit[angles.second])
    return np.arccos(cosine * (1 - 1e-6)).astype(np.float32)


@dataclass(frozen=True)
class _Angles:
    """The angles of a batch, and the labels of bonds and angles after the last layer.

    Attributes:
        graph: which bonds.
        value: (n_angles,) float32, radians.
        one_of_each: (n_undirected,) row of a directed bond.
        bond: (n_undirected,) labels.
        message: (n_angles,) labels of what the last update of the bonds saw.
    """

    graph: AngleGraph
    value: npt.NDArray[np.float32]
    one_of_each: IntArray
    bond: Labels
    message: Labels


def count_unlike_bonds(graphs: CrystalGraphs, layers: int) -> int:
    """Bonds that a network of so many layers without angles would have to compute if each kind were computed once."""
    atom, message = _refine_atoms(graphs, layers, _mix(graphs.numbers))
    return len(_classes(_combine(atom[graphs.centre], message)).one)


def _refine_atoms(graphs: CrystalGraphs, layers: int, start: Labels) -> tuple[Labels, Labels]:
    """Labels of the atoms, and of the messages they last got, where there are no angles."""
    atom, length = start, _bits(graphs.distance)
    for _ in range(layers):
        message = _combine(atom[graphs.centre], atom[graphs.neighbour], length)
        atom = _combine(atom, _sums(message, graphs.centre, len(atom)))
    return atom, message


def _merge(graphs: CrystalGraphs, atom: Labels, message: Labels, angles: _Angles | None) -> MergedGraph:
    """One of each class, and how often it counts.

    Atoms of one class got the same messages equally often, so that a message counts (all of its class) / (all atoms of
    the class); and so do undirected bonds and their angles.
    """
    atoms, bonds = _classes(atom), _classes(_combine(atom[graphs.centre], message))
    # E.g. 4 alike atoms with 48 alike bonds in all: each of the atoms has 12 of them.
    count = _divide(bonds.size, atoms.size[atoms.of[graphs.centre[bonds.one]]])
    nothing = np.empty(0, dtype=np.int64)
    undirected = one_of_each = first = second = nothing
    angle = angle_count = np.empty(0, dtype=np.float32)
    n_short, order = 0, np.arange(len(bonds.one))
    if angles is not None:
        position = np.full(len(graphs.centre), -1)
        position[angles.graph.bond] = np.arange(len(angles.graph.bond))
        place = position[bonds.one]
        # Short bonds first, each part in the order it was in.
        order = np.argsort(place < 0, kind="stable")
        n_short = int((place >= 0).sum())
        row = np.empty(len(order), dtype=np.int64)
        row[order] = np.arange(len(order))
        kinds = _classes(angles.bond)
        undirected = kinds.of[angles.graph.undirected[place[order[:n_short]]]]
        one_of_each = row[bonds.of[angles.one_of_each[kinds.one]]]
        of_first = angles.graph.undirected[angles.graph.first]
        merged = _classes(_combine(angles.bond[of_first], angles.message))
        angle_count = _divide(merged.size, kinds.size[kinds.of[of_first[merged.one]]])
        row_of_short = row[bonds.of[angles.graph.bond]]
        first = row_of_short[angles.graph.first[merged.one]]
        second = row_of_short[angles.graph.second[merged.one]]
        angle = angles.value[merged.one]
    one = bonds.one[order]
    return MergedGraph(
        atom=atoms.of,
        numbers=graphs.numbers[atoms.one],
        centre=atoms.of[graphs.centre[one]],
        neighbour=atoms.of[graphs.neighbour[one]],
        distance=graphs.distance[one],
        count=count[order],
        n_short=n_short,
        undirected=undirected,
        one_of_each=one_of_each,
        first=first,
        second=second,
        angle=angle,
        angle_count=angle_count,
    )


def _classes(labels: Labels) -> _Classes:
    order = np.argsort(labels)
    ordered = labels[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    size = np.diff(np.append(starts, len(labels)))
    of = np.empty(len(labels), dtype=np.int64)
    of[order] = np.repeat(np.arange(len(starts)), size)
    return _Classes(of, order[starts], size)


def _divide(all_of_class: IntArray, owners: IntArray) -> npt.NDArray[np.float32]:
    if (all_of_class % owners).any():
        raise RuntimeError("two different environments have the same 64-bit label")
    return (all_of_class // owners).astype(np.float32)


def _bits(values: npt.NDArray[np.float32]) -> Labels:
    """(n,) the bit patterns of float32 numbers."""
    return values.view(np.uint32).astype(np.uint64)


def _mix(values: IntArray | Labels) -> Labels:
    """(n,) well-spread hashes: the 64-bit finaliser of MurmurHash3 (A. Appleby, public domain)."""
    h = values.astype(np.uint64)
    for multiplier in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        h ^= h >> np.uint64(33)
        h *= np.uint64(multiplier)
    h ^= h >> np.uint64(33)
    return h


def _combine(*labels: Labels) -> Labels:
    """(n,) one label for the labels in this order."""
    out = _mix(labels[0])
    for label in labels[1:]:
        # 2^64 over the golden ratio (Knuth's multiplicative hashing): odd, so the product modulo 2^64 loses nothing.
        out *= np.uint64(0x9E3779B97F4A7C15)
        out += label
        out = _mix(out)
    return out


def _sums(values: Labels, owner: IntArray, n: int) -> Labels:
    """(n,) sums modulo 2^64 for each owner, which ascend; a sum is the label of a multiset."""
    # A sum of well-mixed hashes stands for a multiset, whatever its order (MSet-Add-Hash of Clarke et al., ASIACRYPT
    # 2003). Unsigned integers wrap around, so differences of running sums are exact, as they wouldn't be in floats.
    ends = np.cumsum(np.bincount(owner, minlength=n))
    running = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(values)])
    return np.diff(running[np.concatenate([[0], ends])])


def _scattered(values: Labels, owner: IntArray, n: int) -> Labels:
    """(n,) sums modulo 2^64 for each owner, in any order."""
    out = np.zeros(n, dtype=np.uint64)
    np.add.at(out, owner, values)
    return out


@dataclass(frozen=True)
class MergedSites:
    """A `CrystalGraphs` in which alike sites of one structure, and alike bonds of one site, stand once.

    Attributes:
        atom: (n_atoms,) int64, row in the merged graph of each atom of the batch.
        one: (n_merged,) int64, an atom of the batch for each merged one, ascending; so structures keep their order.
        size: (n_merged,) int64, atoms that are alike.
        bond: (n_bonds,) int64, a directed bond of the batch for each merged one; their centres are in `one`, ascending.
        neighbour: (n_bonds,) int64, row of the merged neighbour.
        count: (n_bonds,) int64, how many such bonds the centre has.
    """

    atom: IntArray
    one: IntArray
    size: IntArray
    bond: IntArray
    neighbour: IntArray
    count: IntArray


def merge_sites(graphs: CrystalGraphs, layers: int) -> MergedSites:
    """Each structure as a network without angles that has so many layers sees it.

    Sites of different structures are never merged, so that a network may have a state for each structure.

    Args:
        graphs: the batch.
        layers: at least 1.
    """
    structure = np.repeat(np.arange(len(graphs.n_atoms)), graphs.n_atoms)
    # The number of the structure goes into every label, so that labels of two structures never agree.
    start = _combine(_mix(graphs.numbers), structure.astype(np.uint64))
    label, message = _refine_atoms(graphs, layers, start)
    atoms = _in_order(_classes(label))
    chosen = np.zeros(len(label), dtype=bool)
    chosen[atoms.one] = True
    # Of alike atoms the bonds of one are enough, and are all of its bonds: counts need no division here.
    rows = np.flatnonzero(chosen[graphs.centre])
    bonds = _in_order(_classes(_combine(label[graphs.centre[rows]], message[rows])))
    bond = rows[bonds.one]
    return MergedSites(atoms.of, atoms.one, atoms.size, bond, atoms.of[graphs.neighbour[bond]], bonds.size)


def _in_order(classes: _Classes) -> _Classes:
    """The same classes, in the order of their first items."""
    first = np.full(len(classes.one), len(classes.of), dtype=np.int64)
    np.minimum.at(first, classes.of, np.arange(len(classes.of)))
    order = np.argsort(first)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return _Classes(rank[classes.of], first[order], classes.size[order])
