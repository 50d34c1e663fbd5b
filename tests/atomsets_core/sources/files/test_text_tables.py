"""Tables as people and programs write them: separators, marks, headers, units, comments and encodings found out."""

from __future__ import annotations

import datetime
import io

import openpyxl
import pytest

from atomsets_core.sources.columns import numbers_of, read_columns
from atomsets_core.sources.files.spreadsheets import read_spreadsheet
from atomsets_core.sources.files.text_tables import TableOptions, TextTable, read_text_table

ROWS = {"formula": ["SiO2", "MgO", "GaAs"], "gap": ["8.9", "7.8", "1.4"]}


def read(text: str | bytes, name: str = "t.csv", **options: str) -> TextTable:
    return read_text_table(text if isinstance(text, bytes) else text.encode(), TableOptions(**options), name)


def cells(table: TextTable) -> dict[str, list]:
    return {str(name): table.frame[name].tolist() for name in table.frame.columns}


@pytest.mark.parametrize(
    ("text", "rows", "said"),
    [
        ("formula,gap\nSiO2,8.9\nMgO,7.8\nGaAs,1.4\n", [2, 3, 4], ""),
        ("formula;gap\nSiO2;8.9\nMgO;7.8\nGaAs;1.4\n", [2, 3, 4], "semicolons"),
        ("formula\tgap\nSiO2\t8.9\nMgO\t7.8\nGaAs\t1.4\n", [2, 3, 4], "tabs"),
        ("formula|gap\nSiO2|8.9\nMgO|7.8\nGaAs|1.4\n", [2, 3, 4], "bars"),
        ("formula  gap\nSiO2   8.9\nMgO  7.8\n GaAs 1.4\n", [2, 3, 4], "spaces"),
        ("# by hand\n# in eV, in 2021\nformula,gap\nSiO2,8.9\n\nMgO,7.8\n# later\nGaAs,1.4\n", [4, 6, 8], "3 comment"),
        ("# formula, gap\nSiO2,8.9\nMgO,7.8\nGaAs,1.4\n", [2, 3, 4], "header is a comment"),
        ("Table 1: gaps\n\nformula,gap\nSiO2,8.9\nMgO,7.8\nGaAs,1.4\n", [4, 5, 6], "header is row 3"),
        ("formula,gap,\nSiO2,8.9,\nMgO,7.8,\nGaAs,1.4,\n", [2, 3, 4], ""),
        ('\ufeff"formula", "gap"\r\nSiO2, 8.9\r\nMgO, 7.8\r\nGaAs, 1.4\r\n', [2, 3, 4], ""),
        (",formula,gap\n0,SiO2,8.9\n1,MgO,7.8\n2,GaAs,1.4\n", [2, 3, 4], ""),
        ("#,formula,gap\n1,SiO2,8.9\n2,MgO,7.8\n3,GaAs,1.4\n", [2, 3, 4], ""),
        ("formula,gap\nSiO2,8.9\nformula,gap\nMgO,7.8\nGaAs,1.4\n", [2, 4, 5], ""),
        ("sep=;\nformula;gap\nSiO2;8.9\nMgO;7.8\nGaAs;1.4\n", [3, 4, 5], "semicolons"),
        ("formula,gap\nSiO2,8.9\nMgO,7.8\nGaAs,1.4\n".encode("utf-16"), [2, 3, 4], "UTF-16"),
        ("formula,gap\nSiO2,8.9\nMgO,7.8\nGaAs,1.4\n".encode("utf-16-le"), [2, 3, 4], "UTF-16"),
        ("formula,gap\n,eV\nSiO2,8.9\nMgO,7.8\nGaAs,1.4\n", [3, 4, 5], "row 2 holds units: gap in eV"),
        ("formula,gap\n(-),[eV]\nSiO2,8.9\nMgO,7.8\nGaAs,1.4\n", [3, 4, 5], "row 2 holds units: gap in eV"),
    ],
)
def test_the_same_table_is_found_in_each(text: str | bytes, rows: list[int], said: str):
    table = read(text)
    assert cells(table) == ROWS
    assert table.rows.tolist() == rows
    assert said in "; ".join(table.notes)
    assert bool(table.notes) == bool(said)
    assert not table.refused


