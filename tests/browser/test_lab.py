"""What a reader does: Run All in JupyterLab, and moving a control in an exported page."""

import time

import nbformat
import pytest
from playwright.sync_api import expect

import dev

STATUS = "#jp-bottom-panel, .jp-StatusBar-Widget, #jp-main-statusbar"


def shows_scrubber(path):
    outputs = [output for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", [])]
    return any("sora-scrubber" in output.get("data", {}).get("text/html", "") for output in outputs)


def strip(path):
    """Take out all results, so that what is found afterwards is new."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, path)


def wait_for_results(page, path, seconds):
    """Save until every cell has run or one has failed; return the code cells."""
    end = time.monotonic() + seconds
    while True:
        page.keyboard.press("Control+s")
        page.wait_for_timeout(1000)
        cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        failed = any(output.output_type == "error" for cell in cells for output in cell.outputs)
        if failed or all(cell.execution_count for cell in cells) or time.monotonic() > end:
            return cells


def test_run_all_in_jupyterlab(browser, lab):
    server, folder = lab
    path = folder / "notebooks" / "02_forward_diffusion.ipynb"
    strip(path)
    page = browser.new_page()
    page.goto(f"{server.address}/lab/tree/notebooks/{path.name}?token={server.token}&reset")
    expect(page.locator(STATUS).first).to_contain_text("| Idle", timeout=60_000)  # before that, Run All does nothing
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    cells = wait_for_results(page, path, seconds=300)
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert all(cell.execution_count for cell in cells)
    expect(page.locator("[data-mime-type='application/vnd.jupyter.error']")).to_have_count(0)
    page.close()


@pytest.mark.parametrize(
    "path", [path for path in dev.find_notebooks([]) if shows_scrubber(path)] or [None], ids=lambda p: p and p.stem
)
def test_a_scrubber_moves_in_an_exported_page(exported, path):
    assert path, "no notebook shows a scrubber"
    scrubber = exported(path).locator(".sora-scrubber").first
    image, reading = scrubber.locator("img"), scrubber.locator("output")
    old_picture, old_reading = image.get_attribute("src"), reading.inner_text()
    slider = scrubber.locator("input[type=range]")
    slider.focus()
    at_the_end = slider.input_value() == slider.get_attribute("max")
    scrubber.page.keyboard.press("ArrowLeft" if at_the_end else "ArrowRight")
    expect(image).not_to_have_attribute("src", old_picture)
    expect(reading).not_to_have_text(old_reading)
