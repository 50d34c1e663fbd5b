"""The report in a real browser: the table sorts and filters, structures turn, nothing is fetched, all can read it."""

from __future__ import annotations

import io
import json
import time

import numpy as np
import pyarrow as pa
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


@pytest.fixture(scope="module")
def chemistry_file(tmp_path_factory) -> str:
    """Address of a report of formulas that share letters but not elements."""
    store = campaign(np.random.default_rng(1), tmp_path_factory.mktemp("chemistry"))
    ranking, evidence = store.read_table("ranking.parquet").to_pandas(), store.read_json("evidence.json")
    for row, text in enumerate(("Re3B", "CrWN2", "NaNbN2", "Co(BW)2", "MnO2")):
        name = f"mine-{'bcdef'[row]}"
        ranking.loc[row, ["material_id", "formula"]] = name, text
        evidence["candidates"][row]["material_id"] = name
    store.write_table("ranking.parquet", pa.Table.from_pandas(ranking, preserve_index=False))
    store.write_json("evidence.json", evidence)
    write_report(store)
    return store.local("report.html").as_uri()


@pytest.fixture
def chemistry(browser: Page, chemistry_file: str) -> Page:
    browser.go(chemistry_file)
    browser.wait("document.querySelectorAll('.plot .main-svg').length > 0")
    return browser


def find(page: Page, text: str) -> None:
    """Type into the search."""
    page.run(
        f"(i => {{ i.value = {json.dumps(text)}; i.dispatchEvent(new Event('input', {{bubbles: true}})); }})"
        "(document.querySelector('.tools input[name=q]'))"
    )


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
    find(page, "zzz")
    assert page.run(f"{SHOWN}.length") == 0
    assert page.run("[...document.querySelectorAll('.card')].every(card => card.hidden)")
    assert page.run("document.querySelector('[data-count]').textContent") == f"0 of {N_SHORTLIST} shown"


def test_the_domain_can_be_asked_for(page):
    inside = page.run(f"{SHOWN}.filter(row => row.textContent.includes('inside')).length")
    page.run("document.querySelector('input[name=inside]').click()")
    assert page.run(f"{SHOWN}.length") == inside < N_SHORTLIST


@pytest.mark.parametrize(
    ("typed", "left"),
    [
        ("N", ["CrWN2", "NaNbN2"]),
        ("n", ["CrWN2", "NaNbN2"]),
        ("Nb", ["NaNbN2"]),
        ("-N", ["Re3B", "Co(BW)2", "MnO2"]),
        ("B W", ["Co(BW)2"]),
        ("CoB2W2", ["Co(BW)2"]),
        ("Co2(BW)4", ["Co(BW)2"]),
        ("BRe3", ["Re3B"]),
        ("Cr-N", []),
        ("Cr-N-W", ["CrWN2"]),
        ("N2", ["CrWN2", "NaNbN2"]),
        ("mine-b", ["Re3B"]),
        ("cubic", ["Re3B", "CrWN2", "NaNbN2", "Co(BW)2", "MnO2"]),
        ("inside", []),
        ("<b>", []),
    ],
)
def test_what_is_typed_is_an_element_a_system_a_formula_or_a_word(chemistry, typed, left):
    find(chemistry, typed)
    assert chemistry.run(f"{SHOWN}.map(row => row.dataset.formula)") == left
    assert chemistry.messages == []


def test_elements_are_picked_with_and_without(chemistry):
    pick = "document.querySelector('[data-element=N]')"
    chemistry.run(f"{pick}.click()")
    assert chemistry.run(f"{SHOWN}.map(row => row.dataset.formula)") == ["CrWN2", "NaNbN2"]
    assert chemistry.run(f"{pick}.ariaPressed + {pick}.ariaLabel") == "trueNitrogen: with it"
    chemistry.run(f"{pick}.click()")
    assert chemistry.run(f"{SHOWN}.map(row => row.dataset.formula)") == ["Re3B", "Co(BW)2", "MnO2"]
    chemistry.run(f"{pick}.click()")
    assert chemistry.run(f"{SHOWN}.length") == N_SHORTLIST
    # Only elements of the shortlist can be picked.
    there = chemistry.run(
        "[...document.querySelectorAll('[data-element]')].map(b => b.dataset.element).sort().join(' ')"
    )
    assert there == "B Co Cr Mn N Na Nb O Re W"


def test_numbers_have_ends_and_every_column_sorts(page):
    values = [float(value) for value in column(page, "predicted")]
    low = sorted(values)[2]
    end = "document.querySelector('[data-column=predicted][data-end=min]')"
    page.run(f"{end}.value = {low}; {end}.dispatchEvent(new Event('input', {{bubbles: true}}))")
    assert [float(value) for value in column(page, "predicted")] == [value for value in values if value >= low]
    page.run("document.querySelector('.tools [type=reset]').click()")
    page.wait(f"{SHOWN}.length === {N_SHORTLIST}")
    count = page.run(f"{TABLE}.tHead.querySelectorAll('th').length")
    for index in range(count):
        page.run(f"{TABLE}.tHead.querySelectorAll('th button')[{index}].click()")
        assert page.run(f"{TABLE}.tHead.querySelectorAll('th')[{index}].ariaSort") == "ascending"
        assert page.run(f"{TABLE}.tHead.querySelectorAll('th[aria-sort=ascending]').length") == 1


