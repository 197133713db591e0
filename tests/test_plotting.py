"""Plots take and return ax; pictures are PNG, moving ones animated PNG, and the bytes repeat."""

import io

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from PIL import Image as Picture

from sora_lib import plotting

X = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def ax():
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


@pytest.mark.parametrize("kind", plotting.COLORS)
def test_plots_return_ax_and_draw_in_the_colour_of_their_kind(ax, kind):
    color = to_rgba(plotting.COLORS[kind])[:3]
    assert plotting.plot_points(ax, X, kind) is ax
    scatter = ax.collections[-1]
    assert np.allclose(scatter.get_offsets(), X) and tuple(scatter.get_facecolor()[0][:3]) == color
    path = torch.stack([X, 2 * X, 3 * X])
    assert plotting.plot_paths(ax, path, kind) is ax
    assert len(ax.lines) == 20 and to_rgba(ax.lines[0].get_color())[:3] == color
    assert np.allclose(ax.lines[7].get_xydata(), path[:, 7])  # a line a point, over time
    assert np.allclose(ax.collections[-1].get_offsets(), path[-1])  # dots where they end
    assert plotting.plot_field(ax, lambda x: 2 * x, kind, cells=5) is ax
    assert tuple(ax.collections[-1].get_facecolor()[0][:3]) == color


def test_field_draws_arrows_from_the_grid_to_the_answers(ax):
    plotting.plot_field(ax, lambda x: 3 * x + 1, limit=2.0, cells=3)
    arrows = ax.collections[-1]
    starts = torch.cartesian_prod(*[torch.tensor([-2.0, 0.0, 2.0])] * 2)
    assert np.allclose(arrows.XY, starts)
    assert np.allclose(np.c_[arrows.U, arrows.V], 2 * starts + 1)


def test_plots_take_tensors_with_gradients_and_options(ax):
    plotting.plot_points(ax, X.clone().requires_grad_(True), s=9, alpha=1.0)
    assert ax.collections[-1].get_sizes()[0] == 9
    plotting.plot_paths(ax, torch.stack([X, X]).requires_grad_(True), linewidth=3)
    assert ax.lines[0].get_linewidth() == 3


def test_plane_is_a_labelled_square_window(ax):
    assert plotting.plane(ax, "a title", limit=2) is ax
    assert ax.get_xlim() == ax.get_ylim() == (-2, 2) and ax.get_aspect() == 1
    assert (ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) == ("a title", "x", "y")


def test_use_style_only_sets_known_settings():
    with matplotlib.rc_context():
        plotting.use_style()
        assert not plt.rcParams["axes.spines.top"] and plt.rcParams["figure.constrained_layout.use"]


def test_five_colours_that_differ():
    assert set(plotting.COLORS) == {"data", "noise", "model", "exact", "mark"}
    assert len(set(plotting.COLORS.values())) == 5


def draw(ax, i):
    plotting.plot_points(plotting.plane(ax, f"frame {i}"), X * i)


def test_frames_are_png_and_the_bytes_repeat():
    open_before = plt.get_fignums()
    frames, again = plotting.render_frames(draw, 3, size=(2, 2)), plotting.render_frames(draw, 3, size=(2, 2))
    assert frames == again and len(set(frames)) == 3
    for frame in frames:
        picture = Picture.open(io.BytesIO(frame))
        assert picture.format == "PNG" and picture.size == (160, 160)
    assert plt.get_fignums() == open_before


def test_a_frame_that_fails_leaves_no_figure_open():
    open_before = plt.get_fignums()
    with pytest.raises(ZeroDivisionError):
        plotting.render_frames(lambda ax, i: 1 / 0, 2)
    assert plt.get_fignums() == open_before


def test_figure_png_with_few_colours_is_smaller(ax):
    draw(ax, 1)
    full, small = plotting.figure_png(ax.figure), plotting.figure_png(ax.figure, colors=16)
    assert full == plotting.figure_png(ax.figure) and len(small) < len(full)
    assert len(Picture.open(io.BytesIO(small)).convert("RGB").getcolors()) <= 16


@pytest.mark.parametrize("count", [1, 4])
def test_animation_is_an_animated_png(count):
    frames = plotting.render_frames(draw, count, size=(2, 2))
    shown, again = (plotting.animation(frames, "points move", milliseconds=200) for _ in range(2))
    assert shown.data == again.data and shown.alt == "points move"
    moving = Picture.open(io.BytesIO(shown.data))
    assert moving.format == "PNG" and getattr(moving, "n_frames", 1) == count
    for i, frame in enumerate(frames):
        moving.seek(i)
        wanted = np.asarray(Picture.open(io.BytesIO(frame)).convert("RGB")).astype(float)
        assert np.abs(np.asarray(moving.convert("RGB")).astype(float) - wanted).mean() < 3  # of 255, requantised
    if count > 1:
        assert moving.info["duration"] == 200


def shades(frames, count):
    """Videos of 2 x 3 pixels, every frame of another even grey: `[count, 3, frames, 2, 3]`."""
    greys = torch.arange(count * frames).reshape(count, 1, frames, 1, 1) / (count * frames)
    return greys.expand(-1, 3, -1, 2, 3)


@pytest.mark.parametrize(("frames", "count"), [(1, 3), (4, 1), (5, 3)])
def test_videos_stand_side_by_side_in_one_png(frames, count):
    """Two in a row, each pixel 2 x 2, a grey line between them: every frame of every video in its own place."""
    video = shades(frames, count).clone()
    video[:, 0, :, 0, 0] = 1  # a mark of red in the upper left corner
    picture = Picture.open(io.BytesIO(plotting.video_png(video, columns=2, zoom=2)))
    columns, rows = min(2, count), -(-count // 2)
    assert picture.format == "PNG" and picture.size == (2 * (4 * columns - 1), 2 * (3 * rows - 1))
    assert getattr(picture, "n_frames", 1) == frames
    for f in range(frames):
        picture.seek(f)
        shown = np.asarray(picture.convert("RGB"))
        for i in range(count):
            row, column = divmod(i, 2)
            place = shown[6 * row : 6 * row + 4, 8 * column : 8 * column + 6]
            grey = round(255 * (i * frames + f) / (count * frames))
            wanted = np.full((4, 6, 3), grey)
            wanted[:2, :2, 0] = 255
            assert np.abs(place - wanted).max() <= 1
            if column:
                assert (shown[6 * row : 6 * row + 4, 6:8] == 76).all()  # the line


def test_a_film_strip_holds_every_second_frame(ax):
    plotting.film_strip(ax, shades(5, 1)[0], "grey")
    shown = np.asarray(ax.images[0].get_array())
    assert shown.shape == (2, 3 * 4, 3) and ax.get_title() == "grey"
    for i, f in enumerate((0, 2, 4)):
        np.testing.assert_allclose(shown[:, 4 * i : 4 * i + 3], f / 5, rtol=0, atol=1e-6)
        np.testing.assert_allclose(shown[:, 4 * i + 3], 0.3, rtol=0, atol=1e-6)
