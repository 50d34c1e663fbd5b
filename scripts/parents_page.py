"""The tables of docs/parents.md, from what the parents say of themselves.

    python scripts/parents_page.py    writes them into the page; a test holds it to that

Nothing is loaded: the tables are the same whichever packages are installed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from atomsets_core.parents import BUILT_IN, About, LevelAbout, Reference

PAGE = Path(__file__).resolve().parents[1] / "docs" / "parents.md"

Parents = Mapping[str, About]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _carrier(about: About) -> str:
    """Where the weights come from."""
    if not about.package:
        return "this package"
    return f"`{about.package}`, {f'extra `{about.extra}`' if about.extra else 'always installed'}"


def parents_table(parents: Parents) -> str:
    """One row for each parent."""
    head = ("parent", "what", "trained on", "takes", "weights come with", "licence")
    rows = [
        (f"`{name}`", about.described, about.trained_on, about.takes, _carrier(about), about.licence)
        for name, about in parents.items()
    ]
    return "\n".join([_row(head), "|---" * len(head) + "|", *map(_row, rows)])


def levels_table(parents: Parents) -> str:
    """One row for each level; parents with the same levels stand together."""
    together: list[tuple[list[str], Mapping[str, LevelAbout]]] = []
    for name, about in parents.items():
        for names, levels in together:
            if levels == about.levels:
                names.append(name)
                break
        else:
            together.append(([name], about.levels))
    head = ("parent", "level", "width", "of", "meaning")
    rows = [
        (
            _names(names),
            f"`{name}`",
            str(level.width),
            level.of,
            f"{level.meaning}{'' if level.needs_coordinates else '. Needs no coordinates'}",
        )
        for names, levels in together
        for name, level in levels.items()
    ]
    return "\n".join([_row(head), "|---" * len(head) + "|", *map(_row, rows)])


def references_list(parents: Parents) -> str:
    """Each publication once, with the parents it is cited for, and those for which there is nothing to cite."""
    cited: dict[str, tuple[Reference, list[str]]] = {}
    for name, about in parents.items():
        for reference in about.references:
            cited.setdefault(reference.citation, (reference, []))[1].append(name)
    lines = [
        f"- {_names(names)}: {reference.citation}"
        + (f", [doi:{reference.doi}](https://doi.org/{reference.doi})" if reference.doi else "")
        for reference, names in cited.values()
    ]
    lines += [f"- `{name}`: nothing, {about.uncited}" for name, about in parents.items() if not about.references]
    return "\n".join(lines)


def written(page: str) -> str:
    """The page with its tables as they are now."""
    parents = {name: about for name, (about, _) in BUILT_IN.items()}
    for mark, text in (
        ("parents", parents_table(parents)),
        ("levels", levels_table(parents)),
        ("references", references_list(parents)),
    ):
        start, end = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->"
        if len(re.findall(re.escape(start), page)) != 1 or end not in page:
            raise ValueError(f"{PAGE}: the marks {start.strip()} and {end} must stand there once")
        page = f"{page.partition(start)[0]}{start}{text}\n{end}{page.partition(end)[2]}"
    return page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
