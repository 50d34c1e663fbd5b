"""Champions come, are kept, replaced and gone back to; nothing is forgotten."""

from __future__ import annotations

import pytest

from atomsets_core.campaigns import model_registry
from atomsets_core.campaigns.model_registry import Entry, Registry, RegistryError, read_registry, write_registry
from atomsets_core.storage.store import StorageError, Store


def entry(name, definition="d1"):
    return Entry(f"models/{name}", definition, f"data-{name}", 10, "2026-01-01T00:00:00+00:00", {"rho": []}, {}, [])


@pytest.fixture
def three():
    """a was appointed, then b and c were promoted."""
    book = Registry().appoint(entry("a"), "folds", "the first")
    for name in "bc":
        book = book.add(entry(name)).promote(f"models/{name}", "better")
    return book


def champion(book, definition="d1"):
    found = book.champion(definition)
    return found and found.folder


def test_the_first_is_appointed_and_freezes_the_folds():
    book = Registry()
    assert book.champion("d1") is None
    book = book.appoint(entry("a"), "folds-a", "the first")
    assert champion(book) == "models/a"
    assert book.founders["d1"] == ("models/a", "folds-a")
    again = book.appoint(entry("b"), "folds-b", "the first was lost")
    assert again.founders["d1"] == ("models/a", "folds-a")
    assert again.log[-1].other == "models/a"


def test_a_challenger_that_is_turned_down_is_kept(three):
    book = three.add(entry("d")).keep("models/d", "not better")
    assert champion(book) == "models/c"
    assert "models/d" in book.entries
    assert (book.log[-1].what, book.log[-1].model, book.log[-1].other) == (model_registry.KEPT, "models/c", "models/d")


def test_going_back_step_by_step(three):
    book = three.go_back("d1", "by hand")
    assert champion(book) == "models/b"
    assert book.entries["models/c"].set_aside
    book = book.go_back("d1", "by hand")
    assert champion(book) == "models/a"
    with pytest.raises(RegistryError, match="models/a is the first champion"):
        book.go_back("d1", "by hand")
    assert set(book.entries) == {"models/a", "models/b", "models/c"}


def test_after_going_back_a_promotion_and_back_again(three):
    book = three.go_back("d1", "by hand").add(entry("d")).promote("models/d", "better")
    assert champion(book.go_back("d1", "again")) == "models/b"


def test_promoting_by_hand_lifts_the_ban(three):
    book = three.go_back("d1", "by hand").promote("models/c", "by hand")
    assert not book.entries["models/c"].set_aside
    with pytest.raises(RegistryError, match="champion already"):
        book.promote("models/c", "twice")
    with pytest.raises(RegistryError, match="no model 'models/x'"):
        book.promote("models/x", "")


def test_definitions_have_champions_of_their_own(three):
    book = three.appoint(entry("x", "d2"), "folds-x", "defined anew")
    assert (champion(book), champion(book, "d2")) == ("models/c", "models/x")
    with pytest.raises(RegistryError, match="first champion"):
        book.go_back("d2", "")
    assert champion(book.go_back("d1", ""), "d2") == "models/x"
    with pytest.raises(RegistryError, match="no champion"):
        book.go_back("d3", "")


def test_names_can_be_short():
    book = Registry().appoint(entry("abc1"), "f", "").add(entry("abd2"))
    assert book.find("abc") == book.find("models/abc1") == "models/abc1"
    with pytest.raises(RegistryError, match="2 models begin with 'ab'"):
        book.find("ab")
    for nothing in ("x", ""):
        with pytest.raises(RegistryError, match="no model begins with"):
            book.find(nothing)


def test_written_and_read(three, tmp_path):
    store = Store(tmp_path)
    assert read_registry(store) == Registry()
    book = three.go_back("d1", "by hand")
    write_registry(store, book)
    assert read_registry(store) == book


@pytest.mark.parametrize("raw", [{}, {"version": 1}, {"version": 1, "models": [{}], "champions": {}}, [], None])
def test_damage_is_named(raw, tmp_path):
    store = Store(tmp_path)
    store.write_json(model_registry.REGISTRY, raw)
    with pytest.raises(StorageError, match=r"registry\.json"):
        read_registry(store)
    store.write_json(model_registry.REGISTRY, {"version": 99})
    with pytest.raises(StorageError, match="newer version"):
        read_registry(store)
