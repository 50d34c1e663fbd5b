"""Whatever the server does: every entry once, or an error that says what to do. Never a short result."""

import time

import pytest

from atomsets_core.sources.base import SourceError, SourceUnavailableError
from tests.materials_project_server.running import Notes

PASSING = {
    "too many requests": {"kind": "429"},
    "too many requests, thrice": {"kind": "429", "times": 3},
    "internal error": {"kind": "500", "times": 2},
    "unavailable": {"kind": "503", "times": 2},
    "bad gateway": {"kind": "502"},
    "dropped connection": {"kind": "drop", "times": 2},
    "broken off": {"kind": "broken", "times": 2},
    "no JSON": {"kind": "bad_json", "times": 2},
    "half a page": {"kind": "short", "times": 2},
}


@pytest.mark.parametrize(("name", "after"), [*((name, 4) for name in PASSING), ("broken off", 0), ("half a page", 9)])
def test_what_passes_is_tried_again(server, pull, pulled_table, original, name, after):
    server.faults({**PASSING[name], "after": after})
    watch = Notes()
    file = pull(watch)
    assert file.structures == 400
    assert sorted(pulled_table()["material_id"].to_pylist()) == sorted(original["material_id"].to_pylist())
    assert len(watch.messages) == PASSING[name].get("times", 1)
    assert all("try " in message for message in watch.messages)
    assert file.counts["pages"] == 10


def test_the_server_says_how_long_to_wait(server, pull):
    server.faults({"kind": "429", "after": 2, "retry_after": 1})
    watch = Notes()
    started = time.monotonic()
    pull(watch)
    assert time.monotonic() - started >= 1
    assert watch.messages == ["page 3 of the summary: status 429 (on demand); try 2 of 7 in 1.0 s"]


def test_a_wait_of_an_hour_is_left_to_the_user(server, pull):
    server.faults({"kind": "503", "after": 2, "retry_after": 3600})
    with pytest.raises(SourceUnavailableError, match="asks to wait 60 minutes.*kept: run the same command again"):
        pull()
    assert pull().counts["pages"] == 8


def test_requests_keep_their_distance(server, pull):
    started = time.monotonic()
    counts = pull(requests_per_second=20).counts
    assert counts["requests"] == 12
    assert time.monotonic() - started >= 11 / 20


def test_a_slow_server_costs_a_try(server, pull):
    server.faults({"kind": "slow", "after": 1, "seconds": 1.5})
    watch = Notes()
    assert pull(watch, timeout=0.5).structures == 400
    assert watch.messages[0].startswith("page 2 of the summary: no answer in time; try 2")


LASTING = {
    "429": "status 429",
    "500": "status 500",
    "503": "status 503",
    "drop": "no connection, or it broke",
    "broken": "the reply broke off",
    "bad_json": "the reply is not JSON",
    "short": "it holds 20 of 40 entries",
}


@pytest.mark.parametrize("kind", LASTING)
def test_what_lasts_is_an_error_that_keeps_what_came(server, pull, pulled_table, kind):
    server.faults({"kind": kind, "after": 3, "times": -1})
    with pytest.raises(SourceUnavailableError, match=f"page 4 of the summary.*3 tries.*{LASTING[kind]}.*run the same"):
        pull(attempts=3)
    server.faults()
    server.forget()
    assert pull(attempts=3).counts["pages"] == 7
    assert pulled_table().num_rows == 400
    assert len(server.structures()) == 280


def test_a_server_with_smaller_pages_is_named(server, pull):
    server.faults({"kind": "cap", "size": 12, "times": -1})
    with pytest.raises(SourceUnavailableError, match="it holds 12 of 40 entries; .*needs a smaller page_size"):
        pull(attempts=2)
    assert pull(page_size=12).structures == 400


def test_no_server_at_all(pull, monkeypatch):
    monkeypatch.setenv("MP_API_KEY", "0123456789abcdefABCDEF0123456789")
    monkeypatch.setenv("MP_API_ENDPOINT", "http://127.0.0.1:9/")
    with pytest.raises(
        SourceUnavailableError, match="the version of the database didn't come from http://127.0.0.1:9/"
    ):
        pull(attempts=2)


