"""Artifacts while the Prefect server is away."""

import httpx
import pytest
from prefect import flow

from atomsets_flows.runs import progress


@pytest.fixture
def no_waiting(monkeypatch):
    waited = []
    monkeypatch.setattr(progress.time, "sleep", waited.append)
    return waited


@pytest.fixture(autouse=True)
def no_memory_of_other_tests(monkeypatch):
    monkeypatch.setattr(progress, "server", progress.Server())
    monkeypatch.setattr(progress, "_retry", lambda _: None)
    monkeypatch.setattr(progress.logging, "raiseExceptions", True)


def away(times, came):
    """Fails so often, then takes what it is given."""
    left = [times]

    def create(*arguments, **options):
        if left[0]:
            left[0] -= 1
            raise httpx.ConnectError("refused")
        came.append((arguments, options))

    return create


def test_a_server_that_comes_back_gets_its_artifact(no_waiting):
    came = []
    progress.publish(away(3, came), "text", key="k")
    assert came == [(("text",), {"key": "k"})]
    assert no_waiting == [1.0, 2.0, 4.0]


def test_a_run_goes_on_without_a_server_that_stays_away(no_waiting, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    told = []
    monkeypatch.setattr(progress, "note", told.append)

    @flow
    def run():
        progress.publish(away(99, []), "text", key="shortlist")
        return "done"

    assert run() == "done"
    assert "shortlist is not shown there" in told[0]


def test_what_else_is_wrong_is_no_matter_of_patience(no_waiting):
    def create():
        raise ValueError("no such key")

    with pytest.raises(ValueError, match="no such key"):
        progress.publish(create)
    assert not no_waiting
