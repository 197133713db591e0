"""Every control in JupyterLab, by keyboard and mouse, on notebooks made for it."""

import json
import math
import time

import pytest
from pictures import picture, shown, spread
from playwright.sync_api import expect

pytestmark = pytest.mark.xdist_group("controls")  # one worker: these tests share a page

SETUP = """
import itertools, torch, ipywidgets as widgets, matplotlib.pyplot as plt
from IPython.display import display
from sora_lib import MLPDenoiser, RectifiedFlow, as_denoiser, heun, points, train
from sora_lib.explore import TrainingBoard, live, scrubber
from sora_lib.plotting import COLORS, plane, plot_points, render_frames, use_style
from sora_lib.sketch import Sketch

use_style()
torch.set_num_threads(1)
schedule, moons, g = RectifiedFlow(), points("moons"), torch.Generator().manual_seed(0)
cloud, start = torch.randn(2, 1000, 2, generator=g)
"""
GROWS = """
frames = render_frames(lambda ax, i: plot_points(plane(ax), cloud * (i + 1) / 11), 11)
scrubber(frames, [f"t = {i / 10}" for i in range(11)], "Grows", milliseconds=50)
"""
SHRINKS = """
scrubber(frames[::-1], [f"t = {i / 10}" for i in range(11)], "Shrinks", start=4, milliseconds=50)
"""
LIVE = """
fig, ax = plt.subplots(figsize=(3, 2))
(bar,) = ax.bar([0], [1], color=COLORS["data"])
ax.set_ylim(0, 10)

def update(height):
    if height == 7:
        raise ValueError("seven is <too> much")
    bar.set_height(height)

live(fig, update, "A bar", height=widgets.IntSlider(1, 1, 9, description="height"))
"""
RUN = """
def draw(ax, state):
    x = heun(as_denoiser(state.ema.model, schedule, "v"), schedule, start[:200], 4)
    plot_points(plane(ax, "samples so far"), x, "model")

def run(steps):
    batches = (moons.sample(64, generator=g) for _ in range(steps))
    return train(MLPDenoiser(width=16, depth=1), batches, schedule, steps=steps, prediction="v", generator=g)
"""
BOARD = """
board = TrainingBoard(300, {"answers 0": 2.0}, draw)
display(board)
async for step, loss, state in board.watch(run(300)):
    pass
"""
SKETCH = """
calls = []

async def learn(data, show):
    calls.append(data)
    g = torch.Generator().manual_seed(1)
    batches = (data.sample(BATCH, generator=g) for _ in itertools.count())
    board = TrainingBoard(STEPS, {"answers 0": 2.0}, draw)
    show(board)
    run = train(MLPDenoiser(), batches, schedule, steps=STEPS, prediction="v", generator=g)
    async for _, _, state in board.watch(run):
        pass
    return heun(as_denoiser(state.ema.model, schedule, "v"), schedule, start, 20, trajectory=True)

Sketch(learn)
"""
SMALL = "STEPS, BATCH = 300, 256" + SKETCH
COUNT = 'print("trained on", [len(data.means) for data in calls])'
FULL = "STEPS, BATCH = 1000, 512" + SKETCH


@pytest.fixture(scope="module")
def notebook(open_notebook):
    """All controls on one page."""
    notebook = open_notebook("controls.ipynb", [SETUP + RUN, GROWS, SHRINKS, LIVE, BOARD, SMALL, COUNT])
    notebook.run_all()
    expect(notebook.page.get_by_text("trained on []")).to_be_visible(timeout=60_000)
    return notebook


@pytest.fixture
def page(notebook):
    return notebook.page


class Scrubber:
    """The scrubber of that name, moved to its first frame."""

    def __init__(self, page, name):
        self.page, self.box = page, page.locator(f".sora-scrubber[aria-label='{name}']")
        self.range, self.button = self.box.locator("input"), self.box.get_by_role("button")
        self.image, self.output = self.box.locator("img"), self.box.locator("output")
        self.press("Home")

    def press(self, key):
        self.range.focus()
        self.page.keyboard.press(key)

    def shows(self, frame):
        expect(self.output).to_have_text(f"t = {frame / 10}")
        assert self.range.get_attribute("aria-valuetext") == f"t = {frame / 10}"
        assert self.image.get_attribute("alt").endswith(f": t = {frame / 10}")
        return picture(self.image)


