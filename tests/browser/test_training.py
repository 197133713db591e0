"""Training in JupyterLab: what the board shows, what ends a run early, and a drawing learnt in full."""

import re
import time

import pytest
from pictures import central, halves, picture, places, share, shown
from playwright.sync_api import expect
from test_controls import BOARD, LIVE, RUN, SETUP, SKETCH, SMALL, Live, Sketch

pytestmark = pytest.mark.xdist_group("training")  # one worker: these tests share a page

LONG = BOARD.replace("300", "20_000")
AFTER = """
samples = heun(as_denoiser(state.ema.model, schedule, "v"), schedule, start, 5)
print(f"{step} steps, a loss of {loss:.2f}, finite: {samples.isfinite().all().item()}")
"""
EARLY = "early = TrainingBoard(1000, {}, draw)\nearly"
LATER = "async for step, loss, state in early.watch(run(1000)):\n    pass"
FULL = "STEPS, BATCH = 1000, 512" + SKETCH


@pytest.fixture(scope="module")
def notebook(open_notebook):
    notebook = open_notebook("training.ipynb", [SETUP + RUN, LONG, AFTER, EARLY, LATER, AFTER, FULL])
    notebook.run_cell(0)
    return notebook


class Board:
    """The first board of the page."""

    def __init__(self, page):
        self.box = page.locator(".sora-board").first
        self.image, self.stop = self.box.locator("img"), self.box.get_by_role("button", name="Stop")
        expect(self.box).to_contain_text("s left", timeout=60_000)

    def progress(self):
        """(step, seconds left)"""
        return tuple(map(int, re.search(r"step (\d+) of 20000, (\d+) s left", self.box.inner_text()).groups()))

    def drawn(self):
        """In how many columns of the picture the curve of the loss stands."""
        return len(set(places(halves(picture(self.image))[0], "model")[:, 0]))


def check_that_it_ended_early(notebook, cell, board):
    output = notebook.page.locator(".jp-CodeCell").nth(cell).locator(".jp-OutputArea-output")
    expect(output).to_contain_text("finite: True", timeout=60_000)
    steps = int(output.inner_text().split()[0])
    assert 0 < steps < 20_000
    expect(board.box).to_contain_text(f"step {steps} of 20000, stopped; the model is kept as it is")
    expect(board.stop).to_be_disabled()


def test_the_board_counts_down_and_a_click_on_stop_ends_the_run(notebook):
    notebook.run_cell(1)
    notebook.run_cell(2)
    board = Board(notebook.page)
    step, left = board.progress()
    drawn, end = board.drawn(), time.monotonic() + 60
    while (board.progress()[1] >= left or board.drawn() < drawn + 5) and time.monotonic() < end:
        notebook.page.wait_for_timeout(100)
        left = max(left, board.progress()[1])  # on a busy computer it can grow at first
    assert board.progress()[0] > step and board.progress()[1] < left
    assert board.drawn() >= drawn + 5
    assert shown(halves(picture(board.image))[1], "model").sum() > 100  # the samples
    board.stop.click()
    check_that_it_ended_early(notebook, 2, board)


def test_the_kernels_interrupt_ends_training_and_keeps_the_model(notebook):
    notebook.menu("Edit", "Clear Outputs of All Cells")
    notebook.run_cell(1)
    notebook.run_cell(2)
    board = Board(notebook.page)
    notebook.menu("Kernel", "Interrupt Kernel")
    check_that_it_ended_early(notebook, 2, board)


def test_stop_before_the_first_step_lets_one_step_happen(notebook):
    notebook.menu("Edit", "Clear Outputs of All Cells")
    notebook.run_cell(3)
    board = notebook.page.locator(".sora-board")
    board.get_by_role("button", name="Stop").click()
    expect(board.get_by_role("button", name="Stop")).to_be_disabled()
    notebook.run_cell(4)
    notebook.run_cell(5)
    expect(board).to_contain_text("step 1 of 1000, stopped; the model is kept as it is", timeout=60_000)
    output = notebook.page.locator(".jp-CodeCell").nth(5).locator(".jp-OutputArea-output")
    expect(output).to_contain_text(re.compile("^1 steps, .*finite: True"))


def test_a_ring_drawn_by_mouse_is_learnt(notebook, capsys):
    notebook.run_cell(6)
    expect(notebook.page.locator(".dd-scatter-svg")).to_be_visible(timeout=60_000)
    sketch = Sketch(notebook.page)
    start = time.monotonic()
    sketch.draw_a_ring()
    sketch.train.click()
    sketch.scrubber.wait_for(timeout=180_000)
    with capsys.disabled():
        print(f"\nfrom the first move of the mouse to the scrubber: {time.monotonic() - start:.1f} s")
    samples, noise = sketch.distances()
    assert samples < 4 and noise > 5
    image, slider = sketch.scrubber.locator("img"), sketch.scrubber.locator("input")
    expect(sketch.scrubber.locator("output")).to_have_text("step 20 of 20")
    assert share(picture(image), central, "model") < 0.02
    slider.focus()
    notebook.page.keyboard.press("Home")
    expect(sketch.scrubber.locator("output")).to_have_text("step 0 of 20")
    assert share(picture(image), central, "model") > 0.1


def test_controls_first_used_while_a_cell_trains_are_answered_then_and_later(open_notebook):
    notebook = open_notebook("meanwhile.ipynb", [SETUP + RUN, LIVE, SMALL, LONG, AFTER])
    for cell in range(4):
        notebook.run_cell(cell)
    board, live, sketch = Board(notebook.page), Live(notebook.page), Sketch(notebook.page)
    live.becomes(1)
    for value in (2, 3, 4):
        live.press("ArrowRight", value)
        live.becomes(value)
    for name, count in (("heart", 240), ("spiral", 256), ("heart", 240)):
        sketch.shape.select_option(name)
        expect(sketch.canvas.locator("circle.drawn")).to_have_count(count)
    board.stop.click()
    notebook.run_cell(4)
    check_that_it_ended_early(notebook, 4, board)
    live.press("End", 9)
    live.becomes(9)
