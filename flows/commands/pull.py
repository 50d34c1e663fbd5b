"""`atomsets pull`: what a source holds, into one Parquet file."""

from __future__ import annotations

import difflib
import json
import os
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from atomsets_flows.commands.terminal import Decimal, IdColumn, Separator, Sheet


class OptionError(Exception):
    """An option of the command line that can't be; the message says what to change."""


def pull(
    source: Annotated[str, typer.Argument(help="mp (Materials Project), embedded:flla, or a file or folder.")],
    out: Annotated[str, typer.Option(help="Folder; structures.parquet goes there, and what a later pull builds on.")],
    filter_: Annotated[
        list[str] | None, typer.Option("--filter", help="An option of the query of mp, e.g. energy_above_hull=:0.1.")
    ] = None,
    field: Annotated[list[str] | None, typer.Option(help="A number to pull beside the structures, for mp.")] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="CSV or spreadsheet with more columns; for mp, of identifiers: only these entries are pulled."
        ),
    ] = None,
    id_column: IdColumn = "material_id",
    separator: Separator = "",
    decimal: Decimal = "",
    sheet: Sheet = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print counts as one JSON line on stdout.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show where an unexpected error came from.")] = False,
) -> None:
    """Pull structures into one file; stopped, it goes on where it was; later, it fetches only what is new.

    Examples:
      atomsets pull mp --out stable --filter energy_above_hull=:0.05 --filter nelements=2:3 --field band_gap
      atomsets pull mp --out mine --labels values.csv    # the entries that a table of yours names, with its values
      atomsets pull my-cifs/ --out mine
    """
    from atomsets_core.sources import (
        MATERIALS_PROJECT,
        SourceError,
        SourceUnavailableError,
        TableOptions,
        ledger_table,
        pull_into,
    )
    from atomsets_core.storage import StorageError, Store
    from atomsets_flows.campaign import KeyGivenError
    from atomsets_flows.commands.terminal import check_writable, console, fail, peak_memory, tell_notes, tell_refused
    from atomsets_flows.server import quiet_warnings

    quiet_warnings()
    started = time.perf_counter()
    try:
        query = read_query(filter_ or [], field or []) if source == MATERIALS_PROJECT or filter_ or field else None
        check_writable(out)
        store = Store(out)
        with store.lock(), Bar() as bar:
            pulled = pull_into(
                store, "structures.parquet", source, labels=labels, id_column=id_column, query=query, watch=bar,
                options=_options(source) | {"table": TableOptions(separator, decimal, sheet)},
            )  # fmt: skip
            store.write_table("refused.parquet", ledger_table([("pulled", refusal) for refusal in pulled.refused]))
    except (SourceUnavailableError, KeyboardInterrupt) as error:
        fail(1, str(error) or "stopped. Run the same command again to go on where it was")
    except (SourceError, StorageError, KeyGivenError, OptionError, ValueError) as error:
        fail(2, str(error))
    except Exception as error:
        if verbose:
            console.print_exception(show_locals=False)
        fail(1, f"{type(error).__name__}: {error}\nWhat came is kept: run the same command again to go on.")
    seconds = time.perf_counter() - started
    fetched = pulled.counts.get("fetched", pulled.structures)
    tell_notes(pulled.provenance)
    for line in told(pulled.counts, pulled.provenance):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(
        f"{pulled.structures} structures in {out}/structures.parquet; {seconds:.1f} s, {fetched / seconds:.0f} a "
        f"second, peak memory {peak_memory()} MB",
        highlight=False,
        soft_wrap=True,
    )
    tell_refused(pulled.refused)
    if as_json:
        result = {
            "structures": pulled.structures,
            "refused": len(pulled.refused),
            "seconds": round(seconds, 3),
            "structures_per_second": round(fetched / seconds, 1),
            "peak_memory_mb": peak_memory(),
            "db_version": pulled.provenance.get("db_version"),
            **pulled.counts,
            "out": out,
        }
        print(json.dumps(result))


