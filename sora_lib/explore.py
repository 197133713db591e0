"""Controls. The scrubber needs no kernel and no network; live controls and the training board need a running kernel."""

import base64
import html
import json
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import ipywidgets as widgets
import matplotlib.pyplot as plt
from IPython.display import HTML, display
from matplotlib.figure import Figure

from .plotting import COLORS, figure_png
from .validate import check_count

_SCRUBBER = """<div class="sora-scrubber" data-frames="{frames}" data-labels="{labels}" data-interval="{interval}"
 role="group" aria-label="{name}" style="display:inline-block;max-width:100%">
<img src="data:image/png;base64,{still}" alt="{name}: {label}" style="display:block;max-width:100%">
<div style="display:flex;gap:8px;align-items:center;max-width:100%">
<button type="button" aria-label="Play: {name}" style="width:4.5em;height:2em">Play</button>
<input type="range" min="0" max="{last}" value="{at}" step="1" aria-label="{name}" aria-valuetext="{label}"
 style="flex:1">
<output style="min-width:7em;font-variant-numeric:tabular-nums">{label}</output>
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
  range.addEventListener('keydown', function (event) {{ event.stopPropagation(); }});
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
    if not frames or len(frames) != len(labels):
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


def live(fig: Figure, update: Callable[..., object], **controls: widgets.Widget) -> widgets.VBox:
    """Controls above a picture: each change calls `update(**values)`, which alters the artists of `fig`.

    controls: one ipywidgets control for each argument of `update`. What `update` raises is shown under the picture, and
    the last good picture stays. The figure is closed for inline display, since the widget shows it.
    """
    picture, message = widgets.Image(format="png"), widgets.HTML()
    plt.close(fig)

    def refresh(_change: object = None) -> None:
        try:
            update(**{name: control.value for name, control in controls.items()})
            picture.value, message.value = figure_png(fig), ""
        except Exception as error:  # shown to the reader, who may have typed the value
            message.value = f"<b>{type(error).__name__}</b>: {html.escape(str(error))}"

    for control in controls.values():
        control.observe(refresh, "value")
    refresh()
    box = widgets.VBox([*controls.values(), picture, message])
    box.add_class("sora-live")
    return box


class TrainingBoard:
    """A live view of a training run: loss with its baselines, progress, time left and a Stop button.

    steps: the length of the run. baselines: name to loss, drawn as level lines. Pass the run through `watch`.
    """

    def __init__(self, steps: int, baselines: dict[str, float], *, redraw_seconds: float = 1.0) -> None:
        self.steps, self.redraw_seconds = check_count("steps", steps), redraw_seconds
        self.losses: list[float] = []
        self.step = 0
        self.stopped = False
        self.fig, self.ax = plt.subplots(figsize=(5.6, 2.8), dpi=80)
        plt.close(self.fig)
        (self.raw,) = self.ax.plot([], [], color=COLORS["model"], alpha=0.25, linewidth=0.8)
        (self.smooth,) = self.ax.plot([], [], color=COLORS["model"], label="training loss, mean of 50")
        for (name, loss), color in zip(baselines.items(), [COLORS["noise"], COLORS["exact"]] * 9, strict=False):
            self.ax.axhline(loss, color=color, linestyle="--", label=name)
        self.ax.set(xlim=(0, steps), xlabel="step", ylabel="loss (mean squared error)")
        self.ax.legend(fontsize=8)
        self.picture = widgets.Image(format="png")
        self.progress = widgets.IntProgress(max=steps, description="Training")
        self.button = widgets.Button(description="Stop", tooltip="Stop after this step and keep the model")
        self.text = widgets.Label()
        self.button.on_click(self.stop)
        self.view = widgets.VBox([widgets.HBox([self.progress, self.button, self.text]), self.picture])
        self.view.add_class("sora-board")

    def stop(self, *_: object) -> None:
        """Ask the run to end after the current step. The model stays as it is then."""
        self.stopped = True
        self.button.disabled = True

    def watch(self, run: Iterable[tuple[int, float, Any]]) -> Iterator[tuple[int, float, Any]]:
        """Hand on each (step, loss, state) of a training run while drawing it; end early on Stop or an interrupt.

        While it runs, the kernel's interrupt (or Ctrl-C) only sets the flag that Stop sets, so no step is cut in half.
        """
        display(self.view)
        in_main = threading.current_thread() is threading.main_thread()
        previous = signal.signal(signal.SIGINT, self.stop) if in_main else None
        began = drawn = time.monotonic()
        try:
            for step, loss, state in run:
                self.step = step
                self.losses.append(loss)
                if time.monotonic() - drawn > self.redraw_seconds:
                    self._draw((time.monotonic() - began) / len(self.losses))
                    drawn = time.monotonic()
                yield step, loss, state
                if self.stopped:
                    break
        finally:
            if in_main:
                signal.signal(signal.SIGINT, previous)
            self.button.disabled = True
            if self.losses:
                self._draw(0)

    def _draw(self, seconds_a_step: float) -> None:
        loss, step = self.losses, self.step
        first = step - len(loss) + 1  # more than 1 where a run was resumed
        window = range(0, len(loss), max(1, len(loss) // 400))
        self.raw.set_data(range(first, step + 1), loss)
        self.smooth.set_data(
            [first + i for i in window], [sum(loss[max(0, i - 49) : i + 1]) / min(50, i + 1) for i in window]
        )
        self.ax.relim()
        self.ax.autoscale_view(scalex=False)
        self.progress.value = step
        left = (self.steps - step) * seconds_a_step
        self.text.value = f"step {step} of {self.steps}, " + (f"{left:.0f} s left" if left else "ended")
        self.picture.value = figure_png(self.fig)
