"""Run the live training of chapter 13 with MINUTES = 5 and three seeds (about 20 minutes on two cores).

The cells of the notebook are run as they stand, up to its training; then its own judge looks at 256 prompts, ten times
on the way. The results go into `training/results/mini_sora_live.json` after each seed.
"""

import datetime
import json
import time
from pathlib import Path

import nbformat
import torch

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK, RESULTS = ROOT / "notebooks" / "13_mini_sora.ipynb", ROOT / "training" / "results" / "mini_sora_live.json"
SEEDS, LOOKS, PROMPTS = (0, 1, 2), 10, 256


def cells(seed: int) -> dict:
    """The names that the notebook has after its training was set up, and its judge."""
    code = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    last = [cell.id for cell in code].index("train-run")
    chosen = [*code[: last + 1], *(cell for cell in code if cell.id in ("judge-a", "judge-b"))]
    names: dict = {}
    for cell in chosen:
        source = cell.source.replace("MINUTES = 1", "MINUTES = 5").replace("MINUTES, 0", f"MINUTES, {seed}")
        if cell.id == "judge-b":  # real clips alone; nothing is trained yet
            source = source.split("made = ")[0].replace("range(64)", f"range({PROMPTS})")
        if cell.id != "train":  # the board, which needs a page to stand on
            exec(compile(source, cell.id, "exec"), names)
    return names


def one_run(seed: int) -> tuple[dict, dict]:
    """The curve of a seed, and the ceiling."""
    names, curve, losses, spent = cells(seed), [], [], 0.0
    prompts = [names["describe"](scene) for scene in names["asked"]]
    began = time.perf_counter()
    for step, loss, state in names["run"]:
        losses.append(loss)
        if step % (names["STEPS"] // LOOKS) == 0:
            spent += time.perf_counter() - began
            model = state.ema.model
            video = torch.cat([names["videos"](model, prompts[i : i + 64], seed=i) for i in range(0, PROMPTS, 64)])
            figures = {name: round(value, 4) for name, value in names["judge"](video, names["things"]).items()}
            mean = round(sum(losses[-25:]) / 25, 4)
            curve.append({"step": step, "minutes": round(spent / 60, 2), "loss": mean} | figures)
            print(seed, curve[-1], flush=True)
            began = time.perf_counter()
    ceiling = {name: round(value, 4) for name, value in names["judge"](names["rebuilt"], names["things"]).items()}
    return {"seed": seed, "curve": curve}, ceiling


def main() -> None:
    results: dict = {
        "command": "python training/mini_sora_live.py",
        "date": datetime.date.today().isoformat(),
        "threads": torch.get_num_threads(),
        "prompts": PROMPTS,
        "runs": [],
    }
    for seed in SEEDS:
        run, results["ceiling"] = one_run(seed)
        results["runs"].append(run)
        RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
