"""How cost grows: time and memory of a training step against tokens, width and batch; sampling against steps.

A line through the logarithms gives the power with which each grows. Memory is what a step adds at most, activations and
gradients, by PyTorch's profiler; weights, optimizer and average are there before.
Run it by `python3 dev.py bench growth`.
"""

import statistics
from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import numpy as np
from _report import interleaved, machine, publish, spread, table
from torch.profiler import ProfilerActivity, profile
from transformer import training_step

from sora_lib.mini_sora import MiniSora, told
from sora_lib.pipeline import sample_latents
from sora_lib.plotting import COLORS, use_style

ROUNDS = 5
FRAMES, WIDTHS, BATCHES, STEPS = (1, 3, 9, 27), (48, 96, 192, 384), (4, 8, 16, 32), (2, 4, 8, 16)
AXES = {
    "tokens": {16 * n: (4, (n, 8, 8), 192, 6, 4) for n in FRAMES},
    "width": {w: (8, (5, 8, 8), w, 6, 4) for w in WIDTHS},
    "batch": {b: (b, (5, 8, 8), 192, 6, 4) for b in BATCHES},
}


def peak(run: Callable[[], object]) -> float:
    """Megabytes that PyTorch holds at once, at most, beyond what it held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        run()
    held = highest = 0
    for event in found.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            highest = max(highest, held)
    return highest / 1e6


def sampling(steps: int) -> Callable[[], object]:
    model, request = MiniSora(), told(["a red one moving up slowly"], (5, 8, 8))
    return lambda: sample_latents(model, request, steps=steps)


def power(sizes: Sequence[int], values: Sequence[float]) -> float:
    """The slope of log value over log size, by least squares over the three largest: small sizes pay for overhead."""
    return np.polyfit(np.log(sizes[-3:]), np.log(values[-3:]), 1)[0]


def measure() -> dict[str, tuple[list[int], list[list[float]], list[float]]]:
    """For each axis its sizes, the seconds of each round, and megabytes."""
    runs = {axis: {size: training_step(*of)[0] for size, of in sizes.items()} for axis, sizes in AXES.items()}
    runs["sampling steps"] = {steps: sampling(steps) for steps in STEPS}
    found = {}
    for axis, each in runs.items():
        taken = interleaved(each, ROUNDS)
        found[axis] = list(each), list(taken.values()), [peak(run) for run in each.values()]
    return found


def draw_figure(found: dict) -> plt.Figure:
    use_style()
    figure, axes = plt.subplots(1, len(found), figsize=(11, 2.8))
    for ax, (axis, (sizes, taken, memory)) in zip(axes, found.items(), strict=True):
        middle = np.array([statistics.median(values) for values in taken])
        ax.plot(sizes, middle / middle[0], "o-", color=COLORS["model"], label="time")
        ax.plot(sizes, np.array(memory) / memory[0], "s--", color=COLORS["data"], label="memory")
        ax.plot(sizes, np.array(sizes) / sizes[0], ":", color=COLORS["noise"], label="in proportion")
        ax.set(xscale="log", yscale="log", xlabel=axis, xticks=sizes, xticklabels=sizes)
        ax.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
        ax.set_ylim(0.8, 30)
        ax.minorticks_off()
    axes[0].set_ylabel("times the first")
    axes[0].legend()
    return figure


def main() -> None:
    header, found, lines = machine(), measure(), []
    for axis, (sizes, taken, memory) in found.items():
        middle = [statistics.median(values) for values in taken]
        for size, values, held in zip(sizes, taken, memory, strict=True):
            lines.append([f"{axis} {size}", spread([1000 * value for value in values], 0), f"{held:.0f}"])
        lines.append([f"{axis}: power", f"{power(sizes, middle):.2f}", f"{power(sizes, memory):z.2f}"])
    note = (
        "A training step of mini-Sora (batch 4, 80 tokens, width 192 where nothing else is said; width: batch 8), and "
        f"the latents of one guided video. Medians of {ROUNDS} rounds in turns. Power p: cost grows as size^p, "
        "over the three largest sizes."
    )
    text = table(["what grows", "ms", "MB that it adds"], lines)
    publish("growth", "\n\n".join([header, note, text]), draw_figure(found))


if __name__ == "__main__":
    main()
