"""Controls that need a kernel, driven in JupyterLab: the training board and the kernel's interrupt, a live slider."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import expect
from test_lab import STATUS

TRAINING = """
import itertools, time, torch
from sora_lib import MLPDenoiser, RectifiedFlow, points, train
from sora_lib.explore import TrainingBoard

moons, g = points("moons"), torch.Generator().manual_seed(0)
model, board = MLPDenoiser(width=16, depth=1), TrainingBoard(10**6, {"answers 0": 2.0})
batches = (moons.sample(32, generator=g) for _ in itertools.count())
for step, loss, state in board.watch(train(model, batches, RectifiedFlow(), steps=10**6, prediction="v", generator=g)):
    pass
"""
AFTER = """
finite = model(torch.randn(5, 2), torch.full([5], 0.5)).isfinite().all().item()
print("ended early:", 0 < step < 10**6, "usable:", finite)
"""
SLIDER = """
import ipywidgets as widgets, matplotlib.pyplot as plt
from sora_lib.explore import live

fig, ax = plt.subplots(figsize=(3, 2))
(bar,) = ax.bar([0], [1])
ax.set_ylim(0, 10)
live(fig, lambda height: bar.set_height(height), height=widgets.IntSlider(1, 1, 9))
"""


@pytest.fixture
def run(browser, lab):
    """Open a notebook with the given cells, run all of it, and return its page."""
    server, folder = lab
    pages = []

    def start(name, *sources):
        kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
        cells = [new_code_cell(source.strip()) for source in sources]
        notebook = new_notebook(cells=cells, metadata={"kernelspec": kernel})
        nbformat.write(notebook, folder / "notebooks" / name)
        page = browser.new_page()
        pages.append(page)
        page.goto(f"{server.address}/lab/tree/notebooks/{name}?token={server.token}&reset")
        expect(page.locator(STATUS).first).to_contain_text("| Idle", timeout=60_000)
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        return page

    yield start
    for page in pages:
        page.close()


def wait_until_training(page):
    expect(page.locator(".sora-board img")).to_be_visible(timeout=60_000)
    expect(page.locator(".sora-board")).to_contain_text("s left", timeout=60_000)


def test_the_kernels_interrupt_ends_training_and_keeps_the_model(run):
    page = run("interrupt.ipynb", TRAINING, AFTER)
    wait_until_training(page)
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_role("menuitem", name="Interrupt Kernel").click()
    expect(page.get_by_text("ended early: True usable: True")).to_be_visible(timeout=90_000)


def test_a_live_slider_redraws_from_the_keyboard(run):
    page = run("slider.ipynb", SLIDER)
    image = page.locator(".sora-live img")
    expect(image).to_be_visible(timeout=60_000)
    old = image.get_attribute("src")
    page.locator(".sora-live .noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    expect(image).not_to_have_attribute("src", old)
    expect(page.locator(".sora-live")).to_contain_text("2")