# --- The scrubber


def test_keys_move_the_scrubber_and_its_picture(page):
    scrubber = Scrubber(page, "Grows")
    spreads = [spread(scrubber.shows(0))]
    for frame in range(1, 11):
        scrubber.press("ArrowRight")
        spreads.append(spread(scrubber.shows(frame)))
    assert spreads == sorted(spreads) and spreads[10] > 5 * spreads[0]
    scrubber.press("ArrowRight")
    scrubber.shows(10)
    scrubber.press("ArrowLeft")
    assert spread(scrubber.shows(9)) == spreads[9]
    scrubber.press("Home")
    assert spread(scrubber.shows(0)) == spreads[0]
    scrubber.press("End")
    assert spread(scrubber.shows(10)) == spreads[10]


def test_a_click_on_the_track_moves_there(page):
    scrubber = Scrubber(page, "Grows")
    box = scrubber.range.bounding_box()
    narrow = spread(scrubber.shows(0))
    scrubber.range.click(position={"x": box["width"] / 2, "y": box["height"] / 2})
    middle = spread(scrubber.shows(5))
    scrubber.range.click(position={"x": box["width"] - 2, "y": box["height"] / 2})
    assert 2 * narrow < middle < spread(scrubber.shows(10))


def test_the_other_scrubber_stays_where_it_is(page):
    grows, shrinks = Scrubber(page, "Grows"), Scrubber(page, "Shrinks")
    shrinks.press("ArrowRight")
    still = shrinks.shows(1)
    grows.press("End")
    grows.shows(10)
    assert (shrinks.shows(1) == still).all()
    shrinks.press("End")
    assert spread(shrinks.shows(10)) < spread(still) / 5 and spread(grows.shows(10)) > spread(still)


WATCH = """name => {
  window.seen = [];
  window.watcher?.disconnect();
  const output = document.querySelector(`.sora-scrubber[aria-label=${name}] output`);
  window.watcher = new MutationObserver(() => seen.push(output.textContent));
  watcher.observe(output, {childList: true});
}"""


@pytest.mark.parametrize("way", ["click", " ", "Enter"])
def test_play_goes_round_and_pause_stops(page, way):
    scrubber = Scrubber(page, "Grows")

    def press():
        if way == "click":
            return scrubber.button.click()
        scrubber.button.focus()
        page.keyboard.press(way)

    scrubber.press("End")
    page.evaluate(WATCH, "Grows")
    press()
    expect(scrubber.button).to_have_text("Pause")
    assert scrubber.button.get_attribute("aria-label") == "Pause: Grows"
    page.wait_for_function("seen.length > 13")
    assert page.evaluate("seen.slice(0, 13)") == [f"t = {i % 11 / 10}" for i in range(13)]
    press()
    expect(scrubber.button).to_have_text("Play")
    stopped = int(scrubber.range.input_value())
    page.wait_for_timeout(200)
    scrubber.shows(stopped)


@pytest.mark.parametrize("part", ["range", "button"])
def test_jupyterlabs_shortcuts_do_not_take_the_scrubbers_keys(page, part):
    part = getattr(Scrubber(page, "Grows"), part)
    part.click()
    number = page.locator(".jp-mod-active .jp-InputPrompt")
    expect(number).to_have_text("[2]:")
    cells = page.locator(".jp-Cell").count()
    for key in ("ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown", "Home", "End", "Space", "Enter", "b", "Enter"):
        page.keyboard.press(key)
        expect(part).to_be_focused()
        expect(number).to_have_text("[2]:")
    assert page.locator(".jp-mod-editMode").count() == 0 and page.locator(".jp-Cell").count() == cells


