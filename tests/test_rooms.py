"""The rooms of the house: floors, faces, sizes; and that each rule fails when it is broken."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from scripts import house

ROOT = Path(__file__).resolve().parents[1]

FOREIGN = {"prefect", "dask", "distributed", "typer", "atomsets_tasks", "atomsets_flows", "tasks", "flows"}
"""What the science must not know: it can be used from a notebook, without a server or a cluster."""

GROUND = {"__init__.py", "compiled.py", "transforms.py"}
"""All that lies at the root of atomsets_core."""

MOST_FILES = 17
"""In one folder; beyond that a room gets another inside it."""

LONGEST = 545
"""Lines of a file."""

TOGETHER = {
    "tests/atomsets_core/features/test_joined.py",
    "tests/atomsets_core/parents/test_about.py",
    "tests/atomsets_core/parents/test_custom.py",
    "tests/atomsets_core/parents/test_protocol.py",
    "tests/atomsets_core/report/test_report.py",
    "tests/atomsets_core/report/test_report_browser.py",
    "tests/atomsets_core/sources/files/test_any_bytes.py",
    "tests/atomsets_core/sources/materials_project/test_incremental.py",
    "tests/atomsets_core/sources/materials_project/test_key.py",
    "tests/atomsets_core/sources/materials_project/test_misbehaviour.py",
    "tests/atomsets_core/structures/test_any_structure.py",
    "tests/flows/runs/test_object_store.py",
    "tests/tasks/test_fan_out.py",
}
"""Tests of a whole room, which have no file of their name there."""


def outside(root: Path) -> list[Path]:
    """Files that use the house without being a room of it."""
    return sorted(
        path.relative_to(root) for name in ("benchmarks", "scripts", "examples") for path in (root / name).rglob("*.py")
    )


def arrows_up(root: Path) -> list[str]:
    """Imports that don't lead to a lower floor, with the line they stand in."""
    found = []
    for file in house.files(root):
        own = house.room_of(house.module_of(file))
        for item in house.imports_of(file, root):
            room = house.room_of(house.target(item, root))
            if own in house.FOLDERS or room in (own, "atomsets_core", "atomsets_flows"):
                continue
            if house.FLOOR.get(room, 99) >= house.FLOOR.get(own, 0):
                found.append(f"{file}:{item.line}: {own} takes {item.name} of {room}")
    return found


def unknown_rooms(root: Path) -> list[str]:
    """Rooms that stand on no floor."""
    rooms = {house.room_of(house.module_of(file)) for file in house.files(root)}
    return sorted(rooms - {"atomsets_core", "atomsets_flows"} - set(house.FLOOR))


def foreign_names(root: Path) -> list[str]:
    """Imports of the science that lead to orchestration."""
    found = []
    for file in house.files(root):
        if file.parts[0] != "atomsets_core":
            continue
        for line, module, _ in house.every_import((root / file).read_text()):
            if module.split(".")[0] in FOREIGN:
                found.append(f"{file}:{line}: {module}")
    return found


def at_the_root(root: Path) -> list[str]:
    """Files at the root of the science that belong into a room."""
    return sorted({path.name for path in (root / "atomsets_core").glob("*.py")} - GROUND)


def crowded(root: Path) -> list[str]:
    """Folders with too many files."""
    sizes: dict[Path, int] = {}
    for file in house.files(root):
        sizes[file.parent] = sizes.get(file.parent, 0) + (file.name != "__init__.py")
    return [f"{folder}: {n}" for folder, n in sizes.items() if n > MOST_FILES]


def too_long(root: Path) -> list[str]:
    """Files that should be two."""
    lengths = {file: len((root / file).read_text().splitlines()) for file in house.files(root)}
    return [f"{file}: {n}" for file, n in lengths.items() if n > LONGEST]


def past_the_face(root: Path) -> list[str]:
    """Imports from another room that don't come from its face."""
    found = []
    for file in [*house.files(root), *outside(root)]:
        own = house.room_of(house.module_of(file)) if file.parts[0] in house.FOLDERS.values() else ""
        for item in house.imports_of(file, root):
            room = house.room_of(item.module)
            if room == own or house.file_of(room, root) is None or room in ("atomsets_core", "atomsets_flows"):
                continue
            if house.file_of(room, root).name != "__init__.py":
                continue  # a file at the root is its own face
            if item.module != room or item.name not in house.face(room, root):
                found.append(f"{file}:{item.line}: {item.module}.{item.name}")
    return found


