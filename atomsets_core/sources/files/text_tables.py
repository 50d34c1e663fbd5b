"""Tables as text: CSV and its kin, whatever stands between columns and before the header, read as what they show.

All cells stay text, so that an identifier "001" stays what it is; which columns are numbers is decided by
`atomsets_core.sources.columns`. Rows are counted as a spreadsheet counts them: the first line of the file is row 1.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt
import pandas as pd

from atomsets_core.sources.identifiers import ID_NAMES, key_of
from atomsets_core.sources.numbers import Mark, column_mark, looks_like_numbers
from atomsets_core.sources.units import is_unit, name_and_unit

FILE_COLUMNS = ("file", "cif", "path", "structure")
"""Columns that name a structure file or hold a structure."""

FORMULA_NAMES = ("formula", "composition", "pretty_formula", "formula_pretty", "reduced_formula", "formula_reduced",
                 "chemical_formula", "chemical_formula_reduced", "chemical_formula_sum", "formula_sum", "full_formula",
                 "chemical_composition", "formula_unit", "compound", "nominal_composition")  # fmt: skip
"""Columns of formulas, however they are capitalised and joined; the first that is there is used."""

_KNOWN = {key_of(name) for name in (*ID_NAMES, *FORMULA_NAMES, *FILE_COLUMNS, "name", "filename", "mp")}

PLAIN_TEXT = (".txt", ".dat", ".tab", ".asc")
"""Names of tables that are asked for by themselves; in folders such files hold whatever people note."""

OLD_BOOKS = (".xls", ".xlsb", ".ods", ".numbers")
"""Spreadsheets that aren't read."""

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "spaces"}
"""What may stand between columns, and what it is called."""

_SAMPLE = 100
"""Records that are looked at to find the separator."""

_COMMENT = re.compile(r"\s*(?:#|%|//)")


@dataclass(frozen=True)
class TableOptions:
    """How tables are read, where that isn't to be found out from what they show.

    Attributes:
        separator: between columns, one character or "tab"; "" to find it out.
        decimal: the decimal mark, "." or ","; "" to find it out.
        sheet: of a spreadsheet; "" for its first.
    """

    separator: str = ""
    decimal: str = ""
    sheet: str = ""

    def __post_init__(self) -> None:
        if self.separator and self.mark_between not in SEPARATORS:
            raise ValueError(f"separator {self.separator!r}: it is one of , ; | tab space")
        if self.decimal not in ("", ".", ","):
            raise ValueError(f"decimal {self.decimal!r}: it is . or ,")

    @property
    def mark_between(self) -> str:
        """The separator as it stands in a file."""
        return {"tab": "\t", "\\t": "\t", "space": " "}.get(self.separator, self.separator)

    @property
    def mark(self) -> Mark:
        """The decimal mark by its name."""
        return "point" if self.decimal == "." else "comma" if self.decimal == "," else ""


FOUND_OUT = TableOptions()
"""Everything is found out from what a table shows."""


@dataclass(frozen=True)
class TextTable:
    """A table whose cells are text.

    Attributes:
        frame: n rows; None where a cell is empty.
        rows: (n,) int64, row of each in the file, as a spreadsheet counts.
        refused: row and reason of each row that can't be put under the header.
        mark: the decimal mark of the table, "" where nothing shows it.
        units: column -> unit that its name or a row of units states.
        notes: how it was read, where that isn't plain.
    """

    frame: pd.DataFrame
    rows: npt.NDArray[np.int64]
    refused: list[tuple[int, str]] = field(default_factory=list)
    mark: Mark = ""
    units: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_text_table(content: bytes, options: TableOptions = FOUND_OUT, name: str = "") -> TextTable:
    """A CSV or a file like it.

    Args:
        content: of the file.
        options: what isn't to be found out.
        name: of the file; `id_prop.csv` has no header as a rule (CGCNN, ALIGNN).

    Raises:
        ValueError: it is empty or no table; the message says what to change.
    """
    text, encoding = decoded(content)
    separator = options.mark_between or _separator(text)
    notes = [f"read as {encoding}"] if encoding else []
    if separator != ",":
        notes.append(f"{SEPARATORS[separator]} between columns")
    records = list(_records(text, separator))
    return table_of(records, options, name, separator, notes)


