"""What goes with labels that are classes, and what with numbers alone; `sections` asks here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from atomsets_core.discovery import CLASS_KINDS, CLASS_PREFERRED, PREFERRED
from atomsets_core.sources import CLASS_RULES
from atomsets_core.transforms import NONE, find_transform

PROBABILITY = "probability"
"""Unit of what is predicted where labels are classes."""

HEADS = tuple(dict.fromkeys((*PREFERRED, *CLASS_PREFERRED)))
"""All heads there are, of numbers and of classes."""


def with_goal(raw: Any) -> Any:
    """A campaign as it was given; one of classes with the only goal there is for them where none is named."""
    training, objective = (raw.get(name) if isinstance(raw, dict) else None for name in ("training", "objective"))
    if not isinstance(training, dict) or training.get("task") != "class":
        return raw
    return {**raw, "objective": {"goal": "class", **objective}} if isinstance(objective, dict) else raw


def refuse_scale(unit: str, transform: str, repeats: str) -> None:
    """Raise ValueError for options of the labels that only numbers have."""
    if unit not in ("", PROBABILITY):
        raise ValueError(f"unit = {unit!r} goes with task number: of a class a probability is predicted")
    if transform != NONE.name:
        raise ValueError(f"transform = {transform!r} goes with task number: classes have no scale")
    if repeats not in CLASS_RULES:
        raise ValueError(f"repeats = {repeats!r} goes with task number: classes take {', '.join(CLASS_RULES)}")


def refuse_ends(transform: str, ends: Mapping[str, float | None]) -> None:
    """Raise ValueError for what is asked of numbers where no label can be.

    Args:
        transform: of the labels.
        ends: what is said in the file -> its value, None where there is none.
    """
    scale = find_transform(transform)
    for name, end in ends.items():
        if end is not None and not math.isfinite(end):
            raise ValueError(f"{name} = {end} is no number that a value could have")
        if end is not None and not scale.accepts(end):
            raise ValueError(f"{name} = {end:g}: with transform = {transform!r} all values are {scale.needed}")


def refuse_acquisition(goal: str, acquisition: str) -> None:
    """Raise ValueError for an acquisition that a probability doesn't go with."""
    if goal == "class" and acquisition not in ("auto", *CLASS_KINDS):
        raise ValueError(f"the goal class takes the acquisition {' or '.join(CLASS_KINDS)}")


def refuse_mixture(task: str, goal: str, heads: Sequence[str]) -> None:
    """Raise ValueError where task, goal and heads don't go together."""
    if task == "class" and goal != "class":
        raise ValueError(
            f"objective: with training.task = 'class' the goal is class, with value = the wanted class, not {goal}"
        )
    if task == "number" and goal == "class":
        raise ValueError("objective: the goal class needs training.task = 'class'")
    if wrong := [name for name in heads if name not in heads_of(task)]:
        raise ValueError(
            f"discovery.heads: {wrong[0]!r} learns no {'classes' if task == 'class' else 'numbers'}; there are "
            f"{', '.join(heads_of(task))}"
        )


def heads_of(task: str) -> tuple[str, ...]:
    """The heads that learn numbers or classes, the preferred first."""
    return CLASS_PREFERRED if task == "class" else PREFERRED


def number_of(goal: str, value: Any) -> Any:
    """The value of an objective: a number for the goals that need one.

    Raises:
        ValueError: it isn't one.
    """
    if goal not in ("target", "exceed") or value is None:
        return value
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except ValueError:
        raise ValueError(f"{value!r} is no number, which the goal {goal} needs") from None