def untrue_faces(root: Path) -> list[str]:
    """Names that a face offers and its files don't define."""
    found = []
    for room in house.FLOOR:
        for name, module in house.face(room, root).items():
            file = house.file_of(module, root)
            defined = set() if file is None else _defined((root / file).read_text())
            if name not in defined:
                found.append(f"{room}: {name} is not in {module}")
    return found


@cache
def _defined(text: str) -> set[str]:
    found: set[str] = set()
    for node in house.parsed(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return found


def stray_tests(root: Path) -> list[str]:
    """Tests that are neither of a file at their path (test_FILE.py, test_FILE_PART.py) nor of a whole room."""
    found = []
    for folder in house.FOLDERS.values():
        for test in sorted((root / "tests" / folder).rglob("test_*.py")):
            path = test.relative_to(root)
            subject = path.stem.removeprefix("test_").split("_")
            names = ["_".join(subject[:n]) + ".py" for n in range(1, len(subject) + 1)]
            here = root / Path(*path.parts[1:-1])
            if not any((here / name).is_file() for name in names) and str(path) not in TOGETHER:
                found.append(str(path))
    return found


RULES: dict[str, Callable[[Path], list[str]]] = {
    rule.__name__: rule
    for rule in (
        arrows_up,
        unknown_rooms,
        foreign_names,
        at_the_root,
        crowded,
        too_long,
        past_the_face,
        untrue_faces,
        stray_tests,
    )
}


@pytest.mark.parametrize("rule", RULES)
def test_the_house_keeps(rule):
    assert RULES[rule](ROOT) == []


def test_no_file_or_room_is_in_a_circle():
    assert house.circles(house.room_graph()) == []
    assert house.circles(house.file_graph()) == []
    assert house.numbers()["floors_of_core"] <= 8


def test_a_circle_would_be_seen():
    assert house.circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert house.height({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == 3


BROKEN = {
    "arrows_up": ("atomsets_core/storage/x.py", "from atomsets_core.models import AtomSetsRegressor"),
    "unknown_rooms": ("atomsets_core/attic/x.py", ""),
    "foreign_names": ("atomsets_core/jobs/x.py", "def f():\n    from prefect import task"),
    "at_the_root": ("atomsets_core/helpers.py", ""),
    "crowded": ("atomsets_core/report/x{}.py", ""),
    "too_long": ("atomsets_core/jobs/x.py", "a = 1\n" * 600),
    "past_the_face": ("atomsets_core/jobs/x.py", "from atomsets_core.models.regressor import AtomSetsRegressor"),
    "untrue_faces": ("atomsets_core/report/__init__.pyi", "from .page import nothing as nothing"),
    "stray_tests": ("tests/atomsets_core/test_nothing.py", ""),
}


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_fails_when_it_is_broken(rule, tmp_path):
    for name in ("atomsets_core", "tasks", "flows", "tests/atomsets_core"):
        for path in (ROOT / name).rglob("*.py*"):
            if path.suffix in (".py", ".pyi"):
                copy = tmp_path / path.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_text(path.read_text())
    house.face.cache_clear()
    assert RULES[rule](tmp_path) == []
    name, text = BROKEN[rule]
    for number in range(MOST_FILES if "{}" in name else 1):
        file = tmp_path / name.format(number)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    house.face.cache_clear()
    assert len(RULES[rule](tmp_path)) >= 1


HEAVY = ("torch", "pymatgen", "prefect", "distributed", "sklearn", "pandas", "numba")


ROOMS = "; ".join(f"import {room}" for room in house.FLOOR if room != "atomsets_flows.cli")


@pytest.mark.parametrize("code", ["from atomsets_flows.cli import app", ROOMS], ids=["command line", "rooms"])
def test_faces_and_the_command_line_import_nothing_heavy(code):
    shown = f"import sys\n{code}\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_map_is_what_the_code_says():
    assert (ROOT / "docs" / "map.md").read_text() == house.map_page(), "run: python scripts/house.py --write-map"


def test_what_takes_longest_is_there():
    """A file that moved would run last, and one process would be alone with it."""
    text = (ROOT / "tests" / "conftest.py").read_text()
    assigned = [node for node in ast.parse(text).body if isinstance(node, ast.Assign)]
    (found,) = [node.value for node in assigned if ast.unparse(node.targets[0]) == "LONGEST"]
    assert [name for name in ast.literal_eval(found) if not (ROOT / "tests" / name).exists()] == []
