"""The house in numbers: rooms, floors, arrows and circles, from the imports of the code itself.

    python scripts/house.py              rooms and what they rest on; circles and arrows that run up, if there are any
    python scripts/house.py --json       the same as JSON
    python scripts/house.py --write-map  docs/map.md: every room, its sentence, its files with their first line

A room is a folder of atomsets_core or flows, the folder tasks, or a file at the root of one of them. What a room offers
stands in its `__init__.pyi`, so an import from a room is an arrow to the file that defines the name.
`tests/test_rooms.py` holds the rules.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

FOLDERS = {"atomsets_core": "atomsets_core", "atomsets_tasks": "tasks", "atomsets_flows": "flows"}
"""Name by which a package is imported -> its folder in the repository."""

FLOORS = (
    ("atomsets_core.compiled", "atomsets_core.transforms", "atomsets_core.storage"),
    ("atomsets_core.structures",),
    ("atomsets_core.sources", "atomsets_core.parents"),
    ("atomsets_core.features",),
    ("atomsets_core.models",),
    ("atomsets_core.discovery",),
    ("atomsets_core.campaigns",),
    ("atomsets_core.jobs", "atomsets_core.report"),
    ("atomsets_tasks",),
    ("atomsets_flows.campaign", "atomsets_flows.server"),
    ("atomsets_flows.runs",),
    ("atomsets_flows.commands",),
    ("atomsets_flows.cli",),
)
"""The rooms, floor by floor: a room imports only from lower floors, rooms of one floor don't know each other."""

FLOOR = {room: number for number, rooms in enumerate(FLOORS, start=1) for room in rooms}

Graph = Mapping[str, set[str]]


@dataclass(frozen=True)
class Import:
    """One name that a file imports from the house.

    Attributes:
        file: that imports, relative to the repository.
        line: of it.
        module: that is named, e.g. "atomsets_core.storage".
        name: that is taken from it.
    """

    file: Path
    line: int
    module: str
    name: str


def files(root: Path = ROOT) -> list[Path]:
    """Every module of the three packages, relative to the repository."""
    return sorted(
        path.relative_to(root)
        for folder in FOLDERS.values()
        for path in (root / folder).rglob("*.py")
        if "__pycache__" not in path.parts
    )


def module_of(file: Path) -> str:
    """flows/runs/screen.py -> atomsets_flows.runs.screen."""
    package = next(name for name, folder in FOLDERS.items() if folder == file.parts[0])
    return ".".join((package, *file.with_suffix("").parts[1:])).removesuffix(".__init__")


def file_of(module: str, root: Path = ROOT) -> Path | None:
    """atomsets_flows.runs.screen -> flows/runs/screen.py, or the `__init__.py` of a room; None for no module."""
    package, *rest = module.split(".")
    base = Path(FOLDERS[package], *rest)
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if (root / path).is_file():
            return path
    return None


def room_of(module: str) -> str:
    """atomsets_core.sources.files.cif -> atomsets_core.sources."""
    parts = module.split(".")
    return parts[0] if parts[0] == "atomsets_tasks" else ".".join(parts[:2])


def imports_of(file: Path, root: Path = ROOT) -> Iterator[Import]:
    """What a file imports from the house, wherever in it."""
    for line, module, name in every_import((root / file).read_text()):
        if module.split(".")[0] in FOLDERS:
            yield Import(file, line, module, name)


@cache
def parsed(text: str) -> ast.Module:
    """The syntax tree of a module; many rules look at each of them."""
    return ast.parse(text)


