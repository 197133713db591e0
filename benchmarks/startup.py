"""What `import sora_lib` costs beyond `import torch`, each time in a process of its own.

Run it by `python3 dev.py bench startup`.
"""

import subprocess
import sys
from pathlib import Path

from _report import machine, publish, spread, table

ROOT = Path(__file__).resolve().parents[1]
CODE = """
import time
began = time.perf_counter()
import torch
between = time.perf_counter()
import sora_lib
print(between - began, time.perf_counter() - between)
"""
ROUNDS, BUDGET = 9, 0.3  # seconds


def main() -> None:
    runs = [
        subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, check=True)
        for _ in range(ROUNDS + 1)
    ]
    torch, ours = zip(*(map(float, run.stdout.split()) for run in runs[1:]), strict=True)  # the first fills caches
    lines = [["torch", spread(torch)], ["sora_lib beyond it", spread(ours, 3)], ["budget", BUDGET]]
    note = f"Medians of {ROUNDS} processes, in brackets the least and the greatest."
    publish("startup", "\n\n".join([machine(), note, table(["import", "s"], lines)]))


if __name__ == "__main__":
    main()