def test_units_are_those_of_a_row_or_of_the_names():
    table = read("formula;K (GPa);gap [eV];n\n;;;\nSiO2;37,1;8,9;1,45\n")
    assert table.units == {"K (GPa)": "GPa", "gap [eV]": "eV"}
    assert table.mark == "comma"
    assert read("formula,dopant\nSiO2,N\nMgO,C\n").units == {}  # elements are no units


def test_a_quoted_cell_keeps_its_lines_and_separators():
    table = read('id,cif,note\na,"# made by hand\ndata_a\n_cell_length_a 4","x, y"\nb,"data_b\n# no end",z\n')
    assert cells(table)["cif"] == ["# made by hand\ndata_a\n_cell_length_a 4", "data_b\n# no end"]
    assert cells(table)["note"] == ["x, y", "z"]


def test_a_row_that_does_not_fit_is_refused_with_its_number():
    table = read("formula,gap\nSiO2,8.9\nMgO,7,8\nGaAs,1.4\nAlN\n")
    assert table.refused == [(3, "row 3 has 3 fields, the header names 2")]
    assert cells(table) == {"formula": ["SiO2", "GaAs", "AlN"], "gap": ["8.9", "1.4", None]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("\n \n", "empty"),
        ("# only a comment\n", "empty"),
        (
            "id,K\na,1,ok\nb,2,ok\n",
            r"names 2 columns, its rows have 3 fields \(row 2: 'a', '1', 'ok'\): name every column",
        ),
        ("formula,gap\nSiO2,8,9\nMgO,7,8\n", "decimal commas go in quotes"),
        ("SiO2,8.9\nMgO,7.8\n", "first row holds values, not the names of columns"),
        ('formula,gap\nSiO2,"8.9\nMgO,7.8\n', "a quote in row 2 is never closed"),
    ],
)
def test_what_is_no_table_says_what_to_change(text: str, message: str):
    with pytest.raises(ValueError, match=message):
        read(text)


def test_the_table_of_other_programs_without_a_header_is_known_by_its_name():
    table = read("mp-1,1.5\nmp-2,2.5\n", "data/id_prop.csv")
    assert cells(table) == {"id": ["mp-1", "mp-2"], "value": ["1.5", "2.5"]}


def test_two_columns_of_one_name_are_told_apart_unless_they_agree():
    assert list(read("formula,gap,gap\nSiO2,8.9,5.6\n").frame.columns) == [
        "formula",
        "gap (column 2)",
        "gap (column 3)",
    ]
    assert list(read("formula,gap,gap\nSiO2,8.9,8.9\n").frame.columns) == ["formula", "gap"]


def test_an_unnamed_first_column_names_the_rows_unless_it_counts_them():
    assert cells(read(",gap\nmp-1,1\nmp-2,2\n"))["id"] == ["mp-1", "mp-2"]
    assert list(read("Unnamed: 0,gap\n0,1\n1,2\n").frame.columns) == ["gap"]


def test_options_decide_what_a_table_leaves_open():
    assert cells(read("a;b,c\n1;2,3\n", separator=";")) == {"a": ["1"], "b,c": ["2,3"]}
    assert read('a,b\nx,"1,526"\n', decimal=",").mark == "comma"
    with pytest.raises(ValueError, match="separator"):
        TableOptions("::")
    with pytest.raises(ValueError, match="decimal"):
        TableOptions(decimal=";")


def book(*sheets: tuple[str, list[list]]) -> bytes:
    made = openpyxl.Workbook()
    made.remove(made.active)
    for name, rows in sheets:
        sheet = made.create_sheet(name)
        for row in rows:
            sheet.append(row)
    out = io.BytesIO()
    made.save(out)
    return out.getvalue()


