"""Train the parent of compositions and write its weights into the package.

python benchmarks/composition_parent.py --data DIR

DIR holds mp2018_megnet_eform_gap.parquet: crystals of mp-2018.6.1 (Chen et al., Chem. Mater. 31, 3564 (2019)) with
formation energies (eV/atom) and PBE gaps (eV). Of each composition the most stable crystal counts. 2,000 compositions
are held out; the errors on them are stored with hardware, versions and seed. Some ten minutes on one core.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import safetensors.numpy
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

import atomsets_core
from atomsets_core.parents import FILE, GAP, HAS_GAP, PROPERTIES, VOLUME, CompositionNetwork, keys_of
from atomsets_core.structures import Compositions, from_arrow
from benchmarks.machine import RESULTS, describe, keep

WEIGHTS = Path(atomsets_core.__file__).parent / "data" / FILE
HELD_OUT, SEED = 2000, 0
EPOCHS, BATCH, LEARNING_RATE, WEIGHT_DECAY, LARGEST_GRADIENT = 40, 128, 2e-3, 1e-2, 1.0
SOME_GAP = 0.05
"""eV. Below it lie the gaps that a mesh of k points leaves in metals: 11 % of the intermetallics have one above 0."""

VALUES = (0, GAP, VOLUME)


def main() -> None:
    """Train, test, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    made_of, values = crystals(chosen.data / "mp2018_megnet_eform_gap.parquet")
    numbers, fractions = padded(made_of)
    order = np.random.default_rng(SEED).permutation(len(values))
    held, rows = torch.from_numpy(order[:HELD_OUT]), torch.from_numpy(order[HELD_OUT:])
    started = time.process_time()
    network = train(numbers, fractions, values, rows, chosen.epochs)
    seconds = time.process_time() - started
    with torch.inference_mode():
        found = network.in_units(network(numbers[held], fractions[held])[2])
    truth = values[held]
    errors = {PROPERTIES[k]: float((found[:, k] - truth[:, k]).abs().mean()) for k in VALUES}
    errors["share of metals and others told apart"] = float(
        ((found[:, HAS_GAP] > 0.5) == (truth[:, HAS_GAP] > 0)).float().mean()
    )
    stored = {name: value.numpy().astype(np.float16) for name, value in network.state_dict().items()}
    for name in ("mean", "scale"):
        stored[name] = network.state_dict()[name].numpy()
    stored["keys"] = np.sort(keys_of(made_of.take(rows.numpy())))
    stored["trained"] = np.unique(numbers[rows].numpy())[1:].astype(np.int64)
    WEIGHTS.write_bytes(safetensors.numpy.save(stored))
    about = describe("python benchmarks/composition_parent.py --data DIR", ("torch", "numpy"))
    keep(
        RESULTS / "composition_parent.json",
        {
            **about,
            "seed": SEED,
            "epochs": chosen.epochs,
            "compositions": len(rows),
            "held_out": len(held),
            "mean_absolute_errors_held_out": errors,
            "parameters": sum(p.numel() for p in network.parameters()),
            "cpu_seconds": round(seconds, 1),
        },
    )
    print(errors)


def crystals(path: Path) -> tuple[Compositions, Tensor]:
    """The compositions, and of the most stable crystal of each (n, 4) values in the units of PROPERTIES."""
    table = pq.read_table(path)
    structures, rows, _ = from_arrow(table, "mp")
    table, made_of = table.take(rows), Compositions.of(structures)
    e_form, gap = table["e_form"].to_numpy(), table["gap"].to_numpy()
    volume = np.abs(np.linalg.det(structures.lattice)) / structures.n_atoms
    best: dict[str, int] = {}
    for row in np.argsort(e_form, kind="stable"):
        best.setdefault(made_of.hashes[row], int(row))
    rows = np.sort(np.array(list(best.values())))
    values = np.stack([e_form[rows], gap[rows], gap[rows] > SOME_GAP, volume[rows]], axis=1).astype(np.float32)
    return made_of.take(rows), torch.from_numpy(values)


def padded(made_of: Compositions) -> tuple[Tensor, Tensor]:
    """(n, m) atomic numbers and fractions, 0 beyond the elements there are."""
    there = np.arange(made_of.n_elements.max()) < made_of.n_elements[:, None]
    numbers, fractions = np.zeros(there.shape, dtype=np.int64), np.zeros(there.shape, dtype=np.float32)
    numbers[there], fractions[there] = made_of.numbers, made_of.fractions
    return torch.from_numpy(numbers), torch.from_numpy(fractions)


def train(numbers: Tensor, fractions: Tensor, values: Tensor, rows: Tensor, epochs: int) -> CompositionNetwork:
    """The network, trained on these rows: absolute errors of standardised values, and the log loss of having a gap."""
    torch.manual_seed(SEED)
    network = CompositionNetwork()
    target = values.clone()
    target[:, VOLUME] = torch.log(values[:, VOLUME])
    network.mean.copy_(target[rows].mean(dim=0))
    network.scale.copy_(target[rows].std(dim=0))
    has_gap = values[:, HAS_GAP]
    target = (target - network.mean) / network.scale
    steps = epochs * (len(rows) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps + 1, pct_start=0.1)
    count = (numbers > 0).sum(dim=1)
    for epoch in range(epochs):
        order = rows[torch.randperm(len(rows))]
        # Compositions of like numbers of elements side by side, so that little is padded.
        order = torch.cat([part[torch.argsort(count[part])] for part in order.split(16 * BATCH)])
        total = 0.0
        for k in torch.randperm(len(rows) // BATCH):
            batch = order[k * BATCH : (k + 1) * BATCH]
            m = int(count[batch].max())
            outputs = network(numbers[batch, :m], fractions[batch, :m])[2]
            loss = sum((outputs[:, j] - target[batch, j]).abs().mean() for j in VALUES)
            loss = loss + binary_cross_entropy_with_logits(outputs[:, HAS_GAP], has_gap[batch])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}: {total / (len(rows) // BATCH):.4f}", flush=True)
    # Elements that were never shown: the mean of those that were.
    with torch.no_grad():
        seen = torch.unique(numbers[rows])[1:]
        unseen = np.setdiff1d(np.arange(119), seen.numpy())
        network.elements.weight[torch.from_numpy(unseen)] = network.elements.weight[seen].mean(dim=0)
    # As they are stored.
    for parameter in network.parameters():
        parameter.data = parameter.data.half().float()
    return network.eval()


if __name__ == "__main__":
    main()
