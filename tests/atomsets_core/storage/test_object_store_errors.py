"""An object store that can't be used is one sentence: a missing package, a missing bucket, a server that is away."""

from __future__ import annotations

import importlib.util

import pytest
from typer.testing import CliRunner

from atomsets_core.storage.store import StorageError, Store
from tests.s3_server import serving_s3


@pytest.mark.parametrize(("url", "package"), [("gs://bucket/x", "gcsfs"), ("abfs://bucket/x", "adlfs")])
def test_a_missing_package_is_named(url, package):
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(StorageError, match=f"pip install {package}"):
        Store(url)


def away(monkeypatch) -> None:
    keys = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}
    for name, value in {**keys, "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.slow
def test_a_store_that_is_away_is_said_by_whatever_asks_it(monkeypatch):
    away(monkeypatch)
    store = Store("s3://bucket/x")
    for ask in (
        lambda: store.exists("a"),
        lambda: store.names("."),
        lambda: store.write("a", b""),
        lambda: store.read("a"),
    ):
        with pytest.raises(StorageError, match="no object store answers there"):
            ask()


@pytest.mark.slow
def test_a_missing_bucket_is_said_and_the_command_ends_with_2(monkeypatch, tmp_path):
    from atomsets_flows.cli import app

    (tmp_path / "x.vasp").write_text("x\n4.2\n1 0 0\n0 1 0\n0 0 1\nMg O\n1 1\nDirect\n0 0 0\n.5 .5 .5\n")
    with serving_s3() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        result = CliRunner().invoke(app, ["pull", str(tmp_path), "--out", "s3://nosuchbucket/x"])
    assert result.exit_code == 2
    assert "there is no such bucket" in " ".join(result.output.split())
