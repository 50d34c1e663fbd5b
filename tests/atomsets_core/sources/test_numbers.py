"""Cells as people write them are read by the whole column, or refused with what stands in them; never guessed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from atomsets_core.sources.columns import marks_for_missing
from atomsets_core.sources.numbers import looks_like_numbers, read_numbers

NAN = float("nan")


def column(*cells: object) -> pd.Series:
    return pd.Series(cells, dtype=object)


@pytest.mark.parametrize(
    ("cells", "mark", "values"),
    [
        (["2.319(2)", "5", "-1.50(12)e3"], "", [2.319, 5, -1500]),
        (["5.2 ± 0.1", "5.3+/-0.2", "(5.4 ± 0.1) x 10^3"], "", [5.2, 5.3, 5400]),
        (["1.514 (3)", "1.6"], "", [1.514, 1.6]),
        (["1.234,56", "7,5", "1.234"], "", [1234.56, 7.5, 1234]),
        (["7,63", "5,123"], "", [7.63, 5.123]),
        (["0,123", "5"], "point", [0.123, 5]),
        (["5,123", "5"], "comma", [5.123, 5]),
        (["1,526", "23", "7"], "point", [1526, 23, 7]),
        (["1,526", "23.5"], "", [1526, 23.5]),
        (["1,234,567", "12"], "", [1234567, 12]),
        (["1 234", "12", "1 234 567,5"], "", [1234, 12, 1234567.5]),
        (["1\u202f234", "12\u00a0345"], "", [1234, 12345]),
        (["1'234.5", "12"], "", [1234.5, 12]),
        (["5.2 eV", "5200 meV", "0.3 eV"], "", [5.2, 5.2, 0.3]),
        (["160 GPa", "1600 kbar", "70 GPa"], "", [160, 160, 70]),
        (["2.5 g/cm3", "2.6 g/cm3"], "", [2.5, 2.6]),
        (["1.5D-03", "1.5\u00d710⁻³", "1.5x10-3", "1.5*10^-3"], "", [1.5e-3] * 4),
        (["\u22125.2", "+ 3"], "", [-5.2, 3]),
        (["7,63(3) eV", "5,1(12) eV"], "", [7.63, 5.1]),
        ([" 5.2 ", "\t3\n"], "", [5.2, 3]),
        (["NaN", "5", None, "n/a", ""], "", [NAN, 5, NAN, NAN, NAN]),
        (["inf", "2", "-Infinity"], "", [np.inf, 2, -np.inf]),
        (["5.2 GPa", "5.3 Gpa", "54 kbar", "5.5 gpa"], "", [5.2, 5.3, 5.4, 5.5]),
        (["5.2 (eV)", "5.3 [eV]"], "", [5.2, 5.3]),
        (["5.2 W/mK", "5.3 W/(m K)", "5.4 W m-1 K-1", "5.5 W·m⁻¹·K⁻¹"], "", [5.2, 5.3, 5.4, 5.5]),
        (["5.2 ± 3%", "4.9"], "", [5.2, 4.9]),
        (["(5.2 ± 0.3)%", "4.9 %"], "", [5.2, 4.9]),
        ([r"$5.2 \pm 0.1$", "$-5.3$"], "", [5.2, -5.3]),
        (['="5.2"', "5.3"], "", [5.2, 5.3]),
        (["\u20135.6", "5.2"], "", [-5.6, 5.2]),
    ],
)
def test_a_column_that_agrees_is_read(cells: list, mark: str, values: list):
    read = read_numbers(column(*cells), mark)
    np.testing.assert_allclose(read.values, values, rtol=1e-12)
    assert not any(read.reasons)


@pytest.mark.parametrize(
    ("cells", "mark", "refused"),
    [
        (["<0.5", "3", "≥10"], "", {0: "is a bound, not a value: '<0.5'", 2: "is a bound, not a value: '≥10'"}),
        (["~5", "ca. 5", "3"], "", {0: "is not a number: '~5'", 1: "is not a number: 'ca. 5'"}),
        (["na", "—", "3"], "", {0: "is not a number: 'na'", 1: "is not a number: '—'"}),
        (["5-6", "2021-05-01", "1/2", "3"], "", {0: "'5-6'", 1: "'2021-05-01'", 2: "'1/2'"}),
        (["5.2 eV", "5.3", "5.4"], "", {0: "'5.2 eV', whose unit others don't have"}),
        (["5.2 eV", "5.3 eV", "5.4"], "", {2: "'5.4' has no unit, others say eV"}),
        (["5.2 eV", "5.3 eV", "160 GPa"], "", {2: "'160 GPa', whose unit others don't have: they say eV"}),
        (["25 °C", "10 °C", "300 K"], "", {2: "'300 K'"}),
        (["5.2 eggs", "5 eggs"], "", {0: "'5.2 eggs'", 1: "'5 eggs'"}),
        (["5.2a", "5.3 b", "5"], "", {0: "'5.2a'", 1: "'5.3 b'"}),
        (["1,526", "23", "7"], "", {0: "which is 1526 or 1.526"}),
        (["1,526", "1526", "7"], "point", {0: "while others write thousands without a comma"}),
        (["7,63", "7.63"], "", {0: "since points are decimal marks in the same column"}),
        (["7,63", "1.234"], "", {1: "whose point may stand between thousands"}),
        (["1.234", "2.345"], "comma", {0: "may stand between thousands", 1: "may stand between thousands"}),
        (["1.5x103", "3"], "", {0: "'1.5x103'"}),
        (["1,23,456", "3"], "", {0: "'1,23,456'"}),
        (["٣", "\uff11", "3"], "", {0: "not a number", 1: "not a number"}),
        ([True, 5, [1]], "", {0: "'True'", 2: "'[1]'"}),
        (["(5.2)", "$5", "5.2*", "3"], "", {0: "'(5.2)'", 1: "'$5'", 2: "'5.2*'"}),
        (["x" * 5000, "3"], "", {0: "is not a number"}),
    ],
)
def test_what_is_uncertain_is_refused_cell_by_cell(cells: list, mark: str, refused: dict[int, str]):
    read = read_numbers(column(*cells), mark)
    assert {row for row, reason in enumerate(read.reasons) if reason} == set(refused)
    for row, reason in refused.items():
        assert reason in read.reasons[row]
        assert np.isnan(read.values[row])
    assert np.isfinite(np.delete(read.values, list(refused))).all()


def test_uncertainties_are_kept_in_the_unit_of_the_value():
    read = read_numbers(column("2.319(2) eV", "5 eV", "1500(30) meV", "1.2 ± 0.1 eV", "5.2(1.3) eV"))
    np.testing.assert_allclose(read.errors, [0.002, NAN, 0.03, 0.1, 1.3])
    np.testing.assert_allclose(read.values, [2.319, 5, 1.5, 1.2, 5.2])
    assert read.unit == "eV"


def test_a_percentage_behind_an_uncertainty_is_no_unit_of_the_value():
    read = read_numbers(column("5.2 ± 3%", "4.9"))
    assert read.unit == ""
    assert read.errors is None  # of the value, or in its unit: nothing says which
    assert read_numbers(column("(5.2 ± 0.3)%", "4.9 %")).unit == "%"


def test_an_uncertainty_beyond_all_numbers_is_none():
    read = read_numbers(column("5 ± 0.1e999", "6 ± 0.1", "5.4(1)", "0.00000012(3)e-3"))
    np.testing.assert_allclose(read.values, [5, 6, 5.4, 1.2e-10])
    np.testing.assert_allclose(read.errors, [NAN, 0.1, 0.1, 3e-11])


@pytest.mark.parametrize("mark", [-999.0, 9999.0, 1e20, -1e30, 888.0])
def test_what_programs_write_for_nothing_is_named(mark: float):
    values = np.array([1.5, 2.0, 3.0, 4.0, 5.0, mark, mark])
    assert marks_for_missing(values).tolist() == [False] * 5 + [True] * 2
    near = np.array([700.0, 888.0, 999.0, 800.0, 950.0, 1000.0, 1200.0])
    assert not marks_for_missing(near).any()


def test_numbers_of_any_type_are_what_they_are():
    for values in ([1, 2], [1.5, NAN], pd.array([1, None], dtype="Int64")):
        read = read_numbers(pd.Series(values))
        np.testing.assert_array_equal(read.values, pd.Series(values).to_numpy(dtype=float, na_value=NAN))
        assert not any(read.reasons)
    assert read_numbers(column(10**400, 2)).values[0] == np.inf


def test_flags_are_one_and_zero():
    assert read_numbers(pd.Series([True, False])).values.tolist() == [1, 0]
    np.testing.assert_array_equal(read_numbers(column(True, None, False)).values, [1, NAN, 0])


def test_text_is_no_column_of_numbers():
    assert not looks_like_numbers(column("SiO2", "TiO2", "5"))
    assert not looks_like_numbers(column("2021-05-01", "2021-06-01"))
    assert looks_like_numbers(column("na", "na", "na", "5.2(3)", "<4"))
    assert not looks_like_numbers(column(None, "", "n/a"))


def test_nines_far_from_all_others_stand_for_a_missing_value():
    values = np.array([-999.0, 9999, 1, 2, 3, 4, 5, -1, 0])
    assert marks_for_missing(values).tolist() == [True, True] + [False] * 7
    assert marks_for_missing(np.array([-99.0, 100, 120, 130, 200, 300])).tolist() == [True] + [False] * 5
    assert not marks_for_missing(np.array([999.0, 980, 1020, 700, 1400, 999])).any()
    assert not marks_for_missing(np.array([-999.0, -500, -1200, -300, -800, -10])).any()
    assert not marks_for_missing(np.array([-999.0, 1, 2])).any()
