"""How fast the controls answer: scrubber and live slider, from key to picture; and what a training board costs.

Run it by `python3 dev.py bench controls`. It drives a real browser and prints the times beside their budgets. Times
depend on the computer and on what else runs there, so it ends with 0 whatever they are.
"""

import json
import os
import re
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "browser")]

import dev  # noqa: E402

FLAGS = ["--no-sandbox", "--disable-gpu"]
# From a key's way down (the capture listener) until the new picture is decoded and the browser is about to paint.
MEASURE = """box => {
  let pressed = 0, shown = box.querySelector('img').src;
  window.times = [];
  document.addEventListener('keydown', () => { pressed = performance.now(); }, true);
  new MutationObserver(async () => {
    const image = box.querySelector('img');
    if (!image || image.src === shown) return;
    shown = image.src;
    await image.decode();
    requestAnimationFrame(() => times.push(performance.now() - pressed));
  }).observe(box, {subtree: true, childList: true, attributeFilter: ['src']});
}"""
SETUP = """
import itertools, json, time
import ipywidgets as widgets, matplotlib.pyplot as plt, torch
from IPython.display import display
from sora_lib import LinearBeta, MLPDenoiser, RectifiedFlow, as_denoiser, heun, points, train
from sora_lib.explore import TrainingBoard, live, scrubber
from sora_lib.plotting import plane, plot_points, render_frames, use_style

use_style()
g = torch.Generator().manual_seed(0)
x0, eps = points("moons").sample(1000, generator=g), torch.randn(1000, 2, generator=g)
"""
SCRUBBER = """
cloud = lambda i: LinearBeta().add_noise(x0, torch.full([1000], i / 25), eps)
scrubber(render_frames(lambda ax, i: plot_points(plane(ax), cloud(i)), 26), [f"{i} of 25" for i in range(26)], "cloud")
"""
LIVE = """
fig, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3))
(curve,) = left.plot([], [], color="black")
left.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="time t")
dots = plot_points(plane(right), x0).collections[0]

def update(beta_end):
    schedule, t = LinearBeta(1000, 1e-4, beta_end), torch.linspace(0, 1, 200)
    curve.set_data(t, schedule.alpha(t))
    dots.set_offsets(schedule.add_noise(x0, torch.ones(1000), eps))
    left.set_title(f"signal left at t = 1: {schedule.alpha(torch.ones(1)).item():.3f}")

live(fig, update, "Signal left", beta_end=widgets.FloatLogSlider(0.0001, min=-4, max=-0.5, description="last beta"))
"""
BOARD = """
schedule, pairs = RectifiedFlow(), []

def draw(ax, state):
    x = heun(as_denoiser(state.ema.model, schedule, "v"), schedule, eps[:300], 8)
    plot_points(plane(ax, "samples so far"), x, "model")

def run():
    batches = (points("moons").sample(256, generator=g) for _ in itertools.count())
    return train(MLPDenoiser(), batches, schedule, steps=10**6, prediction="v", generator=g)

def speed_of(began, step):  # once six seconds have passed
    seconds = time.perf_counter() - began
    return step / seconds if seconds > 6 else None

async def watched():
    board, began, speed = TrainingBoard(1000, {"answers 0": 2.0}, draw), time.perf_counter(), None
    display(board)
    async for step, _, _ in board.watch(run()):
        if not board.stopped and (speed := speed_of(began, step)):
            board.stop()
    return speed

def plain():
    began = time.perf_counter()
    return next(speed for step, _, _ in run() if (speed := speed_of(began, step)))

plain()  # the first optimiser of a process imports for seconds
for _ in range(7):
    pairs.append([plain(), await watched()])
print("speeds", json.dumps(pairs))
"""


def answers(page, box, control, keys):
    """Press the keys one by one on the control; return the milliseconds from each key to the new picture."""
    box.scroll_into_view_if_needed()
    box.evaluate(MEASURE)
    control.focus()
    for count, key in enumerate(keys, 1):
        page.keyboard.press(key)
        page.wait_for_function("count => times.length >= count", arg=count)
        page.wait_for_timeout(30)
    return page.evaluate("times")


def scrubber_answers(page):
    box = page.locator(".sora-scrubber").first
    box.locator("input").press("Home")
    return answers(page, box, box.locator("input"), ["ArrowRight"] * 20 + ["ArrowLeft"] * 20)


def row(what, milliseconds, budget):
    late = statistics.quantiles(milliseconds, n=10)[-1]
    print(f"| {what} | {statistics.median(milliseconds):.0f} ms | {late:.0f} ms | {budget} ms |", flush=True)


def measure(browser, folder):
    from jupyter import Notebook
    from nbconvert import HTMLExporter

    with dev.Server(dev.choose_port(None), folder) as server:
        notebook = Notebook(browser, (server, folder), "bench.ipynb", [SETUP, SCRUBBER, LIVE, BOARD])
        for number in range(3):
            notebook.run_cell(number)
        notebook.page.locator(".sora-live img").wait_for(timeout=60_000)
        in_lab = scrubber_answers(notebook.page)
        notebook.page.keyboard.press("Control+s")
        notebook.page.wait_for_timeout(2000)
        html = folder / "bench.html"
        html.write_text(HTMLExporter().from_filename(str(notebook.path))[0], encoding="utf-8")
        page = browser.new_page()
        page.goto(html.as_uri())
        row("scrubber, exported page", scrubber_answers(page), 20)
        page.close()
        row("scrubber, JupyterLab", in_lab, 20)
        box = notebook.page.locator(".sora-live")
        row(
            "live slider, JupyterLab",
            answers(notebook.page, box, box.locator(".noUi-handle"), ["ArrowRight"] * 25),
            120,
        )
        notebook.run_cell(3)
        said = notebook.page.get_by_text("speeds [[").last
        said.wait_for(timeout=180_000)
        pairs = json.loads(re.search(r"\[\[.*\]\]", said.inner_text()).group())
        costs = sorted(100 * (1 - watched / plain) for plain, watched in pairs)
        spread = f"{costs[0]:.1f} to {costs[-1]:.1f} %"
        print(f"| training board, steps per second lost | {statistics.median(costs):.1f} % | {spread} | 5 % |")
        print(f"\nSteps per second without and with it: {', '.join(f'{a:.0f} and {b:.0f}' for a, b in pairs)}")
        notebook.close()


def main():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sys.exit("error: playwright is missing; start this by `python3 dev.py bench controls`, which installs it")
    if not dev.find_browser():
        sys.exit("error: there is no Chromium or Chrome on this computer")
    print(f"{os.cpu_count()} processors, {dev.probe()}")
    print(
        "Milliseconds from a key to the new picture, decoded and about to be painted: 40 keys, or 25 for the live one."
    )
    print("The board's cost: 7 pairs of 6 s of training, without and with a board that samples.\n")
    print("| control | median | 90th percentile, or range | budget |\n| --- | ---: | ---: | ---: |", flush=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        (Path(folder) / "notebooks").mkdir()
        os.environ["JUPYTER_CONFIG_DIR"] = str(Path(folder) / "config")
        dev.VENV = Path(folder)
        browser = playwright.chromium.launch(executable_path=dev.find_browser(), args=FLAGS)
        measure(browser, Path(folder))
        browser.close()
    print(dev.probe())


if __name__ == "__main__":
    main()
