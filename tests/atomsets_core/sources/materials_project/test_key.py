"""Where the key comes from, and that it goes nowhere but into the header of a request."""

import logging
import traceback

import pyarrow.parquet as pq
import pytest

from atomsets_core.sources.base import SourceError, SourceUnavailableError
from atomsets_core.sources.materials_project import client
from atomsets_core.structures.batch import STRUCTURE_COLUMNS
from tests.materials_project_server.running import KEY, Notes


def test_no_key_says_where_to_get_one(monkeypatch):
    monkeypatch.delenv("MP_API_KEY", raising=False)
    monkeypatch.setattr("pymatgen.core.SETTINGS", {})
    with pytest.raises(SourceError, match="no key .* https://next-gen.materialsproject.org/api .* MP_API_KEY"):
        client.find_key()


def test_the_settings_of_pymatgen_hold_it_too(monkeypatch):
    monkeypatch.delenv("MP_API_KEY", raising=False)
    monkeypatch.setattr("pymatgen.core.SETTINGS", {"PMG_MAPI_KEY": KEY})
    assert client.find_key() == KEY


@pytest.mark.parametrize("bad", [KEY[:-1], KEY + "0", "-" * 32])
def test_what_is_no_key_is_not_repeated(monkeypatch, bad):
    monkeypatch.setenv("MP_API_KEY", bad)
    with pytest.raises(SourceError, match="MP_API_KEY holds no key") as caught:
        client.find_key()
    assert bad not in str(caught.value)


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("http://example.org/", "unencrypted"),
        ("ftp://example.org/", "begins with https"),
        (f"https://{KEY}@example.org/", "more than an address"),
        (f"https://example.org/?key={KEY}", "more than an address"),
    ],
)
def test_addresses_that_would_give_the_key_away(monkeypatch, endpoint, said):
    monkeypatch.setenv("MP_API_ENDPOINT", endpoint)
    with pytest.raises(SourceError, match=said) as caught:
        client.find_endpoint()
    assert KEY not in str(caught.value)


def everything_in(error: BaseException | None) -> str:
    """What a traceback could show, with the objects that hang on the exceptions."""
    seen, text = set(), ""
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        text += "".join(traceback.format_exception(error)) + repr(vars(error)) + repr(error.args)
        request = getattr(error, "request", None)
        text += repr(getattr(request, "headers", ""))
        error = error.__cause__ or error.__context__
    return text


FAILURES = {
    "none": [],
    "wrong key, repeated by the server": "key",
    "unavailable": [{"kind": "503", "times": -1}],
    "dropped": [{"kind": "drop", "times": -1}],
    "broken off": [{"kind": "broken", "times": -1}],
    "no JSON": [{"kind": "bad_json", "times": -1}],
    "in the middle": [{"kind": "500", "times": -1, "after": 3}],
}


@pytest.mark.parametrize("failure", FAILURES)
def test_it_is_in_no_file_log_or_exception(server, pull, tmp_path, caplog, capfd, failure):
    if FAILURES[failure] == "key":
        server.options(key="f" * 32)
    else:
        server.faults(*FAILURES[failure])
    watch, text = Notes(), ""
    with caplog.at_level(logging.DEBUG):
        try:
            pull(watch, attempts=2, fields=["elasticity.k_vrh"])
            assert failure == "none"
        except SourceError as error:
            assert failure != "none"
            text += everything_in(error)
    text += caplog.text + "".join(capfd.readouterr()) + "".join(watch.messages)
    assert "control" in caplog.text or "heartbeat" in caplog.text  # the verbose log was there to be searched
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 1 or failure != "none"
    for path in files:
        text += path.read_bytes().decode("latin-1")
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            text += repr(table.schema.metadata) + repr(
                table.select([n for n in table.column_names if n not in STRUCTURE_COLUMNS]).to_pydict()
            )
    assert KEY not in text
    assert all(request["key_sent"] for request in server.log()["requests"])


def test_the_client_does_not_show_it():
    assert KEY not in repr(client.Client("https://example.org/", KEY, 4.0, 7, 1.0, 60.0))


def test_a_redirection_is_not_followed_with_it(server, pull):
    server.faults({"kind": "redirect", "to": "http://127.0.0.1:9/"})
    with pytest.raises(SourceError, match="a redirection; is MP_API_ENDPOINT right") as caught:
        pull()
    assert not isinstance(caught.value, SourceUnavailableError)
    assert len(server.log()["requests"]) == 1
