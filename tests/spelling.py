"""Where the code spells a name that stands in a table, instead of asking the table."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator

from scripts import house


def spelled(
    names: Collection[str], about: str, home: str, *, everyday: Collection[str] = (), apart: Collection[str] = ()
) -> list[str]:
    """Places in the three packages where a name is written in a string, docstrings aside.

    Args:
        names: of the table.
        about: a regular expression for what the table is about, e.g. "transform".
        home: file of the table.
        everyday: those of the names that are used in other senses too: these count where they are a whole string in a
            statement or function that speaks of what the table is about.
        apart: further files that may.
    """
    found = []
    for file in house.files():
        if str(file) not in (home, *apart):
            text = (house.ROOT / file).read_text()
            found += [f"{file}:{line}: {name}" for line, name in spelled_in(text, names, about, everyday)]
    for template in sorted((house.ROOT / "atomsets_core").rglob("templates/*.html")):
        rare = "|".join(re.escape(name) for name in names if name not in everyday)
        for code in re.findall(r"\{[{%](.*?)[%}]\}", template.read_text(), re.DOTALL):
            found += [f"{template.name}: {name}" for name in re.findall(rf"[\"']({rare})[\"']", code)]
    return found


def spelled_in(
    text: str, names: Collection[str], about: str, everyday: Collection[str] = ()
) -> Iterator[tuple[int, str]]:
    """Line and name of each place in one file."""
    tree = ast.parse(text)
    parent = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    rare = [re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])") for name in names if name not in everyday]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or isinstance(parent[node], ast.Expr):
            continue
        for word in rare:
            if found := word.search(node.value):
                yield node.lineno, found[0]
        if node.value in everyday and node.value in names and re.search(about, _around(node, parent)):
            yield node.lineno, node.value


def _around(node: ast.AST, parent: dict[ast.AST, ast.AST]) -> str:
    """The statement that an expression stands in, without its block, and the name of the function."""
    while not isinstance(parent[node], ast.stmt | ast.arguments):
        node = parent[node]
    above = parent[node]
    text = ast.unparse(node if hasattr(above, "body") else above)
    while not isinstance(above, ast.Module):
        if isinstance(above, ast.FunctionDef):
            return f"{above.name}: {text}"
        above = parent[above]
    return text
