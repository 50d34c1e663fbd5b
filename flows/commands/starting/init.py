"""`atomsets init`: a first campaign file for data of one's own, after a look at them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atomsets_flows.commands.terminal import console, fail

if TYPE_CHECKING:
    from atomsets_flows.campaign import Column, Draft, Looked

GOALS = "maximize, minimize, target VALUE, exceed VALUE, window LOW HIGH"


def init(
    file: Annotated[Path, typer.Argument(help="Campaign file to write.")] = Path("campaign.toml"),
    training: Annotated[
        str | None, typer.Option(help="File or folder of the values, with structures or formulas; or mp.")
    ] = None,
    labels: Annotated[str | None, typer.Option(help="Table of the values, for structures without any.")] = None,
    target: Annotated[str | None, typer.Option(help="Column to learn.")] = None,
    title: Annotated[str | None, typer.Option(help="What people read instead: bulk modulus.")] = None,
    symbol: Annotated[str | None, typer.Option(help="What stands over columns: K.")] = None,
    unit: Annotated[str | None, typer.Option(help="Unit of the values: GPa.")] = None,
    candidates: Annotated[
        str | None, typer.Option(help="File or folder of what is to be ranked; or mp, embedded:flla.")
    ] = None,
    goal: Annotated[str | None, typer.Option(help=f"{GOALS}; of classes the one that is wanted.")] = None,
    shortlist: Annotated[int, typer.Option(min=1, max=1000, help="Candidates on the shortlist.")] = 25,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a campaign file for data of your own: asks five questions, or takes options, and looks at the data.

    Examples:
      atomsets init
      atomsets init stiff.toml --training labelled --target K --unit GPa --candidates cifs --goal maximize
      atomsets init n.toml --training cifs --labels n.xlsx --target n --candidates mp --goal "exceed 2.5"
    """
    from atomsets_core.sources import SourceError, SourceUnavailableError
    from atomsets_flows.campaign import CampaignError, Draft, look, name_from, pick, read_text, warnings_of
    from atomsets_flows.server import quiet_warnings

    quiet_warnings()
    if file.exists() and not force:
        fail(2, f"{file} exists: name another file, or replace it with --force")
    ask = Questions(interactive())
    try:
        source = ask(training, "--training", "Where are the values, with structures or formulas (file or folder)")
        known = tell(look(source, labels))
        if not known.columns and labels is None and ask.can:
            labels = ask(None, "--labels", "It holds no values: where is their table (CSV or spreadsheet)")
            known = tell(look(source, labels))
        column = learned(ask, known, target, pick)
        if ask.can and title is None and unit is None:
            told = ask(None, "--title", f"What is {column.name}, e.g. bulk modulus K (GPa)", column.name)
            title, found, unit = name_and_unit(told)
            symbol = symbol or found
        ranked = tell(
            look(
                ask(candidates, "--candidates", "What is to be ranked (file, folder, mp, embedded:flla)"),
                candidates=True,
            )
        )
        wish = f"Which of {', '.join(column.classes)} is wanted" if column.classes else f"What is wanted: {GOALS}"
        draft = wanted(
            Draft(
                name_from(file, [source]), known, column, ranked, labels,
                title=title or "", symbol=symbol or "", unit=column.unit if unit is None else unit, shortlist=shortlist,
            ),
            ask(goal, "--goal", wish, None if column.classes else "maximize"),
        )  # fmt: skip
        text = draft.toml()
        read_text(text, str(file))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except SourceUnavailableError as error:
        fail(1, str(error))
    except (CampaignError, SourceError) as error:
        fail(2, str(error))
    except OSError as error:
        fail(2, f"{file} can't be written: {error.strerror or error}; name another place")
    for line in warnings_of(draft):
        console.print(f"[yellow]note:[/] {line}", highlight=False, soft_wrap=True)
    console.print(
        f"written: {file}. What it would do: atomsets screen {file} --dry-run", highlight=False, soft_wrap=True
    )


def interactive() -> bool:
    """Whether somebody can answer."""
    return sys.stdin.isatty()


class Questions:
    """Takes answers from options, and asks for those that are missing where somebody can answer."""

    def __init__(self, can: bool) -> None:
        self.can = can

    def __call__(self, given: str | None, option: str, question: str, default: str | None = None) -> str:
        """The answer; the command ends where there is none."""
        if given is not None:
            return given
        if self.can:
            return str(typer.prompt(question, default=default, err=True)).strip()
        if default is None:
            fail(2, f"{option} is missing, and nobody can be asked here. {question}?")
        return default


def tell(looked: Looked) -> Looked:
    """Say what was found."""
    for line in looked.told():
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    return looked


def learned(ask: Questions, known: Looked, target: str | None, pick: Callable[[Looked, str | None], Column]) -> Column:
    """The column that is learned, asked for where there are several."""
    if target is None and ask.can and len(known.columns) > 1:
        for column in known.columns:
            console.print(f"  {column.told()}", highlight=False, soft_wrap=True, markup=False)
        target = ask(None, "--target", "Which column is to be learned", known.columns[0].name)
    return pick(known, target)


def name_and_unit(text: str) -> tuple[str, str, str]:
    """Title, symbol (of one or two letters) and unit of a property as one writes it: "bulk modulus K (GPa)"."""
    found = re.fullmatch(r"(?P<name>.*?)\s*(?:\((?P<unit>.*)\)|\[(?P<boxed>.*)\])?", text.strip())
    name, unit = (found["name"], found["unit"] or found["boxed"] or "") if found else (text.strip(), "")
    words = name.split()
    if words and len(words[-1]) <= 2:
        return " ".join(words[:-1]), words[-1], unit
    return name, "", unit


def wanted(draft: Draft, text: str) -> Draft:
    """The draft with what is wanted, as it is written: a goal with its numbers, or a class."""
    from atomsets_flows.campaign import CampaignError

    words = text.split()
    if draft.column.classes:
        name = text.removeprefix("class ").strip()
        if name not in draft.column.classes:
            raise CampaignError(f"--goal {text}: name the class that is wanted, of {', '.join(draft.column.classes)}")
        return replace(draft, goal="class", value=name)
    numbers = [float(word) for word in words[1:] if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", word)]
    need = {"maximize": 0, "minimize": 0, "target": 1, "exceed": 1, "window": 2}
    if not words or need.get(words[0]) != len(words) - 1 or len(numbers) != len(words) - 1:
        raise CampaignError(f"--goal {text}: write one of {GOALS}")
    more: dict[str, Any] = {"value": numbers[0]} if len(numbers) == 1 else {}
    if len(numbers) == 2:
        more = {"window": (numbers[0], numbers[1])}
    return replace(draft, goal=words[0], **more)
