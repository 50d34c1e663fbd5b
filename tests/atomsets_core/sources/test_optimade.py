"""An OPTIMADE provider gives everything it promises, entry by entry, or an error that says what is wrong."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Structure

pytest.importorskip("optimade")
from optimade.adapters import Structure as Adapter
from optimade.adapters.structures.pymatgen import from_pymatgen as to_optimade

from atomsets_core.sources import optimade
from atomsets_core.sources.base import SourceError
from atomsets_core.sources.optimade import crystal_from, pull_optimade
from atomsets_core.sources.pull import pull


@pytest.fixture(autouse=True)
def waits(monkeypatch) -> list[float]:
    """Waiting is written down instead of done."""
    waited: list[float] = []
    monkeypatch.setattr(optimade, "_wait", waited.append)
    return waited


def reference_entries(optimade_server: str) -> list[dict[str, Any]]:
    """What the server holds, through the data of its own library."""
    import optimade.server.data as data

    return list(data.structures)


# The reference server.


@pytest.mark.parametrize("page_limit", [3, 100])
def test_every_structure_of_the_reference_server_is_accepted_or_refused(optimade_server, page_limit):
    held = reference_entries(optimade_server)
    pulled = pull_optimade(optimade_server, page_limit=page_limit)
    refused = {refusal.material_id for refusal in pulled.refused}
    assert pulled.n_seen == len(held) == pulled.provenance["returned"] == pulled.provenance["available"]
    assert {*pulled.structures.material_id, *refused} == {str(entry["task_id"]) for entry in held}
    assert pulled.provenance["counted"] is True
    assert pulled.provenance["prefix"] == "exmpl"
    assert "not stated" in pulled.provenance["licence"]
    assert pulled.provenance["last_modified"] == max(pulled.columns["last_modified"])


def test_structures_are_those_the_library_makes_of_the_same_entries(optimade_server):
    import requests

    pulled = pull_optimade(optimade_server)
    reply = requests.get(f"{optimade_server}/v1/structures?page_limit=20", timeout=20).json()
    theirs = {item["id"]: item for item in reply["data"]}
    assert len(pulled.structures) >= 10
    for own, name in zip(pulled.structures.to_pymatgen(), pulled.structures.material_id, strict=True):
        reference: Structure = Adapter(theirs[name]).as_pymatgen
        assert own.species == reference.species
        np.testing.assert_allclose(own.lattice.matrix, reference.lattice.matrix)
        np.testing.assert_allclose(own.cart_coords, reference.cart_coords, atol=1e-8)


def test_what_is_refused_of_the_reference_server_is_disordered(optimade_server):
    import requests

    reply = requests.get(f"{optimade_server}/v1/structures?page_limit=20", timeout=20).json()
    mixed = {
        item["id"]
        for item in reply["data"]
        if any(len(species["chemical_symbols"]) > 1 for species in item["attributes"]["species"])
    }
    pulled = pull_optimade(optimade_server)
    assert {refusal.material_id for refusal in pulled.refused} == mixed
    assert all("only ordered" in refusal.reason for refusal in pulled.refused)


def test_filter_and_fields_reach_the_server(optimade_server):
    everything = pull_optimade(optimade_server)
    silicates = 'elements HAS ALL "O","Si"'
    expected = {
        name
        for name, crystal in zip(everything.structures.material_id, everything.structures.to_pymatgen(), strict=True)
        if {"O", "Si"} <= {element.symbol for element in crystal.composition}
    }
    assert 0 < len(expected) < len(everything.structures)
    pulled = pull(f"optimade:{optimade_server}/v1?filter={silicates}&fields=_exmpl_chemsys,nelements")
    assert set(pulled.structures.material_id) == expected
    assert pulled.provenance["filter"] == silicates
    assert all("O" in text and "Si" in text for text in pulled.columns["_exmpl_chemsys"])
    assert (pulled.columns["nelements"] >= 2).all()


def test_wrong_requests_end_at_once_with_what_to_change(optimade_server):
    with pytest.raises(SourceError, match="not of the OPTIMADE language"):
        pull_optimade(optimade_server, filter='elements HAS "Si" AND AND')
    with pytest.raises(SourceError, match=r"answered 400 .*check address and filter"):
        pull_optimade(optimade_server, filter="no_such_property_at_all=1")
    with pytest.raises(SourceError, match="answered 404"):
        pull_optimade(f"{optimade_server}/nowhere")
    for address in ("ftp://x.org", "file:///etc/passwd", "x.org", "https://"):
        with pytest.raises(SourceError, match="must begin with https:// or http://"):
            pull_optimade(address)
    with pytest.raises(SourceError, match="unknown option 'limit'"):
        pull_optimade("https://x.org?limit=3")


def test_a_server_that_is_down_is_tried_again_and_then_named(waits):
    with pytest.raises(SourceError, match=r"127.0.0.1:9: the connection failed .*6 times"):
        pull_optimade("http://127.0.0.1:9")
    assert waits == [1, 2, 4, 8, 16]


# A server that misbehaves on demand.

Reply = tuple[int, dict[str, str], bytes]


@contextmanager
def server(answer: Callable[[str, int], Reply]) -> Iterator[str]:
    """`answer` gets the path and how often this path was asked before."""
    asked: dict[str, int] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            times = asked[self.path] = asked.get(self.path, 0) + 1
            if self.path.endswith("/info"):
                status, headers, body = 200, {}, json.dumps({"data": {"attributes": {"license": LICENCE}}}).encode()
            else:
                status, headers, body = answer(self.path, times)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_address[1]}"
    finally:
        running.shutdown()
        running.server_close()


LICENCE = {"href": "https://example.org/licence"}


def entry(name: str | None, **changes: Any) -> dict[str, Any]:
    iron = Structure([[2.87, 0, 0], [0, 2.87, 0], [0, 0, 2.87]], ["Fe", "Fe"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    attributes = json.loads(to_optimade(iron).model_dump_json()) | {"last_modified": "2026-01-01T00:00:00Z"}
    return {"type": "structures", "id": name, "attributes": attributes | changes}


def pages(*groups: list[dict[str, Any]], **meta: Any) -> Callable[[str, int], Reply]:
    """A well-behaved provider with these pages; `meta` goes over what it says of them."""
    total = sum(len(group) for group in groups)

    def answer(path: str, times: int) -> Reply:
        number = int(path.partition("page_offset=")[2].partition("&")[0] or 0)
        more = number + 1 < len(groups)
        stated = {"data_returned": total, "more_data_available": more, "provider": {"prefix": "test", "name": "T"}}
        document = {"data": groups[number], "meta": stated | meta, "links": {"next": None}}
        if more:
            document["links"] = {"next": {"href": f"/v1/structures?page_offset={number + 1}"}}
        document["meta"] = {key: value for key, value in document["meta"].items() if value != "absent"}
        return 200, {}, json.dumps(document).encode()

    return answer


TWO_PAGES = [entry("a"), entry("b")], [entry("c")]


def test_pages_are_followed_and_the_licence_is_kept(waits):
    with server(pages(*TWO_PAGES)) as url:
        pulled = pull_optimade(url)
    assert list(pulled.structures.material_id) == ["a", "b", "c"]
    assert pulled.provenance["licence"] == "https://example.org/licence"
    assert pulled.provenance["name"] == "optimade:T"
    assert waits == [0.1]


@pytest.mark.parametrize("broken", ["429", "500", "503", "truncated", "html", "list", "closed"])
def test_a_fault_that_passes_costs_nothing(broken, waits):
    good = pages(*TWO_PAGES)

    def answer(path: str, times: int) -> Reply:
        status, headers, body = good(path, times)
        if "page_offset=1" not in path or times > 2:
            return status, headers, body
        faults = {
            "429": (429, {"Retry-After": "7"}, b""),
            "500": (500, {}, b"{}"),
            "503": (503, {}, b'{"errors": [{"detail": "busy"}]}'),
            "truncated": (200, {}, body[: len(body) // 2]),
            "html": (200, {}, b"<html>"),
            "list": (200, {}, b"[]"),
            "closed": (200, {"Content-Length": str(len(body) + 10)}, body),
        }
        return faults[broken]

    with server(answer) as url:
        pulled = pull_optimade(url, timeout=2)
    assert list(pulled.structures.material_id) == ["a", "b", "c"]
    assert waits == ([0.1, 7, 7] if broken == "429" else [0.1, 1, 2])


def test_a_fault_that_stays_is_an_error_and_never_a_short_result(waits):
    good = pages(*TWO_PAGES)

    def answer(path: str, times: int) -> Reply:
        return (503, {}, b'{"errors": [{"detail": "busy"}]}') if "page_offset=1" in path else good(path, times)

    with server(answer) as url, pytest.raises(SourceError, match=r"503 \(busy\), 6 times; after 2 structures"):
        pull_optimade(url)
    assert sum(waits) == pytest.approx(31.1)


def test_a_provider_that_asks_for_patience_is_told_of(waits):
    with (
        server(lambda *_: (429, {"Retry-After": "3600"}, b"")) as url,
        pytest.raises(SourceError, match="wait for 3600 s"),
    ):
        pull_optimade(url)
    assert waits == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (pages(*TWO_PAGES, data_returned=4), "3 structures came on 2 pages, but it says that there are 4"),
        (pages([entry("a"), entry("b")], [entry("b")]), "b came twice"),
        (pages([entry("a")], more_data_available=True), "more follows, but not where"),
        (pages([entry("a")], [], [entry("b")]), "page 2 is empty"),
        (pages([entry("a")], data_returned="absent", data_available=9), "says that there are 9"),
        (lambda *_: (200, {}, b'{"data": {}, "meta": {}}'), "no list of structures"),
    ],
)
def test_pages_that_do_not_add_up_are_an_error(answer, said):
    with server(answer) as url, pytest.raises(SourceError, match=said):
        pull_optimade(url)


def test_a_count_that_changes_is_an_error():
    def answer(path: str, times: int) -> Reply:
        stated = 4 if "page_offset" in path else 3
        return pages(*TWO_PAGES, data_returned=stated)(path, times)

    with server(answer) as url, pytest.raises(SourceError, match="changed from 3 to 4 on page 2"):
        pull_optimade(url)


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("https://evil.example/v1/structures?page_offset=1", "on another server"),
        ("file:///etc/passwd", "on another server"),
        ("/v1/structures?page_offset=0", "leads back"),
    ],
)
def test_a_next_page_elsewhere_is_not_followed(link, said):
    document = {"data": [entry("a")], "meta": {"more_data_available": True}, "links": {"next": link}}

    def answer(path: str, times: int) -> Reply:
        document["data"] = [entry(f"{path}{times}")]
        return 200, {}, json.dumps(document).encode()

    with server(answer) as url, pytest.raises(SourceError, match=said):
        pull_optimade(url)


def test_a_provider_that_gives_fewer_at_a_time_is_asked_for_fewer():
    def answer(path: str, times: int) -> Reply:
        if "page_limit" in path:
            return 403, {}, b'{"errors": [{"detail": "Max allowed page_limit is 10"}]}'
        return pages(*TWO_PAGES)(path, times)

    with server(answer) as url:
        assert len(pull_optimade(url).structures) == 3


def test_bare_numbers_get_the_prefix_and_a_missing_id_a_row():
    with server(pages([entry("17"), entry("mp-1"), entry(None)])) as url:
        pulled = pull_optimade(url)
    assert list(pulled.structures.material_id) == ["test-17", "mp-1"]
    assert [refusal.reason for refusal in pulled.refused] == ["it has no id"]


# Entries.

FE = {"name": "Fe", "chemical_symbols": ["Fe"], "concentration": [1.0]}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"structure_features": ["disorder"]}, "disordered"),
        ({"structure_features": ["implicit_atoms"]}, "no positions"),
        ({"structure_features": ["site_attachments"]}, "attached"),
        ({"structure_features": ["assemblies"]}, "alternative"),
        ({"structure_features": ["something_new"]}, "something_new"),
        ({"species": [FE | {"chemical_symbols": ["Fe", "Ni"], "concentration": [0.5, 0.5]}]}, "partial occupancy"),
        ({"species": [FE | {"concentration": [0.9]}]}, "partial occupancy"),
        ({"species": [FE | {"chemical_symbols": ["Fe", "vacancy"], "concentration": [0.9, 0.1]}]}, "vacant"),
        ({"species": [FE | {"chemical_symbols": ["vacancy"]}]}, "vacant"),
        ({"species": [FE | {"chemical_symbols": ["X"]}]}, "unknown element 'X'"),
        ({"species": [FE | {"attached": ["H"], "nattached": [2]}]}, "attached"),
        ({"dimension_types": [1, 1, 0]}, "not periodic"),
        ({"lattice_vectors": None}, "'lattice_vectors' is missing"),
        ({"lattice_vectors": [[1, 0, 0], [2, 0, 0], [0, 0, 1]]}, "no volume"),
        ({"lattice_vectors": [[1, 0, 0], [0, None, 0], [0, 0, 1]]}, "unknown number"),
        ({"cartesian_site_positions": [[0, 0, 0]]}, "2 sites"),
        ({"cartesian_site_positions": [[0, 0, 0], ["a", 0, 0]]}, "isn't made of numbers"),
        ({"species_at_sites": None}, "'species_at_sites' is missing"),
        ({"nsites": 3}, "'nsites' is 3"),
    ],
)
def test_what_is_no_ordered_crystal_is_refused_with_the_reason(changes, reason):
    with pytest.raises(ValueError, match=reason):
        crystal_from(entry("x", **changes)["attributes"])


def test_real_structures_survive_the_way_through_optimade(elastic):
    batch = elastic.structures.take(np.arange(50))
    for position, structure in enumerate(batch.to_pymatgen()):
        made = crystal_from(json.loads(to_optimade(structure).model_dump_json()))
        assert list(made.numbers) == list(structure.atomic_numbers)
        np.testing.assert_allclose(made.frac, structure.frac_coords, atol=1e-9)
        np.testing.assert_allclose(made.lattice, batch.lattice[position], atol=1e-9)