def test_a_link_shows_what_was_asked_for(browser, chemistry_file):
    browser.go(f"{chemistry_file}#show:elements=N,-Cr&sort=-predicted")
    browser.wait("document.querySelectorAll('.plot .main-svg').length > 0")
    assert browser.run(f"{SHOWN}.map(row => row.dataset.formula)") == ["NaNbN2"]
    assert browser.run("document.querySelector('[data-element=Cr]').ariaPressed") == "mixed"
    assert browser.run(f"{TABLE}.tHead.querySelector('[data-key=predicted]').ariaSort") == "descending"
    # What is changed stands in the address; another one is followed.
    browser.run("document.querySelector('[data-element=Cr]').click()")
    assert browser.run("decodeURIComponent(location.hash)") == "#show:elements=N&sort=-predicted"
    find(browser, "W & <x>")
    assert browser.run("new URLSearchParams(location.hash.slice(6)).get('q')") == "W & <x>"
    browser.run("location.hash = '#show:q=Re'")
    browser.wait(f"{SHOWN}.length === 1")
    assert browser.run(f"{SHOWN}[0].dataset.formula") == "Re3B"
    browser.run("document.querySelector('.tools [type=reset]').click()")
    browser.wait("location.hash === '#shortlist'")
    assert browser.run(f"{SHOWN}.length") == N_SHORTLIST
    # What no column or element is called is passed over.
    browser.go(f"{chemistry_file}#show:elements=Xx,<b>&sort=nothing&min.nothing=3")
    browser.wait("document.querySelectorAll('.plot .main-svg').length > 0")
    assert browser.run(f"{SHOWN}.length") == N_SHORTLIST
    assert browser.messages == []


def test_a_phone_shows_what_is_predicted(browser, store):
    browser.go(store.local("report.html").as_uri(), width=390)
    browser.wait("document.querySelectorAll('.plot .main-svg').length > 0")
    places = browser.run(
        f"{SHOWN}.map(row => [...row.cells].filter(c => c.textContent).map(c => c.getBoundingClientRect()))"
        ".flat().map(r => [r.left, r.right])"
    )
    assert len(places) > N_SHORTLIST
    assert all(0 <= left < right <= 390 for left, right in places)
    first = browser.run(f"getComputedStyle({SHOWN}[0].querySelector('[data-key=predicted]'), '::before').content")
    assert first == '"predicted (GPa)"'
    # What is still wider than the window says so.
    hint = "[...document.querySelectorAll('.scroll')].filter(b => b.scrollWidth > b.clientWidth + 1)"
    assert browser.run(f"{hint}.length > 0 && {hint}.every(b => b.classList.contains('overflows'))")


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


@pytest.mark.parametrize("plot", ["map", "hull"])
def test_a_click_on_a_point_leads_to_the_card_of_the_candidate(page, store, plot):
    names = store.read_table("ranking.parquet").to_pandas()["material_id"]
    drawn = f"document.getElementById('plot-{plot}')"

    def click(name: str) -> None:
        page.run(f"{drawn}.emit('plotly_click', {{points: [{{customdata: [{json.dumps(name)}, 'x']}}]}})")

    find(page, names[0])
    click(names[2])
    # Its card is there though the search had left it out.
    assert page.run("location.hash") == "#card-3"
    assert not page.run("document.querySelector('#card-3').hidden")
    # The points carry the names that are looked for; others lead nowhere.
    traces = f"{drawn}.data.filter(t => t.name === 'shortlist' && t.customdata)"
    assert page.run(f"{traces}.flatMap(t => t.customdata.map(c => c[0]))") == names[:N_SHORTLIST].tolist()
    click("nobody")
    assert page.run("location.hash") == "#card-3"
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
    # With all that is folded away in sight, and elements picked.
    browser.run("document.querySelectorAll('.tools details').forEach(d => { d.open = true; })")
    browser.run("document.querySelector('[data-element=O]').click()")
    browser.run("[1, 2].forEach(() => document.querySelector('[data-element=Al]').click())")
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert faults(browser) == []


def test_it_prints_without_its_controls(page):
    page.send("Emulation.setEmulatedMedia", media="print")
    controls = "[...document.querySelectorAll('nav, .tools, .downloads, .copy')]"
    assert page.run(f"{controls}.every(e => getComputedStyle(e).display === 'none')")
    page.send("Emulation.setEmulatedMedia", media="")
    assert page.pdf().startswith(b"%PDF")
