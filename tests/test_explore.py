"""Controls as plain functions: the scrubber's page, live's update at several values, the board around a run."""

import base64
import html
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path

import ipywidgets as widgets
import matplotlib.pyplot as plt
import pytest
import torch

from sora_lib import MLPDenoiser, RectifiedFlow, points, train
from sora_lib.explore import TrainingBoard, live, scrubber
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


def a_line():
    fig, ax = plt.subplots(figsize=(2, 2), dpi=40)
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
    box = live(fig, update, slope=slope, flip=flip)
    picture = box.children[-2]
    assert seen == [(0.5, False)] and bytes(picture.value).startswith(PNG)
    pictures = {bytes(picture.value)}
    for value in (0.0, 0.25, 1.0):
        slope.value = value
        pictures.add(bytes(picture.value))
    flip.value = True
    pictures.add(bytes(picture.value))
    assert seen == [(0.5, False), (0.0, False), (0.25, False), (1.0, False), (1.0, True)]
    assert len(pictures) == 5
    assert box.children[:2] == (slope, flip)
    assert fig.number not in plt.get_fignums()


def test_live_shows_an_error_and_keeps_the_last_picture():
    fig, line = a_line()

    def update(x):
        if x == 0:
            raise ValueError("x is <0>")
        line.set_ydata([0, 1 / x])

    control = widgets.IntSlider(1, min=0, max=3)
    *_, picture, message = live(fig, update, x=control).children
    good = bytes(picture.value)
    control.value = 0
    assert bytes(picture.value) == good and "ValueError" in message.value and html.escape("x is <0>") in message.value
    control.value = 2
    assert bytes(picture.value) != good and message.value == ""


def test_live_whose_first_update_fails_still_gives_its_controls():
    box = live(a_line()[0], lambda x: 1 / 0, x=widgets.IntSlider(1))
    assert "ZeroDivisionError" in box.children[-1].value


# --- TrainingBoard


def steps(count, start=1):
    for step in range(start, count + 1):
        yield step, 1 / step, f"state {step}"


def board(count=10, **options):
    return TrainingBoard(count, {"zero predictor": 2.0, "best possible": 0.5}, **options)


def test_watch_passes_everything_through_and_keeps_the_losses(capsys):
    one = board()
    assert list(one.watch(steps(10))) == list(steps(10))
    assert one.losses == [1 / i for i in range(1, 11)]
    assert one.progress.value == 10 and "step 10 of 10, ended" in one.text.value
    assert bytes(one.picture.value).startswith(PNG) and one.button.disabled
    assert list(one.raw.get_xdata()) == list(range(1, 11)) and list(one.raw.get_ydata()) == one.losses
    labels = [text.get_text() for text in one.ax.get_legend().get_texts()]
    assert "zero predictor" in labels and "best possible" in labels
    levels = [line.get_ydata()[0] for line in one.ax.lines[2:]]
    assert levels == [2.0, 0.5]


def test_the_smooth_line_is_the_mean_of_50():
    one = TrainingBoard(120, {})
    list(one.watch((i, float(i), None) for i in range(1, 121)))
    x, y = one.smooth.get_data()
    assert list(x) == list(range(1, 121))
    assert y[0] == 1 and y[9] == pytest.approx(5.5) and y[119] == pytest.approx(sum(range(71, 121)) / 50)


def test_it_draws_while_it_runs():
    one = board(redraw_seconds=-1.0)
    run = one.watch(steps(10))
    next(run), next(run)
    assert one.progress.value == 2 and "s left" in one.text.value and bytes(one.picture.value).startswith(PNG)
    run.close()


def test_stop_ends_after_the_current_step():
    one, seen = board(), []
    for step, _, _ in one.watch(steps(10)):
        seen.append(step)
        if step == 3:
            one.button.click()
    assert seen == [1, 2, 3] and len(one.losses) == 3 and one.stopped and "step 3 of 10" in one.text.value


