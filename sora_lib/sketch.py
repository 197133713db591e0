"""Draw your own data: a canvas, a Train button, and noise that falls into the drawing."""

import asyncio
import math
import traceback
from collections.abc import Awaitable, Callable

import ipywidgets as widgets
import torch
from drawdata import ScatterWidget
from matplotlib.axes import Axes
from torch import Tensor

from .datasets import drawing, points
from .explore import answered, kernel_loop, lost_line, message_line, scrubber, told
from .metrics import real_floor, sliced_wasserstein
from .oracle import GaussianMixture
from .plotting import plane, plot_points, render_frames
from .validate import check_choice, check_tensor

WIDTH, HEIGHT = 480, 320  # of the canvas, in its pixels


class Canvas(ScatterWidget):
    """drawdata's canvas with JupyterLab's colours (it would take the system's), and two mends to its script.

    Version 0.5.2 shares the array of points with the widget's model, so that a first stroke looks like no change
    and is never sent, and sets a height that SVG does not know.
    """

    _esm = (
        str(ScatterWidget._esm)
        .replace('model.get("data") || []', '[...(model.get("data") || [])]')
        .replace('.attr("height", "auto")', '.style("height", "auto")')
    )
    _css = str(ScatterWidget._css) + (
        ".sora-sketch { --dd-text-color: var(--jp-ui-font-color1); --dd-bg-color: var(--jp-layout-color1);"
        " --dd-svg-bg: var(--jp-layout-color1); --dd-border-color: var(--jp-border-color1); }"
    )


def _heart() -> Tensor:
    a = torch.linspace(0, 2 * math.pi, 4001)
    xy = torch.stack([16 * a.sin() ** 3, 13 * a.cos() - 5 * (2 * a).cos() - 2 * (3 * a).cos() - (4 * a).cos()], dim=1)
    length = xy.diff(dim=0).norm(dim=1).cumsum(0)  # along the curve
    return xy[torch.searchsorted(length, torch.linspace(0, 1, 241)[1:] * length[-1])]  # 240 points, equally far apart


BY_HAND = "drawn by hand"
SHAPES = {
    "heart": _heart,
    "two moons": lambda: points("moons").means,
    "spiral": lambda: points("swiss_roll").means,
}


def shape(name: str) -> Tensor:
    """The points `[N, 2]` of a ready-made drawing, one of SHAPES: x from 0 to 480, y from 0 (below) to 320."""
    xy = SHAPES[check_choice("name", name, SHAPES)]()
    xy, middle = xy - (xy.amin(0) + xy.amax(0)) / 2, torch.tensor([WIDTH / 2, HEIGHT / 2])
    return 0.84 * (middle / xy.amax(0)).min() * xy + middle


def _close(widget: widgets.Widget) -> None:
    for child in getattr(widget, "children", ()):
        _close(child)
    widget.close()


class Sketch(widgets.VBox):
    """Draw a shape with the mouse or pick one, press Train, and watch noise fall into it.

    learn: `await learn(data, show)` gets the drawing as a distribution and a function that shows a widget below the
    canvas; it returns the sampler's trajectory `[steps + 1, N, 2]`, noise first. It should show a TrainingBoard and
    pass its run through that: what computes without a pause can neither be stopped nor interrupted.
    """

    def __init__(self, learn: Callable[[GaussianMixture, Callable[[widgets.Widget], None]], Awaitable[Tensor]]) -> None:
        self.learn, self.task, self.picked, self.loop = learn, None, [], kernel_loop()
        self.canvas = Canvas(width=WIDTH, height=HEIGHT, n_classes=1, brushsize=20)
        self.shapes = widgets.Dropdown(options=[BY_HAND, *SHAPES], description="Shape")
        self.button = widgets.Button(description="Train", tooltip="Train on the points of the canvas")
        self.message, self.place, self.result = message_line(), widgets.VBox(), widgets.Output()
        self.shapes.observe(self._pick, "value")
        self.canvas.observe(self._drawn, "data")
        self.button.on_click(self._train)
        controls = widgets.HBox([self.shapes, self.button])
        super().__init__([controls, self.canvas, self.message, self.place, self.result, lost_line()])
        self.add_class("sora-sketch")

    def _pick(self, change: dict) -> None:
        answered()
        if change["new"] in SHAPES:
            xy = shape(change["new"]).tolist()
            self.picked = [{"x": x, "y": y, "color": "#1f77b4", "label": "a", "batch": -1} for x, y in xy]
            self.canvas.data = self.picked

    def _drawn(self, change: dict) -> None:
        answered()
        if change["new"] != self.picked:
            self.shapes.value = BY_HAND

    def _train(self, *_: object) -> None:
        if self.task is not None and not self.task.done():
            self.message.value = "It is training already: wait for it, or press Stop."
        elif not self.canvas.data:
            self.message.value = "The canvas is empty: draw a shape on it with the mouse, or pick one."
        else:
            xy = torch.tensor([[point["x"], point["y"]] for point in self.canvas.data], dtype=torch.float32)
            try:
                self.task = asyncio.run_coroutine_threadsafe(self._learn(drawing(xy)), self.loop)
            except ValueError as error:
                self.message.value = told(error)

    async def _learn(self, data: GaussianMixture) -> None:
        self.message.value, self.result.outputs = "", ()
        self._place()
        try:
            path = await self.learn(data, self._place)
            self._show(data, check_tensor("the trajectory that learn returns", path, [None, None, 2]))
        except Exception as error:  # shown to the reader, who wrote the function
            self.message.value = told(error)
            self.result.append_stderr(traceback.format_exc())

    def _place(self, *shown: widgets.Widget) -> None:
        old, self.place.children = self.place.children, shown
        for widget in old:
            _close(widget)

    def _show(self, data: GaussianMixture, path: Tensor) -> None:
        moments = torch.linspace(0, len(path) - 1, 21).round().int().unique().tolist()

        def draw(ax: Axes, i: int) -> None:
            plot_points(plane(ax), data.means, "data", size=14)
            plot_points(ax, path[moments[i]], "model", size=4)

        frames = render_frames(draw, len(moments))
        labels = [f"step {i} of {len(path) - 1}" for i in moments]
        self.result.append_display_data(
            scrubber(frames, labels, "Noise falls into the drawing", start=len(moments) - 1)
        )
        seeded, n = torch.Generator().manual_seed(0), path.shape[1]
        floor = real_floor(lambda: data.sample(n, generator=seeded))
        noise, samples = (sliced_wasserstein(x, data.sample(n, generator=seeded)) / floor for x in (path[0], path[-1]))
        self.message.value = (
            f'<span role="status">Distance of the samples to the drawing, in floors: {samples:.1f} '
            f"(fresh points of the drawing score about 1, the noise {noise:.0f})</span>"
        )
