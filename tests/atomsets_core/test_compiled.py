"""Compiled code is kept on disk, renewed when a kernel changes, and never needed to be writable."""

import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("numba")

SCRIPT = """
import numpy as np
from atomsets_core.structures.neighbour_kernel import fill
n = np.zeros(1, np.int64)
lists = np.empty(1000, np.int64), np.empty(1000, np.int64), np.empty(1000)
print(fill(3 * np.eye(3)[None], np.zeros((1, 3)), np.array([0, 1]), np.zeros(1, bool), 0, 5.0, np.full(1, 0.15), 1000,
           *lists, n, n.copy(), np.zeros((1, 3))))
"""


def start(folder, **more):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder), "PYTHONPATH": os.pathsep.join(sys.path), **more}
    return subprocess.Popen([sys.executable, "-c", SCRIPT], env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_processes_that_compile_at_once_share_one_cache(tmp_path):
    processes = [start(tmp_path) for _ in range(2)]
    assert {process.communicate()[0].strip() for process in processes} == {"(1, 18)"}
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")}
    assert kept
    assert start(tmp_path).communicate()[0].strip() == "(1, 18)"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")} == kept


def test_a_function_without_a_place_for_its_cache_still_compiles():
    from atomsets_core.compiled import compiled

    names = {"__name__": "nowhere"}
    exec(compile("def double(x):\n    return 2 * x\n", "<no file>", "exec"), names)  # noqa: S102
    assert compiled(names["double"])(np.float64(4)) == 8


def test_the_name_of_cached_code_follows_the_text_of_the_kernels(monkeypatch, tmp_path):
    from atomsets_core import compiled as module

    first = module._digest.__wrapped__()
    monkeypatch.setattr(module, "__file__", str(tmp_path / "compiled.py"))
    (tmp_path / "other_kernel.py").write_text("changed")
    assert module._digest.__wrapped__() != first
