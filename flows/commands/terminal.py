"""What the commands share: the console, progress bars, and how a command ends."""

from __future__ import annotations

import resource
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

if TYPE_CHECKING:
    from atomsets_core.storage import Store
    from atomsets_core.structures import Refusal

console = Console(stderr=True)

IdColumn = Annotated[
    str, typer.Option(help="Column of the identifiers, for a file that has one; two together: split,id.")
]
Separator = Annotated[
    str, typer.Option(help="Between the columns of a table: , ; | tab or space; found out without it.")
]
Decimal = Annotated[str, typer.Option(help="Decimal mark of a table, . or ,; found out without it.")]
Sheet = Annotated[str, typer.Option(help="Sheet of a spreadsheet; the first without it.")]


@contextmanager
def watched(
    verbose: bool, wrong: tuple[type[Exception], ...] = (), kept: str = "What is finished is kept"
) -> Iterator[None]:
    """Show the progress of the flow that runs inside; end the command with 1 if it fails, 2 if the request was wrong.

    Args:
        verbose: print the traceback of a failure.
        wrong: exceptions that mean a wrong request, beside `SourceError`.
        kept: said after a failure.
    """
    from atomsets_core.sources import SourceError, SourceUnavailableError
    from atomsets_flows.runs import listening

    try:
        with Bars() as bars, listening(bars):
            yield
    except SourceUnavailableError as error:
        fail(1, str(error))
    except SourceError as error:
        fail(2, str(error))
    except KeyboardInterrupt:
        fail(1, "stopped. Run the same command again to go on where it was")
    except Exception as error:
        if isinstance(error, wrong):
            fail(2, str(error))
        if verbose:
            console.print_exception()
        fail(1, f"{error or type(error).__name__}\n{kept}: run the same command again to go on.")


def start_server(beside: str) -> threading.Thread:
    """Start Prefect's temporary server, see `start_early`; end the command with 1 where it can't keep its files.

    Args:
        beside: folder or URL of what the command makes.
    """
    from atomsets_flows.server import HomeError, start_early

    try:
        return start_early(beside)
    except HomeError as error:
        fail(1, str(error))


def tell_refused(refused: Sequence[Refusal]) -> None:
    """Say how many entries could not be used, and why the first few."""
    if refused:
        console.print(f"{len(refused)} entries could not be used:", highlight=False)
        for refusal in refused[:5]:
            console.print(f"  {escape(refusal.material_id)}: {escape(refusal.reason)}", highlight=False, soft_wrap=True)
        if len(refused) > 5:
            console.print(f"  and {len(refused) - 5} more", highlight=False)


def tell_notes(provenance: Mapping[str, Any]) -> None:
    """Say how a source was read, where that isn't plain."""
    for note in provenance.get("notes", []):
        console.print(f"[yellow]note:[/] {escape(note)}", highlight=False, soft_wrap=True)


def peak_memory() -> int:
    """Largest memory this process had, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def check_writable(target: str) -> None:
    """Raise `StorageError` at once if nothing can be written to a campaign's folder."""
    from atomsets_core.storage import Store

    store = Store(target)
    store.write(".writable", b"")
    store.remove(".writable")


def store_at(address: str) -> Store:
    """The store of an address, or the end of the command where there can't be one: a package or bucket is missing."""
    from atomsets_core.storage import StorageError, Store

    try:
        return Store(address)
    except StorageError as error:
        fail(2, str(error))


def fail(code: int, message: str) -> NoReturn:
    """Print what is wrong and leave."""
    console.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    raise typer.Exit(code)


class RateColumn(ProgressColumn):
    """Steps a second, or a minute where they are slow."""

    def render(self, task: Task) -> Text:
        """The rate of a bar; nothing before its second step."""
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:,.1f}/s" if speed >= 1 else f"{60 * speed:.1f}/min")


class Bars:
    """Progress bars on stderr, one for each stage; see `atomsets_flows.runs.progress.Listener`."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(),
            MofNCompleteColumn(),
            RateColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._stages: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        self._progress.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._progress.__exit__(*error)

    def start(self, stage: str, total: int) -> None:
        """A stage begins, or has more steps than was known."""
        if stage in self._stages:
            self._progress.update(self._stages[stage], total=total)
        else:
            self._stages[stage] = self._progress.add_task(stage, total=total)

    def advance(self, stage: str, steps: int = 1) -> None:
        """Steps of it are done."""
        self._progress.advance(self._stages[stage], steps)

    def epoch(self, number: int, total: int, loss: float) -> None:
        """An epoch of a training is over; a training that goes on begins with the number it has reached."""
        self._reach("train", number, total, f"train  loss {loss:.4f}")

    def featurized(self, done: int, total: int) -> None:
        """So many of `total` structures have features now."""
        self._reach("featurize", done, total, "featurize")

    def _reach(self, stage: str, done: int, total: int, text: str) -> None:
        if stage not in self._stages:
            self.start(stage, total)
        self._progress.update(self._stages[stage], completed=done, total=total, description=text)

    def note(self, message: str) -> None:
        """Something that the user should know."""
        console.print(f"[yellow]note:[/] {escape(message)}", highlight=False, soft_wrap=True)