def decoded(content: bytes) -> tuple[str, str]:
    """Text of a file and, where it isn't UTF-8, what it is encoded in."""
    for mark, encoding in ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
                           (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):  # fmt: skip
        if content.startswith(mark):
            name = "" if encoding == "utf-8" else encoding.upper()
            text = content[len(mark) :] if encoding == "utf-8" else content
            return text.decode(encoding, errors="replace"), name
    start = content[:400]
    for place, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if (
            len(start) >= 4
            and 2 * start[place::2].count(0) > len(start[place::2])
            and not start[1 - place :: 2].count(0)
        ):
            return content.decode(encoding, errors="replace"), "UTF-16"
    try:
        return content.decode("utf-8"), ""
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace"), "Windows-1252"


def _records(text: str, separator: str) -> Iterator[list[str]]:
    """The rows of a text, cells as they are written; an empty list for an empty line.

    Raises:
        ValueError: a quote that is never closed.
    """
    csv.field_size_limit(1 << 30)
    lines: Iterable[str] = io.StringIO(text, newline="")
    if separator == " ":
        lines = (" ".join(line.split()) + "\n" for line in lines)
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    number = 0
    for record in reader:
        number += 1
        yield record
    # the reader takes the end of the file for the end of a quote: such a record swallowed all lines after it
    if number and text.count('"') % 2 and any(text.endswith(cell) and "\n" in cell for cell in record[-1:]):
        raise ValueError(f"a quote in row {number} is never closed")


def _separator(text: str) -> str:
    """What stands between the columns: what cuts the rows alike, and finds names that are known in the header."""
    best, score = ",", (False, 0.0, 0)
    for place, separator in enumerate(SEPARATORS):
        sample = _sample(text, separator)
        widths = Counter(len(record) for record in sample)
        if not widths:
            continue
        width, n = max(widths.items(), key=lambda item: (item[1], item[0]))
        if width < 2:
            continue
        known = any(_names_known(record) for record in sample[:10] if len(record) > 1)
        found = (known, round(n / len(sample), 2), -place)
        if found > score or score[1] == 0:
            best, score = separator, found
        if separator == "|" and score[1] > 0:  # spaces only where nothing else is there
            break
    return best


def _sample(text: str, separator: str) -> list[list[str]]:
    try:
        found = [record for record in islice(_records(text, separator), _SAMPLE) if any(map(str.strip, record))]
    except (ValueError, csv.Error):
        return []
    return [record for record in found if not _COMMENT.match(record[0])]


def _names_known(record: Sequence[str]) -> bool:
    return any(key_of(name_and_unit(cell)[0] if len(cell) < 60 else "") in _KNOWN for cell in record)


def _is_plain_number(cell: str) -> bool:
    return re.fullmatch(r"\s*[+-]?(?:\d+[.,]?\d*|[.,]\d+)(?:[eE][+-]?\d+)?\s*", cell) is not None


def table_of(
    records: Sequence[Sequence[str]],
    options: TableOptions,
    name: str = "",
    separator: str = "",
    notes: Sequence[str] = (),
) -> TextTable:
    """A table of its rows, the header among them.

    Args:
        records: cells of each row of the file, empty rows and comments included.
        options: what isn't to be found out.
        name: of the file, for those that have no header as a rule.
        separator: "," makes points the decimal marks where no cell says otherwise.
        notes: how the file was read so far.

    Raises:
        ValueError: there is no header, or the rows don't fit it.
    """
    said = list(notes)
    filled = [row for row, record in enumerate(records) if any(cell.strip() for cell in record)]
    filled = [row for row in filled if not _is_rule(records[row])]
    usual = _usual_width(records, filled)
    comments = {row for row in filled if _is_comment(records[row], usual)}
    rows = [row for row in filled if row not in comments]
    if not rows:
        raise ValueError("it is empty")
    header, rows = _header(records, rows, sorted(comments), name, separator, said)
    if comments:
        said.append(f"{len(comments)} comment line{'s' * (len(comments) > 1)} passed over")
    cells, kept, refused = _fitting(records, rows, header, separator)
    names, chosen = _names(header, cells, said)
    columns = {names[place]: [record[place].strip() and record[place] for record in cells] for place in chosen}
    frame = pd.DataFrame({key: pd.Series(values, dtype=object) for key, values in columns.items()})
    frame = frame.where(frame != "", None)
    numbers = np.array(kept, dtype=np.int64) + 1
    units = {column: unit for column in frame.columns if (unit := name_and_unit(column)[1])}
    if own := _unit_row(frame):
        units |= own
        shown = ", ".join(f"{column} in {unit}" for column, unit in own.items())
        said.append(f"row {numbers[0]} holds units: {shown}")
        frame, numbers = frame.iloc[1:].reset_index(drop=True), numbers[1:]
    mark = options.mark or _table_mark(frame, "point" if separator == "," else "")
    return TextTable(frame, numbers, refused, mark, units, said)


