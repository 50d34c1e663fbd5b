"""By identifiers, formulas and systems, and a table of identifiers with values: what is asked, in how few requests."""

import numpy as np
import pytest
from emmet.core.mpid import AlphaID

from atomsets_core.sources.base import SourceError
from atomsets_core.sources.files.text_tables import FOUND_OUT
from atomsets_core.sources.materials_project.query import MaterialsQuery
from atomsets_core.sources.pull import pull_into
from atomsets_core.storage.store import Store
from tests.materials_project_server import running

QUICK = {**running.QUICK, "page_size": 1000}


def letters(name):
    """The other spelling of mp-22862: mp-aaaabhvi."""
    return f"mp-{str(AlphaID(name, padlen=8).string).rpartition('-')[2]}" if name.startswith("mp-") else name


@pytest.fixture
def known(original):
    """Identifiers that the server has."""
    return original["material_id"].to_pylist()


def searches(server):
    """What was asked of the summary."""
    return [request["asked"] for request in server.log()["requests"] if request["endpoint"] == "summary"]


def test_identifiers_in_both_spellings_cost_a_request_for_200(server, pull, pulled_table, known):
    wanted = [known[0], letters(known[1]), known[2].upper(), *known[3:250]]
    file = pull(material_ids=wanted, page_size=1000)
    assert set(pulled_table()["material_id"].to_pylist()) == set(known[:250])
    assert (file.structures, len(file.refused)) == (250, 0)
    assert [len(asked["material_ids"].split(",")) for asked in searches(server)] == [200, 50]
    server.forget()
    assert pull(material_ids=wanted, page_size=1000).counts["requests"] == 1  # the heartbeat: all of it is here


def test_an_identifier_that_is_not_there_is_named(server, pull, known):
    server.release("2026.10.02", deprecate=[known[1]])
    file = pull(material_ids=[known[0], known[1], "mp-99999999"])
    assert file.structures == 1
    reasons = {refusal.material_id: refusal.reason for refusal in file.refused}
    assert set(reasons) == {known[1], "mp-99999999"}
    assert all("no such entry, or has deprecated it" in reason for reason in reasons.values())
    with pytest.raises(SourceError, match="no entry of the Materials Project matches"):
        pull(material_ids=["mp-99999999"])


def test_formulas_and_systems(server, pull, pulled_table, original):
    formulas = original["formula"].to_pylist()
    pull(formulas=["Hf4S2", formulas[2]])  # Hf2S, however it is written
    assert set(pulled_table()["formula"].to_pylist()) == {"Hf2S", formulas[2]}
    assert len(searches(server)) == 1
    assert MaterialsQuery(chemsys=["O-Fe"], formulas=["Fe4O6"]).parts() == [
        {"deprecated": False, "batch_id_not_eq": "gnome_r2scan_statics", "formula": "Fe2O3", "chemsys": "Fe-O"}
    ]
    for wrong, why in (({"material_ids": ["Fe2O3"]}, "is no identifier"), ({"formulas": ["Xx2"]}, "Xx2")):
        with pytest.raises(ValueError, match=why):
            MaterialsQuery(**wrong)


def test_values_of_ones_own_join_in_either_spelling(server, tmp_path, known):
    names = [known[0], letters(known[1]), f"{known[2]} ", *known[3:30], "mp-99999999", "sample 7"]
    rows = [f"{name},{100 + i},x" for i, name in enumerate(names)]
    (tmp_path / "mine.csv").write_text("\n".join(["mp id,hardness / GPa,who", *rows]) + "\n")

    def run():
        return pull_into(
            Store(tmp_path / "out"), "structures.parquet", "mp", labels=tmp_path / "mine.csv",
            query=MaterialsQuery(**QUICK, fields=["energy_above_hull"]), options={"table": FOUND_OUT},
        )  # fmt: skip

    file = run()
    assert file.structures == 30
    assert len(searches(server)) == 1
    table = Store(tmp_path / "out").read_table("structures.parquet").to_pandas().set_index("material_id")
    hardness = next(name for name in table.columns if name.startswith("hardness"))
    assert table.loc[known[:30], hardness].tolist() == [100.0 + i for i in range(30)]
    assert np.isfinite(table["energy_above_hull"]).all()
    reasons = {refusal.material_id: refusal.reason for refusal in file.refused}
    assert "no such entry" in reasons["mp-99999999"]
    assert reasons["sample 7"] == "mine.csv has a label for it, but it is no identifier of the Materials Project"
    assert len(file.refused) == 2
    server.forget()
    (tmp_path / "mine.csv").write_text("\n".join(["mp id,toughness", *(f"{name},7" for name in names)]) + "\n")
    again = run()
    assert server.log()["requests"] == []  # other values of the same entries: nothing is fetched
    table = Store(tmp_path / "out").read_table("structures.parquet").to_pandas()
    assert (table["toughness"] == 7).all()
    assert hardness not in table
    assert again.provenance["sha256"] != file.provenance["sha256"]


def test_a_table_without_identifiers_is_refused(server, tmp_path):
    (tmp_path / "mine.csv").write_text("sample,K\nA1,3\nA2,4\n")
    with pytest.raises(SourceError, match="no column holds identifiers of the Materials Project"):
        pull_into(Store(tmp_path), "s.parquet", "mp", labels=tmp_path / "mine.csv", query=MaterialsQuery(**QUICK))
    assert server.log()["requests"] == []
