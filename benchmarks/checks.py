"""How long the exercises' checks take, first call and later ones, for right answers and for every known mistake.

Run it by `python3 dev.py bench checks`. Times depend on the computer, so it ends with 0 whatever they are.
"""

import contextlib
import io
import statistics
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / folder) for folder in (".", "tests")]

import torch  # noqa: E402
from test_checks import NAMES, inside  # noqa: E402

from sora_lib import checks  # noqa: E402

BUDGET = 200  # milliseconds


def milliseconds(name: str, answer: object) -> float:
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        getattr(checks, name)(answer)
    return 1000 * (time.perf_counter() - began)


def main() -> None:
    first, later = {}, {}
    for name in NAMES:
        inner = inside(name)
        answers = [inner["exact"], *(wrong for wrong, _ in inner["mistakes"])]
        first[name] = milliseconds(name, answers[0])
        later[name] = max(statistics.median(milliseconds(name, answer) for _ in range(3)) for answer in answers)
    print(f"{len(NAMES)} checks, {torch.get_num_threads()} threads; budget {BUDGET} ms")
    for title, times in {"first call": first, "later calls, the slowest answer": later}.items():
        slowest = sorted(times, key=times.get, reverse=True)[:5]
        over = sum(value > BUDGET for value in times.values())
        print(f"{title}: median {statistics.median(times.values()):.1f} ms, over budget: {over}; slowest:")
        print("  " + ", ".join(f"{name} {times[name]:.0f}" for name in slowest))


if __name__ == "__main__":
    main()
