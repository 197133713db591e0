"""Controls. The scrubber needs no kernel and no network; all the others need a running kernel."""

import asyncio
import base64
import html
import json
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

import ipywidgets as widgets
import matplotlib.pyplot as plt
from IPython import get_ipython
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .plotting import COLORS, figure_png
from .validate import check_count, check_list, shown

_SCRUBBER = """<div class="sora-scrubber" data-frames="{frames}" data-labels="{labels}" data-interval="{interval}"
 role="group" aria-label="{name}" style="display:inline-block;max-width:100%">
<img src="data:image/png;base64,{still}" alt="{name}: {label}" style="display:block;max-width:100%">
<div style="display:flex;gap:8px;align-items:center;max-width:100%">
<button type="button" aria-label="Play: {name}" style="width:4.5em;height:2em">Play</button>
<input type="range" min="0" max="{last}" value="{at}" step="1" aria-label="{name}" aria-valuetext="{label}"
 style="flex:1">
<output aria-live="off" style="min-width:7em;font-variant-numeric:tabular-nums">{label}</output>
</div></div>
<script>
document.querySelectorAll('.sora-scrubber:not([data-ready])').forEach(function (box) {{
  box.dataset.ready = 'yes';
  var frames = box.dataset.frames.split(','), labels = JSON.parse(box.dataset.labels), timer = null;
  var image = box.querySelector('img'), range = box.querySelector('input');
  var button = box.querySelector('button'), output = box.querySelector('output');
  var name = range.getAttribute('aria-label');
  function show(i) {{
    range.value = i;
    image.src = 'data:image/png;base64,' + frames[i];
    image.alt = name + ': ' + labels[i];
    output.textContent = labels[i];
    range.setAttribute('aria-valuetext', labels[i]);
  }}
  function stop() {{
    clearInterval(timer);
    timer = null;
    button.textContent = 'Play';
    button.setAttribute('aria-label', 'Play: ' + name);
  }}
  range.addEventListener('input', function () {{ stop(); show(+range.value); }});
  box.addEventListener('keydown', function (event) {{  // plain keys are JupyterLab's shortcuts
    if (!(event.ctrlKey || event.metaKey || event.altKey || event.shiftKey)) event.stopPropagation();
  }});
  button.addEventListener('click', function () {{
    if (timer) return stop();
    button.textContent = 'Pause';
    button.setAttribute('aria-label', 'Pause: ' + name);
    timer = setInterval(function () {{
      if (!document.contains(box)) return stop();
      show((+range.value + 1) % frames.length);
    }}, +box.dataset.interval);
  }});
}});
</script>"""


def scrubber(
    frames: Sequence[bytes], labels: Sequence[str], name: str, *, start: int = 0, milliseconds: int = 120
) -> HTML:
    """A slider over precomputed PNG frames, with Play, arrow keys and a read-out. It also moves in exported HTML.

    labels: one short text a frame, read out beside the slider. name: what is shown, for the caption and screen readers.
    start: the frame that shows first, and for good where scripts do not run. Raises ValueError for unequal lengths.
    """
    check_list("labels", labels, str)
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, got {shown(name)}")
    if not check_list("frames", frames, bytes) or len(frames) != len(labels):
        raise ValueError(
            f"frames and labels must be equally many, and at least one, got {len(frames)} and {len(labels)}"
        )
    if check_count("start", start, 0) >= len(frames):
        raise ValueError(f"start must be a frame from 0 to {len(frames) - 1}, got {start}")
    coded = [base64.b64encode(frame).decode() for frame in frames]
    return HTML(
        _SCRUBBER.format(
            frames=",".join(coded),
            labels=html.escape(json.dumps(list(labels))),
            interval=check_count("milliseconds", milliseconds),
            name=html.escape(name),
            label=html.escape(labels[start]),
            still=coded[start],
            last=len(frames) - 1,
            at=start,
        )
    )