def _usual_width(records: Sequence[Sequence[str]], rows: Sequence[int]) -> int:
    """Cells that most rows have."""
    widths = Counter(len(_cut(records[row])) for row in rows[:_SAMPLE])
    return max(widths.items(), key=lambda item: (item[1], item[0]))[0] if widths else 0


def _is_rule(record: Sequence[str]) -> bool:
    """Whether a row is a line under the header, as Markdown has it."""
    return all(re.fullmatch(r"\s*:?[-=]{3,}:?\s*", cell) for cell in record if cell.strip())


def _is_comment(record: Sequence[str], usual: int) -> bool:
    """Whether a row is a comment, which a name "#" of a column that numbers the rows is not."""
    first = record[0] if record else ""
    is_name = first.strip() in ("#", "%") and 1 < len(_cut(record)) == usual
    return bool(_COMMENT.match(first)) and "\n" not in first and not is_name


def _header(
    records: Sequence[Sequence[str]], rows: list[int], comments: list[int], name: str, separator: str, said: list[str]
) -> tuple[list[str], list[int]]:
    """The names of the columns, and the rows after them."""
    usual, place = _usual_width(records, rows), 0
    while place + 1 < min(len(rows), 20) and len(_cut(records[rows[place]])) == 1 < usual:
        place += 1  # a title above the table
    if not _names_known(records[rows[place]]):
        later = [k for k in range(place + 1, min(len(rows), place + 6)) if _names_known(records[rows[k]])]
        later = [k for k in later if not any(map(_is_plain_number, records[rows[k]]))]
        place = later[0] if later else place
    first = [cell.strip().strip("\ufeff") for cell in records[rows[place]]]
    if place:
        said.append(f"the header is row {rows[place] + 1}; what stands above it was passed over")
    commented = _commented_header(records, comments, rows[place], len(first), separator)
    if commented and not _names_known(first) and (_names_known(commented) or any(map(_is_plain_number, first))):
        said.append("the header is a comment line")
        return commented, rows[place:]
    if any(map(_is_plain_number, first)) and not _names_known(first):
        if name.rpartition("/")[2].lower().startswith("id_prop") or _looks_headerless(first):
            more = [f"value_{k}" for k in range(2, len(first))]
            if name.rpartition("/")[2].lower().startswith("id_prop"):
                said.append("no header: read as id, value")
                return ["id", "value", *more][: len(first)], rows[place:]
        shown = ", ".join(first[:4])
        raise ValueError(f"its first row holds values, not the names of columns ({shown}): write a line of names")
    return first, rows[place + 1 :]


def _looks_headerless(first: Sequence[str]) -> bool:
    return len(first) >= 2 and not _is_plain_number(first[0])


def _commented_header(
    records: Sequence[Sequence[str]], comments: list[int], before: int, width: int, separator: str
) -> list[str]:
    """The names in the last comment line above the rows, where it has one for each column."""
    above = [row for row in comments if row < before]
    if not above:
        return []
    line = (separator or ",").join(records[above[-1]]).strip()
    names = [cell.strip() for cell in next(_records(_COMMENT.sub("", line, count=1).strip(), separator or ","), [])]
    return names if len(names) == width > 1 and all(names) and not any(map(_is_plain_number, names)) else []


