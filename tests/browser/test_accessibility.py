"""axe, which looks for barriers, on the controls that the course makes: in JupyterLab and in an exported page."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect
from test_controls import BOARD, GROWS, LIVE, RUN, SETUP, SMALL, Sketch
from test_exported import ALL

pytestmark = pytest.mark.xdist_group("accessibility")  # one worker: these tests share a page

# ipywidgets 8.1.9 names its sliders by a <label> with neither `for` nor id, so the handle has no name for axe.
KNOWN = {("aria-input-field-name", ".noUi-handle")}
# JupyterLab's body is 0 pixels high and clips what is outside, so that axe would take no text for visible.
NO_CLIPPING = "document.body.style.overflow = 'visible'"


def barriers(page, control):
    """axe's violations in the parts of the page that match, as (rule, HTML), without those that are known."""
    page.evaluate(NO_CLIPPING)
    page.locator(control).first.scroll_into_view_if_needed()
    found = Axe().run(page, {"include": [[control]]}).response
    met = {rule["id"] for rule in found["passes"]}
    assert {"image-alt", "color-contrast"} <= met, "axe did not look at the control"
    nodes = [(rule["id"], node) for rule in found["violations"] for node in rule["nodes"]]
    return [
        (rule, node["html"])
        for rule, node in nodes
        if not any(
            rule == name and page.locator(node["target"][0]).and_(page.locator(of)).count() for name, of in KNOWN
        )
    ]


def check_that_a_fault_is_found(page):
    """Without its aria-label, the first scrubber's slider has no name."""
    slider = page.locator(".sora-scrubber input").first
    name = slider.get_attribute("aria-label")
    slider.evaluate("slider => slider.removeAttribute('aria-label')")
    assert [rule for rule, _ in barriers(page, ".sora-scrubber")] == ["label"]
    slider.evaluate("(slider, name) => slider.setAttribute('aria-label', name)", name)
    assert not barriers(page, ".sora-scrubber")


@pytest.fixture(scope="module")
def page(open_notebook):
    """All controls, after a sketch is learnt."""
    notebook = open_notebook("barriers.ipynb", [SETUP + RUN, GROWS, LIVE, BOARD, SMALL])
    notebook.run_all()
    expect(notebook.page.locator(".dd-scatter-svg")).to_be_visible(timeout=60_000)
    sketch = Sketch(notebook.page)
    sketch.shape.select_option("heart")
    sketch.train.click()
    sketch.distances()
    return notebook.page


@pytest.mark.parametrize("control", [".sora-scrubber", ".sora-live", ".sora-board", ".sora-sketch"])
def test_axe_finds_no_barrier_in_jupyterlab(page, control):
    assert barriers(page, control) == []


def test_axe_finds_no_barrier_in_an_exported_page(exported):
    page = exported(ALL[0][0])
    assert barriers(page, ".sora-scrubber") == []
    check_that_a_fault_is_found(page)


def test_axe_finds_a_planted_fault(page):
    check_that_a_fault_is_found(page)