@cache
def every_import(text: str) -> list[tuple[int, str, str]]:
    """Line, module and name of every import of a text; see `Import`."""
    found: list[tuple[int, str, str]] = []
    for node in ast.walk(parsed(text)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [(node.lineno, node.module, alias.name) for alias in node.names]
    return found


@cache
def face(room: str, root: Path = ROOT) -> dict[str, str]:
    """Name that a room offers -> the module that defines it."""
    package, *rest = room.split(".")
    stub = root / FOLDERS[package] / Path(*rest) / "__init__.pyi"
    if not stub.is_file():
        return {}
    body = ast.parse(stub.read_text()).body
    return {a.name: f"{room}.{node.module}" for node in body if isinstance(node, ast.ImportFrom) for a in node.names}


def target(found: Import, root: Path = ROOT) -> str:
    """The module that an import leads to: through the face of a room to the file that defines the name."""
    return face(found.module, root).get(found.name) or (
        f"{found.module}.{found.name}" if file_of(f"{found.module}.{found.name}", root) else found.module
    )


def file_graph(root: Path = ROOT) -> dict[str, set[str]]:
    """Module -> the modules it imports."""
    graph: dict[str, set[str]] = {}
    for file in files(root):
        module = module_of(file)
        graph[module] = {target(found, root) for found in imports_of(file, root)} - {module}
    return graph


def room_graph(root: Path = ROOT) -> dict[str, set[str]]:
    """Room -> the rooms it imports from."""
    graph: dict[str, set[str]] = defaultdict(set)
    for module, others in file_graph(root).items():
        if module in FOLDERS:  # the face of a package imports nothing
            continue
        graph[room_of(module)] |= {room_of(other) for other in others} - {
            room_of(module),
            "atomsets_core",
            "atomsets_flows",
        }
    return dict(graph)


def circles(graph: Graph) -> list[list[str]]:
    """Groups of nodes that all lead to each other (Tarjan, SIAM J. Comput. 1, 146, 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = [stack.pop()]
            while group[-1] != node:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def height(graph: Graph) -> int:
    """Floors of a graph without circles: nodes on its longest chain."""
    known: dict[str, int] = {}

    def of(node: str, above: frozenset[str]) -> int:
        if node not in known:
            below = [of(other, above | {node}) for other in graph.get(node, ()) if other not in above]
            known[node] = 1 + max(below, default=0)
        return known[node]

    return max((of(node, frozenset({node})) for node in graph), default=0)


def upward(graph: Graph) -> list[str]:
    """Arrows between rooms that don't lead to a lower floor."""
    return [
        f"{room} -> {other}"
        for room, others in sorted(graph.items())
        for other in sorted(others)
        if FLOOR.get(other, 0) >= FLOOR.get(room, 0)
    ]


FOR_TOOLS = ("# noqa", "# type:", "# pragma")
"""How comments begin that say nothing to a reader."""


def comments_and_code(text: str) -> tuple[int, int]:
    """Lines with a comment for readers, and lines of code, of which docstrings are none."""
    comments: set[int] = set()
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith(FOR_TOOLS):
            comments.add(token.start[0])
        elif token.type in (tokenize.NAME, tokenize.NUMBER, tokenize.STRING, tokenize.OP):
            code.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(parsed(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            code.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(comments), len(code)


def numbers(root: Path = ROOT) -> dict[str, object]:
    """What `main` prints, as JSON."""
    rooms, modules = room_graph(root), file_graph(root)
    core = {room: {o for o in others if o.startswith("atomsets_core")} for room, others in rooms.items()}
    core = {room: others for room, others in core.items() if room.startswith("atomsets_core")}
    per_folder = defaultdict(int)
    for file in files(root):
        per_folder[str(file.parent)] += 1
    lines = [comments_and_code((root / file).read_text()) for file in files(root)]
    comments, code = map(sum, zip(*lines, strict=True))
    return {
        "rooms": len(rooms),
        "arrows": sum(map(len, rooms.values())),
        "floors": height(rooms),
        "floors_of_core": height(core),
        "circles_of_rooms": circles(rooms),
        "arrows_up": upward(rooms),
        "files": len(modules),
        "file_arrows": sum(map(len, modules.values())),
        "file_floors": height(modules),
        "circles_of_files": circles(modules),
        "most_files_in_a_folder": max(per_folder.values()),
        "files_at_the_root_of_core": per_folder["atomsets_core"],
        "comments_in_a_hundred_lines": round(100 * comments / code, 1),
    }


def first_line(file: Path, root: Path = ROOT) -> str:
    """First paragraph of the docstring of a file, without the full stop."""
    said = ast.get_docstring(parsed((root / file).read_text())) or ""
    return " ".join(said.split("\n\n")[0].split()).rstrip(".")


def folders_of(room: str, root: Path = ROOT) -> Iterable[tuple[Path, list[Path]]]:
    """The folder of a room and those inside it, each with its modules."""
    package, *rest = room.split(".")
    base = Path(FOLDERS[package], *rest)
    for folder in sorted({file.parent for file in files(root) if base in (file.parent, *file.parent.parents)}):
        yield folder, [file for file in files(root) if file.parent == folder and file.name != "__init__.py"]


MAP = """# Map

<!-- Written by `python scripts/house.py --write-map` from the code; a test holds it to that. -->

Every room, floor by floor: a room imports only from rooms above it in this list, and only what stands in their
`__init__.pyi`. The folders `flows/` and `tasks/` are imported as `atomsets_flows` and `atomsets_tasks`
([why](decisions/names.md)). Tests lie at the same path under `tests/`. To add something, see the [recipes](recipes.md).
"""


def map_page(root: Path = ROOT) -> str:
    """docs/map.md."""
    lines = [MAP]
    for number, rooms in enumerate(FLOORS, start=1):
        lines.append(f"\n## Floor {number}\n")
        for room in rooms:
            package, *rest = room.split(".")
            base = Path(FOLDERS[package], *rest)
            file = file_of(room, root)
            if file is None:
                continue
            if file.name != "__init__.py":
                lines.append(f"**`{file}`**: {first_line(file, root)}.\n")
                continue
            lines.append(f"### {base}/\n\n{first_line(file, root)}.\n\n| file | what |\n|---|---|")
            for folder, inside in folders_of(room, root):
                if folder != base:
                    lines.append(f"| **`{folder.relative_to(base)}/`** | {first_line(folder / '__init__.py', root)} |")
                lines += [
                    f"| `{f.relative_to(base)}` | {first_line(f, root).replace('|', chr(92) + '|')} |" for f in inside
                ]
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Print, or write the map."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    parser.add_argument("--write-map", action="store_true", help="write docs/map.md")
    options = parser.parse_args()
    if options.write_map:
        (ROOT / "docs" / "map.md").write_text(map_page())
        return
    found = numbers()
    if options.json:
        print(json.dumps(found, indent=1))
        return
    graph = room_graph()
    for number, rooms in enumerate(FLOORS, start=1):
        for room in rooms:
            print(
                f"{number:2}  {room:26} <- {', '.join(sorted(o.partition('.')[2] or o for o in graph.get(room, ())))}"
            )
    for name, value in found.items():
        print(f"{name.replace('_', ' ')}: {value if value != [] else 'none'}")


if __name__ == "__main__":
    main()
