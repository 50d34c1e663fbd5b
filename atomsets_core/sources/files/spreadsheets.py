"""Spreadsheets (.xlsx): the cells of one sheet, bounded before anything is decompressed or laid out in memory."""

from __future__ import annotations

import html
import io
import re
import zipfile
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from typing import Any

from atomsets_core.sources.files.text_tables import FOUND_OUT, TableOptions, TextTable, table_of

LARGEST_PART = 500_000_000
"""Bytes of one part of a spreadsheet, decompressed."""

LARGEST_RATIO = 500
"""Decompressed to compressed bytes; rows of equal numbers reach 100."""

ALWAYS_ALLOWED = 16_000_000
"""Bytes up to which the ratio doesn't matter."""

MOST_CELLS = 50_000_000
"""Rows times columns of a sheet, empty cells included: all of them are laid out in memory."""

_CELL = re.compile(rb'\br="([A-Z]{1,4})([0-9]{1,8})"')
_PIECE = 1 << 20


def read_spreadsheet(content: bytes, options: TableOptions = FOUND_OUT, name: str = "") -> TextTable:
    """The table in a sheet of a spreadsheet.

    Args:
        content: of the file.
        options: name of the sheet; the first with cells without one.
        name: of the file.

    Raises:
        ValueError: it is no spreadsheet, too large, or has no such sheet or no table in it.
    """
    _check(content)
    try:
        from python_calamine import CalamineWorkbook

        book = CalamineWorkbook.from_filelike(io.BytesIO(content))
        sheets = list(book.sheet_names)
        if options.sheet and options.sheet not in sheets:
            raise ValueError(f"no sheet {options.sheet!r}; there are {', '.join(map(repr, sheets))}")
        chosen, rows, merged = options.sheet, [], []
        for sheet in [options.sheet] if options.sheet else sheets:
            # empty rows above the table count as a spreadsheet counts them
            opened = book.get_sheet_by_name(sheet)
            rows = opened.to_python(skip_empty_area=False)
            merged = list(opened.merged_cell_ranges or [])
            chosen = sheet
            if rows:
                break
    except ValueError:
        raise
    except BaseException as error:  # what a panic of compiled code becomes is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        raise ValueError(f"not a readable spreadsheet: {error}") from error
    for row, column, text in _without_value(content, chosen):
        if row < len(rows) and column < len(rows[row]) and rows[row][column] in ("", None):
            rows[row][column] = text
    filled = _fill_down(rows, merged)
    notes = [f"sheet {chosen!r} of {len(sheets)}: name another as sheet"] if len(sheets) > 1 else []
    notes += [f"{filled} cells of merged ones: each row has the value of all"] if filled else []
    return table_of([[_text(cell) for cell in row] for row in rows], options, name, notes=notes)


def _fill_down(rows: list[list[Any]], merged: Sequence[tuple[tuple[int, int], tuple[int, int]]]) -> int:
    """Write the value of cells that are merged over several rows into each of them; how many were filled."""
    filled = 0
    for (top, left), (bottom, _) in merged:
        for row in range(top + 1, min(bottom + 1, len(rows))):
            if left < len(rows[row]) and rows[row][left] in ("", None) and rows[top][left] not in ("", None):
                rows[row][left] = rows[top][left]
                filled += 1
    return filled


_FORMULA_OR_ERROR = re.compile(
    r'<c\b(?P<before>[^<>]{0,200}?)\br="(?P<place>[A-Z]{1,4}[0-9]{1,8})"(?P<after>[^<>]{0,200})(?<!/)>'
    r"(?P<inside>(?:(?!</?c\b).){0,20000})</c>",
    re.DOTALL,
)
"""A cell that isn't empty; no cell reaches into the next, however damaged the part is."""


