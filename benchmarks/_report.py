"""What the benchmarks share: the machine, interleaved timing, tables, and their place in docs/benchmarks.md."""

import datetime
import importlib.metadata
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
SIZE = 2048  # of the float32 matrix product that all speeds are compared with


def product() -> Callable[[], None]:
    """A large float32 matrix product, to be timed beside what is measured."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(SIZE, SIZE, generator=generator) for _ in range(2))
    return lambda: a @ b


def seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def interleaved(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each, one after the other, `rounds` times after one warm-up: what disturbs one disturbs all."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            taken[name] += [seconds(run)] if turn else (run(), [])[1]
    return taken


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Round by round, so that a slow moment of the machine does not count."""
    return [a / b for a, b in zip(above, below, strict=True)]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median, with the least and the greatest."""
    low, middle, high = (f"{f(values):.{digits}f}" for f in (min, statistics.median, max))
    return f"{middle} ({low} to {high})"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Markdown; the first column is text, the others are figures."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def machine(packages: Sequence[str] = ()) -> str:
    """The computer, the versions and the threads, in a line."""
    speed = statistics.median(interleaved({"product": product()}, 9)["product"])
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("torch", *packages)]
    return (
        f"Measured {datetime.date.today()} on {processor()}, {platform.system()}, Python {platform.python_version()}, "
        f"{', '.join(versions)}, {torch.get_num_threads()} of {torch.multiprocessing.cpu_count()} threads; a "
        f"{SIZE} x {SIZE} float32 matrix product reaches {2 * SIZE**3 / speed / 1e9:.0f} GFLOP/s."
    )


def processor() -> str:
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        found = None
    return re.sub(r"\((R|TM)\)", "", found[1]) if found else platform.processor() or platform.machine()


def publish(name: str, text: str, figure: object = None) -> None:
    """Print the text; with --save on the command line, put it into docs/benchmarks.md, and the figure beside it."""
    print(text, flush=True)
    if "--save" not in sys.argv:
        return
    if figure is not None:
        picture = PAGE.with_name(f"benchmark_{name}.png")
        figure.savefig(picture, dpi=110, bbox_inches="tight", metadata={"Software": None})
    start, end = f"<!-- {name}:start -->\n", f"\n<!-- {name}:end -->"
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(start)
    PAGE.write_text(before + start + text + end + rest.split(end)[1], encoding="utf-8", newline="\n")
