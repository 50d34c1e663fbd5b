"""The report in a real browser: the table sorts and filters, structures turn, nothing is fetched, all can read it."""

from __future__ import annotations

import io
import json
import time

import numpy as np
import pytest
from PIL import Image

from atomsets_core.report.page import write_report
from atomsets_core.storage.store import Store
from tests.accessibility import faults
from tests.atomsets_core.report.test_report import N_SHORTLIST, campaign
from tests.browser import Page

TABLE = "document.getElementById('shortlist-table')"
SHOWN = f"[...{TABLE}.tBodies[0].rows].filter(row => !row.hidden)"


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    store = campaign(np.random.default_rng(0), tmp_path_factory.mktemp("report"))
    write_report(store)
    return store


@pytest.fixture
def page(browser: Page, store: Store) -> Page:
    browser.go(store.local("report.html").as_uri())
    browser.wait("document.querySelectorAll('.plot .main-svg').length > 0")
    return browser


def column(page: Page, name: str) -> list[str]:
    index = page.run(f"[...{TABLE}.tHead.rows[0].cells].findIndex(c => c.textContent.trim().startsWith('{name}'))")
    read = f"row.cells[{index}].dataset.value ?? row.cells[{index}].textContent.trim()"
    return list(page.run(f"{SHOWN}.map(row => {read})"))


def look(page: Page, place: dict[str, float]) -> np.ndarray:
    """(height, width, 3) what is seen of the page there."""
    clip = {name: place[name] for name in ("x", "y", "width", "height")} | {"scale": 1}
    with Image.open(io.BytesIO(page.capture(clip=clip))) as image:
        return np.asarray(image.convert("RGB"))


def click_heading(page: Page, name: str) -> None:
    page.run(f"[...{TABLE}.tHead.querySelectorAll('button')].find(b => b.textContent.startsWith('{name}')).click()")


def test_headings_sort_by_number_and_turn_round(page):
    assert column(page, "rank") == ["1", "2", "3", "4", "5"]
    click_heading(page, "above hull")
    up = [float(value) for value in column(page, "above hull")]
    assert up == sorted(up)
    click_heading(page, "above hull")
    assert [float(value) for value in column(page, "above hull")] == up[::-1]
    click_heading(page, "formula")
    formulas = column(page, "formula")
    # By the numbers in them: Al9O3 before Al10O3.
    assert formulas == sorted(formulas, key=lambda text: int(text[2:-2]))
    sorted_by = (
        f"[...{TABLE}.tHead.querySelectorAll('th')].filter(h => h.ariaSort !== 'none').map(h => h.textContent.trim())"
    )
    assert page.run(sorted_by) == ["formula"]


def test_cards_follow_the_table(page):
    click_heading(page, "above hull")
    names = page.run("[...document.querySelectorAll('.card h3')].map(h => h.textContent)")
    assert names == column(page, "formula")
    page.run(
        "(i => { i.value = 'zzz'; i.dispatchEvent(new Event('input')); })(document.querySelector('[data-filter]'))"
    )
    assert page.run(f"{SHOWN}.length") == 0
    assert page.run("[...document.querySelectorAll('.card')].every(card => card.hidden)")
    assert page.run("document.querySelector('[data-count]').textContent") == f"0 of {N_SHORTLIST} shown"


def test_the_domain_can_be_asked_for(page):
    inside = page.run(f"{SHOWN}.filter(row => row.textContent.includes('inside')).length")
    page.run("document.querySelector('[data-inside=\"shortlist-table\"]').click()")
    assert page.run(f"{SHOWN}.length") == inside < N_SHORTLIST


def test_a_structure_is_drawn_and_turns(page):
    page.run("document.querySelector('#candidates').scrollIntoView()")
    page.run("document.querySelector('.crystal-box button').click()")
    page.wait("document.querySelector('.crystal-box').viewer !== undefined")
    box = page.run("JSON.stringify(document.querySelector('.stage').getBoundingClientRect())")
    place = json.loads(box)
    middle = (place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    before, view = look(page, place), page.run("document.querySelector('.crystal-box').viewer.getView()")
    # Balls with light and shade have many colours; an empty canvas has one.
    assert len(np.unique(before.reshape(-1, 3), axis=0)) > 50
    page.drag(middle, (middle[0] + 70, middle[1] + 30))
    turned = page.run("document.querySelector('.crystal-box').viewer.getView()")
    assert np.abs(np.array(turned[4:]) - np.array(view[4:])).max() > 0.05
    assert (look(page, place) != before).any()
    page.run("document.querySelector('.stage').dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowLeft'}))")
    assert page.run("document.querySelector('.crystal-box').viewer.getView()") != turned
    # Another one takes its place: a browser gives a page only a few contexts.
    page.run("document.querySelectorAll('.crystal-box')[1].querySelector('button').click()")
    assert page.run("document.querySelectorAll('.stage').length") == 1
    assert page.run("document.querySelectorAll('svg.crystal').length") == N_SHORTLIST - 1
    assert page.messages == []


def test_nothing_is_fetched_and_nothing_fails(page, store):
    time.sleep(0.3)
    page.run("0")
    fetched = [url for url in page.requests if not url.startswith(("data:", "blob:"))]
    assert fetched == [store.local("report.html").as_uri()]
    assert page.messages == []


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_fits_the_window_and_has_no_serious_fault(browser, store, width, dark):
    browser.go(store.local("report.html").as_uri(), width=width, dark=dark)
    browser.wait("document.querySelectorAll('.plot .main-svg').length > 0")
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert faults(browser) == []


def test_it_prints_without_its_controls(page):
    page.send("Emulation.setEmulatedMedia", media="print")
    controls = "[...document.querySelectorAll('nav, .tools, .downloads, .copy')]"
    assert page.run(f"{controls}.every(e => getComputedStyle(e).display === 'none')")
    page.send("Emulation.setEmulatedMedia", media="")
    assert page.pdf().startswith(b"%PDF")