def _without_value(content: bytes, sheet: str) -> list[tuple[int, int, str]]:
    """Row, column and text of cells that hold an error, or a formula whose value nobody saved.

    A reader of values shows them as empty.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        part = _part_of(archive, sheet)
        text = archive.read(part).decode("utf-8", errors="replace") if part else ""
    found = []
    for cell in _FORMULA_OR_ERROR.finditer(text) if "<f" in text or 't="e"' in text else ():
        inside = cell["inside"]
        value = re.search(r"<v[^>]*>([^<]+)</v>", inside)
        if 't="e"' in cell["before"] + cell["after"]:
            shown = value[1] if value else "#ERROR!"
        elif "<f" in inside and value is None:
            formula = re.search(r"<f[^>]*>([^<]*)</f>", inside)
            shown = f"={html.unescape(formula[1]) if formula else ''}"
        else:
            continue
        letters = cell["place"].rstrip("0123456789")
        found.append((int(cell["place"][len(letters) :]) - 1, _number(letters.encode()) - 1, shown))
    return found


def _part_of(archive: zipfile.ZipFile, sheet: str) -> str:
    """The part of a workbook that holds a sheet; "" where it can't be found."""
    try:
        book, links = (archive.read(f"xl/{name}").decode() for name in ("workbook.xml", "_rels/workbook.xml.rels"))
    except (KeyError, UnicodeDecodeError):
        return ""
    for tag in re.findall(r"<(?:\w+:)?sheet\b[^>]*>", book):
        name, link = re.search(r'\bname="([^"]*)"', tag), re.search(r'\b\w+:id="([^"]*)"', tag)
        if not name or not link or html.unescape(name[1]) != sheet:
            continue
        for other in re.findall(r"<(?:\w+:)?Relationship\b[^>]*>", links):
            target = re.search(r'\bTarget="([^"]*)"', other)
            if f'Id="{link[1]}"' in other and target:
                part = target[1].lstrip("/") if target[1].startswith("/") else f"xl/{target[1]}"
                return part if part in archive.namelist() else ""
    return ""


def _text(cell: Any) -> str:
    """A cell as a person reads it."""
    if cell is None or cell == "":
        return ""
    if isinstance(cell, bool):
        return str(cell)
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() and abs(cell) < 1e15 else repr(cell)
    if isinstance(cell, datetime):
        return str(cell.date() if cell.time() == time() else cell)
    if isinstance(cell, date | time | timedelta):
        return str(cell)
    return str(cell)


def _check(content: bytes) -> None:
    """Raise ValueError for what would take more memory than a spreadsheet reasonably does."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.infolist():
                if member.flag_bits & 1:
                    raise ValueError("it is encrypted: save it without a password")
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ValueError("its compression isn't read")
                _check_part(archive, member)
    except ValueError:
        raise
    except Exception as error:  # zipfile raises whatever its reading of damaged bytes raises
        what = "an old .xls or a protected file" if content.startswith(b"\xd0\xcf\x11\xe0") else "not a spreadsheet"
        raise ValueError(f"{what}: save it as .xlsx or .csv ({error})") from error


def _check_part(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    size, rest = 0, b""
    last_row = last_column = 0
    with archive.open(member) as stream:
        while piece := stream.read(_PIECE):
            size += len(piece)
            if size > LARGEST_PART or (size > ALWAYS_ALLOWED and size > LARGEST_RATIO * member.compress_size):
                raise ValueError("it decompresses to more than a spreadsheet holds")
            if "worksheets/" not in member.filename:
                continue
            for found in _CELL.finditer(rest + piece):
                last_column = max(last_column, _number(found[1]))
                last_row = max(last_row, int(found[2]))
            if last_row * last_column > MOST_CELLS:
                raise ValueError(f"a sheet has {last_row} rows and {last_column} columns: more cells than are read")
            rest = piece[-20:]


def _number(letters: bytes) -> int:
    """Column of letters: A is 1."""
    number = 0
    for letter in letters:
        number = 26 * number + letter - 64
    return number
