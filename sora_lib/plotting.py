"""Plots that take and return `ax`, and moving pictures made of them."""

import io
from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from einops import rearrange
from IPython.display import Image
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image as Picture
from torch import Tensor
from torch.nn.functional import pad

from .validate import check_choice, check_count, check_list, check_many, check_memory, check_number, check_tensor

# One colour for one thing in every chapter, distinguishable by colour-blind readers (the Okabe-Ito palette).
COLORS = {"data": "#0072B2", "noise": "#7A7A7A", "model": "#D55E00", "exact": "#009E73", "mark": "#CC79A7"}


def use_style() -> None:
    """Set the course's figure style: readable at 100 %, no needless lines."""
    plt.rcParams.update(
        {"figure.dpi": 90, "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": False}
        | {
            "legend.frameon": False,
            "figure.constrained_layout.use": True,
            "axes.titlesize": 10.5,
            "lines.linewidth": 1.8,
        }
    )


def plane(ax: Axes, title: str = "", limit: float = 3.0) -> Axes:
    """Make `ax` a square window on the plane, from -limit to limit."""
    check_number("limit", limit, 0, 1e6)
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", title=title, xlabel="x", ylabel="y")
    return ax


def plot_points(ax: Axes, x: Tensor, kind: str = "data", *, size: float = 4, **options: object) -> Axes:
    """Scatter points `[B, 2]` in the colour of their kind: data, noise, model, exact or mark."""
    x = check_tensor("x", x, [None, 2]).detach().cpu()
    color = COLORS[check_choice("kind", kind, COLORS)]
    ax.scatter(*x.T, **{"s": size, "color": color, "alpha": 0.6, "linewidths": 0} | options)
    return ax


def plot_paths(ax: Axes, trajectory: Tensor, kind: str = "model", **options: object) -> Axes:
    """Draw each point's path, trajectory `[steps + 1, B, 2]`, with a dot where it ends."""
    path = check_tensor("trajectory", trajectory, [None, None, 2]).detach().cpu()
    color = COLORS[check_choice("kind", kind, COLORS)]
    ax.plot(path[..., 0], path[..., 1], **{"color": color, "alpha": 0.5, "linewidth": 0.8} | options)
    ax.scatter(*path[-1].T, s=10, color=color, zorder=3)
    return ax


def plot_field(
    ax: Axes, field: Callable[[Tensor], Tensor], kind: str = "model", *, limit: float = 2.5, cells: int = 13
) -> Axes:
    """Draw arrows from grid points x to field(x), for field `[B, 2]` to `[B, 2]`: where a denoiser would send them."""
    check_count("cells", cells, 2)
    check_memory(f"cells: {cells} x {cells} arrows", 1000 * cells**2)
    axis = torch.linspace(-check_number("limit", limit, 0, 1e6), limit, cells)
    x = torch.cartesian_prod(axis, axis)  # [cells^2, 2]
    with torch.no_grad():
        step = (field(x) - x).cpu()
    color = COLORS[check_choice("kind", kind, COLORS)]
    ax.quiver(*x.T, *step.T, color=color, angles="xy", scale_units="xy", scale=1, width=0.005)
    return ax


def figure_png(fig: Figure, colors: int | None = None) -> bytes:
    """The figure as PNG bytes; with `colors`, reduced to that many colours, about a third of the size."""
    canvas = fig.canvas if isinstance(fig.canvas, FigureCanvasAgg) else FigureCanvasAgg(fig)
    canvas.draw()  # once, where savefig draws twice
    picture = Picture.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    if colors is None:
        return _png(picture, compress_level=1)
    if check_count("colors", colors, 2) > 256:
        raise ValueError(f"colors must be 256 or less, got {colors}")
    return _png(picture.quantize(colors), optimize=True)


def _png(picture: Picture.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", **options)
    return buffer.getvalue()


def render_frames(
    draw: Callable[[Axes, int], object], count: int, *, size: tuple[float, float] = (3.6, 3.6)
) -> list[bytes]:
    """PNG bytes of `count` frames: `draw(ax, i)` paints frame i on a fresh axes of `size` inches."""
    check_many("count", count, 1000)
    width, height = (check_number("size", side, 0.1, 50) for side in check_list("size", size))
    frames = []
    fig = Figure(figsize=(width, height), dpi=80)  # not by pyplot, which would keep it open
    for i in range(count):
        fig.clear()
        draw(fig.add_subplot(), i)
        frames.append(figure_png(fig, colors=32))
    return frames


def animation(frames: Sequence[bytes], alt: str, *, milliseconds: int = 120) -> Image:
    """An animated PNG of the frames, for display: it plays on code hosts and on static pages, with no script."""
    if not check_list("frames", frames, bytes):
        raise ValueError("frames is empty; pass at least one PNG")
    first, *rest = (Picture.open(io.BytesIO(frame)).convert("RGB").quantize(32) for frame in frames)
    moving = {"save_all": True, "append_images": rest, "loop": 0, "duration": check_count("milliseconds", milliseconds)}
    return Image(data=_png(first, optimize=True, **moving), format="png", alt=alt)


def video_png(video: Tensor, *, columns: int = 4, zoom: int = 3, milliseconds: int = 120) -> bytes:
    """Videos `[B, 3, F, H, W]` in [0, 1], side by side, `columns` in a row, as one PNG that moves if F > 1.

    A grey line stands between them; what is missing in the last row is grey.
    """
    video = check_tensor("video", video, [None, 3, None, None, None]).detach().cpu()
    columns = min(check_count("columns", columns), len(video))
    check_memory(f"zoom: each pixel {zoom} x {zoom}", 4 * video.numel() * check_count("zoom", zoom) ** 2)
    framed = pad(video, (0, 1, 0, 1), value=0.3)
    blank = torch.full_like(framed[:1], 0.3).expand(-len(video) % columns, -1, -1, -1, -1)
    tiled = rearrange(torch.cat([framed, blank]), "(r k) c f h w -> f (r h) (k w) c", k=columns)
    tiled = (255 * tiled[:, :-1, :-1].clamp(0, 1)).round().byte().repeat_interleave(zoom, 1)
    first, *rest = (Picture.fromarray(frame.numpy()) for frame in tiled.repeat_interleave(zoom, 2))
    moving = {"save_all": True, "append_images": rest, "loop": 0, "duration": check_count("milliseconds", milliseconds)}
    return _png(first, optimize=True, **(moving if rest else {}))


def film_strip(ax: Axes, video: Tensor, title: str = "", *, every: int = 2) -> Axes:
    """One video `[3, F, H, W]` in [0, 1] as a strip of its frames, from left to right, each `every`-th."""
    frames = check_tensor("video", video, [3, None, None, None])[:, :: check_count("every", every)].detach().cpu()
    strip = rearrange(pad(frames, (0, 1), value=0.3), "c f h w -> h (f w) c")
    ax.imshow(strip.clamp(0, 1).numpy(), interpolation="nearest")
    ax.set(xticks=[], yticks=[], title=title)
    ax.spines[:].set_visible(False)
    return ax
