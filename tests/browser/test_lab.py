"""The chapters in JupyterLab: Run All, and their live sliders by keyboard."""

import contextlib
import re
import time
from functools import partial

import nbformat
import numpy as np
import pytest
from pictures import halves, picture, plot_area, share, shown, spread
from playwright.sync_api import expect

import dev


def with_controls(cells):
    """The numbers of the cells that show a control."""
    found = [cell.cell_type == "code" and re.search(r"\b(live|TrainingBoard|Sketch)\(", cell.source) for cell in cells]
    return [number for number, here in enumerate(found) if here]


def strip(path):
    """Take out all results, so that what is found afterwards is new, and the cells after the last control.

    The longest training is made shorter: here it is the controls that count, and nbval runs it whole.
    """
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = notebook.cells[: with_controls(notebook.cells)[-1] + 3]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = cell.source.replace("250 * MINUTES", "25 * MINUTES")
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, path)


def wait_for_results(notebook, path, seconds):
    """Save until every cell has run or one has failed; return the code cells."""
    end = time.monotonic() + seconds
    while True:
        notebook.page.keyboard.press("Control+s")
        notebook.page.wait_for_timeout(1000)
        cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        failed = any(output.output_type == "error" for cell in cells for output in cell.outputs)
        if failed or all(cell.execution_count for cell in cells) or time.monotonic() > end:
            return cells


# --- What the pictures at a slider's two ends must show, by the picture's description and the slider's


def points_spread(low, high):
    return spread(high) > 3 * spread(low)


def left_points_spread(low, high):
    return spread(halves(high)[0], "model") > 3 * spread(halves(low)[0], "model")


def points_draw_together(low, high):
    return spread(high) < 0.98 * spread(low)


def other_points_as_far_apart(low, high):
    both = shown(low) & shown(high)
    return both.sum() < shown(low).sum() / 2 and 0.95 < spread(high) / spread(low) < 1.05


def exact_points_spread(low, high):
    return spread(high, "exact") > 3 * spread(low, "exact")


def other_exact_points_as_far_apart(low, high):
    before, after = shown(low, "exact"), shown(high, "exact")
    return (before & after).sum() < before.sum() / 2 and 0.9 < spread(high, "exact") / spread(low, "exact") < 1.1


