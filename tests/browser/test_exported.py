"""Every scrubber of every notebook in its exported page, without a network."""

import nbformat
import numpy as np
import pytest
import torch
from pictures import central, halves, picture, places, plot_area, share, shown, spread
from playwright.sync_api import expect

import dev
from sora_lib.pretrained import load_pretrained

pytestmark = pytest.mark.xdist_group("exported")  # one worker: these tests share a page


def scrubbers(path):
    """How many scrubbers the notebook's stored results hold."""
    outputs = [output for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", [])]
    return sum("sora-scrubber" in output.get("data", {}).get("text/html", "") for output in outputs)


# --- What the first and the last picture of a scrubber must show, by the scrubber's name


def far(picture):
    """The part of the points that lie further up or down than two moons reach."""
    return share(picture, lambda x, y: abs(y) > 0.45)


def moons_appear(first, last):
    return far(first) > 0.1 and far(last) < 0.01


def moons_dissolve(first, last):
    return moons_appear(last, first)


def hole_appears(first, last):
    return share(first, central) > 0.1 and share(last, central) < 0.01


def two_holes_appear(first, last):
    return all(hole_appears(*pair) for pair in zip(halves(first), halves(last), strict=True))


def clouds_become_moons(first, last):
    """Grey points on the left, green ones on the right."""
    far = [
        [share(half, lambda x, y: abs(y) > 0.5, kind) for half, kind in zip(halves(p), ("noise", "exact"), strict=True)]
        for p in (first, last)
    ]
    return min(far[0]) > 0.1 and max(far[1]) < 0.04


def model_covers_exact(first, last):
    """The orange paths come to lie on the green ones."""
    return shown(last, "exact").sum() < shown(first, "exact").sum() / 2


def cloud_rises(first, last):
    return places(last, "exact")[:, 1].mean() > places(first, "exact")[:, 1].mean() + 0.4


def digits_shown(picture):
    """What the probe reads on the left and on the right: each half is one digit, dark on white, below a title."""
    middles = (np.arange(8) + 0.5) / 8
    images = []
    for half in halves(picture):
        side = half.shape[1] - 7  # 3 pixels of margin on the left, 4 on the right, 6 below
        area = half[-side - 6 : -6, 3 : side + 3].mean(axis=2)
        rows, columns = ((middles * size).astype(int) for size in area.shape)
        images.append(1 - area[np.ix_(rows, columns)] / 255)
    with torch.no_grad():
        return load_pretrained("digit-probe")(torch.tensor(np.stack(images))[:, None].float()).argmax(1).tolist()


def a_three_becomes_an_eight(first, last):
    return digits_shown(first) == [3, 3] and digits_shown(last) == [8, 8]


def lines(picture):
    """The pixels of grey lines."""
    area = plot_area(picture)
    return np.count_nonzero((area.max(axis=2) < 150) & (np.ptp(area, axis=2) < 20))


def only_the_left_lines_shrink(first, last):
    (left, right), (left_last, right_last) = halves(first), halves(last)
    return lines(left_last) < lines(left) / 3 and lines(right_last) > lines(right) / 2


def margins_fill(first, last):
    """A digit's outer columns are plain, those of noise are not."""
    plain, noisy = (plot_area(picture)[10:-10, 10:15].std() for picture in (first, last))
    return plain < 1 and noisy > 30


def apart(picture):
    """How different the eight best guesses in the lower row are, from 0 where all are alike."""
    row = picture[int(0.56 * len(picture)) : int(0.82 * len(picture))].mean(axis=2)
    filled = np.flatnonzero((row < 250).all(axis=0))
    row = row[:, filled[0] : filled[-1] + 1]
    width = row.shape[1] // 8
    return row[:, : 8 * width].reshape(len(row), 8, width).std(axis=1).mean()


def guesses_part(first, last):
    return apart(last) > 2 * apart(first)


def marked_patch_goes_down_and_right(first, last):
    before, after = (np.argwhere(shown(p, "mark")).mean(axis=0) for p in (first, last))
    return (after > before + 20).all()


def dark_columns(picture):
    """The part of the columns in which something dark stands, below the titles."""
    return (picture[int(0.4 * len(picture)) :].max(axis=2) < 60).any(axis=0).mean()


def blocks_spread(first, last):
    return dark_columns(first) < 0.3 and dark_columns(last) > 0.6


def red_becomes_blue(first, last):
    """On both sides."""
    more_red = [[(half[..., 0] - half[..., 2]).mean() for half in halves(p)] for p in (first, last)]
    return min(more_red[0]) > 1 and max(more_red[1]) < -1


def arrows_grow(first, last):
    return shown(last, "exact").sum() > 10 * shown(first, "exact").sum()


def all_meet_in_the_middle(first, last):
    return spread(last) < spread(first) / 4 and share(last, central) > 0.95


def lit(picture):
    """The part of its fields of 24 x 24 pixels, 8 x 8 of a frame, in which something is to be seen."""
    rows, columns = (size // 24 for size in picture.shape[:2])
    fields = picture[: 24 * rows, : 24 * columns].max(axis=2).reshape(rows, 24, columns, 24)
    return (fields.max(axis=(1, 3)) > 80).mean()


def one_thing_is_left(first, last):
    return lit(first) > 0.85 and lit(last) < 0.7


def more_points(first, last):
    return shown(last, "data").sum() > 3 * shown(first, "data").sum()


def pairs_outgrow_matrices(first, last):
    """Two bars: orange for pairs, blue for matrices. At first the blue one is the longer."""
    return all(
        (shown(p, "model").sum() > shown(p, "data").sum()) == longer for p, longer in ((first, False), (last, True))
    )


SHOWS = {
    "From noise to two moons": moons_appear,
    "Predictions move to their targets": only_the_left_lines_shrink,
    "Two moons dissolve": moons_dissolve,
    "A four dissolves": margins_fill,
    "Noise becomes a ring": hole_appears,
    "Two samplers side by side": two_holes_appear,
    "Exact denoiser": arrows_grow,
    "Digits form from noise": guesses_part,
    "What one patch looks at": marked_patch_goes_down_and_right,
    "Errors of the trained network": all_meet_in_the_middle,
    "Points guided to the top class": cloud_rises,
    "From one digit to another": a_three_becomes_an_eight,
    "Euler's path against the exact path": model_covers_exact,
    "Straight pairs and the flow of their mean": clouds_become_moons,
    "A clip becomes tokens": blocks_spread,
    "From a red three to a blue circle": red_becomes_blue,
    "A red three is painted blue": red_becomes_blue,
    "A video emerges from noise": one_thing_is_left,
    "Two sets of real clips": more_points,
    "Operations for longer video": pairs_outgrow_matrices,
}


ALL = [(path, index) for path in dev.find_notebooks([]) for index in range(scrubbers(path))]


@pytest.fixture(scope="module")
def pages(exported):
    """Each notebook's page, opened once."""
    opened = {}
    return lambda path: opened[path] if path in opened else opened.setdefault(path, exported(path))


def test_there_are_scrubbers():
    assert len(ALL) > 5


@pytest.mark.parametrize(("path", "index"), ALL, ids=[f"{path.stem}-{index}" for path, index in ALL])
def test_a_scrubber_moves_in_an_exported_page(pages, path, index):
    box = pages(path).locator(".sora-scrubber").nth(index)
    image, reading, slider = box.locator("img"), box.locator("output"), box.locator("input")
    name, count = box.get_attribute("aria-label"), int(slider.get_attribute("max")) + 1
    labels = box.evaluate("box => JSON.parse(box.dataset.labels)")
    assert name in SHOWS, f"add to SHOWS what the first and the last picture of {name!r} in {path.name} must show"

    def press(key, frame):
        slider.focus()
        box.page.keyboard.press(key)
        expect(reading).to_have_text(labels[frame])
        expect(image).to_have_attribute("alt", f"{name}: {labels[frame]}")
        return picture(image)

    last, first = press("End", count - 1), press("Home", 0)
    second = press("ArrowRight", 1)
    assert (second != first).any() and (first != last).any()
    assert (press("ArrowLeft", 0) == first).all()
    assert SHOWS[name](first, last), name
    assert not SHOWS[name](last, first), f"the measure of {name!r} does not tell its two pictures apart"
    button = box.get_by_role("button")
    button.click()
    expect(reading).to_have_text(labels[2], timeout=10_000)
    assert (picture(image) != first).any()
    button.click()
    expect(button).to_have_text("Play")