@pytest.mark.parametrize("times", [1, -1])
def test_a_server_that_does_not_count_is_checked_by_a_listing(server, pull, pulled_table, times):
    server.faults({"kind": "no_total", "times": times})
    watch = Notes()
    assert pull(watch).structures == 400
    assert set(server.structures().values()) == {1}
    assert any("listed to make sure" in message for message in watch.messages) == (times == -1)
    assert len(set(pulled_table()["material_id"].to_pylist())) == 400


@pytest.mark.parametrize("after", [3, 9])
def test_half_a_page_of_a_server_that_does_not_count_is_noticed(server, pull, pulled_table, after):
    server.faults({"kind": "no_total", "times": -1}, {"kind": "short", "after": after})
    assert pull().structures == 400
    assert set(server.structures().values()) == {1}
    assert pulled_table().num_rows == 400


def test_another_order_between_two_pages_is_repaired(server, pull, pulled_table, original):
    server.faults({"kind": "shuffle", "after": 5, "times": 2})
    watch = Notes()
    assert pull(watch).structures == 400
    assert any("the order changed between two pages" in message for message in watch.messages)
    assert sorted(pulled_table()["material_id"].to_pylist()) == sorted(original["material_id"].to_pylist())


def test_another_order_with_each_request_is_an_error(server, pull):
    server.faults({"kind": "shuffle", "times": -1})
    with pytest.raises(SourceUnavailableError, match="another order.*kept: run the same command again later"):
        pull()
    server.faults()
    assert pull().structures == 400


def test_entries_that_come_and_go_in_the_middle(server, pull, pulled_table, original):
    ids = original["material_id"].to_pylist()
    gone = sorted(ids)[:3] + sorted(ids)[-3:]
    server.faults({"kind": "release", "after": 4, "version": "2026.10.01", "changes": {"hide": gone}})
    assert pull().structures == 394
    assert sorted(pulled_table()["material_id"].to_pylist()) == sorted(set(ids) - set(gone))


def test_a_release_in_the_middle(server, pull, pulled_table, original):
    ids = sorted(original["material_id"].to_pylist())
    changes = {"change": ids[:5] + ids[-5:], "deprecate": ids[5:8] + ids[-8:-5]}
    server.faults({"kind": "release", "after": 4, "version": "2026.11.01", "changes": changes})
    watch = Notes()
    file = pull(watch)
    assert file.structures == 394
    assert file.provenance["db_version"] == "2026.11.01"
    # what came before the release and changed with it comes again, nothing else
    assert {name for name, times in server.structures().items() if times > 1} == set(ids[:5])
    assert sorted(pulled_table()["material_id"].to_pylist()) == sorted(set(ids) - set(changes["deprecate"]))


def test_a_release_with_each_pull_is_an_error(server, pull):
    releases = [{"kind": "release", "after": n, "version": f"2027.{n}", "changes": {}} for n in range(40)]
    server.faults(*releases)
    with pytest.raises(SourceUnavailableError, match="changed its database 3 times"):
        pull()


@pytest.mark.parametrize("after", [0, 3])
def test_a_wrong_key_is_said_at_once(server, pull, after):
    if after:
        server.faults({"kind": "500", "after": after, "times": -1})
        with pytest.raises(SourceUnavailableError):
            pull(attempts=1)
        server.faults()
    server.options(key="f" * 32)
    server.forget()
    with pytest.raises(SourceError, match=r"doesn't take the key \(status 403\): copy yours again from https"):
        pull()
    assert len(server.log()["requests"]) == 1


def test_a_bad_listing_is_asked_for_again(server, pull):
    pull()
    server.release("2026.11.01")
    server.faults({"kind": "shuffle", "after": 3, "times": 2})
    server.forget()
    watch = Notes()
    assert pull(watch).structures == 400
    assert any("doesn't add up" in message for message in watch.messages)
    assert server.structures() == {}
