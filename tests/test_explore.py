"""Controls as plain functions: the scrubber's page, live's update at several values, the board around a run."""

import asyncio
import base64
import html
import importlib.metadata
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from html.parser import HTMLParser
from pathlib import Path

import ipywidgets as widgets
import matplotlib.pyplot as plt
import pytest
import torch
from PIL import Image as Picture

from sora_lib import MLPDenoiser, RectifiedFlow, explore, points, train
from sora_lib.explore import TrainingBoard, live, lost_line, scrubber
from sora_lib.plotting import render_frames

PNG = b"\x89PNG\r\n\x1a\n"

# --- The scrubber


class Page(HTMLParser):
    """Every tag with its attributes, as a browser would read them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def one(self, tag):
        (found,) = [attributes for name, attributes in self.tags if name == tag]
        return found

    @property
    def box(self):
        return next(a for name, a in self.tags if "sora-scrubber" in (a.get("class") or ""))


def frames(count):
    return render_frames(lambda ax, i: ax.plot([0, i + 1]), count, size=(1, 1))


def test_scrubber_holds_all_frames_and_labels():
    pngs, labels = frames(4), ["t = 0.0", "t = 0.3", "t = 0.6", "t = 1.0"]
    page = Page(scrubber(pngs, labels, "noise arrives", start=2, milliseconds=75).data)
    assert [base64.b64decode(f) for f in page.box["data-frames"].split(",")] == pngs
    assert json.loads(page.box["data-labels"]) == labels
    assert page.box["data-interval"] == "75"
    slider, still = page.one("input"), page.one("img")
    assert (slider["type"], slider["min"], slider["max"], slider["value"]) == ("range", "0", "3", "2")
    assert base64.b64decode(still["src"].removeprefix("data:image/png;base64,")) == pngs[2]
    assert still["alt"] == "noise arrives: t = 0.6" and slider["aria-valuetext"] == "t = 0.6"
    assert slider["aria-label"] == page.box["aria-label"] == "noise arrives"
    assert "Play" in page.one("button")["aria-label"]


NASTY = ["it's", 'say "x"', "a < b & c", "</script><script>alert(1)</script>", "{braces} {0}", "日本 α²", "&quot;", ""]


def test_labels_and_name_are_escaped():
    name = '"it\'s" <b>&amp; </script>{x}'
    page = Page(scrubber([PNG] * len(NASTY), NASTY, name, start=3).data)
    assert json.loads(page.box["data-labels"]) == NASTY
    assert page.box["aria-label"] == page.one("input")["aria-label"] == name
    assert page.one("img")["alt"] == f"{name}: {NASTY[3]}"
    assert [tag for tag, _ in page.tags].count("script") == 1 and "b" not in [tag for tag, _ in page.tags]
    assert NASTY[3] in page.text  # the read-out


def test_scrubber_needs_no_network_and_no_ids():
    text = scrubber([PNG], ["only"], "one").data
    assert not re.search(r"https?:|src=\"(?!data:)|\bid=", text)
    assert text.count("{") == text.count("}")


@pytest.mark.parametrize(
    ("pngs", "labels", "options", "error", "text"),
    [
        ([PNG] * 2, ["a"], {}, ValueError, "frames and labels.*2 and 1"),
        ([PNG], ["a", "b"], {}, ValueError, "frames and labels.*1 and 2"),
        ([], [], {}, ValueError, "at least one"),
        ([PNG], ["a"], {"start": 1}, ValueError, "start must be a frame from 0 to 0, got 1"),
        ([PNG], ["a"], {"start": -1}, ValueError, "start must be.*-1"),
        ([PNG], ["a"], {"start": 0.5}, TypeError, "start.*0.5"),
        ([PNG], ["a"], {"milliseconds": 0}, ValueError, "milliseconds.*0"),
        ([PNG], ["a"], {"milliseconds": 1.5}, TypeError, "milliseconds.*1.5"),
    ],
)
def test_scrubber_bad_arguments(pngs, labels, options, error, text):
    with pytest.raises(error, match=text):
        scrubber(pngs, labels, "x", **options)


# --- live


def image(widget):
    """The attributes of the one <img> that a widget holds, and its decoded PNG bytes."""
    attributes = Page(widget.value).one("img")
    data = base64.b64decode(attributes["src"].removeprefix("data:image/png;base64,"))
    assert data.startswith(PNG)
    return attributes, data


def a_line(**options):
    fig, ax = plt.subplots(**{"figsize": (2, 2), "dpi": 40} | options)
    (line,) = ax.plot([0, 1], [0, 1])
    return fig, line


def test_live_calls_update_and_draws_at_each_value():
    fig, line = a_line()
    seen = []

    def update(slope, flip):
        seen.append((slope, flip))
        line.set_ydata([0, -slope if flip else slope])

    slope = widgets.FloatSlider(0.5, min=0, max=1)
    flip = widgets.Checkbox(False)
    box = live(fig, update, "a line", slope=slope, flip=flip)
    *controls, picture, message, lost = box.children
    assert controls == [slope, flip] and message.value == "" and "sora-lost" in lost._dom_classes
    assert seen == [(0.5, False)]
    pictures = {image(picture)[1]}
    for value in (0.0, 0.25, 1.0):
        slope.value = value
        pictures.add(image(picture)[1])
    flip.value = True
    pictures.add(image(picture)[1])
    assert seen == [(0.5, False), (0.0, False), (0.25, False), (1.0, False), (1.0, True)]
    assert len(pictures) == 5
    assert fig.number not in plt.get_fignums() and "sora-live" in box._dom_classes


def test_the_picture_tells_its_size_and_what_it_shows():
    alt = '"it\'s" <b>x</b> & {y}'
    fig, _ = a_line(figsize=(2.33, 1.77), dpi=41)  # 95.5 by 72.6 pixels
    picture = live(fig, lambda x: None, alt, x=widgets.IntSlider(1)).children[1]
    attributes, data = image(picture)
    assert attributes["alt"] == alt and [tag for tag, _ in Page(picture.value).tags] == ["img"]
    assert (int(attributes["width"]), int(attributes["height"])) == Picture.open(io.BytesIO(data)).size


def test_the_layout_stays_so_that_only_what_changed_moves():
    """Wider tick labels would push the axes of a constrained layout aside."""
    fig, line = a_line(layout="constrained", dpi=80)
    ax = fig.axes[0]

    def update(power):
        line.set_ydata([0, 10**power])
        ax.set_ylim(0, 10**power)

    control = widgets.IntSlider(0, min=0, max=6)
    picture = live(fig, update, "a line", power=control).children[1]
    first, place = image(picture)[1], ax.get_position().bounds
    assert place[0] > 0.13  # the layout was done: tick labels and ylim 0 to 1 fit
    control.value = 6
    assert image(picture)[1] != first and ax.get_position().bounds == place
    control.value = 0
    assert image(picture)[1] == first


def test_live_shows_an_error_and_keeps_the_last_picture():
    fig, line = a_line()

    def update(x):
        if x == 0:
            raise ValueError("x is <0>")
        line.set_ydata([0, 1 / x])

    control = widgets.IntSlider(1, min=0, max=3)
    *_, picture, message, _ = live(fig, update, "a line", x=control).children
    good = picture.value
    control.value = 0
    assert picture.value == good and "ValueError" in message.value and html.escape("x is <0>") in message.value
    control.value = 2
    assert image(picture)[1] != good and picture.value != good and message.value == ""


def test_live_whose_first_update_fails_still_gives_its_controls():
    control = widgets.IntSlider(1)
    box = live(a_line()[0], lambda x: 1 / 0, "nothing", x=control)
    assert box.children[0] is control and "ZeroDivisionError" in box.children[-2].value


def test_a_control_may_have_any_name_that_update_has():
    box = live(a_line()[0], lambda fig, alt: None, "a line", fig=widgets.IntSlider(1), alt=widgets.IntSlider(2))
    assert image(box.children[2])[0]["alt"] == "a line"


def test_the_lost_line_shows_where_ipywidgets_marks_a_dead_widget():
    line = lost_line()
    (style,) = re.findall("<style>(.*)</style>", line.value)
    (mark,) = re.findall(r"\.sora-lost\.([\w-]+)\{display:block\}", style)
    assert ".sora-lost{display:none}" in style and "sora-lost" in line._dom_classes
    scripts = [f.locate() for f in importlib.metadata.files("jupyterlab_widgets") if f.suffix == ".js"]
    assert any(f'addClass("{mark}")' in Path(script).read_text("utf-8") for script in scripts)


def test_live_draws_in_the_main_thread_whichever_thread_a_value_comes_from():
    """In a kernel, values come in a thread of their own, faster than they can be drawn: the last one must win."""
    fig, line = a_line()
    seen, control = [], widgets.IntSlider(0, min=0, max=50)

    def update(x):
        seen.append((x, threading.current_thread() is threading.main_thread()))
        time.sleep(0.01)
        line.set_ydata([0, x])

    def drag():
        for value in range(1, 51):
            control.value = value

    async def kernel():
        live(fig, update, "a line", x=control)
        await asyncio.to_thread(drag)
        await asyncio.sleep(0.3)

    asyncio.run(kernel())
    values = [value for value, _ in seen]
    assert all(in_main for _, in_main in seen) and values == sorted(values)
    assert values[-1] == 50 and len(values) < 25


# --- TrainingBoard


def steps(count, start=1):
    for step in range(start, count + 1):
        yield step, 1 / step, f"state {step}"


def slow_steps(count, seconds):
    for item in steps(count):
        time.sleep(seconds)
        yield item


def board(count=10, **options):
    return TrainingBoard(count, {"zero predictor": 2.0, "best possible": 0.5}, **options)


def collect(one, run):
    """All that the board hands on, as a notebook's `async for` gets it."""

    async def everything():
        return [item async for item in one.watch(run)]

    return asyncio.run(everything())


