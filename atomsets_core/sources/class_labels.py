"""Labels that are classes: which rows belong to the one that is wanted, and whether that can be learned at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from atomsets_core.sources.base import Pulled, SourceError
from atomsets_core.sources.classes import usable_classes
from atomsets_core.sources.columns import apart
from atomsets_core.structures import Refusal

MOST = 20
"""Classes of a column at most: more are names of something, or numbers."""

CLASS_RULES = ("median", "latest", "drop", "keep")
"""Rules for repeats that classes can follow; the median of several is the class of most of them."""


@dataclass(frozen=True)
class ClassLabels:
    """Which rows belong to the wanted class.

    Attributes:
        usable: (n,) which rows have a class.
        values: (n,) 1 for rows of the wanted class, 0 for the others, NaN where there is none.
        refused: one row for each without a class.
        counts: class -> rows, the wanted one first.
        notes: what the user should know, in sentences.
    """

    usable: npt.NDArray[np.bool_]
    values: npt.NDArray[np.float64]
    refused: list[Refusal]
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def class_name(value: Any) -> str:
    """A class as text: true and false, whole numbers without a decimal point, texts as they are."""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def class_labels(pulled: Pulled[Any], target: str, wanted: bool | float | str) -> ClassLabels:
    """Which rows of a source belong to a class.

    Args:
        pulled: n structures or formulas and their columns.
        target: column of the classes.
        wanted: the class, as text, number or truth value; capitals play no part where that leaves no doubt.

    Raises:
        SourceError: no such column; one class alone, more than `MOST`, or numbers; a wanted class that isn't there, or
            one of which, or beside which, there is but one formula. Each says what to change.
    """
    cells = _cells(pulled, target)
    names = [class_name(cell) for cell in cells if cell is not None]
    found = dict(Counter(names).most_common())
    if not found:
        raise SourceError(f"none of the {len(cells)} rows has a class in {target!r}")
    if len(found) == 1:
        raise SourceError(
            f"all {len(names)} rows of {target!r} are of one class, {names[0]!r}: rows of another class are needed to "
            "learn what tells them apart"
        )
    numbers = [cell for cell in cells if isinstance(cell, float) and not cell.is_integer()]
    if numbers:
        raise SourceError(
            f"{target!r} holds numbers such as {numbers[0]:g} and no classes: set training.task = 'number' (objective."
            "goal = 'exceed' asks for what lies above one), or name a column of classes"
        )
    if len(found) > MOST:
        what = "numbers" if all(isinstance(cell, int) for cell in cells if cell is not None) else "classes"
        raise SourceError(
            f"{target!r} holds {len(found)} different {what}, and {MOST} classes are the most: set training.task = "
            "'number' for numbers, or name a column of fewer classes"
        )
    chosen = _chosen(found, target, wanted)
    usable, values, refused = _marked(pulled, target, cells, chosen)
    check_both(pulled.structures.material_id, pulled.structures.formulas, values, target, chosen)
    others = [name for name in found if name != chosen]
    notes = []
    if len(others) > 1:
        told = ", ".join(f"{name} ({found[name]:,})" for name in others)
        notes.append(f"{target}: {chosen} ({found[chosen]:,} rows) is told from all other classes together: {told}")
    return ClassLabels(usable, values, refused, {name: found[name] for name in (chosen, *others)}, notes)


def _cells(pulled: Pulled[Any], target: str) -> list[Any]:
    """The class of each row, None where there is none.

    Raises:
        SourceError: no such column.
    """
    try:
        return list(usable_classes(pulled, target)[1])
    except SourceError:
        if target not in pulled.columns:
            raise
    # One class or none: what there is, for a sentence that names it.
    column = pulled.columns[target]
    return [None if missing else cell for cell, missing in zip(column, column.isna(), strict=True)]


def _chosen(found: Mapping[str, int], target: str, wanted: bool | float | str) -> str:
    asked = class_name(wanted)
    if asked in found:
        return asked
    alike = [name for name in found if name.casefold() == asked.casefold()]
    if len(alike) == 1:
        return alike[0]
    told = ", ".join(f"{name} ({n:,} rows)" for name, n in found.items())
    raise SourceError(f"objective.value = {asked!r} is no class of {target!r}: name one of {told}")


def _marked(
    pulled: Pulled[Any], target: str, cells: Sequence[Any], chosen: str
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64], list[Refusal]]:
    usable = np.array([cell is not None for cell in cells], dtype=bool)
    values = np.array([np.nan if cell is None else float(class_name(cell) == chosen) for cell in cells])
    names, hashes = pulled.structures.material_id, pulled.structures.hashes
    refused = [
        Refusal(str(names[row]), "label", f"{target} is missing", str(hashes[row])) for row in np.flatnonzero(~usable)
    ]
    return usable, values, refused


def check_both(
    names: Sequence[Any], formulas: Sequence[Any], values: npt.NDArray[np.float64], target: str, chosen: str
) -> None:
    """Whether a class can be told from the others: both are there with two formulas at least.

    Args:
        names: (n,) identifiers.
        formulas: (n,) reduced formulas.
        values: (n,) 1 for rows of the class, 0 for the others, NaN for rows that aren't learned from.
        target: name of the labels.
        chosen: name of the class.

    Raises:
        SourceError: one of the two is of one formula alone, or gone.
    """
    for value, what in ((1.0, f"the class {chosen!r}"), (0.0, f"what is not {chosen!r}")):
        known = np.flatnonzero(values == value).tolist()
        if len({str(formulas[row]) for row in known}) < 2:
            n = f"{len(known)} rows of one formula" if len(known) > 1 else f"{len(known) or 'no'} row"
            where = f" ({names[known[0]]})" if len(known) else ""
            raise SourceError(
                f"{what} in {target!r} has {n} alone{where}: two formulas are the least, one to learn from and one to "
                "judge by. Add labels, or ask for another class with objective.value"
            )


@dataclass(frozen=True)
class SettledClasses:
    """Classes of which each crystal has one.

    Attributes:
        usable: (n,) which rows are learned from.
        refused: one row for each label that was dropped.
        notes: what was found and done, in sentences.
    """

    usable: npt.NDArray[np.bool_]
    refused: list[Refusal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def settle_classes(
    material_id: Sequence[Any],
    hashes: Sequence[Any],
    usable: npt.NDArray[np.bool_],
    values: npt.NDArray[np.float64],
    target: str,
    rule: str,
    keys: npt.NDArray[Any],
) -> SettledClasses:
    """One class for each crystal that is labelled as wanted here and as something else there.

    Args:
        material_id: (n,) identifiers.
        hashes: (n,) content hashes.
        usable: (n,) which rows have a class.
        values: (n,) 1 for the wanted class, 0 for the others.
        target: name of the labels.
        rule: one of `CLASS_RULES`: the class of most of them ("median"; none where it is as many on both sides), the
            last in the order of the source, none, or all of them ("keep").
        keys: (n,) what rows of one crystal share, see `crystal_keys`.

    Raises:
        ValueError: a rule that is for numbers.
    """
    if rule not in CLASS_RULES:
        raise ValueError(f"repeats = {rule!r} is for numbers: of classes there are {', '.join(CLASS_RULES)}")
    groups = apart(np.asarray(keys, dtype=object), usable, values)
    if not groups:
        return SettledClasses(usable)
    n = len(groups)
    done = {
        "keep": "all of their labels are learned",
        "drop": "none of their labels is learned",
        "latest": "the last label of each is learned",
        "median": "the class of most of the labels is learned, and none where it is as many for it as against",
    }[rule]
    notes = [
        f"{n} structure{'s' * (n != 1)} or formula{'s' * (n != 1)} with labels of {target} that contradict each other: "
        f"{done}. Other rules: repeats = {', '.join(other for other in CLASS_RULES if other != rule)}"
    ]
    if rule == "keep":
        return SettledClasses(usable, notes=notes)
    usable, refused = usable.copy(), []
    for rows in groups:
        kept = _kept(rows, values, rule)
        what = f"{material_id[kept]}'s is learned" if kept is not None else "none of them is learned"
        for row in rows:
            if row != kept:
                usable[row] = False
                reason = f"one of {len(rows)} labels of the same crystal that contradict each other: {what}"
                refused.append(Refusal(str(material_id[row]), "label", reason, str(hashes[row])))
    return SettledClasses(usable, refused, notes)


def _kept(rows: npt.NDArray[np.int64], values: npt.NDArray[np.float64], rule: str) -> int | None:
    """The row whose label stands for all of a crystal, if one does."""
    if rule == "latest":
        return int(rows[-1])
    share = float(values[rows].mean())
    if rule == "drop" or share == 0.5:
        return None
    return int(rows[np.flatnonzero(values[rows] == (1.0 if share > 0.5 else 0.0))[0]])