def _cut(record: Sequence[str]) -> Sequence[str]:
    """A row without the empty cells at its end."""
    end = len(record)
    while end and not record[end - 1].strip():
        end -= 1
    return record[:end]


def _fitting(
    records: Sequence[Sequence[str]], rows: Sequence[int], header: Sequence[str], separator: str
) -> tuple[list[list[str]], list[int], list[tuple[int, str]]]:
    """The rows that fit the header, their places, and a reason for each other one.

    Raises:
        ValueError: most don't fit.
    """
    width = len(header)
    cells, kept, long = [], [], []
    for row in rows:
        record = _cut(records[row])
        if len(record) > width:
            long.append(row)
        elif [cell.strip() for cell in record] != list(_cut(header)):  # a header again, of files one after the other
            cells.append([*record, *[""] * (width - len(record))])
            kept.append(row)
    if len(long) > len(kept):
        shown = ", ".join(repr(cell[:30]) for cell in records[long[0]][:5])
        hint = "; numbers with decimal commas go in quotes" if separator == "," else ""
        raise ValueError(
            f"its header names {width} column{'s' * (width != 1)}, its rows have {len(_cut(records[long[0]]))} fields "
            f"(row {long[0] + 1}: {shown}): name every column{hint}"
        )
    refused = [
        (row + 1, f"row {row + 1} has {len(_cut(records[row]))} fields, the header names {width}") for row in long
    ]
    return cells, kept, refused


def _names(header: Sequence[str], cells: Sequence[Sequence[str]], said: list[str]) -> tuple[dict[int, str], list[int]]:
    """Place of a column -> its name, and the places of the columns that are kept.

    A first column without a name is an index: it names the rows unless it only counts them.
    """
    names: dict[int, str] = {}
    chosen = []
    for place, name in enumerate(header):
        unnamed = not name or re.fullmatch(r"Unnamed: \d+(_level_\d+)?|#|%", name) is not None
        values = [record[place].strip() for record in cells]
        if unnamed and (not any(values) or (place == 0 and _counts(values))):
            continue
        if unnamed and place == 0 and len(set(values)) == len(values) and all(values) and "id" not in header:
            name = "id"
            said.append("the first column has no name: it is taken for the identifiers")
        elif unnamed:
            name = f"column {place + 1}"
        if name in names.values():
            twin = next(other for other, known in names.items() if known == name)
            if [record[twin].strip() for record in cells] == values:
                continue
            said.append(f"two columns are called {name!r}: they became '{name} (column {twin + 1})' and so on")
            names[twin] = f"{name} (column {twin + 1})"
            name = f"{name} (column {place + 1})"
        elif any(known.startswith(f"{name} (column ") for known in names.values()):
            name = f"{name} (column {place + 1})"
        names[place] = name
        chosen.append(place)
    if not chosen:
        raise ValueError("its columns have no names")
    return names, chosen


def _counts(values: Sequence[str]) -> bool:
    """Whether the values are 0, 1, 2, ... or 1, 2, 3, ..."""
    return any(all(value == str(k) for k, value in enumerate(values, start)) for start in (0, 1))


def _unit_row(frame: pd.DataFrame) -> dict[str, str]:
    """Column -> unit where the first row holds the units of the columns of numbers below it; {} where it doesn't."""
    if len(frame) < 2:
        return {}
    found: dict[str, str] = {}
    for column in frame.columns:
        cell = frame[column].iloc[0]
        text = "" if cell is None else str(cell).strip()
        below = frame[column].iloc[1:60]
        inner = re.sub(r"^[\[(<{]\s*(.*?)\s*[\])>}]$", r"\1", text)
        if inner in ("", "-", "--", "—", "–") or inner.lower() in ("unit", "units", "text", "string"):  # noqa: RUF001
            continue
        if _is_plain_number(text) or not looks_like_numbers(below) or below.isna().all():
            return {}
        if not is_unit(inner) and inner not in ("1", "-", "dimensionless"):
            return {}
        found[column] = inner
    return found


def _table_mark(frame: pd.DataFrame, default: Mark) -> Mark:
    """The decimal mark that the columns of a table agree on."""
    marks = {mark for column in frame.columns if (mark := column_mark(frame[column])) != ""}
    return marks.pop() if len(marks) == 1 else default
