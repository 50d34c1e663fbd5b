"""Merging what is alike loses nothing: counts add up, and only what differs within reach stays apart."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from atomsets_core.sources.embedded import load_flla
from atomsets_core.structures.equivalent_sites import bond_angles, merge_alike
from atomsets_core.structures.graphs import angle_graph, graph_batches
from atomsets_core.structures.reading import as_structures

CUTOFF, SHORT = 6.0, 3.0


def graph_of(structures):
    ((_, graphs),) = graph_batches(structures, CUTOFF, 10**9, [], vectors=True)
    return graphs


@pytest.fixture(scope="module")
def salt():
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def test_rock_salt_has_two_sites(salt):
    merged = merge_alike(graph_of(as_structures([salt])), 4, SHORT)
    assert sorted(merged.numbers) == [11, 17]
    assert len(merged.atom) == 8
    # Shells of rock salt within 6 Angstrom: 6 at a/2, 12 at a/sqrt(2), 8 at a sqrt(3)/2, 6 at a.
    for row in (0, 1):
        of_site = merged.centre == row
        shells = {}
        for distance, count in zip(merged.distance[of_site], merged.count[of_site], strict=True):
            shells[round(float(distance), 2)] = shells.get(round(float(distance), 2), 0) + int(count)
        assert shells == {2.82: 6, 3.99: 12, 4.88: 8, 5.64: 6}
    # An undirected bond has five other bonds at each end: one in line with it and four at a right angle.
    by_angle = {}
    for angle, count in zip(np.degrees(merged.angle), merged.angle_count, strict=True):
        by_angle[round(float(angle))] = by_angle.get(round(float(angle)), 0) + count
    n_undirected = len(merged.one_of_each)
    assert by_angle == {90: 8 * n_undirected, 180: 2 * n_undirected}


def test_counts_are_those_of_the_whole_graph():
    graphs = graph_of(load_flla().structures.take(np.arange(0, 3900, 130)))
    angles = angle_graph(graphs, SHORT)
    merged = merge_alike(graphs, 4, SHORT)
    n_merged = len(merged.numbers)
    assert n_merged < 0.8 * len(graphs.numbers)
    np.testing.assert_array_equal(merged.numbers[merged.atom], graphs.numbers)
    coordination = np.bincount(graphs.centre, minlength=len(graphs.numbers))
    found = np.bincount(merged.centre, weights=merged.count, minlength=n_merged)
    np.testing.assert_array_equal(found[merged.atom], coordination)
    # The sum of any function of the distance over the bonds of an atom is the same.
    full = np.bincount(graphs.centre, weights=np.exp(-graphs.distance), minlength=len(graphs.numbers))
    counted = np.bincount(merged.centre, weights=merged.count * np.exp(-merged.distance), minlength=n_merged)
    np.testing.assert_allclose(counted[merged.atom], full, rtol=1e-6)
    # And so is that of any function of the angles and their second bonds, over all atoms.
    value = bond_angles(graphs, angles) * graphs.distance[angles.bond][angles.second]
    size = np.bincount(merged.atom, minlength=n_merged)
    centre, short = merged.centre, slice(merged.n_short)
    # A bond and its reverse share their angles; those at this end are counted by its own centre.
    bonds_of_kind = np.bincount(merged.undirected, weights=(size[centre] * merged.count)[short]) / 2
    weight = merged.angle_count * bonds_of_kind[merged.undirected[merged.first]]
    assert (weight * merged.angle * merged.distance[merged.second]).sum() == pytest.approx(value.sum(), rel=1e-5)


def test_without_symmetry_nothing_is_merged():
    rng = np.random.default_rng(0)
    cell = Structure(Lattice.from_parameters(6, 7, 8, 80, 95, 105), ["H"] * 6, rng.random((6, 3)))
    graphs = graph_of(as_structures([cell]))
    merged = merge_alike(graphs, 3, SHORT)
    assert len(merged.numbers) == 6
    # Only a bond to the own image is like its reverse.
    to_itself = int((graphs.centre == graphs.neighbour).sum())
    assert to_itself > 0
    assert len(merged.centre) == len(graphs.centre) - to_itself / 2


def test_depth_decides_how_far_a_difference_is_seen():
    """A chain of carbon with one nitrogen: one layer knows its neighbours apart, each further layer one atom more."""
    chain = Structure(Lattice.orthorhombic(30, 30, 40), ["N", *["C"] * 9], [[0, 0, i / 10] for i in range(10)])
    graphs = graph_of(as_structures([chain]))
    kinds = [len(merge_alike(graphs, layers, SHORT).numbers) for layers in (1, 2, 3, 4, 5)]
    assert kinds == [3, 4, 5, 6, 6]


def test_structures_in_a_batch_share_what_they_have_in_common(salt):
    merged = merge_alike(graph_of(as_structures([salt, salt])), 4, SHORT)
    assert len(merged.numbers) == 2
    assert len(merged.atom) == 16