def test_a_spreadsheet_is_read_as_a_person_reads_it():
    rows = [
        ["gaps by hand"],
        [],
        ["id", "formula", "gap", "n", "ok", "when"],
        ["001", "SiO2", 8.9, 3, True, datetime.date(2021, 5, 1)],
        [2, "MgO", "7.8(2)", None, False, None],
    ]
    table = read_spreadsheet(book(("gaps", rows)))
    assert cells(table) == {
        "id": ["001", "2"], "formula": ["SiO2", "MgO"], "gap": ["8.9", "7.8(2)"], "n": ["3", None],
        "ok": ["True", "False"], "when": ["2021-05-01", None],
    }  # fmt: skip
    assert table.rows.tolist() == [4, 5]


def test_the_first_sheet_that_holds_something_is_read_or_the_one_that_is_named():
    content = book(("empty", []), ("one", [["formula", "gap"], ["SiO2", 1]]), ("two", [["formula", "gap"], ["MgO", 2]]))
    table = read_spreadsheet(content)
    assert cells(table)["formula"] == ["SiO2"]
    assert "sheet 'one' of 3" in table.notes[0]
    assert cells(read_spreadsheet(content, TableOptions(sheet="two")))["formula"] == ["MgO"]
    with pytest.raises(ValueError, match="no sheet 'three'; there are 'empty', 'one', 'two'"):
        read_spreadsheet(content, TableOptions(sheet="three"))


def test_a_spreadsheet_that_would_fill_the_memory_is_refused():
    made = openpyxl.Workbook()
    made.active["A1"] = "formula"
    made.active.cell(1_000_000, 16_000).value = 1
    out = io.BytesIO()
    made.save(out)
    with pytest.raises(ValueError, match="more cells than are read"):
        read_spreadsheet(out.getvalue())
    with pytest.raises(ValueError, match=r"save it as \.xlsx or \.csv"):
        read_spreadsheet(b"\xd0\xcf\x11\xe0 an old one")
    with pytest.raises(ValueError, match="not a spreadsheet"):
        read_spreadsheet(b"formula,gap\n")


def saved(made: openpyxl.Workbook) -> bytes:
    out = io.BytesIO()
    made.save(out)
    return out.getvalue()


def test_a_merged_cell_counts_for_each_of_its_rows():
    made = openpyxl.Workbook()
    sheet = made.active
    for row in (["title", None, None], ["formula", "phase", "gap"], ["TiO2", "rutile", 3.0], [None, "anatase", 3.2],
                ["MgO", "halite", 7.8]):  # fmt: skip
        sheet.append(row)
    sheet.merge_cells("A1:C1")
    sheet.merge_cells("A3:A4")
    table = read_spreadsheet(saved(made))
    assert cells(table)["formula"] == ["TiO2", "TiO2", "MgO"]
    assert any("1 cells of merged ones" in note for note in table.notes)


def test_a_formula_without_a_saved_value_and_an_error_are_no_empty_cells():
    made = openpyxl.Workbook()
    made.active.append(["not", "this one"])
    sheet = made.create_sheet("data & more")
    for row in (["formula", "gap", "twice"], ["TiO2", 3.0, "=B2*2"], ["MgO", "#DIV/0!", 2.0]):
        sheet.append(row)
    sheet["D2"].font = sheet["E2"].font = openpyxl.styles.Font(bold=True)  # empty cells that are written down
    table = read_spreadsheet(saved(made), TableOptions(sheet="data & more"))
    assert cells(table) == {"formula": ["TiO2", "MgO"], "gap": ["3", "#DIV/0!"], "twice": ["=B2*2", "2"]}
    read = read_columns(table.frame, rows=table.rows).frame
    values, reasons = numbers_of(read, "twice")
    assert values[1] == 2.0
    assert "a formula of a spreadsheet without its value" in reasons[0]
