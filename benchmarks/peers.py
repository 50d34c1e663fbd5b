"""One peer's own featurisation of structures that stand in a JSON file; run by featurise_vs_peers.py.

python benchmarks/peers.py matgl|matminer|chgnet STRUCTURES.json

Needs the peer and pymatgen alone, so that it can run in an environment of its own. One thread. Prints one JSON line:
seconds (best of 2), and bonds where the peer counts them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pymatgen.core import Lattice, Structure


def main() -> None:
    """Time one peer."""
    name, path = sys.argv[1:]
    items = json.loads(Path(path).read_text())
    structures = [Structure(Lattice(item["lattice"]), item["numbers"], item["frac"]) for item in items]
    work, about = PEERS[name](structures)
    seconds, result = [], {}
    for _ in range(2):
        start = time.perf_counter()
        result = work() or {}
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"seconds": min(seconds), **about, **result}))


def matgl(structures: list[Structure]) -> tuple[Callable[[], Any], dict[str, Any]]:
    """MEGNet of matgl with untrained weights of the same sizes: graphs, then the network in batches of 32."""
    import torch
    from matgl.ext.pymatgen import Structure2Graph
    from matgl.models import MEGNet
    from torch_geometric.data import Batch

    torch.set_num_threads(1)
    model = MEGNet(cutoff=5.0).eval()
    converter = Structure2Graph(model.element_types, cutoff=5.0)

    def work() -> dict[str, float]:
        start, graphs, states = time.perf_counter(), [], []
        for structure in structures:
            graph, lattice, state = converter.get_graph(structure)
            graph.pbc_offshift = torch.matmul(graph.pbc_offset, lattice[0])
            graph.pos = graph.frac_coords @ lattice[0]
            graphs.append(graph)
            states.append(torch.as_tensor(state, dtype=torch.float32))
        made = time.perf_counter()
        with torch.inference_mode():
            for first in range(0, len(graphs), 32):
                batch = Batch.from_data_list(graphs[first : first + 32])
                model(g=batch, state_attr=torch.stack(states[first : first + 32]))
        bonds = sum(graph.edge_index.shape[1] for graph in graphs)
        return {"bonds": bonds, "graph_seconds": made - start}

    return work, {"what": f"matgl {version('matgl')} MEGNet, untrained weights of the same sizes"}


def matminer(structures: list[Structure]) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Magpie statistics of the composition: no geometry at all."""
    from matminer.featurizers.composition import ElementProperty

    featurizer = ElementProperty.from_preset("magpie")

    def work() -> None:
        for structure in structures:
            featurizer.featurize(structure.composition)

    return work, {"what": f"matminer {version('matminer')} Magpie, composition alone"}


def chgnet(structures: list[Structure]) -> tuple[Callable[[], Any], dict[str, Any]]:
    """CHGNet's own prediction with atom and crystal features, energies alone."""
    import torch
    from chgnet.model import CHGNet

    torch.set_num_threads(1)
    model = CHGNet.load(use_device="cpu", verbose=False)

    def work() -> None:
        options = {"task": "e", "return_atom_feas": True, "return_crystal_feas": True, "batch_size": 16}
        model.predict_structure(structures, **options)

    return work, {"what": f"chgnet {version('chgnet')}, its own prediction"}


PEERS: dict[str, Callable[[list[Structure]], tuple[Callable[[], Any], dict[str, Any]]]] = {
    "matgl": matgl,
    "matminer": matminer,
    "chgnet": chgnet,
}


if __name__ == "__main__":
    main()