def test_saving_still_works_from_the_scrubber(page, notebook):
    scrubber = Scrubber(page, "Grows")
    before = notebook.path.stat().st_mtime_ns
    scrubber.press("Control+s")
    end = time.monotonic() + 10
    while notebook.path.stat().st_mtime_ns == before and time.monotonic() < end:
        page.wait_for_timeout(100)
    assert notebook.path.stat().st_mtime_ns > before


# --- The live slider


class Live:
    """The slider over the bar, moved to 1."""

    def __init__(self, page):
        self.page, self.box = page, page.locator(".sora-live")
        self.image, self.message = self.box.locator("img"), self.box.locator(".sora-message")
        self.handle, self.value = self.box.locator(".noUi-handle"), self.box.locator(".widget-readout")
        self.press("Home", 1)

    def press(self, key, value):
        self.handle.focus()
        self.page.keyboard.press(key)
        expect(self.value).to_have_text(str(value))

    def height(self):
        """Of the bar in the picture, in pixels."""
        return int(shown(picture(self.image), "data").any(axis=1).sum())

    def becomes(self, value):
        """Wait for the kernel to draw the bar that high: the axes of 148 pixels reach to 10."""
        end = time.monotonic() + 10
        while abs(self.height() - 14.8 * value) > 1.5 and time.monotonic() < end:
            self.page.wait_for_timeout(20)
        assert self.height() == pytest.approx(14.8 * value, abs=1.5)


def test_keys_move_the_live_slider_and_its_picture(page):
    live = Live(page)
    live.becomes(1)
    live.press("ArrowRight", 2)
    live.becomes(2)
    live.press("End", 9)
    live.becomes(9)
    live.press("ArrowLeft", 8)
    live.becomes(8)
    assert live.image.get_attribute("alt") == "A bar"


def test_the_mouse_drags_the_live_slider(page):
    live = Live(page)
    live.becomes(1)
    live.handle.hover()  # waits until the page stands still: a press beside the handle moves nothing
    track, handle = live.box.locator(".noUi-base").bounding_box(), live.handle.bounding_box()
    y = handle["y"] + handle["height"] / 2
    page.mouse.down()
    page.mouse.move(track["x"] + track["width"] * 0.25, y)
    expect(live.value).to_have_text("3")
    live.becomes(3)
    page.mouse.move(track["x"] + track["width"] * 0.625, y, steps=5)
    page.mouse.up()
    live.becomes(6)
    expect(live.value).to_have_text("6")


def test_what_update_raises_is_told_and_the_picture_stays(page):
    live = Live(page)
    live.press("End", 9)
    live.press("ArrowLeft", 8)
    live.becomes(8)
    live.press("ArrowLeft", 7)
    expect(live.message).to_have_text("ValueError: seven is <too> much")
    live.becomes(8)
    live.press("ArrowLeft", 6)
    live.becomes(6)
    expect(live.message).to_have_text("")


# --- The sketch


class Sketch:
    """The sketch of a page, with nothing drawn."""

    def __init__(self, page):
        self.page, self.box = page, page.locator(".sora-sketch")
        self.canvas, self.shape = self.box.locator(".dd-scatter-svg"), self.box.locator("select")
        self.train, self.message = self.box.get_by_role("button", name="Train"), self.box.locator(".sora-message")
        self.scrubber = self.box.locator(".sora-scrubber")
        self.box.get_by_role("button", name="Reset").click()
        expect(self.canvas.locator("circle.drawn")).to_have_count(0)

    def middle(self):
        self.canvas.scroll_into_view_if_needed()
        box = self.canvas.bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def draw_a_ring(self, radius=110):
        x, y = self.middle()
        self.page.mouse.move(x + radius, y)
        self.page.mouse.down()
        for i in range(1, 121):
            angle = 2 * math.pi * i / 120
            self.page.mouse.move(x + radius * math.cos(angle), y + radius * math.sin(angle))
        self.page.mouse.up()

    def distances(self):
        """Of the samples and of the noise to the drawing, as the message tells them when the training is over."""
        expect(self.message).to_contain_text("Distance of the samples", timeout=120_000)
        words = self.message.inner_text().replace(")", " ").split()
        return float(words[words.index("floors:") + 1]), float(words[-1])


