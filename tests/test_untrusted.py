"""Nothing in the packages can run what stands in a file: no pickle, no eval, no loader that may hide one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("atomsets_core", "tasks", "flows", "deployments")

MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "ruamel",
           "code", "codeop", "runpy", "tarfile"}  # fmt: skip
"""Imports that have no place here; tarfile because its members may leave their folder, and nothing needs it."""

CALLS = {"eval", "exec", "compile", "__import__", "input"}

METHODS = {
    "read_pickle", "to_pickle", "loads_pickle", "unsafe_load", "full_load", "from_pickle", "loadfn", "load_module",
    "extractall", "extract", "unpack_archive", "system", "popen", "spawnl", "spawnv", "process_decoded", "read_hdf",
}  # fmt: skip
"""Of any object: what unpickles, builds objects named in a file, leaves a folder, or starts a shell."""

WEIGHTS = {"atomsets_core/parents/chgnet.py", "atomsets_core/parents/sevennet/parent.py"}
"""Weights of installed packages, in PyTorch's format; read with weights_only=True, which takes tensors alone."""

FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def faults(tree: ast.AST, name: str) -> list[str]:
    """What a module imports or calls that it must not, with its line."""
    return [f"{name}:{getattr(node, 'lineno', 0)}: {wrong}" for node in ast.walk(tree) if (wrong := _wrong(node, name))]


def _wrong(node: ast.AST, name: str) -> str:
    if isinstance(node, ast.Import):
        return next((f"imports {a.name}" for a in node.names if a.name.split(".")[0] in MODULES), "")
    if isinstance(node, ast.ImportFrom):
        if node.module == "yaml":
            return "imports from yaml, of which only yaml.safe_load has a place here"
        return f"imports {node.module}" if (node.module or "").split(".")[0] in MODULES else ""
    if not isinstance(node, ast.Call):
        return ""
    if isinstance(node.func, ast.Name):
        return f"calls {node.func.id}" if node.func.id in CALLS else ""
    if not isinstance(node.func, ast.Attribute):
        return ""
    said = ast.unparse(node.func)
    if said.startswith("yaml.") and said != "yaml.safe_load":
        return f"calls {said}, not yaml.safe_load"
    if node.func.attr in METHODS:
        return f"calls {said}"
    options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    if options.get("allow_pickle", "False") != "False":
        return f"{said} allows pickles"
    if options.get("shell", "False") != "False":
        return f"{said} starts a shell"
    if said == "torch.load" and (name not in WEIGHTS or options.get("weights_only") != "True"):
        return "torch.load of something else than tensors of an installed package"
    if said in ("np.load", "numpy.load") and "allow_pickle" not in options:
        return f"{said} without allow_pickle=False"
    return ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_file_can_bring_code(path):
    assert faults(ast.parse(path.read_text()), path.relative_to(ROOT).as_posix()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from cloudpickle import loads",
        "import ruamel.yaml",
        "import tarfile",
        "eval('1')",
        "torch.load(path, weights_only=True)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "pandas.read_pickle(path)",
        "archive.extractall()",
        "subprocess.run(text, shell=True)",
        "monty.loadfn(path)",
    ],
)
def test_the_test_sees_it(source):
    assert faults(ast.parse(source), "atomsets_core/x.py")


def test_all_packages_are_looked_at():
    assert len(FILES) > 100
    assert {path.relative_to(ROOT).parts[0] for path in FILES} >= {"atomsets_core", "tasks", "flows"}
