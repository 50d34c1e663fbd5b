"""Structures that kill their worker, hang or break the parent cost themselves alone."""

import json
import os

import numpy as np
import pytest

from atomsets_core.features.shards import write_queue
from atomsets_core.features.stored import FeatureStore
from atomsets_core.parents.registry import load_parent
from atomsets_core.storage.store import Store
from atomsets_core.structures.batch import Structures
from atomsets_tasks import client, clusters
from atomsets_tasks.client import ShardJob, make_shard
from tests.forks import forked_workers

PARENT = '''
import os, time
import numpy as np
from atomsets_core.parents.base import featurize_batches

class Poisonable:
    """Atomic number 90 ends the process, 91 never returns, 92 is an error."""

    name, digest = "poisonable", "0" * 16
    site_levels, structure_levels, default_levels = {"z": 1}, {}, ("z",)

    def featurize(self, structures, levels=None):
        return featurize_batches(self, structures, levels, covered=np.arange(119) > 0, compute=self.compute)

    def compute(self, structures, wanted, refused):
        if 90 in structures.numbers:
            os._exit(11)
        if 91 in structures.numbers:
            time.sleep(3600)
        if 92 in structures.numbers:
            raise ArithmeticError("uranium")
        if 17 in structures.numbers and os.environ.get("SICK"):
            raise ArithmeticError("everything")
        yield np.arange(len(structures)), {"z": structures.numbers[:, None].astype(np.float32)}

def load(device):
    return Poisonable()
'''


@pytest.fixture
def poisonable(tmp_path, monkeypatch):
    """The parent as an installed package, for this process and the workers."""
    package = tmp_path / "package"
    info = package / "poisonable-1.dist-info"
    info.mkdir(parents=True)
    (package / "poisonable.py").write_text(PARENT)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: poisonable\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[atomsets_core.parents]\npoisonable = poisonable:load\n")
    monkeypatch.syspath_prepend(str(package))
    monkeypatch.setenv("PYTHONPATH", f"{package}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setitem(clusters.SCHEDULER, "distributed.scheduler.allowed-failures", 0)
    yield
    load_parent.cache_clear()


def single(numbers):
    n = len(numbers)
    ids = np.array([f"z{z}" for z in numbers], dtype=object)
    return Structures(ids, np.tile(4.0 * np.eye(3), (n, 1, 1)), np.ones(n, int), np.array(numbers), np.zeros((n, 3)))


def job(tmp_path, numbers, limit):
    store, structures = Store(tmp_path / "store"), single(numbers)
    write_queue(store, "queue.parquet", [structures])
    features = FeatureStore.of(store, "poisonable", ["z"])
    key = features.shard_key(list(structures.hashes))
    return ShardJob(store, "queue.parquet", 0, features, key, limit), structures


@pytest.mark.slow
def test_three_kinds_of_poison(poisonable, tmp_path):
    asked, structures = job(tmp_path, [13, 90, 91, 92], limit=8.0)
    with forked_workers(), client.connect(lambda: clusters.start_local(1, "auto")):
        done = make_shard(asked)
        again = make_shard(asked)
    assert (done["rows"], done["refused"], done["sites"]) == (1, 3, 1)
    entries = list(asked.features.entries())
    reasons = {h: reason for entry in entries for h, reason in entry.refused.items()}
    of = dict(zip(structures.numbers, structures.hashes, strict=True))
    assert "its worker died on it" in reasons[of[90]]
    assert "did not finish with it: took more than" in reasons[of[91]]
    assert reasons[of[92]] == "the parent failed on it: ArithmeticError: uranium"
    assert [h for entry in entries for h in entry.hashes] == [of[13]]
    # The second time the parts are there already, with the same keys.
    assert (again["rows"], again["refused"], again["workers"]) == (1, 3, {})
    assert len(list((tmp_path / "store").rglob("*.json"))) == len(entries)
    for path in (tmp_path / "store").rglob("*.json"):
        assert json.loads(path.read_text())["rows"] in (0, 1)


@pytest.mark.slow
def test_a_parent_that_can_do_nothing_is_not_the_structures_fault(poisonable, tmp_path, monkeypatch):
    monkeypatch.setenv("SICK", "1")
    asked, _ = job(tmp_path, [17, 14], limit=None)
    with client.connect(lambda: clusters.start_local(1, "auto")), pytest.raises(ArithmeticError, match="everything"):
        make_shard(asked)
    assert not list((tmp_path / "store").rglob("*.json"))