def six_digits(picture):
    """Six digits side by side below a title: `[6, 32 * 32]`, bright on dark."""
    body = picture[len(picture) // 4 :].mean(axis=2)
    body = body[(body < 200).mean(axis=1) > 0.5]
    size = body.shape[1] // 6
    i = np.linspace(0, len(body) - 1, 32).astype(int)
    return np.stack([body[np.ix_(i, k * size + i * (size - 1) // i[-1])].ravel() for k in range(6)])


def alike(picture):
    """The mean correlation of the six with each other."""
    return np.corrcoef(six_digits(picture))[np.triu_indices(6, 1)].mean()


def six_become_alike(low, high):
    return alike(high) > alike(low) + 0.1


def zeros_lose_their_hole(low, high):
    middle = [six_digits(p).mean(axis=0).reshape(32, 32)[12:18, 12:18].mean() for p in (low, high)]
    return middle[1] > 1.5 * middle[0]


def other_digits_of_a_kind(low, high):
    a, b = six_digits(low), six_digits(high)
    return np.corrcoef(a.mean(0), b.mean(0))[0, 1] > 0.7 and abs(a - b).mean() > 5


def _hue(picture):
    """How much more red than blue, in the right half, which shows a change in orange and purple."""
    right = halves(picture)[1]
    return right[..., 0] - right[..., 2]


def the_change_turns_round(low, high):
    a, b = _hue(low).ravel(), _hue(high).ravel()
    return np.corrcoef(a, b)[0, 1] < -0.5


def the_change_moves_down(low, high):
    """From the first latent number, at the top left, to the last, at the bottom right."""
    rows = [np.average(np.arange(len(hue)), weights=abs(hue).sum(axis=1)) for hue in (_hue(low), _hue(high))]
    return rows[1] > rows[0] + 20


def another_digit(low, high):
    return abs(halves(low)[0] - halves(high)[0]).mean() > 20


def _red(picture):
    return (picture[..., 0] > 120) & (picture[..., 1] < 100)


def trail_grows(low, high):
    """The long exposure, on the right, covers more."""
    before, after = (_red(halves(p)[1]).sum() for p in (low, high))
    return before > 100 and after > 1.2 * before


def filmed_elsewhere(low, high):
    a, b = (_red(halves(p)[0]) for p in (low, high))
    return b.sum() > 100 and (a & b).sum() < 0.7 * a.sum()


def both_get_rougher(low, high):
    a, b = ([abs(np.diff(half, axis=1)).mean() for half in halves(p)] for p in (low, high))
    return b[0] > 1.5 * a[0] and b[1] > 1.15 * a[1]  # measured 2.3 and 1.3: the decoder smoothes


def another_video(low, high):
    """Below the title; measured 6 to 15 % of the pixels."""
    a, b = (p[len(p) // 4 :].astype(float) for p in (low, high))
    return (abs(a - b).max(2) > 60).mean() > 0.02


def the_mixture_leaves_real(low, high):
    """The bars of both are equally long together, where nothing is mixed in, and then no longer."""
    a, b = (shown(p, "model").sum() / shown(p, "data").sum() for p in (low, high))
    return abs(a - 1) < 0.05 < abs(b - 1)


def red_turns_blue(low, high):
    """Below the title."""
    more_red = [(p[len(p) // 4 :, :, 0] - p[len(p) // 4 :, :, 2]).mean() for p in (low, high)]
    return more_red[0] > 2 and more_red[1] < -2


def other_strokes(low, high):
    """Below the title; what is shown stays where it is."""
    a, b = (p[len(p) // 4 :].astype(float) for p in (low, high))
    return abs(a - b).mean() > 1.5


def signal_falls(low, high):
    """On the left the black curve ends lower; on the right more points are further out than the moons reach."""

    def end(picture):
        area = plot_area(halves(picture)[0])
        return 1 - np.flatnonzero((area[:, -10:] < 100).all(axis=2).any(axis=1)).mean() / len(area)

    def far(picture):
        return share(halves(picture)[1], lambda x, y: abs(y) > 0.45)

    return end(low) > 0.7 and end(high) < 0.1 and far(high) > 1.5 * far(low)


SHOWS = {
    ("300 samples of the exact denoiser", "steps"): points_spread,
    ("Signal left over time, and the cloud at t = 1", "last beta"): signal_falls,
    ("Signal left over time, and the cloud at t = 1", "steps"): signal_falls,
    ("500 samples of DDIM", "steps"): points_spread,
    ("300 samples of the flow and of DDPM's way", "calls"): left_points_spread,
    ("500 samples of DDIM", "eta"): points_draw_together,
    ("500 samples of DDIM", "seed"): other_points_as_far_apart,
}

SAMPLERS = "500 samples of the chosen sampler, with the middle lines of the moons"
SHOWS |= {(SAMPLERS, "steps"): exact_points_spread, (SAMPLERS, "seed"): other_exact_points_as_far_apart}

SIX = "Six generated digits"
SHOWS |= {
    (SIX, "digit"): zeros_lose_their_hole,
    (SIX, "scale"): six_become_alike,
    (SIX, "seed"): other_digits_of_a_kind,
}
POKED = "A digit decoded after one of its latent numbers was moved"
SHOWS |= {(POKED, "digit"): another_digit, (POKED, "number"): the_change_moves_down}
SHOWS |= {(POKED, "move"): the_change_turns_round}

FILMED = "One frame of a clip filmed to a caption, and a long exposure of it"
SHOWS |= {(FILMED, "frame"): trail_grows, (FILMED, "take"): filmed_elsewhere}

NOISY = "A frame with noisy pixels, and the same frame decoded from noisy latents"
SHOWS |= {(NOISY, "noise s"): both_get_rougher}

ASKED = "Frames of a video for the prompt"
SHOWS |= {(ASKED, "guidance"): another_video, (ASKED, "seed"): another_video}

MIXED = "Seven measures of real clips, and of a mixture with spoiled ones"
SHOWS |= {(MIXED, "share"): the_mixture_leaves_real}

CHANGED, PASSAGE = "Frames of a red three, changed by a prompt", "A passage between two videos"
SHOWS |= {(CHANGED, "strength"): red_turns_blue, (CHANGED, "guidance"): red_turns_blue}
SHOWS |= {(CHANGED, "seed"): other_strokes, (PASSAGE, "first"): other_strokes, (PASSAGE, "second"): other_strokes}

CHAPTERS = [path for path in dev.find_notebooks([]) if with_controls(nbformat.read(path, as_version=4).cells)]


def test_there_are_chapters_with_controls():
    assert len(CHAPTERS) > 2


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_runs_and_its_sliders_move(open_notebook, lab, path):
    path = lab[1] / "notebooks" / path.name
    strip(path)
    notebook = open_notebook(path.name)
    page = notebook.page
    notebook.run_all()
    cells = wait_for_results(notebook, path, seconds=600)
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    waiting = [cell.source for cell in cells if not cell.execution_count]
    assert not waiting, f"not run after 600 s: {waiting}; {notebook.status()}"
    expect(page.locator("[data-mime-type='application/vnd.jupyter.error']")).to_have_count(0)
    for box in page.locator(".sora-live").all():
        for slider in box.locator(".widget-slider").all():
            check_slider(notebook, box, slider)
        for dropdown in box.locator(".widget-dropdown select").all():
            check_dropdown(notebook, box, dropdown)
    notebook.close()


def shown_anew(image, value, change, patience):
    """The picture after a change, waiting so many seconds for a new one if the value changes; and the seconds it took.

    The kernel is called idle while it draws: messages of controls are answered beside its main thread.
    """
    old, source, began = value(), image.get_attribute("src"), time.monotonic()
    change()
    if value() != old:
        with contextlib.suppress(AssertionError):
            expect(image).not_to_have_attribute("src", source, timeout=1000 * patience)
    return picture(image), time.monotonic() - began


def check_slider(notebook, box, slider):
    """Move the slider to its two ends and back."""
    image, handle, value = box.locator("img"), slider.locator(".noUi-handle"), slider.locator(".widget-readout")
    name, before = (image.get_attribute("alt"), slider.locator("label").text_content()), value.text_content()

    def press(key):
        handle.focus()
        return shown_anew(image, value.text_content, lambda: notebook.page.keyboard.press(key), patience=30)

    low, _ = press("Home")
    high, seconds = press("End")
    assert name in SHOWS, f"add to SHOWS what the pictures at the two ends of {name} must show"
    assert SHOWS[name](low, high), name
    assert not SHOWS[name](low, low), f"the measure of {name} passes for a picture that does not change"
    titles = [shot[: len(shot) // 10] for shot in (low, high)]
    assert (titles[0] != titles[1]).any(), f"{name}: the title stays; does a later cell give a name of `update` anew?"
    press("Home")
    for _ in range(100):
        if value.text_content() == before:
            notebook.page.wait_for_timeout(200 + 3000 * seconds)  # what is still being drawn
            return
        old = value.text_content()
        handle.press("ArrowRight")
        expect(value).not_to_have_text(old)
    raise AssertionError(f"{name} did not come back to {before}")


def check_dropdown(notebook, box, dropdown):
    """Go through its choices: they must change the picture, and the first one bring back the first picture."""
    image, count = box.locator("img"), dropdown.locator("option").count()

    def choose(index):
        change = partial(dropdown.select_option, index=index)
        return shown_anew(image, dropdown.input_value, change, patience=5)[0].tobytes()  # two may look the same

    before = dropdown.input_value()
    shots = [choose(index) for index in range(count)]
    assert len(set(shots)) > 1, "no choice changes the picture"
    assert choose(0) == shots[0]
    dropdown.select_option(before)