def _options(source: str) -> dict[str, Any]:
    """Many files are parsed by as many processes as there are cores."""
    many = Path(source).is_dir() or source.endswith(".zip")
    return {"workers": len(os.sched_getaffinity(0))} if many else {}


def told(counts: dict[str, int], provenance: dict[str, Any]) -> list[str]:
    """What a pull did, in sentences."""
    if not counts:
        return []
    lines = [f"{provenance['title']}: {counts['fetched']} entries fetched in {counts['requests']} requests"]
    if "new" in counts:
        lines.append(f"{counts['new']} new or missing, {counts['changed']} changed")
    for status, words in (
        ("deprecated", "deprecated meanwhile"),
        ("gone", "no longer in the database"),
        ("outside", "no longer match the query"),
    ):
        if counts.get(status):
            lines.append(f"{counts[status]} {words}")
    if "GNoME" in provenance.get("licence", ""):
        lines.append(f"licence: {provenance['licence']}")
    return lines


def read_query(filters: Sequence[str], fields: Sequence[str]) -> Any:
    """A query from the command line.

    Args:
        filters: "name=value"; a bound is "min:max", either may be left out; a list has commas; else as in TOML.
        fields: numbers to pull.

    Raises:
        KeyGivenError: a key among the options.
        OptionError: an option that doesn't exist, or an unusable value.
    """
    from pydantic import ValidationError

    from atomsets_core.sources import Bounds, MaterialsQuery
    from atomsets_flows.campaign import refuse_keys

    known = MaterialsQuery.model_fields
    raw: dict[str, Any] = {}
    for text in filters:
        name, equals, value = (part.strip() for part in text.partition("="))
        refuse_keys({name: value}, "--filter")
        if not equals:
            raise OptionError(f"--filter {text}: write it as name=value")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
            raise OptionError(f"--filter {name}: no such option; {hint}")
        is_bounds = Bounds in get_args(known[name].annotation)
        raw[name] = _bounds(name, value) if is_bounds else _value(value, is_list=known[name].annotation == list[str])
    raw["fields"] = [*raw.get("fields", []), *fields]
    try:
        return MaterialsQuery.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "query"
        raise OptionError(f"--filter {where}: {first['msg'].removeprefix('Value error, ')}") from None


def _bounds(name: str, text: str) -> dict[str, float]:
    low, colon, high = text.partition(":")
    try:
        if not colon:
            return {"min": float(text), "max": float(text)}
        return {end: float(value) for end, value in (("min", low), ("max", high)) if value.strip()}
    except ValueError:
        raise OptionError(f"--filter {name}: write bounds as min:max, e.g. {name}=0:0.1 or {name}=:0.1") from None


def _value(text: str, is_list: bool) -> Any:
    if is_list:
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


class Bar:
    """Progress of a pull on stderr, with rate and time left; see `atomsets_core.sources.base.Watcher`."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        from atomsets_flows.commands.terminal import console

        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.0f}/s"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task: Any = None
        self._started, self._done = time.monotonic(), 0

    def __enter__(self) -> Bar:
        self._progress.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._progress.__exit__(*error)

    def total(self, n: int) -> None:
        """So many entries are to come."""
        if self._task is None:
            self._started = time.monotonic()
            self._task = self._progress.add_task("pull", total=n, rate=0.0)
        else:
            self._progress.update(self._task, total=n)

    def got(self, n: int, before: bool = False) -> None:
        """So many more are here; those from before don't count for the rate."""
        self._done += 0 if before else n
        if self._task is not None:
            rate = self._done / max(time.monotonic() - self._started, 1e-3)
            self._progress.update(self._task, advance=n, rate=rate)

    def note(self, message: str) -> None:
        """Something that the user should know."""
        from rich.markup import escape

        self._console.print(f"[yellow]note:[/] {escape(message)}", highlight=False, soft_wrap=True)