def live(fig: Figure, update: Callable[..., object], alt: str, /, **controls: widgets.Widget) -> widgets.VBox:
    """Controls above a picture: each change calls `update(**values)`, which alters the artists of `fig`.

    alt: what the picture shows, for screen readers. controls: one ipywidgets control for each argument of `update`.
    What `update` raises is shown under the picture, and the last good picture stays. The layout is fixed after the
    first drawing, which makes the next ones twice as fast; the figure is closed for inline display.
    """
    picture, message = widgets.HTML(), message_line()
    loop, asked = kernel_loop(), threading.Event()
    plt.close(fig)

    def ask(_change: object) -> None:  # in a kernel often another thread, and Matplotlib wants to be drawn in one
        answered()
        if loop is None:
            refresh()
        elif not asked.is_set():
            asked.set()
            loop.call_soon_threadsafe(refresh)

    def refresh() -> None:
        asked.clear()
        try:
            update(**{name: control.value for name, control in controls.items()})
            picture.value, message.value = _image(fig, alt), ""
        except Exception as error:  # shown to the reader, who may have typed the value
            message.value = told(error)

    for control in controls.values():
        control.observe(ask, "value")
    refresh()
    box = widgets.VBox([*controls.values(), picture, message, lost_line()])
    box.add_class("sora-live")
    return box


def answered() -> None:
    """Tell the page that a control's message has come: it holds back the control's next value until then.

    ipykernel 7.4.0 itself says so, except in its main thread while a cell awaits.
    """
    kernel = getattr(get_ipython(), "kernel", None)
    if kernel is None or threading.current_thread() is not threading.main_thread():
        return
    if kernel.get_parent("shell")["header"]["msg_type"] == "comm_msg":  # not where a cell sets the value
        for status in ("idle", "busy"):  # busy again: the cell goes on
            kernel._publish_status(status, "shell")


def kernel_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop of the kernel's main thread, when called from a cell; None in plain Python."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _image(fig: Figure, alt: str) -> str:
    """The figure as an HTML image, and its layout fixed from then on."""
    coded = base64.b64encode(figure_png(fig)).decode()
    fig.set_layout_engine("none")
    width, height = fig.canvas.get_width_height()
    return (
        f'<img alt="{html.escape(alt)}" width="{width}" height="{height}" src="data:image/png;base64,{coded}"'
        ' style="max-width:100%;height:auto">'
    )


def message_line() -> widgets.HTML:
    """An empty line for messages to the reader."""
    line = widgets.HTML()
    line.add_class("sora-message")
    return line


def lost_line() -> widgets.HTML:
    """A line that shows by itself where the page has lost the kernel, so that no control is silently dead."""
    line = widgets.HTML(
        "<style>.sora-lost{display:none} .sora-lost.jupyter-widgets-disconnected{display:block}</style>"
        "<b>The kernel that answered here was restarted. Choose Run > Run All Cells.</b>"
    )
    line.add_class("sora-lost")
    return line


def told(error: Exception) -> str:
    """The error as one line of HTML."""
    return f'<span role="alert"><b>{type(error).__name__}</b>: {html.escape(str(error))}</span>'


RUNNING: set["TrainingBoard"] = set()
_BEFORE: list[Any] = []  # the handler of SIGINT from before the first of them


def _interrupt(*_: object) -> None:
    for board in RUNNING:
        board.stopped = True


def _begin(board: "TrainingBoard") -> None:
    in_main = threading.current_thread() is threading.main_thread()
    if in_main and signal.getsignal(signal.SIGINT) is not _interrupt:
        _BEFORE[:] = [signal.signal(signal.SIGINT, _interrupt)]
    RUNNING.add(board)


def _end(board: "TrainingBoard") -> None:
    RUNNING.discard(board)
    in_main = threading.current_thread() is threading.main_thread()
    if in_main and not RUNNING and signal.getsignal(signal.SIGINT) is _interrupt:  # else a later cell has set its own
        signal.signal(signal.SIGINT, _BEFORE.pop())