def test_an_empty_canvas_is_told(page):
    sketch = Sketch(page)
    sketch.train.click()
    expect(sketch.message).to_contain_text("The canvas is empty: draw a shape on it")
    assert sketch.box.locator(".sora-board").count() == 0


def test_a_single_click_on_the_canvas_is_too_little(page):
    sketch = Sketch(page)
    page.mouse.click(*sketch.middle())
    expect(sketch.canvas.locator("circle.drawn")).not_to_have_count(0)
    sketch.train.click()
    expect(sketch.message).to_contain_text("ValueError: a drawing needs points at 20 places or more, got")
    assert sketch.box.locator(".sora-board").count() == 0


def trainings(notebook):
    """The points of each drawing that `learn` was given."""
    notebook.run_cell(6)
    notebook.page.wait_for_timeout(500)
    return json.loads(notebook.page.get_by_text("trained on [").last.inner_text().removeprefix("trained on"))


def test_a_sketch_by_keyboard_alone(page, notebook):
    before, sketch = trainings(notebook), Sketch(page)
    sketch.shape.focus()
    page.keyboard.press("h")
    expect(sketch.shape).to_have_value("heart")
    expect(sketch.canvas.locator("circle.drawn")).to_have_count(240)
    page.keyboard.press("Tab")
    expect(sketch.train).to_be_focused()
    page.keyboard.press("Enter")
    samples, noise = sketch.distances()
    assert samples < noise
    expect(sketch.scrubber.locator("output")).to_have_text("step 20 of 20")
    assert trainings(notebook) == [*before, 240]


def test_two_clicks_on_train_are_one_training(page, notebook):
    before, sketch = trainings(notebook), Sketch(page)
    sketch.draw_a_ring()
    sketch.train.click()
    expect(sketch.box.locator(".sora-board")).to_be_visible()
    sketch.train.click()
    expect(sketch.message).to_contain_text("It is training already")
    sketch.distances()
    assert sketch.box.locator(".sora-board").count() == sketch.scrubber.count() == 1
    expect(sketch.box.locator(".sora-board")).to_contain_text("step 300 of 300, ended")
    assert trainings(notebook)[:-1] == before


# --- Reload and restart


def test_after_a_reload_the_scrubber_and_the_live_slider_move(page, notebook):
    Scrubber(page, "Grows").press("End")
    page.keyboard.press("Control+s")
    page.wait_for_timeout(1000)
    page.reload()
    notebook.wait_until_idle()
    scrubber, live = Scrubber(page, "Grows"), Live(page)
    narrow = spread(scrubber.shows(0))
    scrubber.press("End")
    assert spread(scrubber.shows(10)) > 5 * narrow
    live.press("End", 9)
    live.becomes(9)


def test_after_a_restart_the_controls_say_so_and_run_again(page, notebook):
    notebook.restart()
    for control in ("live", "board", "sketch"):
        lost = page.locator(f".sora-{control} > .sora-lost").first
        expect(lost).to_be_visible()
        expect(lost).to_contain_text("was restarted. Choose Run > Run All Cells.")
    scrubber = Scrubber(page, "Grows")
    scrubber.shows(0)
    scrubber.press("End")
    scrubber.shows(10)
    notebook.run_all()
    expect(page.get_by_text("trained on []")).to_be_visible(timeout=60_000)
    expect(page.locator(".sora-lost:visible")).to_have_count(0)
    live = Live(page)
    live.press("End", 9)
    live.becomes(9)


def test_the_consoles_errors_are_seen(page, notebook):
    page.evaluate("console.error('planted')")
    page.evaluate("setTimeout(() => { throw Error('thrown') })")
    page.wait_for_timeout(200)
    assert notebook.errors[-2:] == ["planted", "thrown"]
    del notebook.errors[-2:]
