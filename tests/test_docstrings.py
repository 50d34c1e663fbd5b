"""Docstrings: what is or returns an array says its shape, and a first line can be read by itself."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts import house

ROOT = Path(__file__).resolve().parents[1]

ARRAYS = re.compile(r"\b(NDArray|ndarray|\w*Array|Mask|Levels|Labels|Weights|Digests|Tensor)\b")
"""Names in an annotation that stand for arrays, or for dictionaries of them."""

UNTYPED = re.compile(r"\b(ndarray|NDArray(?!\[)|Levels|Tensor)\b")
"""Of these, the ones that leave open what kind of numbers an array holds."""

_SIZE = r"[\w .+*/^-]*(?:\([\w .+*/^-]*\)[\w .+*/^-]*)?"
SHAPE = re.compile(rf"\({_SIZE},\)|\({_SIZE}(?:, {_SIZE})+\)")
"""(n,), (n, 3), (n_atoms.sum(),), (members, n_sites, width), (n, (lmax + 1)^2)."""

DTYPE = re.compile(r"\b(float\d+|bfloat16|u?int\d+|bool|object|dtype)\b")

LEANING = re.compile(r"(?:As|See|That|This|Those|These|Likewise|Ditto|Same|So|And|Also)\b")
"""How a line of at most three words begins when it leans on the lines around it."""

NOTHING_SAID = re.compile(r"(?:see (?:there|above|below)|likewise|ditto|as above|of that)\.?$", re.IGNORECASE)
"""Entries of Args, Attributes and Raises that send the reader away."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def public(text: str) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Name and definition of the public functions and classes of a module and of the methods of the latter."""

    def inside(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, Function | ast.ClassDef]]:
        for node in body:
            if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
                yield f"{prefix}{node.name}", node
                if isinstance(node, ast.ClassDef):
                    yield from inside(node.body, f"{prefix}{node.name}.")

    yield from inside(ast.parse(text).body, "")


def holds_fields(node: ast.ClassDef) -> bool:
    """Whether a class is a dataclass or a named tuple."""
    names = [ast.unparse(item) for item in (*node.decorator_list, *node.bases)]
    return any(name.startswith(("dataclass", "NamedTuple")) for name in names)


def entries(docstring: str) -> dict[str, str]:
    """Name -> what Args, Attributes or Raises say of it; names that share an entry each have it."""
    found: dict[str, str] = {}
    for match in re.finditer(r"^ {4}(\*{0,2}\w+(?:, \*{0,2}\w+)*): (.*(?:\n {8,}.*)*)", docstring, re.MULTILINE):
        for name in match[1].split(", "):
            found[name.lstrip("*")] = " ".join(match[2].split())
    return found


def without_shape(text: str) -> list[str]:
    """Public functions, methods and properties that return arrays, and fields that are, without a shape in words."""
    found = []
    for name, node in public(text):
        docstring = ast.get_docstring(node) or ""
        if not isinstance(node, ast.ClassDef):
            annotation = ast.unparse(node.returns) if node.returns else ""
            if ARRAYS.search(annotation) and not SHAPE.search(docstring):
                found.append(name)
        elif holds_fields(node):
            said = entries(docstring)
            found += [
                f"{name}.{field.target.id}"
                for field in node.body
                if isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and not field.target.id.startswith("_")
                and ARRAYS.search(ast.unparse(field.annotation))
                and not SHAPE.search(said.get(field.target.id, ""))
            ]
    return found


def without_dtype(text: str) -> list[str]:
    """Public functions, methods and properties that say neither in the annotation nor in words what an array holds."""
    return [
        name
        for name, node in public(text)
        if not isinstance(node, ast.ClassDef)
        and node.returns is not None
        and UNTYPED.search(ast.unparse(node.returns))
        and not DTYPE.search(ast.get_docstring(node) or "")
    ]


def docstrings(text: str) -> Iterator[tuple[str, str]]:
    """Name and docstring of a module, its classes and functions, and the values that have one."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | Function):
            yield getattr(node, "name", "module"), ast.get_docstring(node) or ""
        if isinstance(node, ast.Module | ast.ClassDef):
            for value, said in zip(node.body, node.body[1:], strict=False):
                text_of = said.value if isinstance(said, ast.Expr) else None
                if isinstance(value, ast.Assign | ast.AnnAssign) and isinstance(text_of, ast.Constant):
                    target = value.target if isinstance(value, ast.AnnAssign) else value.targets[0]
                    yield ast.unparse(target), str(text_of.value)


def fragments(text: str) -> list[str]:
    """First lines without a subject of their own, and entries that say nothing."""
    found = []
    for name, docstring in docstrings(text):
        first = docstring.split("\n")[0]
        if first.startswith("Of "):
            found.append(f"{name}: {first}")
        if len(first.split()) <= 3 and LEANING.match(first):
            found.append(f"{name}: {first}")
        found += [f"{name}: {entry}: {said}" for entry, said in entries(docstring).items() if NOTHING_SAID.match(said)]
    return found


def offenders(rule: Callable[[str], list[str]], folders: tuple[str, ...]) -> list[str]:
    """What a rule finds in the files of some folders, with the file."""
    files = [file for file in house.files(ROOT) if file.parts[0] in folders]
    return [f"{file}: {found}" for file in files for found in rule((ROOT / file).read_text())]


def test_arrays_have_shapes():
    assert offenders(without_shape, ("atomsets_core",)) == []


def test_arrays_have_dtypes():
    assert offenders(without_dtype, ("atomsets_core",)) == []


def test_first_lines_stand_by_themselves():
    assert offenders(fragments, ("atomsets_core", "tasks", "flows")) == []


SHAPELESS = '''
@dataclass
class Bond:
    """A bond.

    Attributes:
        vector: (3,) Angstrom.
        image: of the cell.
    """

    vector: FloatArray
    image: IntArray
    name: str

    @property
    def length(self) -> npt.NDArray[np.float64]:
        """Its length."""

    def ends(self) -> dict[str, tuple[FloatArray, ...]]:
        """Name -> (n, 3) positions."""

def _private() -> FloatArray: ...

def turned() -> Iterator[tuple[str, Tensor]]:
    """(n, 3) vectors."""
'''


def test_what_is_missing_is_found():
    assert without_shape(SHAPELESS) == ["Bond.image", "Bond.length"]
    assert without_dtype(SHAPELESS) == ["turned"]
    for text in ("(n,)", "(n_atoms.sum(),)", "(n, 2 width + 1)", "(harmonics, rows * (2 l1 + 1))", "(n, (lmax + 1)^2)"):
        assert SHAPE.search(text), text
    for text in ("()", "(n)", "f(x)", "(see below)", "n, 3"):
        assert not SHAPE.search(text), text


@pytest.mark.parametrize(
    ("docstring", "found"),
    [
        ("Of that choice.", 1),
        ("Likewise.", 1),
        ("See `Head.fit`.", 1),
        ("Bonds.\n\n    Args:\n        digest: see there.\n    ", 1),
        ("Fit the head; see `Head.fit` for what it is given.", 0),
        ("Bonds.\n\n    Args:\n        digest: of the parent, see there.\n    ", 0),
    ],
)
def test_fragments_are_found(docstring, found):
    assert len(fragments(f'def f():\n    """{docstring}"""')) == found
    assert len(fragments(f'class A:\n    b = 1\n    """{docstring}"""')) <= found


def test_comments_are_counted():
    text = '"""A module.\n\n# no comment\n"""\n# one\na = 1  # two\nb = (\n    2\n)  # noqa: F841\n"""Said of b."""\n'
    assert house.comments_and_code(text) == (2, 4)