class TrainingBoard(widgets.VBox):
    """A live view of a training run: loss with its baselines, samples, progress, time left and a Stop button.

    steps: the length of the run. baselines: name to loss, drawn as level lines. draw: `draw(ax, state)` paints what the
    model can do so far beside the loss. Show the board, then pass the run through `watch`.
    """

    def __init__(
        self, steps: int, baselines: dict[str, float], draw: Callable[[Axes, Any], object] | None = None
    ) -> None:
        self.steps, self.draw = check_count("steps", steps), draw
        if not isinstance(baselines, dict):
            raise TypeError(f"baselines must be a dict, name to loss, got {shown(baselines)}")
        self.losses: list[float] = []
        self.step = 0
        self.stopped = False
        width = 5.6 if draw is None else 8.2
        self.fig, axes = plt.subplots(1, 1 if draw is None else 2, figsize=(width, 2.8), dpi=80, squeeze=False)
        plt.close(self.fig)
        self.ax, self.ax_samples = axes[0, 0], axes[0, -1]
        (self.raw,) = self.ax.plot([], [], color=COLORS["model"], alpha=0.25, linewidth=0.8)
        (self.smooth,) = self.ax.plot([], [], color=COLORS["model"], label="training loss, mean of 50")
        for (name, loss), color in zip(baselines.items(), [COLORS["noise"], COLORS["exact"]] * 9, strict=False):
            self.ax.axhline(loss, color=color, linestyle="--", label=name)
        self.ax.set(xlim=(0, steps), xlabel="step", ylabel="loss (mean squared error)")
        self.ax.legend(fontsize=8)
        self.picture = widgets.HTML()
        self.progress = widgets.IntProgress(max=steps, description="Training")
        self.button = widgets.Button(description="Stop", tooltip="Stop after this step and keep the model")
        self.text = widgets.Label()
        self.button.on_click(self.stop)
        row = widgets.HBox([self.progress, self.button, self.text], layout={"flex_flow": "row wrap"})
        super().__init__([row, self.picture, lost_line()])
        self.add_class("sora-board")

    def stop(self, *_: object) -> None:
        """Ask the run to end after the current step. The model stays as it is then."""
        self.stopped = True
        self.button.disabled = True

    async def watch(self, run: Iterable[tuple[int, float, Any]]) -> AsyncIterator[tuple[int, float, Any]]:
        """Hand on each (step, loss, state) of a training run while drawing it; end early on Stop or an interrupt.

        Use it with `async for`: between steps, 20 times a second, the page's clicks get their turn. Drawing takes at
        most about 3 % of the time. While it runs, the kernel's interrupt (or Ctrl-C) only sets the flag that Stop sets,
        so no step is cut in half. A Stop before the first step still lets that one step happen. One board, one run.
        """
        _begin(self)
        began = turn = time.monotonic()
        redraw, text = began + 0.3, "ended early"
        try:
            for step, loss, state in run:
                self.step = step
                self.losses.append(loss)
                now = time.monotonic()
                if now > redraw:
                    left = (self.steps - step) * (now - began) / len(self.losses)
                    self._draw(state, f"{left:.0f} s left")
                    redraw = time.monotonic() + max(0.4, 35 * (time.monotonic() - now))
                if now - turn > 0.05:
                    await asyncio.sleep(0)
                    turn = time.monotonic()
                yield step, loss, state
                if self.stopped:
                    text = "stopped; the model is kept as it is"
                    break
            else:
                text = "ended"
        finally:
            _end(self)
            self.button.disabled = True
            if self.losses:
                self._draw(state, text)

    def _draw(self, state: Any, text: str) -> None:
        loss, step = self.losses, self.step
        first = step - len(loss) + 1  # more than 1 where a run was resumed
        window = range(0, len(loss), max(1, len(loss) // 400))
        self.raw.set_data(range(first, step + 1), loss)
        self.smooth.set_data(
            [first + i for i in window], [sum(loss[max(0, i - 49) : i + 1]) / min(50, i + 1) for i in window]
        )
        self.ax.relim()
        self.ax.autoscale_view(scalex=False)
        if self.draw:
            self.ax_samples.clear()
            self.draw(self.ax_samples, state)
        self.progress.value = step
        self.text.value = f"step {step} of {self.steps}, {text}"
        self.picture.value = _image(self.fig, f"Training loss with its baselines, at step {step}")