class Clock:
    """A clock that moves only when told, in the place of the module `time`."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def steps(self, count, seconds):
        for item in steps(count):
            self.now += seconds
            yield item


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(explore, "time", clock)
    return clock


def test_watch_passes_everything_through_and_keeps_the_losses():
    one = board()
    assert isinstance(one, widgets.VBox) and "sora-board" in one._dom_classes
    assert collect(one, steps(10)) == list(steps(10))
    assert one.losses == [1 / i for i in range(1, 11)]
    assert one.progress.value == 10 and one.text.value == "step 10 of 10, ended"
    assert "at step 10" in image(one.picture)[0]["alt"] and one.button.disabled
    assert list(one.raw.get_xdata()) == list(range(1, 11)) and list(one.raw.get_ydata()) == one.losses
    labels = [text.get_text() for text in one.ax.get_legend().get_texts()]
    assert "zero predictor" in labels and "best possible" in labels
    levels = [line.get_ydata()[0] for line in one.ax.lines[2:]]
    assert levels == [2.0, 0.5]
    assert one.fig.number not in plt.get_fignums()


def test_the_board_holds_its_parts():
    one = board()
    row, picture, lost = one.children
    assert set(row.children) == {one.progress, one.button, one.text} and picture is one.picture
    assert "sora-lost" in lost._dom_classes


def test_the_smooth_line_is_the_mean_of_50():
    one = TrainingBoard(120, {})
    collect(one, ((i, float(i), None) for i in range(1, 121)))
    x, y = one.smooth.get_data()
    assert list(x) == list(range(1, 121))
    assert y[0] == 1 and y[9] == pytest.approx(5.5) and y[119] == pytest.approx(sum(range(71, 121)) / 50)


def test_it_draws_while_it_runs_and_tells_the_time_left(clock):
    one, seen = board(), {}

    async def follow():
        async for step, *_ in one.watch(clock.steps(10, 0.25)):
            seen[step] = (one.progress.value, one.text.value, one.picture.value)

    asyncio.run(follow())
    assert seen[1] == (0, "", "")
    assert seen[2][:2] == (2, "step 2 of 10, 2 s left")  # 8 steps of 0.25 s
    assert seen[6][:2] == (6, "step 6 of 10, 1 s left")
    assert seen[2][2] != seen[6][2] and "at step 6" in seen[6][2]


def test_draw_paints_beside_the_loss_with_the_newest_state(clock):
    drawn, one = [], None

    def draw(ax, state):
        drawn.append((ax, state, one.step))
        ax.plot([0, 1], [0, 1])

    one = board(draw=draw)
    collect(one, clock.steps(10, 0.25))
    assert all(ax is one.ax_samples for ax, *_ in drawn) and one.ax_samples is not one.ax
    assert [step for *_, step in drawn] == [2, 4, 6, 8, 10, 10]  # each 0.4 s or more, and at the end
    assert all(state == f"state {step}" for _, state, step in drawn)
    assert len(one.ax_samples.lines) == 1  # cleared each time
    assert len(board().fig.axes) == 1 and len(one.fig.axes) == 2


@pytest.mark.parametrize(("seconds", "pause"), [(0.001, 0.4), (0.02, 0.7), (0.1, 3.5)])
def test_the_slower_the_drawing_the_rarer(clock, seconds, pause):
    """After a drawing of s seconds comes a pause of 35 s, 0.4 s at least: drawing takes 1 / 36 of the time at most."""
    began, ended = [], [0.3 - pause]  # the first comes after 0.3 s

    def draw(ax, state):
        began.append(clock.now)
        clock.now += seconds
        ended.append(clock.now)

    collect(board(2000, draw=draw), clock.steps(2000, 0.01))
    *pauses, _ = (start - end for start, end in zip(began, ended[:-1], strict=True))  # but the drawing at the end
    assert len(pauses) >= 4 and all(pause <= p < pause + 0.011 for p in pauses)  # the next step after the pause
    assert sum(e - b for b, e in zip(began, ended[1:], strict=True)) < 0.06 * clock.now


def test_other_tasks_get_20_turns_a_second(clock):
    """Steps of 0.01 s: a turn each time that more than 0.05 s went by, so after 5 or 6 steps."""
    turns = 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def both():
        counting = asyncio.create_task(count())
        async for _ in board(500).watch(clock.steps(500, 0.01)):
            pass
        counting.cancel()

    asyncio.run(both())
    assert 80 <= turns <= 102


def test_a_click_arrives_while_the_cell_runs():
    """A run of 6 s or more, and a reader who presses Stop after 0.2 s."""
    one, began = board(3000), time.monotonic()

    async def reader():
        await asyncio.sleep(0.2)
        one.button.click()

    async def cell():
        clicking = asyncio.create_task(reader())
        async for _ in one.watch(slow_steps(3000, 0.002)):
            pass
        await clicking

    asyncio.run(cell())
    assert one.stopped and 1 < len(one.losses) < 2000 and time.monotonic() - began < 4
    assert one.text.value == f"step {one.step} of 3000, stopped; the model is kept as it is"


def test_stop_ends_after_the_current_step():
    one, seen = board(), []

    async def cell():
        async for step, *_ in one.watch(steps(10)):
            seen.append(step)
            if step == 3:
                one.button.click()

    asyncio.run(cell())
    assert seen == [1, 2, 3] and len(one.losses) == 3 and one.stopped
    assert one.text.value == "step 3 of 10, stopped; the model is kept as it is"


def test_stop_before_the_first_step_lets_that_one_happen():
    one = board()
    one.button.click()
    assert collect(one, steps(10)) == list(steps(1))
    assert one.text.value == "step 1 of 10, stopped; the model is kept as it is"


@pytest.mark.skipif(os.name == "nt", reason="os.kill cannot interrupt oneself on Windows")
def test_an_interrupt_only_sets_the_flag_and_the_handler_is_restored():
    def mine(*_):
        raise AssertionError("the previous handler must not run while the board watches")

    previous = signal.signal(signal.SIGINT, mine)
    try:
        one = board()

        def run():
            for item in steps(10):
                if item[0] == 4:
                    os.kill(os.getpid(), signal.SIGINT)  # in the middle of a step
                yield item

        assert collect(one, run()) == list(steps(4))
        assert len(one.losses) == 4 and one.stopped and "stopped" in one.text.value
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, previous)


@pytest.mark.parametrize("ending", ["normal", "error", "break", "close"])
def test_every_ending_restores_the_handler_and_draws_the_last_state(ending):
    drawn = []
    one = board(draw=lambda ax, state: drawn.append(state))

    def run():
        yield from steps(3)
        if ending == "error":
            raise FloatingPointError("the loss is nan")
        yield from steps(10, start=4)

    async def cell():
        before, watched = signal.getsignal(signal.SIGINT), one.watch(run())
        try:
            async for step, *_ in watched:
                assert signal.getsignal(signal.SIGINT) is explore._interrupt is not before
                if ending in ("break", "close") and step == 4:
                    break
        finally:
            if ending == "close":
                await watched.aclose()
            elif ending == "break":
                del watched
                await asyncio.sleep(0.01)  # the event loop closes what nobody holds
            assert signal.getsignal(signal.SIGINT) is before

    if ending == "error":
        with pytest.raises(FloatingPointError, match="the loss is nan"):
            asyncio.run(cell())
    else:
        asyncio.run(cell())
    last, text = {"normal": (10, "ended"), "error": (3, "ended early")}.get(ending, (4, "ended early"))
    assert one.losses == [1 / i for i in range(1, last + 1)] and drawn[-1] == f"state {last}"
    assert one.text.value == f"step {last} of 10, {text}" and one.button.disabled
    assert f"at step {last}" in image(one.picture)[0]["alt"]


def test_a_run_that_ends_late_leaves_the_handler_of_a_later_cell_alone():
    """What a `break` leaves behind is closed when the event loop comes to it, perhaps in the middle of another cell."""

    def later(*_):
        pass

    async def kernel():
        watched = board().watch(steps(10))
        async for _ in watched:
            break
        signal.signal(signal.SIGINT, later)
        await watched.aclose()
        return signal.getsignal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    try:
        assert asyncio.run(kernel()) is later
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(os.name == "nt", reason="os.kill cannot interrupt oneself on Windows")
@pytest.mark.parametrize("first", [0, 1])
def test_an_interrupt_ends_all_runs_whichever_ends_first(first):
    """Two boards at once, as with a cell and a button: one ends, the interrupt still reaches the other."""
    boards, before = [board(10**6), board(10**6)], signal.getsignal(signal.SIGINT)

    def forever():
        for step in range(1, 10**6):
            time.sleep(0.002)
            yield step, 1.0, None

    async def cell(one):
        async for _ in one.watch(forever()):
            pass

    async def kernel():
        tasks = [asyncio.create_task(cell(one)) for one in boards]
        await asyncio.sleep(0.2)
        boards[first].stop()
        await tasks[first]
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.wait_for(asyncio.gather(*tasks), 20)

    asyncio.run(kernel())
    assert all(0 < len(one.losses) < 10**5 and "stopped" in one.text.value for one in boards)
    signal.signal(signal.SIGINT, before)


def test_it_works_outside_the_main_thread():
    one, got = board(), []
    thread = threading.Thread(target=lambda: got.extend(collect(one, steps(5))))
    thread.start()
    thread.join(30)
    assert got == list(steps(5))


def test_a_resumed_run_is_drawn_where_it_is():
    one = board(20)
    collect(one, steps(20, start=11))
    assert one.progress.value == 20 and list(one.raw.get_xdata()) == list(range(11, 21))
    assert one.smooth.get_xdata()[0] == 11


def test_a_real_run_stopped_early_keeps_a_usable_model():
    generator, one = torch.Generator().manual_seed(0), board(50)
    data = (points("gaussians").sample(16, generator=generator) for _ in range(50))
    run = train(MLPDenoiser(width=8, depth=1, time_dim=4), data, RectifiedFlow(), steps=50)

    async def cell():
        async for *_, state in one.watch(run):
            if state.step == 5:
                one.stop()
        return state

    state = asyncio.run(cell())
    assert state.step == 5 == len(one.losses)
    assert all(math.isfinite(loss) for loss in one.losses)
    assert torch.isfinite(state.ema.model(torch.zeros(1, 2), torch.ones(1))).all()


def test_an_empty_run_and_bad_lengths():
    one = board()
    assert collect(one, []) == [] and one.button.disabled and one.picture.value == ""
    for bad, error in [(0, ValueError), (-1, ValueError), (2.0, TypeError), (True, TypeError)]:
        with pytest.raises(error, match="steps"):
            TrainingBoard(bad, {})


def test_no_display_is_needed():
    """A fresh process with no screen and no front end."""
    code = (
        "import asyncio, ipywidgets as w, matplotlib.pyplot as plt\n"
        "from sora_lib.explore import TrainingBoard, live, scrubber\n"
        "from sora_lib.plotting import render_frames\n"
        "async def cell():\n"
        "    async for _ in TrainingBoard(3, {'best': 1.0}).watch((i, 1.0, None) for i in (1, 2, 3)):\n"
        "        pass\n"
        "asyncio.run(cell())\n"
        "fig, ax = plt.subplots()\n"
        "picture = live(fig, lambda x: ax.plot([0, x]), 'a line', x=w.IntSlider(1)).children[1]\n"
        "assert 'src=\"data:image/png;base64,iVBOR' in picture.value\n"
        "print(len(scrubber(render_frames(lambda ax, i: None, 2), ['a', 'b'], 'n').data))\n"
    )
    env = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND")}
    root = Path(__file__).resolve().parents[1]
    run = subprocess.run([sys.executable, "-c", code], env=env, cwd=root, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