@pytest.mark.skipif(os.name == "nt", reason="os.kill cannot interrupt oneself on Windows")
def test_an_interrupt_only_sets_the_flag_and_the_handler_is_restored():
    def mine(*_):
        raise AssertionError("the previous handler must not run while the board watches")

    previous = signal.signal(signal.SIGINT, mine)
    try:
        one, seen = board(), []

        def run():
            for item in steps(10):
                if item[0] == 4:
                    os.kill(os.getpid(), signal.SIGINT)  # in the middle of a step
                yield item

        for step, _, _ in one.watch(run()):
            seen.append(step)
        assert seen == [1, 2, 3, 4] and len(one.losses) == 4 and one.stopped
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, previous)


@pytest.mark.parametrize("ending", ["error", "break", "close"])
def test_every_ending_restores_the_handler_and_keeps_the_losses(ending):
    before, one = signal.getsignal(signal.SIGINT), board()

    def run():
        yield from steps(3)
        if ending == "error":
            raise FloatingPointError("the loss is nan")
        yield from steps(10, start=4)

    watched = one.watch(run())
    if ending == "error":
        with pytest.raises(FloatingPointError, match="the loss is nan"):
            list(watched)
    else:
        for _ in range(3):
            next(watched)
        assert signal.getsignal(signal.SIGINT) is not before
        if ending == "close":
            watched.close()
        else:
            for _ in watched:
                break
            del watched
    assert signal.getsignal(signal.SIGINT) is before
    assert len(one.losses) in (3, 4) and one.button.disabled and bytes(one.picture.value).startswith(PNG)


def test_it_works_outside_the_main_thread():
    one, got = board(), []
    thread = threading.Thread(target=lambda: got.extend(one.watch(steps(5))))
    thread.start()
    thread.join(30)
    assert got == list(steps(5))


def test_a_resumed_run_is_drawn_where_it_is():
    one = board(20)
    list(one.watch(steps(20, start=11)))
    assert one.progress.value == 20 and list(one.raw.get_xdata()) == list(range(11, 21))
    assert one.smooth.get_xdata()[0] == 11


def test_a_real_run_stopped_early_keeps_a_usable_model():
    generator, one = torch.Generator().manual_seed(0), board(50)
    data = (points("gaussians").sample(16, generator=generator) for _ in range(50))
    model = MLPDenoiser(width=8, depth=1, time_dim=4)
    for _, _, state in one.watch(train(model, data, RectifiedFlow(), steps=50)):
        if state.step == 5:
            one.stop()
    assert state.step == 5 == len(one.losses)
    assert all(math.isfinite(loss) for loss in one.losses)
    assert torch.isfinite(state.ema.model(torch.zeros(1, 2), torch.ones(1))).all()


def test_an_empty_run_and_bad_lengths():
    one = board()
    assert list(one.watch([])) == [] and one.button.disabled
    for bad, error in [(0, ValueError), (-1, ValueError), (2.0, TypeError), (True, TypeError)]:
        with pytest.raises(error, match="steps"):
            TrainingBoard(bad, {})


def test_no_display_is_needed():
    """A fresh process with no screen and no front end."""
    code = (
        "import ipywidgets as w, matplotlib.pyplot as plt\n"
        "from sora_lib.explore import TrainingBoard, live, scrubber\n"
        "from sora_lib.plotting import render_frames\n"
        "list(TrainingBoard(3, {'best': 1.0}).watch((i, 1.0, None) for i in (1, 2, 3)))\n"
        "fig, ax = plt.subplots()\n"
        "assert live(fig, lambda x: ax.plot([0, x]), x=w.IntSlider(1)).children[1].value[:4] == b'\\x89PNG'\n"
        "print(len(scrubber(render_frames(lambda ax, i: None, 2), ['a', 'b'], 'n').data))\n"
    )
    env = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND")}
    root = Path(__file__).resolve().parents[1]
    run = subprocess.run([sys.executable, "-c", code], env=env, cwd=root, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
